"""Strategies by name, found through the entry-point group ``netsuke.strategies``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from orchestrator.errors import UserError
from orchestrator.objectives import CheapObjectives, Constraint, Objective
from orchestrator.strategies.base import Strategy, suggestion
from spaces.space import SearchSpace

GROUP = "netsuke.strategies"


def strategy_names() -> list[str]:
    """The names of all installed strategies, sorted."""
    return sorted(_entry_points())


def strategy_class(name: str) -> type[Strategy]:
    """The class of the strategy called ``name``.

    Raises:
        UserError: no installed package offers such a strategy, or the one that does cannot be imported.
    """
    found = _entry_points()
    if name not in found:
        raise UserError(f"there is no strategy {name!r}{suggestion(name, list(found))}")
    try:
        loaded = found[name].load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"strategy {name!r} ({found[name].value}) cannot be loaded: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Strategy)):
        raise UserError(f"strategy {name!r} ({found[name].value}) is not a subclass of orchestrator's Strategy")
    return loaded


def create_strategy(
    name: str,
    space: SearchSpace[Any],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    seed: int,
    *,
    cheap: CheapObjectives | None = None,
    options: Mapping[str, Any] | None = None,
) -> Strategy:
    """Make the strategy called ``name``; the arguments are those of :class:`Strategy`.

    Raises:
        UserError: the name, an option or a constraint is wrong.
    """
    return strategy_class(name)(space, objectives, constraints, seed, cheap=cheap, **dict(options or {}))


def _entry_points() -> dict[str, EntryPoint]:
    return {entry_point.name: entry_point for entry_point in entry_points(group=GROUP)}
