"""Latency that can be compared: pinned threads, warm-up, median and spread, turns taken in rotation.

Wall-clock milliseconds are what is reported. On a shared machine other processes take the core away in the middle of
a repeat, and a long function is hit more often than a short one. Where one thread of the CPU does nothing but compute,
its own processor time tells how long the core was gone, and that time is taken off; on a machine that has nothing else
to do there is nothing to take off. Functions that wait by nature (for a disk, for other threads) are left as they are.
"""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypedDict, Unpack

#: One repeat runs its function as often as it takes to last this long, so that the clock's grain and a single tick of
#: the scheduler do not decide the result.
MINIMUM_REPEAT_MILLISECONDS = 3.0


@dataclass(frozen=True)
class LatencyMeasurement:
    """Milliseconds of one call, over all repeats.

    Attributes:
        median_ms: the middle repeat.
        lower_quartile_ms: a quarter of the repeats was faster.
        upper_quartile_ms: a quarter of the repeats was slower.
        repeats: how many repeats were timed.
        calls_per_repeat: calls that one repeat averages over.
        lost_ms: median of what other processes took away from a call, already taken off the times above.
    """

    median_ms: float
    lower_quartile_ms: float
    upper_quartile_ms: float
    repeats: int
    calls_per_repeat: int
    lost_ms: float = 0.0

    @property
    def spread_ms(self) -> float:
        """Distance between the quartiles: what half of the repeats stay within."""
        return self.upper_quartile_ms - self.lower_quartile_ms

    def divided_by(self, count: int) -> LatencyMeasurement:
        """The measurement of one of ``count`` equal things that were timed together."""
        return LatencyMeasurement(
            self.median_ms / count,
            self.lower_quartile_ms / count,
            self.upper_quartile_ms / count,
            self.repeats,
            self.calls_per_repeat,
            self.lost_ms / count,
        )


@dataclass(frozen=True)
class Repeats:
    """The timed repeats of one function, in milliseconds of one call.

    Attributes:
        wall_ms: wall-clock time of each repeat.
        lost_ms: the part of it in which other processes had the core; 0 where nobody knows.
        calls: calls that a repeat averages over.
    """

    wall_ms: tuple[float, ...]
    lost_ms: tuple[float, ...]
    calls: int

    def __add__(self, others: Repeats) -> Repeats:
        """All repeats of the same function, timed at two occasions."""
        return Repeats(self.wall_ms + others.wall_ms, self.lost_ms + others.lost_ms, self.calls)

    def summary(self) -> LatencyMeasurement:
        """Median and quartiles of the repeats, without the time that other processes took."""
        own = [wall - lost for wall, lost in zip(self.wall_ms, self.lost_ms, strict=True)]
        if len(own) == 1:
            lower = median = upper = own[0]
        else:
            lower, median, upper = statistics.quantiles(own, n=4, method="inclusive")
        return LatencyMeasurement(median, lower, upper, len(own), self.calls, statistics.median(self.lost_ms))


class HowMeasured(TypedDict, total=False):
    """Arguments of :func:`repeat_in_turn` besides the functions and the callback; it says what each means."""

    warm_up: int
    repeats: int
    threads: int
    device: str
    cores: Sequence[int] | None
    compute_bound: bool
    minimum_repeat_ms: float


def measure(run: Callable[[], object], **how: Unpack[HowMeasured]) -> LatencyMeasurement:
    """Measure the latency of one function; the arguments are those of :func:`repeat_in_turn`."""
    return measure_in_turn([run], **how)[0]


def measure_in_turn(runs: Sequence[Callable[[], object]], **how: Unpack[HowMeasured]) -> list[LatencyMeasurement]:
    """Measure several functions in rotation, so that a busy or throttling machine slows all of them alike.

    The arguments are those of :func:`repeat_in_turn`.

    Returns:
        One measurement for each function, in the order given.

    Raises:
        ValueError: ``repeats`` or ``threads`` is below one.
    """
    return [each.summary() for each in repeat_in_turn(runs, **how)]


def repeat_in_turn(
    runs: Sequence[Callable[[], object]],
    *,
    warm_up: int = 3,
    repeats: int = 20,
    threads: int = 1,
    device: str = "cpu",
    cores: Sequence[int] | None = None,
    compute_bound: bool = False,
    minimum_repeat_ms: float = MINIMUM_REPEAT_MILLISECONDS,
    on_round: Callable[[int], None] = lambda _: None,
) -> list[Repeats]:
    """Time several functions in rotation and return every repeat.

    Each round times one repeat of every function, and each round begins with another one. The garbage collector rests
    meanwhile; PyTorch's thread count, the core mask and the collector are put back afterwards.

    Args:
        runs: functions without arguments; for a model call them under `torch.inference_mode` themselves.
        warm_up: calls of each function that are not timed (at least one, which also tells how many calls a repeat
            needs).
        repeats: rounds.
        threads: PyTorch's threads inside an operation, on the CPU.
        device: "cpu", or an accelerator such as "cuda:0", which is waited for before the clock is read.
        cores: cores to pin this process' calling thread to (Linux only); None leaves the mask as it is.
        compute_bound: the functions compute and never wait, as forward passes do: with one thread on the CPU, time in
            which the thread did not compute was taken by other processes, and is left out.
        minimum_repeat_ms: a repeat makes as many calls as it takes to last this long.
        on_round: called after each round, outside the timed part, with the number of rounds done.

    Returns:
        The repeats of each function, in the order given.

    Raises:
        ValueError: ``repeats`` or ``threads`` is below one.
    """
    if repeats < 1 or threads < 1:
        raise ValueError(f"repeats={repeats} and threads={threads}; both must be at least 1")
    with _fixed_conditions(threads, cores):
        wait = _synchroniser(device)
        knows_lost = compute_bound and threads == 1 and _is_cpu(device)
        computes = time.thread_time if knows_lost else time.perf_counter
        calls = [_calls_per_repeat(run, warm_up, minimum_repeat_ms, wait) for run in runs]
        times: list[list[tuple[float, float]]] = [[] for _ in runs]
        for round_number in range(repeats):
            for place in range(len(runs)):
                index = (place + round_number) % len(runs)
                times[index].append(_time(runs[index], calls[index], wait, computes))
            on_round(round_number + 1)
    return [
        Repeats(tuple(wall for wall, _ in each), tuple(lost for _, lost in each), count)
        for each, count in zip(times, calls, strict=True)
    ]


def _time(
    run: Callable[[], object], calls: int, wait: Callable[[], None], computes: Callable[[], float]
) -> tuple[float, float]:
    """Milliseconds of one call, and how much of them the thread did not compute; means over calls in a row."""
    wait()
    computed, start = computes(), time.perf_counter()
    for _ in range(calls):
        run()
    wait()
    wall, computed = time.perf_counter() - start, computes() - computed
    return wall * 1000 / calls, max(0.0, wall - computed) * 1000 / calls


def _calls_per_repeat(
    run: Callable[[], object], warm_up: int, minimum_repeat_ms: float, wait: Callable[[], None]
) -> int:
    """Warm a function up and return how many calls fill the minimum duration of a repeat."""
    fastest = min(_time(run, 1, wait, time.perf_counter)[0] for _ in range(max(1, warm_up)))
    return max(1, math.ceil(minimum_repeat_ms / max(fastest, 1e-4)))


def _synchroniser(device: str) -> Callable[[], None]:
    """A function that returns once the device has done all it was given; calls on an accelerator return before that."""
    import torch

    if _is_cpu(device):
        return lambda: None
    return lambda: torch.accelerator.synchronize(torch.device(device))


def _is_cpu(device: str) -> bool:
    import torch

    return torch.device(device).type == "cpu"


@contextmanager
def _fixed_conditions(threads: int, cores: Sequence[int] | None) -> Iterator[None]:
    import torch

    threads_before, collecting = torch.get_num_threads(), gc.isenabled()
    pins = cores is not None and hasattr(os, "sched_setaffinity")
    mask_before = os.sched_getaffinity(0) if pins else set()
    gc.collect()
    gc.disable()
    torch.set_num_threads(threads)
    try:
        if pins and cores is not None:
            os.sched_setaffinity(0, cores)
        yield
    finally:
        if pins:
            os.sched_setaffinity(0, mask_before)
        torch.set_num_threads(threads_before)
        if collecting:
            gc.enable()
