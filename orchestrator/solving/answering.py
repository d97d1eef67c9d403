"""Answering budgets from a run's tables: what ``netsuke solve`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from cluster.resources import ResourceRequest
from orchestrator.errors import UserError
from orchestrator.evaluation.block_scoring import blockwise
from orchestrator.evaluation.evaluator import RankBy
from orchestrator.evaluation.recorded import evaluation_row, preload_recorded
from orchestrator.evaluation.records import SearchRecord
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.supernet_evaluator import lacks_head
from orchestrator.objectives import LOSS, CheapObjectives, Constraint
from orchestrator.opened_run import OpenedRun, ray_for, writing_to
from orchestrator.results import open_results
from orchestrator.results.pareto import non_dominated
from orchestrator.solving.exact import Solution, Solver
from orchestrator.solving.front import front
from orchestrator.solving.networks import EmbeddingRule, LossKind, SolvableNetworks, ladder_rungs, solvable
from orchestrator.solving.reading import BlockChoice, ReadTables, read_block_tables
from orchestrator.solving.tables import Network, NetworkTables
from orchestrator.strategies.exact import ExactSelection
from trainers.teacher import TeacherSource


@dataclass(frozen=True)
class Loaded:
    """A run's tables, ready to be solved.

    Attributes:
        run: whose tables.
        read: what was read.
        networks: what can be combined.
        seconds: reading took.
    """

    run: OpenedRun
    read: ReadTables
    networks: SolvableNetworks
    seconds: float


@dataclass(frozen=True)
class Ranked:
    """A network and what the supernet says of it as a whole.

    Attributes:
        network: with its summed loss and its costs.
        architecture: its text.
        whole_loss: of the assembled network on validation batches; None where it was not evaluated or failed.
        masked_lm_loss: the same of predicting hidden tokens, in nats; None where that was not asked for.
    """

    network: Network
    architecture: str
    whole_loss: float | None = None
    masked_lm_loss: float | None = None

    def place(self, rank_by: RankBy) -> tuple[bool, float, float]:
        """What networks are sorted by; those without a loss of the whole network come last."""
        judged = self.whole_loss if rank_by == "hidden_states" else self.masked_lm_loss
        return judged is None, judged or 0.0, self.network.loss


def load_networks(
    run: OpenedRun,
    choice: BlockChoice = "alive",
    loss: LossKind = "raw",
    fidelity: int | None = None,
    supernet_signature: str | None = None,
) -> Loaded:
    """Read a run's block losses and its latency table.

    Raises:
        UserError: there are none yet; the message says what to run.
    """
    started = perf_counter()
    space = blockwise(run.space)
    signature = supernet_signature or run.supernet_signature
    read = read_block_tables(run.folder, space, signature, fidelity=fidelity, choice=choice, loss=loss)
    networks = solvable(space, read.blocks, run.recipe.corpus.sequence_length, run.latency)
    return Loaded(run, read, networks, perf_counter() - started)


def tables_for(loaded: Loaded, embedding: EmbeddingRule, limits: Mapping[str, float]) -> NetworkTables:
    """The tables of the embedding size that a rule gives.

    Raises:
        UserError: the size is not one of the space, or latency is limited without a latency table.
    """
    tables = loaded.networks.by_rule(embedding, limits)
    if "latency_ms" in limits and "latency_ms" not in tables.resources:
        missing = "no latency table" if loaded.run.latency is None else "block losses without latencies"
        raise UserError(
            f"--max-latency: {loaded.run.folder.path} has {missing}, expected the latency of every block; go on "
            f"with the run past the stage 'block_losses', or leave the limit out"
        )
    return tables


def solve_budget(tables: NetworkTables, limits: Mapping[str, float], top: int) -> tuple[Solution, float]:
    """The best networks within limits, and the seconds it took."""
    started = perf_counter()
    solution = Solver(tables).solve(limits, top)
    return solution, perf_counter() - started


def solve_front(
    loaded: Loaded, embedding: EmbeddingRule, objectives: Sequence[str], limits: Mapping[str, float]
) -> tuple[list[Network], int, float]:
    """The whole Pareto front of the networks within limits.

    With the ladder, a network has the embedding size of its rung or that of a higher one, as a network within a budget
    has the size that suits the budget; so the fronts of all rungs compete.

    Args:
        loaded: the tables.
        embedding: rule of the embedding size.
        objectives: what is minimised.
        limits: largest totals, on objectives or not.

    Returns:
        The networks, how many they were chosen from, and the seconds it took.

    Raises:
        ImpossibleBudgetError: no network keeps the limits.
        UserError: latency is limited or an objective, and there is none.
    """
    started = perf_counter()
    rungs: list[tuple[EmbeddingRule, Mapping[str, float]]] = [(embedding, limits)]
    if embedding == "ladder":
        rungs = [(size, _at_most(limits, most)) for size, most in ladder_rungs(blockwise(loaded.run.space))]
    found: dict[tuple[float, ...], Network] = {}
    combinations = 0
    for rule, within in rungs:
        tables = tables_for(loaded, rule, within)
        rivals_KD = np.array([*found]) if found else None
        whole = front(tables, objectives, within, rivals_KD=rivals_KD)
        combinations += whole.combinations
        points = map(tuple, whole.values_KD.tolist())
        for point, network in zip(points, tables.networks(whole.rows_KP), strict=True):
            found[point] = min(found.get(point, network), network, key=lambda one: one.texts)
        if found:
            unbeaten = non_dominated(np.array([*found]))
            found = {point: network for (point, network), kept in zip(found.items(), unbeaten, strict=True) if kept}
    if not found:
        Solver(tables_for(loaded, embedding, limits)).solve(limits)  # says which limit is impossible
    points_and_networks = sorted(found.items(), key=lambda one: (one[0][::-1], one[1].texts))
    return [network for _, network in points_and_networks], combinations, perf_counter() - started


def _at_most(limits: Mapping[str, float], parameters: float) -> dict[str, float]:
    """The limits, and one on the weights of the whole network unless it is infinite."""
    least = min(parameters, limits.get("parameters", parameters))
    return {**limits, "parameters": least} if np.isfinite(least) else dict(limits)


def check_ranking(run: OpenedRun, supernet_signature: str | None, rank_by: RankBy) -> None:
    """Make sure that whole networks can be scored.

    Args:
        run: whose weights and teacher are there.
        supernet_signature: whose block losses are added up; ``None``: the run's present supernet's.
        rank_by: what the networks are to be ranked by.

    Raises:
        UserError: the weights of that supernet are gone, or the teacher cannot predict tokens.
    """
    if supernet_signature not in (None, run.supernet_signature):
        raise UserError(
            f"--supernet: found {supernet_signature}, but {run.folder.path} has only the weights of its present "
            f"supernet {run.supernet_signature}, so whole networks of the other cannot be scored; add --no-rerank, or "
            f"leave --supernet out"
        )
    if rank_by == "masked_lm" and not TeacherSource(str(run.folder.teacher)).has_masked_lm_head():
        raise UserError(f"--rerank-by: {lacks_head(rank_by, run.folder.teacher)}")


def rank_whole(
    loaded: Loaded,
    embedding: EmbeddingRule,
    limits: Mapping[str, float],
    solution: Solution,
    rank_by: RankBy = "hidden_states",
) -> list[Ranked]:
    """Score the assembled networks on validation batches, and sort them by that (NAS-BERT, section 3.3, last step).

    The scores are recorded as evaluations of the strategy ``exact``; what is recorded already is not scored again.
    Candidates whose evaluation failed come last.
    """
    from orchestrator.evaluation.tune import TuneEvaluation
    from orchestrator.stages.evaluators import evaluator_factory, trial_size

    run, search = loaded.run, loaded.run.recipe.search
    fidelity, threads = search.validation_batches, max(1, int(search.cpus_per_actor))
    latency = run.latency
    functions = {} if latency is None else latency.objectives(run.space)
    cheap = CheapObjectives(run.space, functions, run.recipe.corpus.sequence_length)
    strategy = ExactSelection(run.space, [LOSS], [], run.recipe.seed, cheap=cheap, embedding=embedding)
    constraints = [Constraint(name, limit) for name, limit in limits.items()]
    strategy.use_tables(loaded.networks, [constraints])
    request = ResourceRequest("search.actors", search.actors, search.cpus_per_actor, search.gpus_per_actor)
    factory = evaluator_factory(run.recipe, run.folder, fidelity, search.batch_size, threads, rank_by)
    evaluation = TuneEvaluation(factory, search.actors, search.cpus_per_actor, search.gpus_per_actor)
    with writing_to(run) as results, ray_for(run, request):

        def record(found: SearchRecord) -> None:
            row = evaluation_row(found, run.space, strategy.name, run.supernet_signature)
            results.append("evaluations", **row)

        loop = SearchLoop(
            strategy,
            cheap,
            len(solution.networks),
            fidelity=fidelity,
            batch_size=trial_size(run.recipe, run.space, len(solution.networks), evaluation.window),
            window=evaluation.window,
            on_result=record,
            before_save=results.flush,
        )
        preload_recorded(loop, run.folder.results, strategy.name, run.supernet_signature, rank_by)
        evaluation.run(loop)
    ranked = _with_whole_losses(run, unranked(loaded, solution), fidelity, rank_by)
    return sorted(ranked, key=lambda one: one.place(rank_by))


def _with_whole_losses(run: OpenedRun, networks: Sequence[Ranked], fidelity: int, rank_by: RankBy) -> list[Ranked]:
    """The networks with what is recorded of them as a whole."""
    columns = ["architecture", "scope", "status", "supernet_signature", "fidelity", "loss", "masked_lm_loss"]
    rows = open_results(run.folder.results).table("evaluations", columns).to_pylist()
    wanted = {"scope": "network", "status": "ok", "supernet_signature": run.supernet_signature, "fidelity": fidelity}
    whole: dict[str, float] = {}
    masked: dict[str, float] = {}
    for row in rows:
        if wanted.items() <= row.items():
            whole[row["architecture"]] = row["loss"]
            if rank_by == "masked_lm" and row["masked_lm_loss"] is not None:
                masked[row["architecture"]] = row["masked_lm_loss"]
    return [
        replace(one, whole_loss=whole.get(one.architecture), masked_lm_loss=masked.get(one.architecture))
        for one in networks
    ]


def unranked(loaded: Loaded, solution: Solution) -> list[Ranked]:
    """The networks in the order of their summed losses."""
    return [Ranked(network, str(loaded.networks.architecture(network))) for network in solution.networks]


def as_dict(ranked: Ranked) -> dict[str, Any]:
    """One network as plain values."""
    return {
        "architecture": ranked.architecture,
        "loss": ranked.network.loss,
        "whole_loss": ranked.whole_loss,
        "masked_lm_loss": ranked.masked_lm_loss,
        **{name: cost if name == "latency_ms" else round(cost) for name, cost in ranked.network.costs.items()},
    }
