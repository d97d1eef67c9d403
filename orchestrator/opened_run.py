"""A run folder opened by a command: what the run has made so far, and the right to add to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.connect import ClusterInfo, connect
from cluster.lease import RunLock
from cluster.resources import ResourceRequest, require_feasible
from cluster.signals import orderly_stop
from cluster.storage import disk_errors
from orchestrator.errors import UserError
from orchestrator.latency_table import LatencyTable
from orchestrator.recipe import Recipe, load_recipe
from orchestrator.results import ResultsWriter
from orchestrator.run_directory import RunDirectory
from orchestrator.run_space import run_space
from spaces.space import SearchSpace
from trainers.teacher import TeacherSource


@dataclass(frozen=True)
class OpenedRun:
    """What a run has made so far.

    Attributes:
        recipe: the resolved one of the last start.
        folder: the run folder.
        run_id: of the run.
        space: fits the teacher.
        supernet_signature: of the trained supernet.
        latency: the latency table, if it has been measured.
    """

    recipe: Recipe
    folder: RunDirectory
    run_id: str
    space: SearchSpace[Any]
    supernet_signature: str
    latency: LatencyTable | None


def open_run(run_dir: Path) -> OpenedRun:
    """Read a run folder whose supernet is trained; later stages may be undone, or under way in no process.

    Raises:
        UserError: the folder holds no run, or none whose supernet is trained.
    """
    folder = RunDirectory(run_dir)
    described = folder.read()
    file = folder.path / "recipe.yaml"
    if described is None or not file.is_file():
        raise UserError(f"{run_dir}: found a folder without a run (no run.json), expected one that netsuke run made")
    recipe = load_recipe(str(file))
    supernet = folder.stage_record("supernet")
    if supernet is None or not folder.supernet_weights.is_file():
        raise UserError(
            f"{run_dir}: found a run without a trained supernet, expected one that is past the stage 'supernet'; go on "
            f"with it first: netsuke run {recipe.name} --run-dir {run_dir}"
        )
    shape = TeacherSource(str(folder.teacher)).shape()
    space = run_space(recipe, shape, folder)
    latency = folder.stage_record("latency")
    table = None if latency is None else LatencyTable.from_json(latency.outputs["latency_table"])
    return OpenedRun(recipe, folder, described["run_id"], space, supernet.signature, table)


@contextmanager
def writing_to(run: OpenedRun) -> Iterator[ResultsWriter]:
    """Hold the run's lock and write to its tables; the first signal ends the block in order.

    Raises:
        ClusterUserError: another process holds the lock.
    """
    with ExitStack() as stack:
        stack.enter_context(orderly_stop())
        stack.enter_context(disk_errors(run.folder.path))
        stack.enter_context(RunLock(run.folder.path))
        yield stack.enter_context(ResultsWriter(run.folder.results, run.run_id))


@contextmanager
def ray_for(run: OpenedRun, request: ResourceRequest) -> Iterator[ClusterInfo]:
    """Start or join Ray as the run itself does.

    Raises:
        ClusterUserError: the cluster has no room for what is requested.
    """
    settings = run.recipe.cluster
    with connect(settings.address, num_cpus=settings.num_cpus) as cluster:
        require_feasible(request, cluster.nodes)
        yield cluster
