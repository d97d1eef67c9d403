"""The stage that searches: strategies propose, Ray Tune actors score paths of the supernet."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
from orchestrator.formatting import plural
from orchestrator.latency_table import LatencyTable
from orchestrator.limits import budget_constraints, check_smallest, common_constraints
from orchestrator.objectives import MEASURED_LATENCY, OBJECTIVES, CheapObjectives, Feasibility
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe.search import StrategySettings
from orchestrator.solving.networks import SolvableNetworks, solvable
from orchestrator.solving.reading import read_block_tables
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.evaluators import evaluator_factory, trial_size
from orchestrator.stages.latency import conditions_of
from orchestrator.stages.teacher import teacher_source
from orchestrator.strategies.base import Strategy
from orchestrator.strategies.registry import create_strategy, strategy_class
from orchestrator.strategies.starting_points import starting_points
from spaces.space import BlockwiseSpace

CANDIDATES_PER_SECOND = 10.0
"""What plans assume of one actor; only an order of magnitude."""


class SearchStage(Stage):
    """Runs the recipe's strategies one after another over the trained supernet."""

    name = "search"
    inputs = ("supernet", "latency")
    version = 2

    def inputs_for(self, plan: RunPlan) -> tuple[str, ...]:
        """With a strategy that adds up block losses, these too."""
        needed = any(strategy_class(one.name).needs_block_tables for one in plan.recipe.search.strategies)
        return (*self.inputs, "block_losses") if needed else self.inputs

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's search, the limits of the budgets, and the seed."""
        limits = [
            {constraint.objective: constraint.maximum for constraint in constraints}
            for constraints in budget_constraints(plan.recipe, plan.shape)
        ]
        settings: list[Any] = [plan.recipe.search, limits, plan.recipe.seed]
        return settings + ([plan.recipe.distillation.mask_probability] if _predicts(plan) else [])

    def check(self, plan: RunPlan) -> None:
        """Every budget can be met, and every strategy accepts its options."""
        recipe = plan.recipe
        if _predicts(plan) and teacher_source(recipe).has_masked_lm_head() is False:
            raise UserError(f"search.rank_by: {lacks_head('masked_lm', recipe.teacher.source)}")
        check_smallest(recipe, plan.shape, plan.space, recipe.corpus.sequence_length)
        for callback in named_callbacks(recipe.search, recipe.name):
            callback.make()
        cheap = CheapObjectives(plan.space, {"latency_ms": lambda architecture: 0.0})
        for settings in plan.recipe.search.strategies:
            if self._strategy(plan, settings, cheap).needs_block_tables and not has_block_tables(plan):
                raise UserError(
                    f"search.strategies: '{settings.name}' adds up block losses, but tables.block_architectures is "
                    f"{plan.recipe.tables.block_architectures} in the space '{plan.space.name}'; set it to all or alive"
                )

    def requests(self, plan: RunPlan) -> ResourceRequest:
        """What the actors need of the cluster."""
        search = plan.recipe.search
        measuring = _measures_latency(plan) and not search.gpus_per_actor
        key = "search.actors and the latency device (measured_latency_ms)" if measuring else "search.actors"
        return ResourceRequest(key, search.actors + measuring, search.cpus_per_actor, search.gpus_per_actor)

    def planned(self, plan: RunPlan) -> PlannedStage:
        """As many evaluations as the strategies may have."""
        search = plan.recipe.search
        count = sum(strategy.evaluations for strategy in search.strategies)
        names = ", ".join(f"{strategy.name} ({strategy.evaluations})" for strategy in search.strategies)
        seconds = 10.0 * len(search.strategies) + count / (CANDIDATES_PER_SECOND * search.actors)
        work = f"score candidates of {names} on {plural(search.actors, 'actor')}"
        return PlannedStage(self.name, "run", work, evaluations=count, seconds=seconds, disk_bytes=500 * count)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Search with every strategy; recorded scores are never measured again."""
        search = context.recipe.search
        table = LatencyTable.from_json(context.outputs["latency"]["latency_table"])
        predict: Callable[[Any], float] = lambda architecture: table.predict_ms(context.space, architecture)  # noqa: E731
        cheap = CheapObjectives(context.space, {"latency_ms": predict}, context.recipe.corpus.sequence_length)
        evaluation = network_evaluation(context.plan)
        total = sum(strategy.evaluations for strategy in search.strategies)
        progress.follow(total, "candidates")
        done = 0
        budgets = [
            Feasibility(cheap, constraints) for constraints in budget_constraints(context.recipe, context.plan.shape)
        ]
        start = starting_points(context.space, budgets, context.recipe.seed)
        state_folder = context.folder.search(context.signature)
        experiments = state_folder / "tune"
        signature = context.outputs["supernet"]["signature"]
        for settings in search.strategies:
            strategy = self._strategy(context.plan, settings, cheap)
            if strategy.needs_block_tables:
                strategy.use_tables(
                    combinable_networks(context.plan, signature, settings.options, table),
                    budget_constraints(context.recipe, context.plan.shape),
                )
            else:
                strategy.start_with(start)
            loop = SearchLoop(
                strategy,
                cheap,
                settings.evaluations,
                fidelity=search.validation_batches,
                batch_size=trial_size(context.recipe, context.space, settings.evaluations, evaluation.window),
                window=evaluation.window,
                on_result=_recorder(context, settings.name),
                # A state fits one window alone, which follows the number of actors. With another number the search
                # begins again, and finds what it asks for once more among the recorded scores.
                state_file=state_folder / f"{settings.name}-window-{evaluation.window}.json",
                before_save=context.results.flush,
                deterministic=search.tell == "in_order",
            )
            context.results.flush()
            preload_recorded(loop, context.folder.results, settings.name, signature, search.rank_by)
            loop.resume()
            if loop.settle_known():
                shower = _shower(progress, done, settings.name)
                evaluation.run(loop, shower, str(experiments), settings.name, progress.message)
            done += settings.evaluations
            progress.update(done)
        context.results.flush()
        if not search.keeps_experiment:
            shutil.rmtree(experiments, ignore_errors=True)
        elif experiments.exists():
            progress.message(f"Ray Tune's experiments are in {experiments}")
        return StageResult(f"{total} candidates by {', '.join(settings.name for settings in search.strategies)}")

    @staticmethod
    def _strategy(plan: RunPlan, settings: StrategySettings, cheap: CheapObjectives) -> Strategy:
        return create_strategy(
            settings.name,
            plan.space,
            [OBJECTIVES[name] for name in plan.recipe.search.objectives],
            common_constraints(budget_constraints(plan.recipe, plan.shape)),
            plan.recipe.seed,
            cheap=cheap,
            options=settings.options,
        )


def network_evaluation(plan: RunPlan) -> TuneEvaluation:
    """What scores whole networks of a run's supernet, and times them where a measured latency is an objective."""
    recipe, search = plan.recipe, plan.recipe.search
    threads = max(1, int(search.cpus_per_actor))
    meter = None
    if _measures_latency(plan):  # as the latency table was measured
        meter = LatencyMeter(plan.space, conditions_of(recipe.tables.latency), plan.shape.vocab_size)
    return TuneEvaluation(
        evaluator_factory(recipe, plan.folder, search.validation_batches, search.batch_size, threads, search.rank_by),
        search.actors,
        search.cpus_per_actor,
        search.gpus_per_actor,
        meter=meter,
        callbacks=named_callbacks(search, recipe.name),
        result_files=search.keeps_experiment,
    )


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


def _recorder(context: RunContext, strategy: str) -> Callable[[SearchRecord], None]:
    signature = context.outputs["supernet"]["signature"]

    def record(found: SearchRecord) -> None:
        context.results.append("evaluations", **evaluation_row(found, context.space, strategy, signature))

    return record


def _shower(progress: StageProgress, before: int, strategy: str) -> Callable[[SearchProgress], None]:
    def show(state: SearchProgress) -> None:
        best = f", best loss {state.best_loss:.3f}" if state.best_loss is not None else ""
        progress.update(before + state.evaluated, note=f"{strategy}{best}")

    return show
