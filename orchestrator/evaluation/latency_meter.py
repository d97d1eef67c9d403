"""Measuring candidates' latencies as part of a search: each network alone, whole, on the device itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.evaluation.evaluator import Score
from orchestrator.latency_table.conditions import LatencyConditions
from orchestrator.latency_table.measuring import measure_parts_and_networks
from spaces.space import SearchSpace


@dataclass(frozen=True)
class MeasuredLatency:
    """What timing one network gave.

    Attributes:
        median_ms: the middle repeat; ``None`` if it failed.
        spread_ms: distance between the quartiles; ``None`` if it failed.
        error: why it failed, in one line.
    """

    median_ms: float | None
    spread_ms: float | None
    error: str = ""

    @classmethod
    def failed(cls, error: str) -> MeasuredLatency:
        """A failure with its reason (line breaks are folded)."""
        return cls(None, None, " ".join(error.split()))

    def added_to(self, score: Score) -> Score:
        """A candidate's score with its latency; failed where the latency could not be measured."""
        if score.status != "ok":
            return score
        if self.median_ms is None:
            return Score.failed(f"its latency could not be measured: {self.error}", score.seconds)
        return replace(score, measured_latency_ms=self.median_ms, measured_latency_spread_ms=self.spread_ms)


@dataclass(frozen=True)
class LatencyMeter:
    """Times networks one after the other, with random weights; picklable, holds nothing between calls.

    Attributes:
        space: builds the networks.
        conditions: of every measurement.
        vocab_size: token ids are drawn below it.
    """

    space: SearchSpace[Any]
    conditions: LatencyConditions
    vocab_size: int

    def measure(self, architectures: Sequence[Any]) -> list[MeasuredLatency]:
        """One measurement for each architecture, in order; whatever goes wrong with one is its own failure."""
        return [self._measure(architecture) for architecture in architectures]

    def _measure(self, architecture: Any) -> MeasuredLatency:
        try:
            _, (found,) = measure_parts_and_networks(self.space, [], [architecture], self.conditions, self.vocab_size)
        except Exception as error:  # a network that cannot be built, or does not fit into memory
            return MeasuredLatency.failed(f"{type(error).__name__}: {error}")
        return MeasuredLatency(found.median_ms, found.spread_ms)


def with_latencies(meter: LatencyMeter, architectures: Sequence[Any], scores: Sequence[Score]) -> list[Score]:
    """Scores with the latencies of those that did not fail.

    Args:
        meter: on the device.
        architectures: of the scores, in their order.
        scores: of the supernet.
    """
    good = [place for place, score in enumerate(scores) if score.status == "ok"]
    measured = dict(zip(good, meter.measure([architectures[place] for place in good]), strict=True))
    return [measured[place].added_to(score) if place in measured else score for place, score in enumerate(scores)]
