"""Finding search spaces by name: the project's own and those of other installed packages."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from spaces.encoder_shape import EncoderShape
from spaces.errors import SpaceError
from spaces.space import SearchSpace

ENTRY_POINT_GROUP = "netsuke.spaces"
_OWN = [
    EntryPoint("components", "spaces.components.space:ComponentsSpace", ENTRY_POINT_GROUP),
    EntryPoint("efficient_bert", "spaces.efficient_bert.space:EfficientBertSpace", ENTRY_POINT_GROUP),
    EntryPoint("nas_bert", "spaces.nas_bert.space:NasBertSpace", ENTRY_POINT_GROUP),
]
"""The project's own, for machines where the folders lie on the path but nothing is installed."""


def _registered() -> dict[str, EntryPoint]:
    return {point.name: point for point in (*_OWN, *entry_points(group=ENTRY_POINT_GROUP))}


def space_names() -> list[str]:
    """Names of all installed spaces, sorted."""
    return sorted(_registered())


def space_class(name: str) -> type[SearchSpace[Any]]:
    """The class of a space by name.

    Args:
        name: as registered under the entry-point group ``netsuke.spaces``.

    Raises:
        SpaceError: no such space, it cannot be imported, or it is no search space.
    """
    registered = _registered()
    if name not in registered:
        close = difflib.get_close_matches(name, registered, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"installed: {', '.join(sorted(registered)) or 'none'}"
        raise SpaceError(f"space.name: found '{name}', which is not an installed space; {hint}")
    try:
        found = registered[name].load()
    except (ImportError, AttributeError) as error:
        raise SpaceError(f"space.name: '{name}' cannot be imported: {error}; reinstall the package it is in") from error
    if not (isinstance(found, type) and issubclass(found, SearchSpace)):
        raise SpaceError(f"space.name: '{name}' ({registered[name].value}) is no subclass of spaces' SearchSpace")
    return found


def load_space(
    name: str, options: Mapping[str, Any] | None = None, shape: EncoderShape | None = None
) -> SearchSpace[Any]:
    """Make a space by name.

    Args:
        name: as registered under the entry-point group ``netsuke.spaces``.
        options: the recipe's ``space.options``; the space validates them.
        shape: the teacher's shape, for the space to fit; without it the space's own default.

    Raises:
        SpaceError: no such space, it cannot be imported or is no search space, or its options are wrong.
    """
    space: SearchSpace[Any] = space_class(name).from_options(options or {}, shape)
    return space
