"""Reading the options of a space strictly, with the standard library alone.

A bare accelerator machine has PyTorch but not pydantic, so the options of a space are a plain dataclass. Its
annotations say what a value is, the ``metadata`` of its fields which numbers are allowed: ``ge`` (at least), ``lt``
(below), ``le`` (at most). A field ``shape`` is the teacher's and no option.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from spaces.encoder_shape import EncoderShape
from spaces.errors import SpaceError

_LIMITS = {
    "ge": ("greater than or equal to", lambda value, limit: value >= limit),
    "lt": ("less than", lambda value, limit: value < limit),
    "le": ("less than or equal to", lambda value, limit: value <= limit),
}
_SHAPE = "shape"


def read_mapping(
    options_class: type[Any],
    options: Mapping[str, Any],
    presets: Mapping[str, Mapping[str, Any]],
    default_preset: str,
    shape: EncoderShape,
) -> dict[str, Any]:
    """Read a recipe's options: an optional ``preset``, overridden key by key, for a teacher of ``shape``.

    Args:
        options_class: a dataclass with a field for every option.
        options: as the recipe gives them.
        presets: named sets of options.
        default_preset: the one that is meant where none is named.
        shape: of the teacher.

    Returns:
        The arguments to make ``options_class`` of, which checks the values.

    Raises:
        SpaceError: the preset or a key is unknown; one line for the first problem.
    """
    given = dict(options)
    preset = given.pop("preset", default_preset)
    if not isinstance(preset, str) or preset not in presets:
        raise SpaceError(f"space.options.preset: found {preset!r}, expected one of {', '.join(presets)}")
    if _SHAPE in given:
        raise SpaceError("space.options.shape: cannot be set, it is the teacher's; remove the key")
    keys = [option.name for option in dataclasses.fields(options_class) if option.name != _SHAPE]
    for key in given:
        if key not in keys:
            close = difflib.get_close_matches(str(key), ["preset", *keys], n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"expected one of {', '.join(keys)}"
            raise SpaceError(f"space.options.{key}: unknown key; {hint}")
    return {**presets[preset], **given, _SHAPE: shape}


def read_values(options: Any) -> None:
    """Check every field of a frozen dataclass by its annotation; lists become tuples, whole numbers floats.

    Fields of other types than numbers, switches, texts, tuples, choices, and any of these or ``None`` are left alone.

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
    if origin in (types.UnionType, typing.Union) and type(None) in arguments:
        others = [one for one in arguments if one is not type(None)]
        return None if value is None else _read(key, value, others[0], limits)
    if origin is tuple:
        return _read_tuple(key, value, arguments)
    if origin is typing.Literal:
        if value not in arguments or isinstance(value, bool):
            raise wrong(key, value, " or ".join(map(repr, arguments)))
        return value
    if annotation is str and not isinstance(value, str):
        raise wrong(key, value, "a valid string")
    if annotation is bool and not isinstance(value, bool):
        raise wrong(key, value, "true or false")
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


def _read_tuple(key: str, value: Any, entries: tuple[Any, ...]) -> tuple[Any, ...]:
    """Read a tuple of any length, or of a fixed one where ``entries`` names every entry."""
    kind = "numbers" if entries[0] is int else "names"
    fixed = entries[-1] is not Ellipsis
    if not isinstance(value, (list, tuple)):
        raise wrong(key, value, f"a valid tuple, as a list of {f'{len(entries)} ' if fixed else ''}{kind}")
    if fixed and len(value) != len(entries):
        raise wrong(key, value, f"a list of {len(entries)} {kind}")
    return tuple(_read(f"{key}.{index}", entry, entries[0], {}) for index, entry in enumerate(value))
