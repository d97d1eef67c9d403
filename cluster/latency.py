"""Latency that can be compared: pinned threads, warm-up, median and spread, turns taken in rotation."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

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
    """

    median_ms: float
    lower_quartile_ms: float
    upper_quartile_ms: float
    repeats: int
    calls_per_repeat: int

    @property
    def spread_ms(self) -> float:
        """Distance between the quartiles: what half of the repeats stay within."""
        return self.upper_quartile_ms - self.lower_quartile_ms


def measure(
    run: Callable[[], object],
    *,
    warm_up: int = 3,
    repeats: int = 20,
    threads: int = 1,
    device: str = "cpu",
    cores: Sequence[int] | None = None,
    minimum_repeat_ms: float = MINIMUM_REPEAT_MILLISECONDS,
) -> LatencyMeasurement:
    """Measure the latency of one function; the arguments are those of `measure_in_turn`."""
    return measure_in_turn(
        [run],
        warm_up=warm_up,
        repeats=repeats,
        threads=threads,
        device=device,
        cores=cores,
        minimum_repeat_ms=minimum_repeat_ms,
    )[0]


def measure_in_turn(
    runs: Sequence[Callable[[], object]],
    *,
    warm_up: int = 3,
    repeats: int = 20,
    threads: int = 1,
    device: str = "cpu",
    cores: Sequence[int] | None = None,
    minimum_repeat_ms: float = MINIMUM_REPEAT_MILLISECONDS,
) -> list[LatencyMeasurement]:
    """Measure several functions in rotation, so that a busy or throttling machine slows all of them alike.

    Each round times one repeat of every function, and each round begins with another one. The garbage collector rests
    meanwhile; PyTorch's thread count, the core mask and the collector are put back afterwards.

    Args:
        runs: functions without arguments; for a model call them under `torch.inference_mode` themselves.
        warm_up: calls of each function that are not timed (at least one, which also tells how many calls a repeat
        needs). repeats: rounds. threads: PyTorch's threads inside an operation, on the CPU. device: "cpu", or an
        accelerator such as "cuda:0", which is waited for before the clock is read. cores: cores to pin this process'
        calling thread to (Linux only); None leaves the mask as it is. minimum_repeat_ms: a repeat makes as many calls
        as it takes to last this long.

    Returns:
        One measurement for each function, in the order given.

    Raises:
        ValueError: ``repeats`` or ``threads`` is below one.
    """
    if repeats < 1 or threads < 1:
        raise ValueError(f"repeats={repeats} and threads={threads}; both must be at least 1")
    with _fixed_conditions(threads, cores):
        wait = _synchroniser(device)
        calls = [_calls_per_repeat(run, warm_up, minimum_repeat_ms, wait) for run in runs]
        times: list[list[float]] = [[] for _ in runs]
        for round_number in range(repeats):
            for place in range(len(runs)):
                index = (place + round_number) % len(runs)
                times[index].append(_time(runs[index], calls[index], wait))
    return [_summary(milliseconds, count) for milliseconds, count in zip(times, calls, strict=True)]


def _time(run: Callable[[], object], calls: int, wait: Callable[[], None]) -> float:
    """Milliseconds of one call, averaged over ``calls`` calls in a row."""
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    wait()
    return (time.perf_counter() - start) * 1000 / calls


def _calls_per_repeat(
    run: Callable[[], object], warm_up: int, minimum_repeat_ms: float, wait: Callable[[], None]
) -> int:
    """Warm a function up and return how many calls fill the minimum duration of a repeat."""
    fastest = min(_time(run, 1, wait) for _ in range(max(1, warm_up)))
    return max(1, math.ceil(minimum_repeat_ms / max(fastest, 1e-4)))


def _summary(milliseconds: list[float], calls: int) -> LatencyMeasurement:
    if len(milliseconds) == 1:
        lower = median = upper = milliseconds[0]
    else:
        lower, median, upper = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return LatencyMeasurement(median, lower, upper, repeats=len(milliseconds), calls_per_repeat=calls)


def _synchroniser(device: str) -> Callable[[], None]:
    """A function that returns once the device has done all it was given; calls on an accelerator return before that."""
    import torch

    if torch.device(device).type == "cpu":
        return lambda: None
    return lambda: torch.accelerator.synchronize(torch.device(device))


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
