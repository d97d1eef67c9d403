from __future__ import annotations

from pathlib import Path

from orchestrator.sweep import document

PAGE = Path(__file__).parents[3] / "docs" / "sweep.md"


def test_the_page_in_the_repository_is_the_one_the_models_give():
    assert PAGE.read_text(encoding="utf-8") == document.document(), f"run: {document.COMMAND}"


def test_every_key_has_a_meaning():
    rows = [line for line in document.document().splitlines() if line.startswith("| `")]
    assert {"`spaces`", "`strategies`", "`seeds`", "`label`", "`encoder_parameters`"} <= {
        row.split()[1] for row in rows
    }
    assert all(cell.strip() for row in rows for cell in row.strip("|").split("|")[:4])
