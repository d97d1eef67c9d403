"""``netsuke run``: the whole way from a recipe to exported students."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import JsonOption, console, new_table, only_results_on_stdout, print_json
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.plan import Plan
    from orchestrator.recipe import Recipe
    from orchestrator.summary import RunSummary


def run(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="name of a shipped recipe, or path of a YAML file")
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="change a key: supernet.steps=200; may be repeated"),
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", metavar="DIR", help="the run folder; default: runs/<recipe name>")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything and print what would happen, then end")
    ] = False,
    as_json: JsonOption = False,
    list_them: Annotated[bool, typer.Option("--list", help="list the shipped recipes and end")] = False,
) -> None:
    """Run a recipe, or go on with it.

    A run folder that exists is continued: finished stages are skipped, interrupted ones resume.
    """
    if list_them:
        _list(as_json)
        return
    if not recipe:
        raise UserError("RECIPE: missing; expected a shipped recipe (netsuke run --list) or the path of a YAML file")
    from orchestrator.recipe import load_recipe

    loaded = load_recipe(recipe, settings or ())
    folder = run_dir or Path("runs") / loaded.name
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--run-dir {folder}: found a file, expected a folder or a new name")
    with only_results_on_stdout() if as_json else nullcontext():
        answer = _plan(loaded, folder) if dry_run else _run(loaded, folder, as_json)
    if as_json:
        print_json(answer.as_dict())
    else:
        _print(answer)


def _plan(recipe: Recipe, folder: Path) -> Plan:
    from orchestrator.pipeline import plan_recipe

    return plan_recipe(recipe, folder)


def _run(recipe: Recipe, folder: Path, silently: bool) -> RunSummary:
    from orchestrator.pipeline import run_recipe
    from orchestrator.progress import Progress

    return run_recipe(recipe, folder, Progress("silent" if silently else "auto"))


def _print(answer: Plan | RunSummary) -> None:
    from orchestrator.cli.plan_view import print_plan
    from orchestrator.cli.summary import print_summary
    from orchestrator.plan import Plan

    if isinstance(answer, Plan):
        print_plan(answer)
    else:
        print_summary(answer)


def _list(as_json: bool) -> None:
    from orchestrator.recipe import list_recipes

    recipes = list_recipes()
    if as_json:
        print_json([{"name": recipe.name, "description": recipe.description} for recipe in recipes])
        return
    table = new_table("", "recipe", "what it is for")
    for recipe in recipes:
        table.add_row(recipe.name, recipe.description)
    console().print(table)
