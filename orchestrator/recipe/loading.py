"""Reading recipes: shipped ones by name, others by path, with overrides, and one line for each mistake.

Relative paths in a recipe file start at the folder of that file; those in a shipped recipe or in an override start at
the working folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.errors import UserError
from orchestrator.recipe.keys import nearest
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.overrides import apply_overrides, parse_override
from orchestrator.recipe.problems import Origin, describe_problems
from orchestrator.recipe.shipped import ShippedRecipe, YamlShelf
from orchestrator.recipe.sources import (
    resolve_corpus_source,
    resolve_path,
    resolve_task_data,
    resolve_task_teacher,
    resolve_teacher_source,
)
from orchestrator.recipe.yaml_text import KeyPath
from spaces.registry import space_names

AnySection = TypeVar("AnySection", bound=BaseModel)
_PATH_KEYS: dict[KeyPath, Callable[[str, Path], str]] = {
    ("teacher", "source"): resolve_teacher_source,
    ("teacher", "pretraining", "vocabulary"): resolve_path,
    ("corpus", "source"): resolve_corpus_source,
    ("corpus", "validation_source"): resolve_corpus_source,
    ("supernet", "inherit"): resolve_path,
    ("supernet", "oneshot", "start"): resolve_path,
    ("tables", "latency", "table"): resolve_path,
    ("finetuning", "data"): resolve_task_data,
}


_RECIPES = YamlShelf("recipe", ("recipes",), "teacher", "netsuke run --list")


def list_recipes() -> list[ShippedRecipe]:
    """The recipes that come with netsuke, by name."""
    return _RECIPES.described()


def load_recipe(name_or_path: str, overrides: Sequence[str] = (), overrides_folder: Path | None = None) -> Recipe:
    """Read and validate a recipe.

    Args:
        name_or_path: name of a shipped recipe, or path of a YAML file.
        overrides: changes such as ``supernet.steps=200`` or ``budgets.0.encoder_parameters=40%``.
        overrides_folder: where relative paths in overrides start; ``None``: at the working folder.

    Returns:
        the recipe with defaults filled in and paths made absolute.

    Raises:
        UserError: there is no such recipe, or it is wrong; one line for each problem.
    """
    found = _RECIPES.find(name_or_path)
    changes = [parse_override(override) for override in overrides]
    data, paths = apply_overrides({"name": found.stem} | found.document.value, changes)
    origin = Origin(
        found.shown, found.document.lines, list(zip(paths, (change.text for change in changes), strict=True))
    )
    try:
        recipe = Recipe.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise UserError("\n".join(describe_problems(error, origin))) from None
    _check_plugins(recipe, origin)
    return _with_absolute_paths(recipe, found.folder, overrides_folder or Path.cwd(), origin)


def _check_plugins(recipe: Recipe, origin: Origin) -> None:
    """Report spaces and strategies that nobody registered, while their line in the recipe is still known."""
    problems = []
    named: list[tuple[KeyPath, str, str]] = [(("space", "name"), recipe.space.name, "spaces")]
    for index, strategy in enumerate(recipe.search.strategies):
        named.append((("search", "strategies", index, "name"), strategy.name, "strategies"))
    for phase, settings in enumerate(recipe.phases):
        for index, strategy in enumerate(settings.strategies or ()):
            named.append((("phases", phase, "strategies", index, "name"), strategy.name, "strategies"))
    for path, name, group in named:
        installed = {entry.name for entry in metadata.entry_points(group=f"netsuke.{group}")}
        known = space_names() if group == "spaces" else sorted(installed)
        if known and name not in known:
            problems.append(f"{origin.where(path)}: {'.'.join(map(str, path))}: {_unknown_name(name, known)}")
    if problems:
        raise UserError("\n".join(problems))


def _unknown_name(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f"found {name!r}, expected one of {', '.join(known)}{f'; did you mean {near!r}?' if near else ''}"


def _with_absolute_paths(recipe: Recipe, folder: Path, overrides_folder: Path, origin: Origin) -> Recipe:
    paths: dict[KeyPath, Callable[[str, Path], str]] = {**_PATH_KEYS}
    for phase in range(len(recipe.phases)):
        paths["phases", phase, "training", "task_teacher"] = resolve_task_teacher
    for path, resolve in paths.items():
        start = overrides_folder if origin.override_of(path) is not None else folder
        recipe = _with_resolved(recipe, path, start, resolve)
    return recipe


def _with_resolved(
    section: AnySection, path: Sequence[str | int], start: Path, resolve: Callable[[str, Path], str]
) -> AnySection:
    """The section with the value at ``path`` resolved, if there is one; in a list of sections, of one of them."""
    key, *rest = path
    if isinstance(key, int):
        entries: list[Any] = list(section)
        entries[key] = _with_resolved(entries[key], rest, start, resolve)
        return tuple(entries)  # type: ignore[return-value]
    value = getattr(section, key)
    if value is None:
        return section
    return section.model_copy(
        update={key: _with_resolved(value, rest, start, resolve) if rest else resolve(value, start)}
    )
