"""Evaluators of the toy space that are slow, fail, or kill their own process; and searches that use them."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.evaluation.evaluator import Score
from orchestrator.evaluation.search_loop import SearchLoop, SearchRecord
from orchestrator.objectives import LOSS, PARAMETERS, CheapObjectives
from orchestrator.strategies.registry import create_strategy
from orchestrator.testing import ToyArchitecture, ToySpace, toy_loss

Row = tuple[int, str, int, str, float | None]
"""Number, text, fidelity, status and loss."""

FULL_FIDELITY = 4

STRATEGY_OPTIONS: dict[str, dict[str, Any]] = {
    "regularised_evolution": {"population": 8, "sample_size": 3},
    "optuna": {"sampler_options": {"population_size": 8}},
    "random": {},
    "nsga2": {"population": 8},
    "successive_halving": {"bracket": 6, "eta": 2, "rungs": 3},
    "predictor_guided": {"start": 8, "offspring": 20, "chosen": 5, "regressor": "ridge"},
    "lanas": {"mode": "uct", "initial": 8, "relearn": 4, "max_proposals": 500},
}


@dataclass(frozen=True)
class ToyEvaluatorFactory:
    """Makes a :class:`ToyEvaluator`.

    Attributes:
        seconds: how long a batch takes.
        log: file that gets a line for each batch: process id, begin, end, candidates.
        fails: architecture that makes the evaluator raise.
        kills: architecture that kills the evaluating process.
        eats: architecture that takes memory until its process is killed.
        diverges: architectures whose text contains this have a loss that is not a number; empty: none.
    """

    seconds: float = 0.0
    log: Path | None = None
    fails: str = ""
    kills: str = ""
    eats: str = ""
    diverges: str = ""

    def __call__(self) -> ToyEvaluator:
        return ToyEvaluator(self)


class ToyEvaluator:
    def __init__(self, settings: ToyEvaluatorFactory) -> None:
        self.settings = settings

    def score(self, architectures: Sequence[ToyArchitecture], fidelity: int) -> list[Score]:
        texts = [str(architecture) for architecture in architectures]
        if self.settings.kills in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.settings.eats in texts:
            _eat()
        if self.settings.fails in texts:
            raise ArithmeticError(f"{self.settings.fails}\ndiverged")
        begin = time.time()
        time.sleep(self.settings.seconds)
        if self.settings.log is not None:
            with self.settings.log.open("a") as file:
                file.write(json.dumps([os.getpid(), begin, time.time(), texts]) + "\n")
        return [Score("ok", self._loss(one, fidelity), self.settings.seconds) for one in architectures]

    def _loss(self, architecture: ToyArchitecture, fidelity: int) -> float:
        diverges = self.settings.diverges and self.settings.diverges in str(architecture)
        return math.nan if diverges else toy_loss(architecture) + 1 / fidelity


def _eat() -> None:
    """Take 8 GiB at most, in steps of 64 MiB, and hold them until the memory monitor had time to look."""
    held = []
    for _ in range(128):
        held.append(b"x" * 64 * 1024**2)
        time.sleep(0.02)
    time.sleep(5.0)
    del held


def read_log(log: Path) -> list[tuple[int, float, float, list[str]]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def make_loop(
    on_result: Callable[[SearchRecord], None] | None = None,
    *,
    strategy: str = "regularised_evolution",
    budget: int = 40,
    batch_size: int = 2,
    space: ToySpace | None = None,
    **options: Any,
) -> SearchLoop:
    space = space or ToySpace()
    cheap = CheapObjectives(space)
    made = create_strategy(strategy, space, [LOSS, PARAMETERS], [], 5, cheap=cheap, options=STRATEGY_OPTIONS[strategy])
    return SearchLoop(
        made, cheap, budget, fidelity=FULL_FIDELITY, batch_size=batch_size, on_result=on_result, **options
    )


def row(record: SearchRecord) -> Row:
    proposal = record.proposal
    return proposal.number, str(proposal.architecture), proposal.fidelity, record.status, record.score.loss


def front(rows: Iterable[Row]) -> set[str]:
    """The texts of the architectures that no other one beats in both loss and parameters."""
    cheap = CheapObjectives(ToySpace())
    points = {
        text: (loss, cheap.values(ToySpace().parse(text))["parameters"])
        for _, text, fidelity, _, loss in rows
        if loss is not None and fidelity == FULL_FIDELITY
    }
    return {
        text
        for text, mine in points.items()
        if not any(other != mine and other[0] <= mine[0] and other[1] <= mine[1] for other in points.values())
    }


def score_of(saved: Row) -> Score:
    *_, status, loss = saved
    return Score("ok", loss, 0.0) if status == "ok" else Score.failed("failed before")


def key(saved: Row) -> tuple[str, int]:
    return ToySpace().parse(saved[1]).arch_id, saved[2]


class RowFile:
    """Records as JSON lines, durable as soon as they arrive."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: SearchRecord) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row(record)) + "\n")

    def rows(self) -> list[Row]:
        if not self.path.exists():
            return []
        return [tuple(json.loads(line)) for line in self.path.read_text().splitlines()]
