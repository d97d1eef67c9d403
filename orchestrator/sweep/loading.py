"""Reading sweep files, and the recipes they make of their base: one line for each mistake, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from orchestrator.errors import UserError
from orchestrator.recipe import Recipe, ShippedRecipe, list_recipes, load_recipe
from orchestrator.recipe.problems import Origin, describe_problems
from orchestrator.recipe.shipped import YamlShelf
from orchestrator.recipe.yaml_text import KeyPath
from orchestrator.sweep.settings import Sweep

_SWEEPS = YamlShelf("sweep", ("recipes", "sweeps"), "strategies", "netsuke sweep --list")


@dataclass(frozen=True)
class LoadedSweep:
    """A sweep with where it was written.

    Attributes:
        sweep: validated.
        recipes: for each space, by its label, the base recipe as the sweep changes it.
        origin: of its keys, for error messages.
    """

    sweep: Sweep
    recipes: dict[str, Recipe]
    origin: Origin

    def mistake(self, path: KeyPath, error: ValueError) -> UserError:
        """An error about the value at ``path``, with its place in front."""
        return UserError(f"{self.origin.where(path)}: {'.'.join(map(str, path))}: {error}")


def list_sweeps() -> list[ShippedRecipe]:
    """The sweeps that come with netsuke, by name, with their descriptions."""
    return _SWEEPS.described()


def load_sweep(name_or_path: str) -> LoadedSweep:
    """Read and validate a sweep file, and the recipe of each of its spaces.

    Args:
        name_or_path: name of a shipped sweep, or path of a YAML file. Relative paths in a file start at its folder.

    Raises:
        UserError: there is no such sweep, or it or its recipe is wrong; one line for each problem.
    """
    found = _SWEEPS.find(name_or_path)
    origin = Origin(found.shown, found.document.lines, root=Sweep)
    try:
        sweep = Sweep.model_validate_json(json.dumps({"name": found.stem} | found.document.value))
    except ValidationError as error:
        raise UserError("\n".join(describe_problems(error, origin))) from None
    return LoadedSweep(sweep, _recipes(sweep, found.folder, origin), origin)


def _recipes(sweep: Sweep, folder: Path, origin: Origin) -> dict[str, Recipe]:
    """The base recipe with the sweep's changes, once for each space."""
    changes = [_override(key, value) for key, value in sweep.set.items()]
    changes += _overrides_of_axes(sweep)
    base = sweep.recipe
    if base not in {shipped.name for shipped in list_recipes()}:
        base = str(folder / Path(base).expanduser())
    if not sweep.spaces:
        recipe = _load(base, changes, folder, sweep, origin)
        return {recipe.space.name: recipe}
    recipes = {}
    for space in sweep.spaces:
        override = _override("space", {"name": space.name, "options": space.options})
        recipes[space.called] = _load(base, [*changes, override], folder, sweep, origin)
    return recipes


def _overrides_of_axes(sweep: Sweep) -> list[str]:
    """Changes that let the recipe's own checks look at the sweep's axes, too."""
    changes = []
    if sweep.objectives:
        changes.append(_override("search.objectives", list(sweep.objectives)))
    if sweep.budgets:
        changes.append(_override("budgets", [budget.model_dump(mode="json") for budget in sweep.budgets]))
    return changes


def _override(key: str, value: object) -> str:
    return f"{key}={json.dumps(value)}"  # JSON is YAML


def _load(base: str, changes: Sequence[str], folder: Path, sweep: Sweep, origin: Origin) -> Recipe:
    try:
        return load_recipe(base, changes, overrides_folder=folder)
    except UserError as error:
        by_text = {f"--set {_override(key, value)}": origin.where(("set", key)) for key, value in sweep.set.items()}
        message = str(error)
        for text, place in by_text.items():
            message = message.replace(text, place)
        message = message.replace("--set ", f"{origin.where(())}: ")
        raise UserError(message) from None
