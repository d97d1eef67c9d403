"""Reading the values of an options class strictly, with the standard library alone.

A bare accelerator machine has PyTorch but not pydantic, so the options of a space are a plain dataclass. Its
annotations say what a value is, the ``metadata`` of its fields which numbers are allowed: ``ge`` (at least), ``lt``
(below).
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from spaces.errors import SpaceError

_LIMITS = {
    "ge": ("greater than or equal to", lambda value, limit: value >= limit),
    "lt": ("less than", lambda value, limit: value < limit),
}


def read_values(options: Any) -> None:
    """Check every field of a frozen dataclass by its annotation; lists become tuples, whole numbers floats.

    Fields of other types than numbers, tuples and choices are left alone.

    Raises:
        SpaceError: a value has the wrong type or lies beyond a limit; names the field as ``space.options.<field>``.
    """
    annotations = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):
        value = _read(field.name, getattr(options, field.name), annotations[field.name], field.metadata)
        object.__setattr__(options, field.name, value)


def wrong(key: str, found: object, expected: str) -> SpaceError:
    """The error of a value."""
    return SpaceError(f"space.options.{key}: found {found!r}; input should be {expected}")


def _read(key: str, value: Any, annotation: Any, limits: Mapping[str, Any]) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise wrong(key, value, f"a valid tuple, as a list of {'numbers' if arguments[0] is int else 'names'}")
        return tuple(_read(f"{key}.{index}", entry, arguments[0], {}) for index, entry in enumerate(value))
    if origin is typing.Literal:
        if value not in arguments or isinstance(value, bool):
            raise wrong(key, value, " or ".join(map(repr, arguments)))
        return value
    if annotation is str and not isinstance(value, str):
        raise wrong(key, value, "a valid string")
    if annotation is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise wrong(key, value, "a valid integer")
    if annotation is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong(key, value, "a valid number")
        value = float(value)
    for name, limit in limits.items():
        words, holds = _LIMITS[name]
        if not holds(value, limit):  # also what is not a number at all
            raise wrong(key, value, f"{words} {limit}")
    return value
