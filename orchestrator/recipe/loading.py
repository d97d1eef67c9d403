"""Reading recipes: shipped ones by name, others by path, with overrides, and one line for each mistake.

Relative paths in a recipe file start at the folder of that file; those in a shipped recipe or in an override start at
the working folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.errors import UserError
from orchestrator.recipe.keys import nearest
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.overrides import apply_overrides, parse_override
from orchestrator.recipe.problems import Origin, describe_problems, describe_value
from orchestrator.recipe.sources import resolve_corpus_source, resolve_path, resolve_task_data, resolve_teacher_source
from orchestrator.recipe.yaml_text import KeyPath, YamlTextError, parse_document

_LARGEST_FILE = 1_000_000
_ENDINGS = (".yaml", ".yml")
AnySection = TypeVar("AnySection", bound=BaseModel)
_PATH_KEYS: dict[tuple[str, ...], Callable[[str, Path], str]] = {
    ("teacher", "source"): resolve_teacher_source,
    ("teacher", "pretraining", "vocabulary"): resolve_path,
    ("corpus", "source"): resolve_corpus_source,
    ("corpus", "validation_source"): resolve_corpus_source,
    ("tables", "latency", "table"): resolve_path,
    ("finetuning", "data"): resolve_task_data,
}


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe that comes with netsuke: its name and its one-line description."""

    name: str
    description: str


def list_recipes() -> list[ShippedRecipe]:
    """The recipes that come with netsuke, by name."""
    shipped = []
    for name, file in sorted(_shipped().items()):
        value = parse_document(file.read_text(encoding="utf-8")).value
        shipped.append(ShippedRecipe(name, str(value.get("description", ""))))
    return shipped


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
    text, file, folder, stem = _read(name_or_path)
    changes = [parse_override(override) for override in overrides]
    try:
        document = parse_document(text)
    except YamlTextError as problem:
        raise UserError(f"{file}:{problem.line}: {problem}") from problem
    if not isinstance(document.value, dict):
        found = describe_value(document.value)
        raise UserError(f"{file}:1: found {found}, expected keys such as 'teacher:'; see netsuke run --list")
    data, paths = apply_overrides({"name": stem} | document.value, changes)
    origin = Origin(file, document.lines, list(zip(paths, (change.text for change in changes), strict=True)))
    try:
        recipe = Recipe.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise UserError("\n".join(describe_problems(error, origin))) from None
    _check_plugins(recipe, origin)
    return _with_absolute_paths(recipe, folder, overrides_folder or Path.cwd(), origin)


def _shipped() -> dict[str, Traversable]:
    folder = resources.files("orchestrator") / "recipes"
    files = folder.iterdir() if folder.is_dir() else iter(())
    return {file.name.removesuffix(".yaml"): file for file in files if file.name.endswith(".yaml")}


def _read(name_or_path: str) -> tuple[str, str, Path, str]:
    """Text, shown name, folder of relative paths, and default name of a recipe."""
    shipped = _shipped()
    if name_or_path in shipped:
        text = shipped[name_or_path].read_text(encoding="utf-8")
        return text, f"{name_or_path}.yaml", Path.cwd(), name_or_path
    path = Path(name_or_path).expanduser()
    if not path.exists() and path.suffix not in _ENDINGS and path.name == name_or_path:
        near = nearest(name_or_path, shipped)
        hint = f"did you mean {near!r}? " if near else ""
        known = ", ".join(sorted(shipped))
        raise UserError(f"no recipe {name_or_path!r}: {hint}expected a YAML file or one of the shipped ones: {known}")
    return read_text_file(path, name_or_path), name_or_path, path.resolve().parent, path.stem


def read_text_file(path: Path, shown: str) -> str:
    """The text of a recipe file or sweep file.

    Raises:
        UserError: there is no such file, or it is no text of a reasonable size.
    """
    if path.is_dir():
        raise UserError(f"{shown}: found a folder, expected a recipe file (YAML)")
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{shown}: found {path.stat().st_size} bytes, expected a recipe of at most {_LARGEST_FILE}")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{shown}: no such file, expected a recipe file (YAML)") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{shown}: found a byte that is not UTF-8 at {error.start}, expected a YAML text") from None
    except OSError as error:
        raise UserError(f"{shown}: not readable: {error.strerror}") from None


def _check_plugins(recipe: Recipe, origin: Origin) -> None:
    """Report spaces and strategies that nobody registered, while their line in the recipe is still known."""
    problems = []
    named: list[tuple[KeyPath, str, str]] = [(("space", "name"), recipe.space.name, "spaces")]
    for index, strategy in enumerate(recipe.search.strategies):
        named.append((("search", "strategies", index, "name"), strategy.name, "strategies"))
    for path, name, group in named:
        known = sorted({entry.name for entry in metadata.entry_points(group=f"netsuke.{group}")})
        if known and name not in known:
            problems.append(f"{origin.where(path)}: {'.'.join(map(str, path))}: {_unknown_name(name, known)}")
    if problems:
        raise UserError("\n".join(problems))


def _unknown_name(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f"found {name!r}, expected one of {', '.join(known)}{f'; did you mean {near!r}?' if near else ''}"


def _with_absolute_paths(recipe: Recipe, folder: Path, overrides_folder: Path, origin: Origin) -> Recipe:
    for path, resolve in _PATH_KEYS.items():
        start = overrides_folder if origin.override_of(path) is not None else folder
        recipe = _with_resolved(recipe, path, start, resolve)
    return recipe


def _with_resolved(
    section: AnySection, path: Sequence[str], start: Path, resolve: Callable[[str, Path], str]
) -> AnySection:
    """The section with the value at ``path`` resolved, if there is one."""
    key, *rest = path
    value = getattr(section, key)
    if value is None:
        return section
    return section.model_copy(
        update={key: _with_resolved(value, rest, start, resolve) if rest else resolve(value, start)}
    )
