"""What a sweep's run takes over from another run that has finished the same stages."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.pipeline import stage_signatures
from orchestrator.results.parts import copy_parts, new_part_name, read_parts, write_part
from orchestrator.results.schemas import TABLES
from orchestrator.results.storage import Folder
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.base import RunPlan

_FOLDERS: dict[str, tuple[str, ...]] = {
    "teacher": ("teacher",),
    "corpus": ("corpus",),
    "task_teachers": ("finetuned/teacher",),
    "supernet": ("supernet",),
}
"""The folders that the stages which searches build on leave in a run folder, besides their records."""

_TABLES: dict[str, tuple[str, ...]] = {
    "latency": ("latency", "latency_terms"),
    "task_teachers": ("task_scores",),
    "supernet": ("shrinking",),
    "block_losses": ("block_losses", "signals"),
}
"""The tables that these stages leave rows in."""


def adoptable(plan: RunPlan, source: RunDirectory, names: Sequence[str]) -> list[str]:
    """The stages that another run has finished just as this one would, and this one has not.

    Args:
        plan: of the run.
        source: the other run's folder.
        names: the stages to look at.
    """
    signatures, found = stage_signatures(plan), []
    for name in names:
        theirs, own = source.stage_record(name), plan.folder.stage_record(name)
        is_done = own is not None and own.signature == signatures[name]
        if theirs is not None and theirs.signature == signatures[name] and not is_done:
            found.append(name)
    return found


def adopt(plan: RunPlan, source: RunDirectory, names: Sequence[str]) -> list[str]:
    """Copy into a run what another run has finished of the same stages, so that nothing is computed twice.

    Args:
        plan: of the run, which has been opened: its tables have their place.
        source: the other run's folder.
        names: stages, see :func:`adoptable`.

    Returns:
        The stages that were taken over.

    Raises:
        RunError: a table cannot be read there, or written here.
    """
    taken = adoptable(plan, source, names)
    for name in taken:
        for folder in _FOLDERS.get(name, ()):
            if (source.path / folder).exists():
                shutil.copytree(source.path / folder, plan.folder.path / folder, dirs_exist_ok=True)
        for table in _TABLES.get(name, ()):
            copy_parts(source.results / table, plan.folder.results / table)
        record = source.stage_record(name)
        assert record is not None
        _copy_beginnings(name, record.signature, source.results, plan.folder.results)
        plan.folder.write_stage_record(name, record)
    return taken


def _copy_beginnings(stage: str, signature: str, source: Folder, target: Folder) -> None:
    """Copy what the table ``runs`` tells of a stage, else its rows seem older than its settings: superseded."""
    runs = read_parts(source / "runs", TABLES["runs"])
    rows = runs.filter(pc.and_(pc.equal(runs["stage"], stage), pc.equal(runs["stage_signature"], signature)))
    if rows.num_rows:
        folder = target / "runs"
        folder.make()
        began_ns = pc.min(rows["recorded_at"]).cast(pa.timestamp("ns", rows["recorded_at"].type.tz)).value
        write_part(folder, new_part_name(began_ns), rows)
