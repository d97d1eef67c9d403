"""What a run would do: the answer of ``netsuke run --dry-run``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Action = Literal["run", "resume", "skip"]

CORE_FLOPS_PER_SECOND = 1.0e11
"""Assumed of one processor core with bfloat16, for estimates before anything has run; only an order of magnitude."""


@dataclass(frozen=True)
class PlannedStage:
    """One stage as it would happen.

    Attributes:
        name: of the stage.
        action: ``run`` from its start, ``resume`` from its checkpoint, or ``skip`` because it is finished.
        work: what it does, in a few words.
        steps: optimiser steps left; ``None`` where the stage trains nothing.
        tokens: tokens it reads; ``None`` where it reads none or nobody can know yet.
        evaluations: architectures it scores; ``None`` where it scores none.
        seconds: estimated time; ``None`` where nothing is known to estimate it from.
        disk_bytes: estimated size of what it leaves behind; ``None`` where it cannot be estimated.
        reason: why it would be skipped or resumed, or what the estimate rests on; may be empty.
    """

    name: str
    action: Action
    work: str
    steps: int | None = None
    tokens: int | None = None
    evaluations: int | None = None
    seconds: float | None = None
    disk_bytes: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """All stages of a run, in order, after everything that can be validated was validated.

    Attributes:
        recipe: name of the recipe.
        run_dir: the run folder.
        stages: in the order in which they happen.
        notes: sentences a person should know before starting (what could not be checked, what is tight).
    """

    recipe: str
    run_dir: str
    stages: tuple[PlannedStage, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether every stage is finished, so that a start would compute nothing."""
        return not self._to_do()

    @property
    def seconds(self) -> float | None:
        """Estimated time of everything that is not skipped; ``None`` where no stage has an estimate."""
        return _sum(stage.seconds for stage in self._to_do())

    @property
    def disk_bytes(self) -> int | None:
        """Estimated size of everything that is not skipped; ``None`` where no stage has an estimate."""
        total = _sum(stage.disk_bytes for stage in self._to_do())
        return None if total is None else int(total)

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain values for JSON, totals included."""
        return {
            "recipe": self.recipe,
            "run_dir": self.run_dir,
            "stages": [asdict(stage) for stage in self.stages],
            "notes": list(self.notes),
            "seconds": self.seconds,
            "disk_bytes": self.disk_bytes,
            "is_done": self.is_done,
        }

    def _to_do(self) -> list[PlannedStage]:
        return [stage for stage in self.stages if stage.action != "skip"]


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
