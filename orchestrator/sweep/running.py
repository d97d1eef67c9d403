"""Running a sweep: what members share is made once, then one search after the other, each skipped once it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.connect import connect
from cluster.lease import RunLock
from cluster.signals import orderly_stop
from cluster.storage import disk_errors, require_free_space
from orchestrator.errors import UserError
from orchestrator.evaluation.recorded import evaluation_row, preload_recorded
from orchestrator.evaluation.records import SearchProgress, SearchRecord
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.tune import TuneEvaluation
from orchestrator.formatting import plural
from orchestrator.latency_table import LatencyTable
from orchestrator.latency_table.reliability import warn_if_unreliable
from orchestrator.limits import searches_by_latency
from orchestrator.objectives import CheapObjectives, Feasibility
from orchestrator.phases import Phase
from orchestrator.pipeline import checked_plan, planned_stages, prepare_run, stage_signatures
from orchestrator.plan import Plan, PlannedStage
from orchestrator.progress import Progress, StageProgress
from orchestrator.results import ResultsWriter
from orchestrator.results.place import has_tables
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.base import RunPlan
from orchestrator.stages.candidates import CANDIDATES_PER_SECOND, scored_by, trial_size_of
from orchestrator.stages.search import (
    combinable_networks,
    has_block_tables,
    network_evaluation,
    tell_of_distributions,
)
from orchestrator.stages.task_teachers import TASK_TEACHERS, tuned_tasks
from orchestrator.strategies.base import Strategy
from orchestrator.strategies.registry import strategy_class
from orchestrator.strategies.starting_points import starting_points
from orchestrator.sweep.adoption import adopt, adoptable
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.loading import LoadedSweep
from orchestrator.sweep.members import Member, check_members, members_of
from orchestrator.sweep.summary import Finished, SweepSummary, summarise_sweep

_SECONDS_TO_START = 10.0
"""What plans assume of the start of a member's actors."""


@dataclass(frozen=True)
class CheckedSweep:
    """A sweep after everything that can be was validated.

    Attributes:
        loaded: the sweep and its recipes.
        folder: of the sweep.
        plans: of each space's run, by label.
        shared: for each space the stages its searches build on, with their signatures.
        members: by what each is known as, in the order of the axes.
    """

    loaded: LoadedSweep
    folder: SweepDirectory
    plans: Mapping[str, RunPlan]
    shared: Mapping[str, Mapping[str, str]]
    members: Mapping[str, Member]


def check_sweep(loaded: LoadedSweep, run_dir: Path) -> CheckedSweep:
    """Validate everything that can be before anything runs.

    Args:
        loaded: the sweep.
        run_dir: the sweep's folder; need not exist.

    Raises:
        ValueError: one of the packages' errors for a user's mistake.
    """
    folder = SweepDirectory(run_dir)
    folder.check(loaded.sweep)
    plans = {space: checked_plan(recipe, folder.run(space)) for space, recipe in loaded.recipes.items()}
    for space, plan in plans.items():
        if plan.recipe.phases:
            phases = ", ".join(phase.name for phase in plan.recipe.phases)
            problem = f"'{space}' has the phases {phases}, but a sweep compares strategies of one search"
            raise loaded.mistake(("recipe",), UserError(f"{problem}; put phases: [] under set"))
    check_members(loaded, plans)
    for plan in plans.values():
        _check_blocks(loaded, plan)
    shared = {}
    for space, plan in plans.items():
        signatures = stage_signatures(plan)
        shared[space] = {name: signatures[name] for name in _shared_stages(loaded, plan)}
    members = {member.known_as(plans[member.space], shared[member.space]): member for member in members_of(loaded)}
    return CheckedSweep(loaded, folder, plans, shared, members)


def plan_sweep(checked: CheckedSweep, reuse: Path | None = None) -> Plan:
    """What each shared stage and each member would do.

    Args:
        checked: the sweep.
        reuse: a run folder whose finished stages are copied where they are the same.

    Raises:
        UserError: the disk is too full for it.
    """
    stages: list[PlannedStage] = []
    notes = ["a candidate that one member has had scored is scored for no other, so searches may take less time"]
    for space, plan in checked.plans.items():
        names = list(checked.shared[space])
        shared, unchecked = planned_stages(plan, names)
        copied = adoptable(plan, RunDirectory(reuse), names) if reuse else []
        for stage in shared:
            named = replace(stage, name=f"{space}: {stage.name}")
            if stage.name in copied:
                named = replace(named, action="skip", reason=f"copied from {reuse}")
            stages.append(named)
        notes += unchecked
    for known_as, member in checked.members.items():
        stages.append(_planned_member(checked, known_as, member))
    answer = Plan(checked.loaded.sweep.name, str(checked.folder.path), tuple(stages), tuple(dict.fromkeys(notes)))
    if answer.disk_bytes:
        require_free_space(checked.folder.path, answer.disk_bytes, f"the sweep '{checked.loaded.sweep.name}'")
    return answer


def run_sweep(checked: CheckedSweep, progress: Progress, reuse: Path | None = None) -> SweepSummary:
    """Run a sweep to its end, or go on with it where it was left.

    Args:
        checked: the sweep.
        progress: shows a person how it goes.
        reuse: a run folder whose finished stages are copied where they are the same.

    Raises:
        ValueError: one of the packages' errors for a user's mistake.
        RuntimeError: one of the packages' errors for a failure; what was measured is kept.
        Interrupted: stopped by a signal; the same command goes on.
    """
    started = time.monotonic()
    folder, sweep = checked.folder, checked.loaded.sweep
    with ExitStack() as stack:
        stack.enter_context(orderly_stop())
        stack.enter_context(disk_errors(folder.path))
        folder.path.mkdir(parents=True, exist_ok=True)
        stack.enter_context(RunLock(folder.path))
        sweep_id = folder.open(sweep)  # settles where the tables lie
        results = stack.enter_context(ResultsWriter(folder.results, sweep_id))
        if any(folder.finished(known_as) is None for known_as in checked.members):
            settings = next(iter(checked.plans.values())).recipe.cluster
            stack.enter_context(connect(settings.address, num_cpus=settings.num_cpus))
        sources = [RunDirectory(reuse)] if reuse else []
        for space, plan in checked.plans.items():
            _run_space(checked, space, plan, sources, results, progress)
            sources.append(plan.folder)
        finished = [
            Finished(known_as, member, _seconds(folder, known_as), checked.shared[member.space]["supernet"])
            for known_as, member in checked.members.items()
        ]
        return summarise_sweep(checked.loaded, folder, finished, results, lambda: time.monotonic() - started)


def _run_space(
    checked: CheckedSweep,
    space: str,
    plan: RunPlan,
    sources: list[RunDirectory],
    results: ResultsWriter,
    progress: Progress,
) -> None:
    """Make what the members of a space share, then run or skip each of them."""
    names = list(checked.shared[space])

    def take_over() -> None:
        for source in sources:
            taken = adopt(plan, source, names)
            if taken:
                progress.message(f"{space}: took over {', '.join(taken)} from {source.path}")

    outputs = prepare_run(plan, names, progress, take_over)
    members = {known_as: member for known_as, member in checked.members.items() if member.space == space}
    progress.begin(list(members))
    evaluation = network_evaluation(plan)  # one for all: what its actors share is loaded once
    for known_as, member in members.items():
        if checked.folder.finished(known_as) is not None:
            progress.skip(known_as)
            continue
        with progress.stage(known_as, member.evaluations, "candidates") as shown:
            _Search(checked.folder, plan, evaluation, member, known_as, outputs, results).run(shown)


class _Search:
    """The search of one member."""

    def __init__(
        self,
        folder: SweepDirectory,
        plan: RunPlan,
        evaluation: TuneEvaluation,
        member: Member,
        known_as: str,
        outputs: Mapping[str, Mapping[str, Any]],
        results: ResultsWriter,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.evaluation = evaluation
        self.member = member
        self.known_as = known_as
        self.results = results
        self.phase = Phase(plan.recipe)
        self.scored_by = scored_by(self.phase, outputs)
        self.supernet_signature = str(outputs["supernet"]["signature"])
        self.table = LatencyTable.from_json(outputs["latency"]["latency_table"])

    def run(self, progress: StageProgress) -> None:
        """Search, from the beginning or from the saved state; recorded scores are never measured again."""
        if searches_by_latency(self.plan.recipe):
            warn_if_unreliable(self.table, progress.message)
        before, started = self.folder.spent(self.known_as), time.monotonic()
        self.folder.member(self.known_as).mkdir(parents=True, exist_ok=True)
        try:
            self._search(progress)
        except BaseException:
            self.folder.note_spent(self.known_as, before + time.monotonic() - started)
            raise
        self.results.flush()
        kept = self.plan.recipe.search.keeps_experiment
        self.folder.finish(self.known_as, before + time.monotonic() - started, keep_experiment=kept)

    def _search(self, progress: StageProgress) -> None:
        recipe, search = self.plan.recipe, self.plan.recipe.search
        latency = self.table.objectives(self.plan.space)
        cheap = CheapObjectives(self.plan.space, latency, recipe.corpus.sequence_length)
        evaluation = self.evaluation
        member_folder = self.folder.member(self.known_as)
        loop = SearchLoop(
            self._strategy(cheap),
            cheap,
            self.member.evaluations,
            fidelity=self.phase.fidelity,
            batch_size=trial_size_of(self.plan, self.phase, self.member.evaluations, evaluation.window),
            window=evaluation.window,
            on_result=self._record,
            state_file=member_folder / f"state-window-{evaluation.window}.json",
            before_save=self.results.flush,
            deterministic=search.tell == "in_order",
            stop=search.stop,
        )
        self._preload(loop)
        loop.resume()
        if loop.settle_known():
            experiments = str(member_folder / "tune")
            evaluation.run(loop, _shower(progress), experiments, self.known_as, progress.message)
        progress.update(self.member.evaluations)

    def _strategy(self, cheap: CheapObjectives) -> Strategy:
        strategy = self.member.make_strategy(self.plan, cheap)
        constraints = self.member.constraints(self.plan)
        if strategy.needs_block_tables:
            options = self.member.strategy.options
            networks = combinable_networks(self.plan, self.supernet_signature, options, self.table)
            strategy.use_tables(networks, [constraints])
        else:
            budgets = [Feasibility(cheap, constraints)]
            strategy.start_with(starting_points(self.plan.space, budgets, self.plan.recipe.seed))
        tell_of_distributions(strategy, self.plan, self.plan.space, self.table)
        return strategy

    def _preload(self, loop: SearchLoop) -> None:
        """What any member, or a search of the run itself, has had scored by this supernet."""
        self.results.flush()
        for tables in (self.plan.folder.results, self.folder.results):
            if has_tables(tables):
                strategy, rank_by = self.member.strategy.called, self.plan.recipe.search.rank_by
                preload_recorded(loop, tables, strategy, self.scored_by, rank_by, self.known_as)

    def _record(self, found: SearchRecord) -> None:
        strategy = self.member.strategy.called
        row = evaluation_row(found, self.plan.space, strategy, self.scored_by, self.known_as)
        self.results.append("evaluations", **row)


def _shared_stages(loaded: LoadedSweep, plan: RunPlan) -> tuple[str, ...]:
    """The stages that the searches of a space build on, in the order of the run."""
    tuned = (TASK_TEACHERS,) if tuned_tasks(plan.recipe) else ()
    blocks = any(strategy_class(strategy.name).needs_block_tables for strategy in loaded.sweep.strategies)
    return ("teacher", "corpus", *tuned, "latency", "supernet", *(["block_losses"] if blocks else []))


def _check_blocks(loaded: LoadedSweep, plan: RunPlan) -> None:
    """A strategy that adds up block losses needs a recipe that measures them."""
    for index, strategy in enumerate(loaded.sweep.strategies):
        if strategy_class(strategy.name).needs_block_tables and not has_block_tables(plan):
            problem = f"'{strategy.name}' adds up block losses, but the recipe's tables.block_architectures is 0"
            raise loaded.mistake(("strategies", index), UserError(f"{problem}; set it to all or alive"))


def _planned_member(checked: CheckedSweep, known_as: str, member: Member) -> PlannedStage:
    actors = checked.plans[member.space].recipe.search.actors
    seconds = _SECONDS_TO_START + member.evaluations / (CANDIDATES_PER_SECOND * actors)
    action, reason = "run", ""
    if checked.folder.finished(known_as) is not None:
        action, reason = "skip", "nothing changed since it finished"
    elif checked.folder.has_begun(known_as):
        action, reason = "resume", "an interrupted start left its state"
    return PlannedStage(
        known_as,
        action,  # type: ignore[arg-type]
        f"search by {member.strategy.name} with seed {member.seed} on {plural(actors, 'actor')}",
        evaluations=member.evaluations,
        seconds=seconds,
        disk_bytes=500 * member.evaluations,
        reason=reason,
    )


def _seconds(folder: SweepDirectory, known_as: str) -> float:
    record = folder.finished(known_as)
    return record.seconds if record else 0.0


def _shower(progress: StageProgress) -> Callable[[SearchProgress], None]:
    def show(state: SearchProgress) -> None:
        best = f"best loss {state.best_loss:.3f}" if state.best_loss is not None else ""
        progress.update(state.evaluated, note=best)

    return show
