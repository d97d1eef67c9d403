"""A microscopic search whose candidates' latencies are measured, and a space some of whose networks cannot be built."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from orchestrator.evaluation.evaluator import Score
from orchestrator.evaluation.latency_meter import LatencyMeter
from orchestrator.evaluation.records import SearchRecord
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.latency_table.conditions import LatencyConditions
from orchestrator.objectives import LOSS, MEASURED_LATENCY, CheapObjectives
from orchestrator.strategies.nsga2 import NSGA2
from spaces.encoder_shape import EncoderShape
from spaces.nas_bert.space import NasBertSpace

TEACHER = EncoderShape(num_layers=2, hidden_size=16, num_heads=2, intermediate_size=32, vocab_size=50)
SPACE = NasBertSpace.from_options(
    {
        "preset": "small",
        "head_size": 8,
        "num_blocks": 2,
        "hidden_sizes": [16],
        "embedding_sizes": [16],
        "operations": ["M", "F2", "F1"],
    },
    TEACHER,
)
CONDITIONS = LatencyConditions(batch_size=1, sequence_length=4, threads=1, warm_up=0, repeats=2)


@dataclass(frozen=True)
class Fragile:
    """A space that builds a network as another one does, unless it is told otherwise.

    Attributes:
        fails: the text of a network that cannot be built.
        kills: a file; while it is there, building removes it and ends the process.
    """

    fails: str = ""
    kills: Path | None = None

    def parse(self, text: str) -> Any:
        return SPACE.parse(text)

    def cost(self, architecture: Any) -> Any:
        return SPACE.cost(architecture)

    def build(self, architecture: Any) -> nn.Module:
        if str(architecture) == self.fails:
            raise MemoryError("too large\nfor this device")
        if self.kills is not None and self.kills.exists():
            self.kills.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return SPACE.build(architecture)


def make_meter(space: Any = SPACE) -> LatencyMeter:
    return LatencyMeter(space, CONDITIONS, TEACHER.vocab_size)


class SizeEvaluator:
    """The larger a network, the lower its loss."""

    def score(self, architectures: Sequence[Any], fidelity: int) -> list[Score]:
        return [Score("ok", 1e6 / SPACE.cost(one).parameters, 0.0) for one in architectures]


def make_latency_loop(on_result: Callable[[SearchRecord], None], budget: int = 12, **options: Any) -> SearchLoop:
    strategy = NSGA2(SPACE, (LOSS, MEASURED_LATENCY), (), 0, population=6)
    return SearchLoop(strategy, CheapObjectives(SPACE), budget, batch_size=3, on_result=on_result, **options)
