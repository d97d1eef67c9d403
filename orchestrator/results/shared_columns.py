"""Columns that several results tables share, and what every table begins with."""

from __future__ import annotations

from orchestrator.results.columns import INTEGER, TEXT, TIME, Column, Table

_RUN_ID = Column("run_id", TEXT, "", "the run the row belongs to", required=True)
_RECORDED_AT = Column("recorded_at", TIME, "", "when the row was recorded (UTC)", required=True)
ARCHITECTURE = (
    Column("arch_id", TEXT, "", "short hash of the architecture's canonical text"),
    Column("architecture", TEXT, "", "the architecture's canonical text"),
)
PARAMETERS = Column(
    "parameters", INTEGER, "1", "weights of the stand-alone model, embeddings included, without a masked-LM head"
)
ENCODER_PARAMETERS = Column("encoder_parameters", INTEGER, "1", "weights behind the embeddings")


def measured_table(name: str, row: str, *columns: Column, key: tuple[str, ...] = ()) -> Table:
    """A table whose rows say which run they belong to, and when they were recorded.

    Args:
        name: of the table.
        row: what one row is.
        columns: besides these two.
        key: columns that tell rows apart; later rows of the same key take the place of earlier ones.
    """
    return Table(name, row, (_RUN_ID, _RECORDED_AT, *columns), key)
