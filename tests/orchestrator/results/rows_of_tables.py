"""Rows to write in tests: microscopic but complete, for any table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from orchestrator.results.columns import FLAG, GENES, INTEGER, REAL, TEXT, TIME
from orchestrator.results.schemas import TABLES

_EXAMPLES: dict[Any, Any] = {
    TEXT: "M, F und S3 – größer",
    INTEGER: 2**40,
    REAL: 0.125,
    FLAG: True,
    TIME: datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    GENES: {"hidden_size": "192", "operations": "S3-M"},
}

_ANY_VALUE: dict[Any, st.SearchStrategy[Any]] = {
    TEXT: st.text(st.characters(exclude_categories=["Cs"])),
    INTEGER: st.integers(-(2**63), 2**63 - 1),
    REAL: st.floats(),
    FLAG: st.booleans(),
    TIME: st.datetimes(datetime(1600, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)),
    GENES: st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3),
}


def complete_row(table: str) -> dict[str, Any]:
    """A value in every column."""
    return {column.name: _EXAMPLES[column.type] for column in TABLES[table].columns}


def smallest_row(table: str) -> dict[str, Any]:
    """A value in the required columns only, and none in those that the writer fills in."""
    return {
        column.name: _EXAMPLES[column.type]
        for column in TABLES[table].columns
        if column.required and column.name not in ("run_id", "recorded_at")
    }


@st.composite
def any_row(draw: st.DrawFn, table: str) -> dict[str, Any]:
    """Any row that a table takes, with cells left empty where that is allowed."""
    row = {}
    for column in TABLES[table].columns:
        values = _ANY_VALUE[column.type]
        row[column.name] = draw(values if column.required else st.none() | values)
    return row
