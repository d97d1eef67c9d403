"""Turning what validation found into lines a person can act on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.recipe.keys import field_at, nearest, suggest_key
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.yaml_text import KeyPath
from orchestrator.results_url import without_keys

_EXPECTED_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text; put it in quotes",
    "tuple_type": "a list",
    "model_type": "a section with keys of its own",
    "model_attributes_type": "a section with keys of its own",
    "dict_type": "a section with keys of its own",
}
_BOUNDS = {
    "greater_than": ("gt", "more than {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "at most {}"),
    "too_short": ("min_length", "at least {} entry"),
    "string_too_short": ("min_length", "at least {} character"),
    "string_too_long": ("max_length", "at most {} characters"),
}


@dataclass(frozen=True)
class Origin:
    """Where the values of a recipe were written.

    Attributes:
        file: the recipe file's name, as the person knows it.
        lines: line of each key in the file, counted from 1.
        overrides: (path, text behind ``--set``) of each override, in the order in which they were applied.
        root: the model whose keys the file has.
    """

    file: str
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overrides: Sequence[tuple[KeyPath, str]] = ()
    root: type[BaseModel] = Recipe

    def override_of(self, path: KeyPath) -> str | None:
        """The override that wrote the value at ``path``, if one did."""
        for changed, text in reversed(self.overrides):
            if path[: len(changed)] == changed or (path not in self.lines and changed[: len(path)] == path):
                return text
        return None

    def where(self, path: KeyPath) -> str:
        """``recipe.yaml:12`` or ``--set key=value``; of a missing key, the place of its section."""
        if path and (text := self.override_of(path)) is not None:
            return f"--set {without_keys(text)}"
        line = self.line_of(path)
        return f"{self.file}:{line}" if line else self.file

    def line_of(self, path: KeyPath) -> int:
        """The line of the key at ``path``, else of the nearest section around it; 0 where the file has neither."""
        known = (path[:length] for length in range(len(path), -1, -1) if path[:length] in self.lines)
        return self.lines[next(known)] if self.lines else 0


def describe_problems(error: ValidationError, origin: Origin) -> list[str]:
    """One line for each problem: place, key, what was found, what was expected, and the nearest key or value.

    The lines come in the order of the file.
    """
    lines: list[tuple[int, str]] = []
    found = error.errors(include_url=False)
    for details in found:
        if _is_an_echo(details, found):
            continue
        for path, message in _problems(details, origin.root):
            dotted = ".".join(map(str, path))
            line = f"{origin.where(path)}: {f'{dotted}: ' if dotted else ''}{message}"
            lines.append((origin.line_of(path), " ".join(line.split())))
    return list(dict.fromkeys(line for _, line in sorted(lines, key=lambda numbered: numbered[0])))


def describe_value(value: Any) -> str:
    """A value as a person wrote it, short enough for a line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"a section with the keys {', '.join(map(str, value))}" if value else "an empty section"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}" if value else "an empty list"
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:76]}...{shown[-1] if isinstance(value, str) else ''}"


def _is_an_echo(details: ErrorDetails, found: Sequence[ErrorDetails]) -> bool:
    """Whether a list only counts as too short because its entries are wrong, which is reported anyway."""
    path = details["loc"]
    return details["type"] == "too_short" and any(
        len(other["loc"]) > len(path) and other["loc"][: len(path)] == path for other in found
    )


def _problems(details: ErrorDetails, root: type[BaseModel]) -> Iterator[tuple[KeyPath, str]]:
    path: KeyPath = tuple(details["loc"])
    context = details.get("ctx", {})
    if details["type"] == "cross_check":
        for key, message in context["problems"]:
            inner = tuple(int(part) if part.isdigit() else part for part in key.split(".")) if key else ()
            yield (*path, *inner), message
    else:
        yield path, _message(details, path, context, root)


def _message(details: ErrorDetails, path: KeyPath, context: dict[str, Any], root: type[BaseModel]) -> str:
    kind, found = details["type"], details["input"]
    if kind == "extra_forbidden":
        return "; ".join(filter(None, ("unknown key", suggest_key(path, root))))
    if kind == "missing":
        field = field_at(path, root)
        return f"missing; expected {field.description if field and field.description else 'a value'}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "json_invalid":
        return "found text that is no valid Unicode, or lists and sections nested too deeply; simplify the recipe"
    shown = describe_value(found)
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(context["expected"]))
        near = nearest(found, choices) if isinstance(found, str) else None
        return f"found {shown}, expected {_or(choices)}{f'; did you mean {near!r}?' if near else ''}"
    if kind == "string_pattern_mismatch":
        return f"found {shown}, expected letters, digits, '.', '_' and '-', with a letter or digit first"
    if kind in _BOUNDS:
        name, template = _BOUNDS[kind]
        return f"found {shown}, expected {template.format(context[name])}"
    expected = _EXPECTED_TYPES.get(kind)
    return f"found {shown}, expected {expected}" if expected else f"found {shown}; {details['msg']}"


def _or(choices: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1]))) if choices else "another value"
