"""Measuring time: conditions are held and put back, turns rotate, and durations come out right."""

from __future__ import annotations

import gc
import os
import time

import pytest
import torch

from cluster.latency import Repeats, measure, measure_in_turn, repeat_in_turn


def test_a_known_duration_is_measured():
    measured = measure(lambda: time.sleep(0.005), warm_up=1, repeats=5)
    assert 5 <= measured.lower_quartile_ms <= measured.median_ms <= measured.upper_quartile_ms
    assert measured.median_ms < 50
    assert measured.repeats == 5
    assert measured.calls_per_repeat == 1
    assert measured.spread_ms == measured.upper_quartile_ms - measured.lower_quartile_ms


def test_time_that_others_took_is_left_out_of_what_only_computes():
    """A sleep stands for the time in which another process has the core."""

    def compute_and_be_interrupted() -> None:
        sum(range(20_000))
        time.sleep(0.02)

    wall = measure(compute_and_be_interrupted, repeats=3)
    own = measure(compute_and_be_interrupted, repeats=3, compute_bound=True)
    assert wall.median_ms >= 20
    assert wall.lost_ms == 0
    assert own.lost_ms >= 15
    assert 0 < own.median_ms < 0.75 * own.lost_ms
    many_threads = measure(compute_and_be_interrupted, repeats=3, compute_bound=True, threads=2)
    assert many_threads.median_ms >= 20  # one thread's clock says nothing of the others'


def test_repeats_of_two_occasions_are_pooled():
    first, second = Repeats((1.0, 2.0), (0.0, 0.5), 4), Repeats((9.0,), (6.0,), 4)
    pooled = (first + second).summary()
    assert (pooled.median_ms, pooled.repeats, pooled.calls_per_repeat, pooled.lost_ms) == (1.5, 3, 4, 0.5)
    assert Repeats((3.0,), (1.0,), 1).summary().spread_ms == 0
    tenth = pooled.divided_by(10)
    assert (tenth.median_ms, tenth.spread_ms) == pytest.approx((0.15, pooled.spread_ms / 10))


def test_rounds_are_told():
    rounds: list[int] = []
    repeated = repeat_in_turn([lambda: None], repeats=3, minimum_repeat_ms=0.0, on_round=rounds.append)
    assert rounds == [1, 2, 3]
    assert len(repeated[0].wall_ms) == len(repeated[0].lost_ms) == 3


def test_fast_functions_are_called_often_enough_for_the_clock():
    calls = []
    start = time.perf_counter()
    measured = measure(lambda: calls.append(1), warm_up=2, repeats=3, minimum_repeat_ms=2.0)
    elapsed_ms = (time.perf_counter() - start) * 1000
    assert measured.calls_per_repeat > 100
    assert len(calls) == 2 + 3 * measured.calls_per_repeat
    assert measured.median_ms * measured.calls_per_repeat < elapsed_ms


def test_functions_take_turns_and_each_round_begins_with_another():
    order: list[int] = []
    runs = [lambda number=number: order.append(number) for number in range(3)]
    measured = measure_in_turn(runs, warm_up=1, repeats=3, minimum_repeat_ms=0.0)
    assert order == [0, 1, 2, 0, 1, 2, 1, 2, 0, 2, 0, 1]  # warm-up, then three rounds
    assert [each.repeats for each in measured] == [3, 3, 3]


def test_more_work_takes_longer():
    small, large = torch.ones(32, 32), torch.ones(512, 512)
    few, many = measure_in_turn([lambda: small @ small, lambda: large @ large], repeats=5, minimum_repeat_ms=1.0)
    assert many.median_ms > 5 * few.median_ms


@pytest.mark.parametrize("fails", [False, True])
def test_conditions_hold_meanwhile_and_are_put_back(fails: bool):
    seen: list[tuple[int, bool, set[int]]] = []
    core = min(os.sched_getaffinity(0))
    before = (torch.get_num_threads(), gc.isenabled(), os.sched_getaffinity(0))

    def look() -> None:
        seen.append((torch.get_num_threads(), gc.isenabled(), os.sched_getaffinity(0)))
        if fails:
            raise ZeroDivisionError

    if fails:
        with pytest.raises(ZeroDivisionError):
            measure(look, threads=2, cores=[core])
    else:
        measure(look, threads=2, cores=[core], repeats=2, minimum_repeat_ms=0.0)
    assert all(entry == (2, False, {core}) for entry in seen)
    assert seen
    assert (torch.get_num_threads(), gc.isenabled(), os.sched_getaffinity(0)) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_work_on_a_gpu_is_waited_for():
    matrix = torch.ones(8192, 8192, device="cuda")
    waited = measure(lambda: matrix @ matrix, device="cuda:0", repeats=5)
    launched = measure(lambda: matrix @ matrix, device="cpu", repeats=1, minimum_repeat_ms=0.0)
    assert waited.median_ms > 3 * launched.median_ms


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"threads": 0}])
def test_impossible_numbers_are_refused(wrong: dict[str, int]):
    with pytest.raises(ValueError, match="at least 1"):
        measure(lambda: None, **wrong)
