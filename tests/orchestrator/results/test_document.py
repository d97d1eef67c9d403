from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.results import SCHEMA_VERSION, TABLES, document

PAGE = Path(__file__).parents[3] / "docs" / "results.md"


def test_the_page_in_the_repository_is_the_one_the_schemas_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == document.document(), f"run: {document.COMMAND}"


def test_the_command_prints_the_page() -> None:
    command = [sys.executable, "-m", "orchestrator.results.document"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == document.document()


def test_every_table_and_column_is_described() -> None:
    page = document.document()
    assert f"version {SCHEMA_VERSION}" in page
    for table in TABLES.values():
        section = page.split(f"\n## {table.name}\n")[1].split("\n## ")[0]
        assert table.row in section
        for column in table.columns:
            (row,) = [line for line in section.splitlines() if line.startswith(f"| `{column.name}` |")]
            assert column.description in row


def test_a_changed_meaning_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    before = document.document()
    models = TABLES["models"]
    changed = replace(models.columns[-1], description="a | b")
    monkeypatch.setitem(TABLES, "models", replace(models, columns=(*models.columns[:-1], changed)))
    assert document.document() != before
    assert r"a \| b" in document.document()
