"""Running means over an interval of training, exchanged between workers only when a row is due."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class IntervalMeter:
    """Sums values by name until they are read; reading averages over workers and starts the next interval.

    Every worker must have added the same names.
    """

    def __init__(self) -> None:
        self._sums: dict[Hashable, float | Tensor] = {}
        self._counts: dict[Hashable, int] = {}
        self._started = time.perf_counter()

    def add(self, name: Hashable, value: float | Tensor) -> None:
        """Add one observation; a scalar tensor stays where it is until it is read, so that nobody waits for it."""
        if isinstance(value, Tensor):
            value = value.detach().double()
        self._sums[name] = self._sums.get(name, 0.0) + value
        self._counts[name] = self._counts.get(name, 0) + 1

    def state(self) -> dict[str, Any]:
        """What this worker has summed since the last reading, of plain values only."""
        return {"sums": {name: float(total) for name, total in self._sums.items()}, "counts": dict(self._counts)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with an interval that began before a checkpoint; its seconds count from now."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
        self._started = time.perf_counter()

    def read(self) -> tuple[dict[Hashable, float], float]:
        """The mean of every name over all workers, and the seconds since the interval began; starts the next one."""
        names = sorted(self._sums, key=str)
        values = torch.tensor([[float(self._sums[name]), self._counts[name]] for name in names], dtype=torch.float64)
        if names and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(values)
        means = {name: float(total / count) for name, (total, count) in zip(names, values.tolist(), strict=True)}
        seconds = time.perf_counter() - self._started
        self._sums, self._counts, self._started = {}, {}, time.perf_counter()
        return means, seconds
