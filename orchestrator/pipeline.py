"""Running a recipe: the stages in order, each skipped if nothing it depends on has changed since it finished."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cluster.connect import ADDRESS_VARIABLE, ClusterInfo, Node, connect
from cluster.lease import RunLock
from cluster.resources import require_feasible, this_machine
from cluster.signals import orderly_stop
from cluster.storage import disk_errors, readable_bytes, require_free_space
from orchestrator.formatting import plural
from orchestrator.plan import Plan, PlannedStage
from orchestrator.progress import Progress
from orchestrator.recipe import Recipe, signature
from orchestrator.results import ResultsWriter
from orchestrator.results_url import shown_url
from orchestrator.run_directory import RunDirectory, StageRecord
from orchestrator.run_space import run_space
from orchestrator.stages import stages_of
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.teacher import teacher_source
from orchestrator.stages.training import remove_abandoned
from orchestrator.summarise import summarise
from orchestrator.summary import RunSummary


def plan_recipe(recipe: Recipe, run_dir: Path) -> Plan:
    """Validate everything that can be before anything runs, and say what each stage would do.

    Args:
        recipe: validated by itself.
        run_dir: the run folder; need not exist.

    Raises:
        ValueError: one of the packages' errors for a user's mistake.
    """
    plan = checked_plan(recipe, run_dir)
    notes = []
    address = _address_to_join(recipe)
    if address is not None:
        notes.append(f"resources were not checked against the cluster at {address}; the run does it")
    if recipe.results.url is not None:
        place = shown_url(recipe.results.url)
        notes.append(f"the tables go to {place}; whether that can be written to was not checked; the run does it first")
    stages, unchecked = planned_stages(plan, [stage.name for stage in stages_of(recipe)])
    answer = Plan(recipe.name, str(plan.folder.path), tuple(stages), tuple(notes + unchecked))
    if answer.disk_bytes:
        require_free_space(plan.folder.path, answer.disk_bytes, f"the run '{recipe.name}'")
    return answer


def planned_stages(plan: RunPlan, names: Sequence[str]) -> tuple[list[PlannedStage], list[str]]:
    """What some stages of a run would do, in order, and what nobody could check of them."""
    signatures = stage_signatures(plan)
    stages: list[PlannedStage] = []
    notes: list[str] = []
    for stage in stages_of(plan.recipe):
        if stage.name in names:
            stages.append(_planned(stage, plan, signatures[stage.name]))
            notes += stage.unchecked(plan) if stages[-1].action != "skip" else []
    return stages, notes


def prepare_run(
    plan: RunPlan, names: Sequence[str], progress: Progress, before: Callable[[], None] = lambda: None
) -> dict[str, Mapping[str, Any]]:
    """Run or skip some stages of a recipe, and leave a run folder that :func:`run_recipe` goes on with.

    Args:
        plan: of the run, checked.
        names: the stages; those that they build on have to be among them.
        progress: shows a person how it goes.
        before: what may bring finished stages into the run folder, which is open and locked by then.

    Returns:
        For each of them its outputs and its ``signature``.

    Raises:
        ValueError, RuntimeError: as :func:`run_recipe`.
    """
    with ExitStack() as stack:
        stack.enter_context(RunLock(plan.folder.path))
        described = plan.folder.open(plan.recipe)
        results = stack.enter_context(ResultsWriter(plan.folder.results, described["run_id"]))
        before()
        return _Run(plan, described, results, progress, stack).run(names)


def run_recipe(recipe: Recipe, run_dir: Path, progress: Progress) -> RunSummary:
    """Run a recipe to its end, or go on with it where it was left.

    Args:
        recipe: validated by itself.
        run_dir: the run folder; made if absent.
        progress: shows a person how it goes.

    Raises:
        ValueError: one of the packages' errors for a user's mistake; nothing has run then.
        RuntimeError: one of the packages' errors for a failure; what was measured is kept.
        Interrupted: the run was stopped by a signal; the same command goes on.
    """
    started = time.monotonic()
    plan = checked_plan(recipe, run_dir)
    folder = plan.folder
    with ExitStack() as stack:
        stack.enter_context(orderly_stop())
        stack.enter_context(disk_errors(folder.path))
        folder.path.mkdir(parents=True, exist_ok=True)
        stack.enter_context(RunLock(folder.path))
        described = folder.open(recipe)
        results = stack.enter_context(ResultsWriter(folder.results, described["run_id"]))
        _Run(plan, described, results, progress, stack).run()
        results.flush()
        return summarise(plan, time.monotonic() - started)


class _Run:
    """One attempt at a run."""

    def __init__(
        self,
        plan: RunPlan,
        described: Mapping[str, Any],
        results: ResultsWriter,
        progress: Progress,
        stack: ExitStack,
    ) -> None:
        self.plan = plan
        self.described = described
        self.results = results
        self.progress = progress
        self.stack = stack
        self.cluster: ClusterInfo | None = None

    def run(self, names: Sequence[str] | None = None) -> dict[str, Mapping[str, Any]]:
        """Run or skip every stage, or those that are named; gives what they leave for others."""
        stages = [stage for stage in stages_of(self.plan.recipe) if names is None or stage.name in names]
        signatures = stage_signatures(self.plan)
        outputs: dict[str, Mapping[str, Any]] = {}
        self.progress.begin([stage.name for stage in stages])
        for stage in stages:
            record = _finished(stage, self.plan, signatures[stage.name])
            if record is not None:
                self.progress.skip(stage.name)
                self._log(stage, signatures[stage.name], "skipped", None, record.detail)
            else:
                record = self._run_stage(stage, signatures[stage.name], outputs)
            outputs[stage.name] = {**record.outputs, "signature": record.signature}
        return outputs

    def _run_stage(self, stage: Stage, stage_signature: str, outputs: Mapping[str, Mapping[str, Any]]) -> StageRecord:
        started = time.monotonic()
        self.plan.folder.forget_stage_record(stage.name)  # from here on its old files may be half replaced
        self._log(stage, stage_signature, "started", None, "")
        try:
            with self.progress.stage(stage.name) as stage_progress:
                context = RunContext(self.plan, self.results, self._connected(), stage_signature, outputs)
                result: StageResult = stage.run(context, stage_progress)
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            detail = f"{type(error).__name__}: {error}".splitlines()[0]
            self._log(stage, stage_signature, status, time.monotonic() - started, detail)
            raise
        seconds = time.monotonic() - started
        self._log(stage, stage_signature, "finished", seconds, result.detail)
        self.results.flush()
        record = StageRecord(stage_signature, result.detail, seconds, dict(result.outputs))
        self.plan.folder.write_stage_record(stage.name, record)
        stage.clean_up(context)
        self._remove_abandoned(stage)
        return record

    def _remove_abandoned(self, stage: Stage) -> None:
        """Nobody goes on from a start under other settings once the stage has finished under these."""
        count, size = remove_abandoned(self.plan.folder, stage.name)
        if count:
            self.progress.message(
                f"      removed {plural(count, 'folder')} ({readable_bytes(size)}) that starts of this stage under "
                f"other settings had left in training/"
            )

    def _connected(self) -> ClusterInfo:
        """Ray, started or joined when the first stage that is not skipped needs it."""
        if self.cluster is None:
            settings = self.plan.recipe.cluster
            self.cluster = self.stack.enter_context(connect(settings.address, num_cpus=settings.num_cpus))
            _require_resources(self.plan, self.cluster.nodes)
        return self.cluster

    def _log(self, stage: Stage, stage_signature: str, status: str, seconds: float | None, detail: str) -> None:
        self.results.append(
            "runs",
            attempt=self.described["attempt"],
            recipe=self.plan.recipe.name,
            recipe_signature=self.described["recipe_signature"],
            stage=stage.name,
            stage_signature=stage_signature,
            status=status,
            seconds=seconds,
            detail=detail,
            host=socket.gethostname(),
            pid=os.getpid(),
            netsuke_version=self.described["netsuke_version"],
            torch_version=version("torch"),
            ray_version=version("ray"),
        )


def stage_signatures(plan: RunPlan) -> dict[str, str]:
    """The signature of every stage: its name and version, what it depends on, and its inputs' signatures."""
    signatures: dict[str, str] = {}
    for stage in stages_of(plan.recipe):
        inputs = [signatures[name] for name in stage.inputs_for(plan)]
        signatures[stage.name] = signature(stage.name, stage.version, list(stage.depends_on(plan)), inputs)
    return signatures


def checked_plan(recipe: Recipe, run_dir: Path) -> RunPlan:
    """Everything that is known before anything runs, after every stage has checked what it can.

    Args:
        recipe: validated by itself.
        run_dir: the run folder; need not exist.

    Raises:
        ValueError: one of the packages' errors for a user's mistake.
    """
    shape = teacher_source(recipe).shape()
    folder = RunDirectory(run_dir)
    plan = RunPlan(recipe, folder, shape, run_space(recipe, shape, folder))
    plan.folder.check(recipe)
    for stage in stages_of(recipe):
        stage.check(plan)
    if _address_to_join(recipe) is None:
        _require_resources(plan, this_machine(recipe.cluster.num_cpus))
    return plan


def _address_to_join(recipe: Recipe) -> str | None:
    """The cluster that a run would join, by its recipe or, as jobs that were submitted, by its surroundings."""
    address = recipe.cluster.address or os.environ.get(ADDRESS_VARIABLE)
    return None if address == "local" else address


def _finished(stage: Stage, plan: RunPlan, stage_signature: str) -> StageRecord | None:
    record = plan.folder.stage_record(stage.name)
    if record is None or record.signature != stage_signature or not stage.is_complete(plan):
        return None
    return record


def _planned(stage: Stage, plan: RunPlan, stage_signature: str) -> PlannedStage:
    planned = stage.planned(plan)
    if _finished(stage, plan, stage_signature) is not None:
        return replace(planned, action="skip", reason="nothing changed since it finished")
    folder = plan.folder
    started = [folder.training / f"{stage.name}-{stage_signature}", folder.search(stage_signature)]
    if stage.resumable and any(path.exists() for path in started):
        return replace(planned, action="resume", reason="an interrupted start left its state")
    return planned


def _require_resources(plan: RunPlan, nodes: Sequence[Node]) -> None:
    for stage in stages_of(plan.recipe):
        request = stage.requests(plan)
        if request is not None:
            require_feasible(request, nodes)
