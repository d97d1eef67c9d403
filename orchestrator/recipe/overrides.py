"""``--set a.b=c``: changing keys of a recipe from the command line."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import UserError
from orchestrator.recipe.keys import default_list
from orchestrator.recipe.yaml_text import KeyPath, YamlTextError, parse_value


@dataclass(frozen=True)
class Override:
    """One change.

    Attributes:
        path: the keys, and indices or names of list entries, as typed.
        value: the new value, read as YAML.
        text: what was typed behind ``--set``.
    """

    path: tuple[str, ...]
    value: Any
    text: str


def parse_override(text: str) -> Override:
    """Read ``key.key=value``.

    Raises:
        UserError: there is no ``=``, a key is empty, or the value is not readable as YAML.
    """
    dotted, equals, value = text.partition("=")
    path = tuple(part.strip() for part in dotted.split("."))
    if not equals or not all(path):
        raise UserError(f"--set {text}: found {text!r}, expected key.key=value, such as supernet.steps=200")
    try:
        return Override(path, parse_value(value.strip()), text)
    except YamlTextError as problem:
        raise UserError(f"--set {text}: {problem}; put text with special characters in quotes") from problem


def apply_overrides(data: dict[str, Any], overrides: Sequence[Override]) -> tuple[dict[str, Any], list[KeyPath]]:
    """Change a recipe's plain data; later overrides win.

    Entries of lists are addressed by index (``budgets.0.latency_ms``) or by name (``budgets.half.latency_ms``); a list
    that the recipe leaves out is its default list. Mappings appear as needed: whether their keys exist is checked
    with the whole recipe.

    Returns:
        the changed copy, and for each override the path it changed, with indices as integers.

    Raises:
        UserError: a list has no such entry, or the path goes through a value that is no section.
    """
    changed = copy.deepcopy(data)
    paths = [_set(changed, override) for override in overrides]
    return changed, paths


def _set(data: dict[str, Any], override: Override) -> KeyPath:
    current: Any = data
    done: list[str | int] = []
    for position, part in enumerate(override.path):
        last = position == len(override.path) - 1
        key: str | int = _entry(current, part, done, override) if isinstance(current, list) else part
        done.append(key)
        if last:
            current[key] = override.value
            break
        if isinstance(current, dict) and current.get(part) is None:
            default = default_list(tuple(done))
            current[part] = {} if default is None else default
        current = current[key]
        if not isinstance(current, (dict, list)):
            dotted = ".".join(map(str, done))
            raise UserError(f"--set {override.text}: {dotted} is {current!r}, which has no keys; set {dotted} itself")
    return tuple(done)


def _entry(entries: list[Any], part: str, done: Sequence[str | int], override: Override) -> int:
    """The index of the entry of a list that ``part`` means: an index, or an entry's name."""
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in entries]
    if part in names:
        return names.index(part)
    if part.isascii() and part.isdigit() and int(part) < len(entries):
        return int(part)
    known = ", ".join(f"{index} ({name})" if name else str(index) for index, name in enumerate(names)) or "none"
    dotted = ".".join(map(str, done))
    raise UserError(f"--set {override.text}: {dotted} has no entry {part!r}; its entries: {known}")
