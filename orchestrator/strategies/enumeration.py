"""Every architecture of a small space, by walking its decisions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spaces.space import ArchitectureT, Decision, SearchSpace

ENUMERATION_LIMIT = 20_000
"""The largest space that strategies enumerate when they run out of other ideas."""


def enumerate_architectures(space: SearchSpace[ArchitectureT]) -> Iterator[ArchitectureT]:
    """Give each architecture of ``space`` once, in the order of its decisions.

    The work is proportional to the number of complete sets of choices: meant for small spaces and for tests.
    """
    seen: set[Any] = set()
    for chosen in _choices(list(space.decisions()), {}):
        architecture = space.from_decisions(chosen)
        if architecture not in seen:
            seen.add(architecture)
            yield architecture


def _choices(decisions: list[Decision], chosen: dict[str, str]) -> Iterator[dict[str, str]]:
    """Every complete set of choices that starts with ``chosen``."""
    if not decisions:
        yield dict(chosen)
        return
    decision, later = decisions[0], decisions[1:]
    if not decision.is_active(chosen):
        yield from _choices(later, chosen)
        return
    for choice in decision.choices:
        yield from _choices(later, {**chosen, decision.name: choice})
