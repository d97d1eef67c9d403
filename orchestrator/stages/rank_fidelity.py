"""The stage that asks whether the search ranked what matters: proxies against distilled and judged architectures."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.latency_table import LatencyTable
from orchestrator.phases import last_phase
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.rank_agreement import RankAgreement, rank_agreement, spearman, verdict
from orchestrator.recipe.selection import FEWEST_RANKED, RANK_FIDELITY
from orchestrator.results import open_results
from orchestrator.size_sampling import spread_over_sizes
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.candidates import factory_without_training, scored_candidates
from orchestrator.stages.evaluators import evaluator_factory
from orchestrator.stages.judge import JUDGED_HALF
from orchestrator.stages.trials import (
    Trials,
    TrialSettings,
    planned_trials,
    remove_trials,
    settle_measure,
    trial_ranks,
)
from spaces.architecture import Architecture
from spaces.space import BlockwiseSpace
from trainers.shrinking import load_alive
from trainers.validation import variance_at

SUM, RELATIVE_SUM, CHAINED, SIZE = "block_loss_sum", "relative_block_loss_sum", "loss", "encoder_parameters"
PROXIES = {
    CHAINED: "the loss of the chained blocks",
    SUM: "the sum of block losses",
    RELATIVE_SUM: "the normalised sum of block losses",
    SIZE: "the size alone",
}
"""Columns of ``selections`` that are compared with the trials' results, and how they are called."""

DRAWN = "drawn for the rank fidelity"
"""What stands for a strategy in rows of the sample."""


class RankFidelityStage(Stage):
    """Distils architectures of all sizes for a while and compares the proxies' order with that of the results."""

    name = RANK_FIDELITY
    inputs = ("block_losses", "search")
    resumable = True

    def inputs_for(self, plan: RunPlan) -> tuple[str, ...]:
        """Block losses, and the search, or that of the last phase."""
        return (self.inputs[0], last_phase(plan.recipe).search_stage)

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's rank fidelity and, where architectures are tried, how."""
        recipe = plan.recipe
        asked = recipe.rank_fidelity
        tried = [asked, recipe.distillation, recipe.evaluation] if asked.architectures else []
        return [*tried, recipe.seed]

    def check(self, plan: RunPlan) -> None:
        """The distillation stage has checked that students can start as the recipe says."""

    def planned(self, plan: RunPlan) -> PlannedStage:
        """The trials, where there are any."""
        asked = plan.recipe.rank_fidelity
        if not asked.architectures:
            return PlannedStage(self.name, "run", "compare the proxies of scored networks", seconds=0.5)
        work = f"distil {asked.architectures} architectures of all sizes for {asked.steps} steps, compare the rankings"
        return planned_trials(plan, self.name, work, asked.architectures, asked.steps, asked.group)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Draw, score, try, compare, and record."""
        scored = scored_candidates(context, last_phase(context.recipe))
        sums = _BlockLosses(context)
        sample = _sample(context, scored, sums, progress)
        agreements = _compare(context, sample)
        correlations = _correlations(context, scored, sums, sample)
        for entry in sample:
            context.results.append("selections", **entry.columns())
        for proxy in PROXIES:
            agreement, correlation = agreements.get(proxy), correlations.get(proxy)
            if agreement is None and correlation is None:
                continue
            row = _agreement_columns(agreement) if agreement is not None else {}
            if correlation is not None:
                row |= {"spearman": correlation[0], "networks": correlation[1]}
            context.results.append("selections", budget=RANK_FIDELITY, proxy=proxy, **row)
        return StageResult(_detail(agreements, correlations))

    def clean_up(self, context: RunContext) -> None:
        """What the trials kept has served."""
        remove_trials(context, RANK_FIDELITY)


@dataclass(frozen=True)
class _Entry:
    """One architecture of the sample.

    Attributes:
        architecture: of the space.
        costs: parameters, encoder parameters, latency.
        proxies: by the column of ``selections``; what could not be computed is absent.
        place: by the chained loss, from 1.
        trial: the columns of its trial.
        error: what it is ranked by; less is better.
    """

    architecture: Architecture
    costs: Mapping[str, Any]
    proxies: Mapping[str, float]
    place: int
    trial: Mapping[str, Any]
    error: float

    def columns(self) -> dict[str, Any]:
        """Its row of ``selections``."""
        return {
            "budget": RANK_FIDELITY,
            "rank": self.place,
            "chosen": False,
            "arch_id": self.architecture.arch_id,
            "architecture": str(self.architecture),
            "strategy": DRAWN,
            **self.costs,
            **self.proxies,
            **self.trial,
        }


class _BlockLosses:
    """Losses of block architectures: those of the table ``block_losses``, and those that were asked for beyond it.

    Args:
        context: of the stage.
    """

    def __init__(self, context: RunContext) -> None:
        self.context = context
        frame = open_results(context.folder.results).frame("block_losses")
        own = frame[frame["supernet_signature"] == context.outputs["supernet"]["signature"]]
        # Losses on other batches do not add up; the table may hold those of a command as well.
        levels = own["fidelity"].value_counts()
        self.fidelity = int(levels.index[0]) if len(levels) else context.recipe.search.validation_batches
        own = own[own["fidelity"] == self.fidelity]
        keys = list(zip(own["block"].astype(int), own["architecture"].astype(str), strict=True))
        self._raw = dict(zip(keys, own["loss"].astype(float), strict=True))
        self._relative = dict(zip(keys, own["relative_loss"].astype(float), strict=True))

    def sums(self, architecture: Any) -> dict[str, float]:
        """Both sums over an architecture's blocks; none unless all its blocks are known."""
        keys = [(index, str(block)) for index, block in enumerate(_blocks(architecture))]
        if not keys or any(key not in self._raw for key in keys):
            return {}
        return {SUM: sum(self._raw[key] for key in keys), RELATIVE_SUM: sum(self._relative[key] for key in keys)}

    def complete(self, architectures: Sequence[Any]) -> None:
        """Score what is missing for these architectures, on the batches that the table's losses are from."""
        missing: dict[int, dict[str, Any]] = {}
        for architecture in architectures:
            for index, block in enumerate(_blocks(architecture)):
                if (index, str(block)) not in self._raw:
                    missing.setdefault(index, {})[str(block)] = block
        if not missing:
            return
        recipe = self.context.recipe
        evaluator = evaluator_factory(recipe, self.context.folder, self.fidelity, recipe.search.batch_size, threads=0)()
        scorer = evaluator.blocks()
        for index, blocks in missing.items():
            variance = variance_at(list(evaluator.batches), index + 1)
            for text, loss in zip(blocks, scorer.losses(index, list(blocks.values())), strict=True):
                self._raw[index, text] = float(loss)
                self._relative[index, text] = float(loss) / variance


def _blocks(architecture: Any) -> Sequence[Any]:
    """The blocks of an architecture; none where its space is not one of blocks."""
    return tuple(getattr(architecture, "blocks", ()))


def _sample(context: RunContext, scored: pd.DataFrame, sums: _BlockLosses, progress: StageProgress) -> list[_Entry]:
    """Draw the architectures, score them by every proxy, and try them."""
    recipe, space = context.recipe, context.space
    asked = recipe.rank_fidelity
    if not asked.architectures or scored.empty:
        return []
    sizes = scored["encoder_parameters"]
    alive_file = context.folder.supernet_weights.parent / "alive.npz"
    drawn = spread_over_sizes(
        space,
        asked.architectures,
        int(sizes.min()),
        int(sizes.max()),
        random.Random(f"{recipe.seed}/rank fidelity"),
        load_alive(alive_file) if alive_file.is_file() else (),
    )
    proxies = _proxies(context, drawn, sums, progress)
    settings = TrialSettings(asked.steps, asked.group, JUDGED_HALF)
    tried = Trials(context, RANK_FIDELITY, settings).run(drawn, progress)
    measure = settle_measure(asked.measure, list(tried.values()), "rank_fidelity.measure")
    places = trial_ranks(tried, measure)
    by_loss = sorted(drawn, key=lambda architecture: proxies[architecture.arch_id][CHAINED])
    table = LatencyTable.from_json(context.outputs["latency"]["latency_table"])
    entries = []
    for architecture in drawn:
        cost, arch_id = space.cost(architecture), architecture.arch_id
        costs = {
            "parameters": cost.parameters,
            "encoder_parameters": cost.encoder_parameters,
            "latency_ms": table.known_ms(space, architecture),
        }
        entries.append(
            _Entry(
                architecture,
                costs,
                proxies[arch_id],
                by_loss.index(architecture) + 1,
                tried[arch_id].columns(asked.steps, measure, places[arch_id]),
                tried[arch_id].error(measure),
            )
        )
    return entries


def _proxies(
    context: RunContext, drawn: Sequence[Architecture], sums: _BlockLosses, progress: StageProgress
) -> dict[str, dict[str, float]]:
    """What the supernet says of each architecture, by ``arch_id`` and column."""
    recipe = context.recipe
    progress.follow(len(drawn), "architectures", note="scoring")
    batches = recipe.search.validation_batches
    if isinstance(context.space, BlockwiseSpace):
        sums.complete(drawn)
    evaluator = factory_without_training(context.plan, last_phase(recipe), 0)()
    found = {}
    for architecture in drawn:
        [score] = evaluator.score([architecture], batches)
        loss = float("inf") if score.loss is None else float(score.loss)
        found[architecture.arch_id] = {CHAINED: loss, **sums.sums(architecture)}
        progress.advance()
    return found


def _compare(context: RunContext, sample: Sequence[_Entry]) -> dict[str, RankAgreement]:
    """Every proxy's order against that of the trials."""
    errors = [entry.error for entry in sample]
    sizes = [float(entry.costs[SIZE]) for entry in sample]
    guesses = {SIZE: [-size for size in sizes]} if sample else {}
    for proxy in (CHAINED, SUM, RELATIVE_SUM):
        if sample and all(proxy in entry.proxies for entry in sample):
            guesses[proxy] = [entry.proxies[proxy] for entry in sample]
    return {proxy: rank_agreement(guess, errors, sizes, context.recipe.seed) for proxy, guess in guesses.items()}


def _correlations(
    context: RunContext, scored: pd.DataFrame, sums: _BlockLosses, sample: Sequence[_Entry]
) -> dict[str, tuple[float, int]]:
    """Spearman's correlation of both sums with the chained loss, over all networks that have both."""
    known = {entry.architecture.arch_id: dict(entry.proxies) for entry in sample}
    for arch_id, text, loss in zip(scored["arch_id"], scored["architecture"], scored["loss"], strict=True):
        known[str(arch_id)] = {CHAINED: float(loss), **sums.sums(context.space.parse(str(text)))}
    found = {}
    for proxy in (SUM, RELATIVE_SUM):
        both = [values for values in known.values() if proxy in values]
        value = spearman([values[proxy] for values in both], [values[CHAINED] for values in both])
        if len(both) >= FEWEST_RANKED and value is not None:
            found[proxy] = (value, len(both))
    return found


def _agreement_columns(agreement: RankAgreement) -> dict[str, Any]:
    return {
        "architectures": agreement.architectures,
        "tau": agreement.tau,
        "tau_p_value": agreement.p_value,
        "tau_low": agreement.low,
        "tau_high": agreement.high,
        "tau_size": agreement.tau_size,
        "tau_beyond_size": agreement.beyond_size,
    }


def _detail(agreements: Mapping[str, RankAgreement], correlations: Mapping[str, tuple[float, int]]) -> str:
    """What the stage found, in one line."""
    parts = []
    chained = agreements.get(CHAINED)
    if chained is not None and chained.tau is not None:
        size = "–" if chained.tau_size is None else f"{chained.tau_size:.2f}"
        parts.append(
            f"Kendall's tau {chained.tau:.2f} (size alone {size}) over {chained.architectures} architectures: the loss "
            f"{verdict(chained.tau, chained.low, chained.tau_size, chained.beyond_size)}"
        )
    if SUM in correlations:
        value, count = correlations[SUM]
        parts.append(f"Spearman {value:.2f} of block loss sums with chained losses of {count} networks")
    return "; ".join(parts) or "no architectures were tried, and too few scored networks have all block losses"
