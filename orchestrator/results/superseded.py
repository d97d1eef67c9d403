"""Which rows still count: what a stage measured under settings it no longer has does not.

A run folder is gone on with under a changed recipe. The stages that depend on the change run again, and rows whose key
comes again replace the older ones; but a longer training left rows at steps that the shorter one never reaches, and
a budget that was removed left a model. The table ``runs`` tells when each stage first began under its present
settings: rows it recorded before that are left out. They stay in the files.
"""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

TRAINING_STAGES = ("supernet", "selection", "distillation", "rank_fidelity")

RECORDING_STAGES: dict[str, tuple[str, dict[str, str], str]] = {
    "training": ("stage", {name: name for name in TRAINING_STAGES}, ""),
    "shrinking": ("rule", {}, "supernet"),
    "latency": ("kind", {"model": "evaluation"}, "latency"),
    "latency_terms": ("term", {}, "latency"),
    "selections": ("budget", {"rank_fidelity": "rank_fidelity"}, "selection"),
    "models": ("model", {}, "evaluation"),
    "task_scores": ("stage", {"task_teachers": "task_teachers"}, "finetuning"),
}
"""For each table whose rows can be superseded: a column, the stage that records rows by its value, and that of all
other rows. Evaluations are not among them: they name the supernet that scored them, and hold for it for ever."""

COLUMNS_OF_RUNS = ("stage", "stage_signature", "recorded_at")


def began(runs: pa.Table) -> dict[str, datetime]:
    """When each stage first began under the settings it was last started (or skipped) with.

    Args:
        runs: the table ``runs``, oldest row first, with at least :data:`COLUMNS_OF_RUNS`.
    """
    signatures: dict[str, str] = {}
    times: dict[str, datetime] = {}
    for row in runs.select(list(COLUMNS_OF_RUNS)).to_pylist():
        stage, signature = row["stage"], row["stage_signature"]
        if stage is not None and signatures.get(stage) != signature:
            signatures[stage], times[stage] = signature, row["recorded_at"]
    return times


def without_superseded(rows: pa.Table, table: str, times: dict[str, datetime]) -> pa.Table:
    """The rows that still count.

    Args:
        rows: of the table, with ``recorded_at`` and the table's column in :data:`RECORDING_STAGES`.
        table: its name.
        times: as :func:`began` gives them; a stage that is not in it has superseded nothing.
    """
    column, named, other = RECORDING_STAGES[table]
    # a phase's stage, such as supernet.sizes, records rows under its own name as the stage without phases does
    phases = {stage: stage for stage in times if named.get(stage.partition(".")[0]) == stage.partition(".")[0]}
    stages = named | phases
    if not times or rows.num_rows == 0:
        return rows
    kept = pa.array([True] * rows.num_rows)
    values = rows.column(column)
    is_named = pc.is_in(values, value_set=pa.array(list(stages), type=pa.string()))
    masks = [(pc.equal(values, value), stage) for value, stage in stages.items()] + [(pc.invert(is_named), other)]
    for mask, stage in masks:
        if stage in times:
            since = pa.scalar(times[stage], type=rows.schema.field("recorded_at").type)
            old = pc.and_(mask, pc.less(rows.column("recorded_at"), since))
            kept = pc.and_(kept, pc.invert(pc.fill_null(old, False)))
    return rows.filter(kept)
