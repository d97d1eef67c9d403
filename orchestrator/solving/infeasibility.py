"""What to say when no network keeps the limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import UserError


@dataclass(frozen=True)
class Impossible:
    """A limit that cannot be kept.

    Attributes:
        resource: what is limited.
        limit: the limit that was asked for, in the units people use.
        nearest: the least that is possible (where only the limits together are impossible: while the others stay);
            None where even without this limit the others cannot be kept together.
    """

    resource: str
    limit: float
    nearest: float | None

    def __str__(self) -> str:
        found = f"{self.resource} at most {self.limit:,.10g}"
        return f"{found} (the least is {self.nearest:,.10g})" if self.nearest is not None else found


class ImpossibleBudgetError(UserError):
    """No network keeps the limits.

    Attributes:
        limits: those that are impossible, and the nearest that are not.
        jointly: each of them alone is possible, all together are not.
    """

    def __init__(self, limits: Sequence[Impossible], jointly: bool) -> None:
        self.limits = tuple(limits)
        self.jointly = jointly
        super().__init__(_message(self.limits, jointly))


def _message(limits: Sequence[Impossible], jointly: bool) -> str:
    if not jointly:
        return f"no network keeps the limit: {'; '.join(map(str, limits))}; raise it to the least or above"
    remedies = [f"{one.resource} to {one.nearest:,.10g}" for one in limits if one.nearest is not None]
    asked = " and ".join(f"{one.resource} at most {one.limit:,.10g}" for one in limits)
    remedy = f"raise {' or '.join(remedies)} (the others as they are)" if remedies else "raise several of them"
    return f"each limit can be kept, but no network keeps all of them: {asked}; {remedy}"
