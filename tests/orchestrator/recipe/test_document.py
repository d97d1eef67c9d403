from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from orchestrator.recipe import document, load_recipe
from orchestrator.recipe.keys import all_keys, field_at
from orchestrator.strategies.registry import strategy_class, strategy_names
from spaces.registry import space_class

PAGE = Path(__file__).parents[3] / "docs" / "recipe.md"


@cache
def page() -> str:
    return document.document()


def rows(title: str) -> dict[str, list[str]]:
    """The cells of a section's table by key, without the mark of keys that do not change the result."""
    section = page().split(f"\n## {title}\n")[1].split("\n## ")[0].split("\n# ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {cells[0].split("`")[1]: cells for cells in lines}


def test_the_page_in_the_repository_is_the_one_the_models_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == document.document(), f"run: {document.COMMAND}"


def test_the_command_prints_the_page() -> None:
    command = [sys.executable, "-m", "orchestrator.recipe.document"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == document.document()


@pytest.mark.parametrize("key", list(all_keys()))
def test_every_key_of_a_recipe_is_described(key: str) -> None:
    section, _, name = key.replace(".0", ".<n>").rpartition(".")
    cells = rows(f"`{section}`" if section else "The whole")[name]
    assert len(cells) == 4
    assert all(cells)
    path = tuple(int(part) if part.isdigit() else part for part in key.split("."))
    field = field_at(path)
    assert field is not None
    assert cells[3].replace("&lt;", "<") == field.description


def test_every_option_of_space_and_strategies_is_described() -> None:
    for name in ("components", "efficient_bert", "nas_bert"):
        options = space_class(name).options_class
        assert options is not None
        assert set(rows(f"Space `{name}`")) == {option.name for option in fields(options)} - {"shape"}
    for name in strategy_names():
        assert set(rows(f"Strategy `{name}`")) == set(strategy_class(name).options_class.model_fields)


@pytest.mark.parametrize(
    ("section", "key", "type_name", "default"),
    [
        ("The whole", "name", "text", "the file's name"),
        ("`supernet`", "steps", "whole number, at least 1", "`100`"),
        ("`supernet`", "init", "one of `teacher`, `paper`", "`teacher`"),
        ("`distillation`", "gradient_clip", "number, above 0, at most 1,000,000, or null", "`1.0`"),
        ("`budgets.<n>`", "name", "text", "required"),
        ("`budgets.<n>`", "latency_ms", "latency, or null", "`null`"),
        ("The whole", "budgets", "list of sections", "`[{name: half, encoder_parameters: 50%}]`"),
        ("Space `nas_bert`", "hidden_sizes", "list of whole numbers", "`[128, 192, 256, 384, 512]`"),
        ("Space `efficient_bert`", "max_nodes", "whole number, at least 6, at most 20, or null", "`9`"),
        ("Space `efficient_bert`", "parameter_window", "list of 2 whole numbers, or null", "`null`"),
        ("Space `efficient_bert`", "parallel", "`true` or `false`", "`false`"),
    ],
)
def test_types_and_defaults_are_readable(section: str, key: str, type_name: str, default: str) -> None:
    assert rows(section)[key][1:3] == [type_name, default]


def test_keys_that_do_not_change_the_result_are_marked() -> None:
    assert rows("`supernet`")["report_every"][0] == "`report_every` †"
    assert rows("`supernet`")["steps"][0] == "`steps`"


def test_defaults_on_the_page_are_those_a_recipe_gets(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("teacher:\n", encoding="utf-8")
    recipe = load_recipe(str(file))
    assert rows("`corpus`")["sequence_length"][2] == f"`{recipe.corpus.sequence_length}`"
    assert rows("`distillation`")["learning_rate"][2] == f"`{recipe.distillation.learning_rate}`"
