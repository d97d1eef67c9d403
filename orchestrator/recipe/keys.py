"""Which keys a recipe has, read off its models: for suggestions, defaults and error messages."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from orchestrator.recipe.models import Recipe
from orchestrator.recipe.yaml_text import KeyPath


def section_at(path: KeyPath, root: type[BaseModel] = Recipe) -> type[BaseModel] | None:
    """The model of the section at ``path`` below ``root``; ``None`` where there is none."""
    section = root
    for part in path:
        if isinstance(part, int):
            continue
        inner = _section_of(section.model_fields[part]) if part in section.model_fields else None
        if inner is None:
            return None
        section = inner
    return section


def field_at(path: KeyPath, root: type[BaseModel] = Recipe) -> FieldInfo | None:
    """The field at ``path``; an entry of a list is its list's field. ``None`` where there is none."""
    named = path[:-1] if path and isinstance(path[-1], int) else path
    if not named or isinstance(named[-1], int):
        return None
    section = section_at(named[:-1], root)
    return section.model_fields.get(named[-1]) if section else None


def default_list(path: KeyPath) -> list[typing.Any] | None:
    """The plain default of the list at ``path``; ``None`` where there is no list."""
    field = field_at(path)
    if field is None or typing.get_origin(field.annotation) is not tuple:
        return None
    default = field.get_default(call_default_factory=True, validated_data={})
    if not isinstance(default, tuple):
        return []
    return [entry.model_dump(mode="json") if isinstance(entry, BaseModel) else entry for entry in default]


def suggest_key(path: KeyPath, root: type[BaseModel] = Recipe) -> str:
    """How to go on from the unknown key at the end of ``path``: the nearest key, or all that exist there."""
    section = section_at(path[:-1], root)
    if section is None:
        return ""
    key = str(path[-1])
    if near := nearest(key, section.model_fields):
        return f"did you mean {near!r}?"
    elsewhere = [dotted for dotted in all_keys(root) if dotted.rpartition(".")[2] == key]
    elsewhere.sort(key=_is_in_a_list)
    if elsewhere:
        return f"did you mean {' or '.join(map(repr, elsewhere[:3]))}?"
    return f"keys here: {', '.join(section.model_fields)}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` most likely means, if any is near."""
    normal = {name.lower().replace("-", "_"): name for name in known}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), normal, n=1, cutoff=0.6)
    return normal[close[0]] if close else None


def all_keys(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Every key of a recipe with its dots, such as ``budgets.0.name``; sections come before their own keys."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        inner = _section_of(field)
        if inner is not None:
            index = "0." if typing.get_origin(field.annotation) is tuple else ""
            yield from all_keys(inner, f"{prefix}{name}.{index}")


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model behind a field: its own type, or the type of its list's entries."""
    for candidate in (field.annotation, *typing.get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _is_in_a_list(dotted: str) -> bool:
    """Whether a key is one of a list's entries: fewer people mean those."""
    return any(part.isdigit() for part in dotted.split("."))
