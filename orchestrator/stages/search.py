"""The stage that searches: strategies propose, Ray Tune actors score paths of the supernet, or train candidates.

A run has one search, or one a phase (:mod:`orchestrator.phases`): then each hands its winner over to the next, which
looks in the part of the space that agrees with it in some aspects.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from safetensors.torch import load_file

from cluster.resources import ResourceRequest
from orchestrator.errors import UserError
from orchestrator.evaluation.block_scoring import blockwise
from orchestrator.evaluation.latency_meter import LatencyMeter
from orchestrator.evaluation.recorded import evaluation_row, preload_recorded
from orchestrator.evaluation.records import SearchProgress, SearchRecord
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.supernet_evaluator import lacks_head
from orchestrator.evaluation.tune import TuneEvaluation
from orchestrator.evaluation.tune_callbacks import named_callbacks
from orchestrator.expected_costs import expected_costs
from orchestrator.formatting import plural
from orchestrator.latency_table import LatencyTable
from orchestrator.latency_table.reliability import warn_if_unreliable
from orchestrator.limits import (
    budget_constraints,
    check_latency,
    check_smallest,
    common_constraints,
    limits_of,
    searches_by_latency,
)
from orchestrator.objectives import MEASURED_LATENCY, OBJECTIVES, CheapObjectives, Feasibility
from orchestrator.phases import LAMBDAS, SEARCH, SUPERNET, Phase
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe.search import StrategySettings
from orchestrator.solving.networks import SolvableNetworks, solvable
from orchestrator.solving.reading import read_block_tables
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.candidates import (
    candidate_factory,
    check_scoring,
    scored_by,
    scored_candidates,
    scoring_facts,
    scoring_seconds,
    scoring_words,
    trial_size_of,
)
from orchestrator.stages.lambda_sweep import found_texts, sweeps_lambda
from orchestrator.stages.latency import conditions_of
from orchestrator.stages.task_teachers import TASK_TEACHERS
from orchestrator.stages.teacher import teacher_source
from orchestrator.strategies.base import Strategy
from orchestrator.strategies.registry import create_strategy, strategy_class
from orchestrator.strategies.starting_points import starting_points
from spaces.sampled_space import SampledSpace
from spaces.space import BlockwiseSpace, SearchSpace


class SearchStage(Stage):
    """Runs strategies one after another over the trained supernet.

    Args:
        phase: which search of the run it is; ``None`` for the only one of a run without phases.
    """

    name = SEARCH
    inputs = (SUPERNET, "latency")
    resumable = True
    version = 2

    def __init__(self, phase: Phase | None = None) -> None:
        self._phase = phase
        if phase is not None:
            self.name = phase.search_stage

    def phase_of(self, plan: RunPlan) -> Phase:
        """Which search of the run it is."""
        return Phase(plan.recipe) if self._phase is None else self._phase

    def inputs_for(self, plan: RunPlan) -> tuple[str, ...]:
        """With a strategy that adds up block losses, these too; of a phase, its tuned teacher and the search before."""
        phase = self.phase_of(plan)
        needed = any(strategy_class(one.name).needs_block_tables for one in phase.strategies)
        tuned = (TASK_TEACHERS,) if phase.training is not None and phase.training.tunes_teacher else ()
        swept = (LAMBDAS,) if sweeps_lambda(plan.recipe) else ()
        own = (phase.weights_stage, *self.inputs[1:], *swept, *tuned, *phase.builds_on)
        return (*own, "block_losses") if needed else own

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's search, the limits of the budgets, and the seed; of a phase, what it says itself."""
        limits = [
            {constraint.objective: constraint.maximum for constraint in constraints}
            for constraints in budget_constraints(plan.recipe, plan.shape)
        ]
        phase, search = self.phase_of(plan), plan.recipe.search
        settings: list[Any] = [search, limits, plan.recipe.seed]
        if phase.settings is not None:
            shared = search.model_copy(update={"strategies": phase.strategies, "stop": phase.stop})
            settings = [shared, limits, plan.recipe.seed, phase.name, list(phase.keep), list(scoring_facts(phase))]
        return settings + ([plan.recipe.distillation.mask_probability] if _predicts(plan) else [])

    def check(self, plan: RunPlan) -> None:
        """Every budget can be met, and every strategy accepts its options."""
        recipe, phase = plan.recipe, self.phase_of(plan)
        if _predicts(plan) and teacher_source(recipe).has_masked_lm_head() is False:
            raise UserError(f"search.rank_by: {lacks_head('masked_lm', recipe.teacher.source)}")
        check_smallest(recipe, plan.shape, plan.space, recipe.corpus.sequence_length)
        check_latency(recipe, plan.space)
        check_scoring(plan, phase)
        space = _narrowed_for_a_look(plan, phase)
        for callback in named_callbacks(recipe.search, recipe.name):
            callback.make()
        cheap = CheapObjectives(space, {"latency_ms": lambda architecture: 0.0})
        for settings in phase.strategies:
            if not self._strategy(plan, space, settings, cheap).needs_block_tables:
                continue
            if not has_block_tables(plan):
                raise UserError(
                    f"{phase.strategies_key}: '{settings.name}' adds up block losses, but tables.block_architectures "
                    f"is {plan.recipe.tables.block_architectures} in the space '{plan.space.name}'; set it to all or "
                    f"alive"
                )
            if phase.keep or phase.training is not None:
                raise UserError(
                    f"{phase.strategies_key}: '{settings.name}' adds up block losses of the whole space, scored by the "
                    f"supernet; expected a phase without keep and with score: supernet, or another strategy"
                )

    def requests(self, plan: RunPlan) -> ResourceRequest:
        """What the actors need of the cluster."""
        search = plan.recipe.search
        measuring = _measures_latency(plan) and not search.gpus_per_actor
        key = "search.actors and the latency device (measured_latency_ms)" if measuring else "search.actors"
        return ResourceRequest(key, search.actors + measuring, search.cpus_per_actor, search.gpus_per_actor)

    def planned(self, plan: RunPlan) -> PlannedStage:
        """As many evaluations as the strategies may have."""
        search, phase = plan.recipe.search, self.phase_of(plan)
        count = sum(strategy.evaluations for strategy in phase.strategies)
        names = ", ".join(f"{strategy.name} ({strategy.evaluations})" for strategy in phase.strategies)
        seconds = 10.0 * len(phase.strategies) + scoring_seconds(plan, phase, count)
        kept = f", {' and '.join(phase.keep)} as of the winner before" if phase.keep else ""
        at_most = "" if phase.stop is None else f", ended after {phase.stop} without a lower loss"
        work = f"{scoring_words(phase)} candidates of {names} on {plural(search.actors, 'actor')}{kept}{at_most}"
        return PlannedStage(self.name, "run", work, evaluations=count, seconds=seconds, disk_bytes=500 * count)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Search with every strategy; recorded scores are never measured again."""
        phase = self.phase_of(context.plan)
        search = _Search(context, phase)
        if searches_by_latency(context.recipe):
            warn_if_unreliable(search.table, progress.message)
        total = sum(strategy.evaluations for strategy in phase.strategies)
        progress.follow(total, "candidates")
        done = evaluated = 0
        for settings in phase.strategies:
            strategy = self._strategy(context.plan, search.space, settings, search.cheap)
            found = search.run(strategy, settings, done, progress)
            if found < settings.evaluations:
                why = "the space has no more" if phase.stop is None else "the space has no more, or no lower loss came"
                progress.message(f"{settings.name} ended after {found:,} of {settings.evaluations:,} candidates: {why}")
            evaluated += found
            done += settings.evaluations
            progress.update(done)
        context.results.flush()
        if not context.recipe.search.keeps_experiment:
            shutil.rmtree(search.experiments, ignore_errors=True)
        elif search.experiments.exists():
            progress.message(f"Ray Tune's experiments are in {search.experiments}")
        detail = f"{evaluated} candidates by {', '.join(settings.name for settings in phase.strategies)}"
        if phase.settings is None:
            return StageResult(detail)
        winner = winner_of(context, phase)
        progress.message(f"{phase.name}: {winner['winner']}  loss {winner['loss']:.3f}")
        return StageResult(f"{detail}; winner {winner['winner']}", winner)

    def _strategy(
        self, plan: RunPlan, space: SearchSpace[Any], settings: StrategySettings, cheap: CheapObjectives
    ) -> Strategy:
        return create_strategy(
            settings.name,
            space,
            [OBJECTIVES[name] for name in plan.recipe.search.objectives],
            common_constraints(budget_constraints(plan.recipe, plan.shape)),
            plan.recipe.seed,
            cheap=cheap,
            options=settings.options,
        )


class _Search:
    """What the strategies of one search have in common.

    Args:
        context: of the stage.
        phase: which search of the run it is.
    """

    def __init__(self, context: RunContext, phase: Phase) -> None:
        recipe = context.recipe
        self.context, self.phase = context, phase
        self.table = LatencyTable.from_json(context.outputs["latency"]["latency_table"])
        narrowing = phase.narrowing(context.outputs)
        self.space = narrowing.of(context.space)
        latency = self.table.objectives(context.space)
        self.cheap = CheapObjectives(self.space, latency, recipe.corpus.sequence_length)
        self.evaluation = network_evaluation(context.plan, phase)
        self.scored_by = scored_by(phase, context.outputs)
        self.state_folder = context.folder.search(context.signature)
        self.experiments = self.state_folder / "tune"
        budgets = [
            Feasibility(self.cheap, constraints) for constraints in budget_constraints(recipe, context.plan.shape)
        ]
        known = [narrowing.architecture] if narrowing.keep else []
        known += found_texts(context.outputs)
        given = [one for one in map(context.space.parse, known) if self.space.contains(one)]
        self.start = [*given, *starting_points(self.space, budgets, recipe.seed)]

    def run(self, strategy: Strategy, settings: StrategySettings, before: int, progress: StageProgress) -> int:
        """Search with one strategy, or go on; returns how many candidates it has had evaluated.

        Args:
            strategy: new.
            settings: its section of the recipe.
            before: evaluations of the strategies before it, to show.
            progress: of the stage.
        """
        context, phase, recipe = self.context, self.phase, self.context.recipe
        if strategy.needs_block_tables:
            strategy.use_tables(
                combinable_networks(context.plan, self.scored_by, settings.options, self.table),
                budget_constraints(recipe, context.plan.shape),
            )
        else:
            strategy.start_with(self.start)
        tell_of_distributions(strategy, context.plan, self.space, self.table, is_whole=not phase.keep)
        window = self.evaluation.window
        loop = SearchLoop(
            strategy,
            self.cheap,
            settings.evaluations,
            fidelity=phase.fidelity,
            batch_size=trial_size_of(context.plan, phase, settings.evaluations, window),
            window=window,
            on_result=self._recorder(settings.name),
            # A state fits one window alone, which follows the number of actors. With another number the search
            # begins again, and finds what it asks for once more among the recorded scores.
            state_file=self.state_folder / f"{settings.name}-window-{window}.json",
            before_save=context.results.flush,
            deterministic=recipe.search.tell == "in_order",
            stop=phase.stop,
        )
        context.results.flush()
        preload_recorded(
            loop,
            context.folder.results,
            settings.name,
            self.scored_by,
            recipe.search.rank_by,
            phase=phase.name or None,
        )
        loop.resume()
        if loop.settle_known():
            shower = _shower(progress, before, settings.name)
            self.evaluation.run(loop, shower, str(self.experiments), settings.name, progress.message)
        return loop.progress.evaluated

    def _recorder(self, strategy: str) -> Callable[[SearchRecord], None]:
        phase = self.phase.name or None

        def record(found: SearchRecord) -> None:
            row = evaluation_row(found, self.context.space, strategy, self.scored_by, phase=phase)
            self.context.results.append("evaluations", **row)

        return record


def winner_of(context: RunContext, phase: Phase) -> dict[str, Any]:
    """The best candidate of a phase within any budget: what the next phase builds on.

    Returns:
        Plain values: ``winner`` (its text), ``loss``, and which strategy found it.

    Raises:
        UserError: no candidate within a budget was scored.
    """
    candidates = scored_candidates(context, phase)
    limits = [limits_of(budget, context.plan.shape) for budget in context.recipe.budgets]
    for row in candidates.to_dict("records"):
        if any(all(row[name] <= limit for name, limit in one.items()) for one in limits):
            loss, strategy = float(row["loss"]), str(row["strategy"])
            return {"winner": str(row["architecture"]), "loss": loss, "strategy": strategy}
    raise UserError(
        f"{phase.strategies_key}: found {plural(len(candidates), 'candidate')} with a score at full fidelity, none of "
        f"them within a budget, expected one that the next phase can build on; raise evaluations or a budget, and run "
        f"the same command again"
    )


def network_evaluation(plan: RunPlan, phase: Phase | None = None) -> TuneEvaluation:
    """What scores whole networks, and times them where a measured latency is an objective.

    Args:
        plan: of the run.
        phase: whose candidates they are; ``None``: scored by the run's supernet.
    """
    recipe, search = plan.recipe, plan.recipe.search
    meter = None
    if _measures_latency(plan):  # as the latency table was measured
        meter = LatencyMeter(plan.space, conditions_of(recipe.tables.latency), plan.shape.vocab_size)
    return TuneEvaluation(
        candidate_factory(plan, phase or Phase(recipe)),
        search.actors,
        search.cpus_per_actor,
        search.gpus_per_actor,
        meter=meter,
        callbacks=named_callbacks(search, recipe.name),
        result_files=search.keeps_experiment,
    )


def tell_of_distributions(
    strategy: Strategy, plan: RunPlan, space: SearchSpace[Any], table: LatencyTable, *, is_whole: bool = True
) -> None:
    """Say what distributions cost, and what a one-shot training has learned of which paths to draw.

    Args:
        strategy: new.
        plan: of the run.
        space: that is searched; where it has no distributions, nothing is said.
        table: of the run.
        is_whole: whether it is all of the run's space; a part of it has other genes than those that were learned.

    Raises:
        UserError: the strategy is to use a cost that nothing says.
    """
    if not isinstance(space, SampledSpace):
        return
    strategy.use_costs(expected_costs(space, plan.recipe.corpus.sequence_length, table))
    learned = plan.folder.distribution
    if is_whole and learned.is_file():
        strategy.start_at(load_file(learned))


def _narrowed_for_a_look(plan: RunPlan, phase: Phase) -> SearchSpace[Any]:
    """A space such as the phase will search: narrowed by some architecture, since nobody knows the winner yet.

    Raises:
        UserError: the space has no such aspects.
    """
    if not phase.keep:
        return plan.space
    unknown = [aspect for aspect in phase.keep if aspect not in plan.space.aspects()]
    if unknown:
        known = ", ".join(plan.space.aspects()) or "none"
        raise UserError(
            f"{phase.key}.keep: found {', '.join(unknown)}, expected aspects of the space '{plan.space.name}': {known}"
        )
    return plan.space.narrowed(plan.space.smallest(), phase.keep)


def _measures_latency(plan: RunPlan) -> bool:
    return MEASURED_LATENCY.name in plan.recipe.search.objectives


def _predicts(plan: RunPlan) -> bool:
    return plan.recipe.search.rank_by == "masked_lm"


def has_block_tables(plan: RunPlan) -> bool:
    """Whether the run makes tables of block losses, which some strategies add up."""
    return isinstance(plan.space, BlockwiseSpace) and plan.recipe.tables.block_architectures != 0


def combinable_networks(
    plan: RunPlan, supernet_signature: str, options: Mapping[str, Any], latency: LatencyTable
) -> SolvableNetworks:
    """What a strategy that adds up block losses can combine.

    Args:
        plan: of the run, whose results hold the losses.
        supernet_signature: whose losses count.
        options: of the strategy: ``blocks`` and ``loss`` decide.
        latency: the run's table.
    """
    space = blockwise(plan.space)
    read = read_block_tables(
        plan.folder,
        space,
        supernet_signature,
        fidelity=plan.recipe.tables.block_batches,
        choice=options.get("blocks", "alive"),
        loss=options.get("loss", "raw"),
    )
    return solvable(space, read.blocks, plan.recipe.corpus.sequence_length, latency)


def _shower(progress: StageProgress, before: int, strategy: str) -> Callable[[SearchProgress], None]:
    def show(state: SearchProgress) -> None:
        best = f", best loss {state.best_loss:.3f}" if state.best_loss is not None else ""
        progress.update(before + state.evaluated, note=f"{strategy}{best}")

    return show
