"""What to say when no network keeps the limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import UserError
from orchestrator.formatting import NOTHING, resource, resource_name, rounded_up


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
        return self.asked if self.nearest is None else f"{self.asked} (the least is {self.least})"

    @property
    def asked(self) -> str:
        """The limit in words: latency at most 4.00 ms."""
        return f"{resource_name(self.resource)} at most {resource(self.resource, self.limit)}"

    @property
    def least(self) -> str:
        """The nearest possible limit in units people use, rounded up, so that it is possible."""
        if self.nearest is None:
            return NOTHING
        exact = self.resource != "latency_ms" and self.nearest < 10_000
        return resource(self.resource, self.nearest if exact else rounded_up(self.nearest))


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
    remedies = [f"{resource_name(one.resource)} to {one.least}" for one in limits if one.nearest is not None]
    asked = " and ".join(one.asked for one in limits)
    remedy = f"raise {' or '.join(remedies)} (the others as they are)" if remedies else "raise several of them"
    return f"each limit can be kept, but no network keeps all of them: {asked}; {remedy}"
