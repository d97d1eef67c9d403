from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from orchestrator import rank_agreement as agreement_module
from orchestrator.rank_agreement import partial_tau, rank_agreement, spearman, verdict

NUMBERS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12)


@given(NUMBERS)
def test_the_quick_tau_is_scipys(pairs: list[tuple[int, int]]) -> None:
    first, second = (np.array(values, dtype=float) for values in zip(*pairs, strict=True))
    quick, slow = agreement_module._tau(first, second), kendalltau(first, second).statistic
    assert (quick is None and np.isnan(slow)) or quick == pytest.approx(slow)


def test_a_proxy_that_only_knows_the_size_tells_nothing_beyond_it() -> None:
    sizes = [1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    errors = [10.0, 8, 9, 7, 6, 4, 5, 3, 1, 2]
    only_size = rank_agreement([-size for size in sizes], errors, sizes)
    assert only_size.tau == only_size.tau_size == pytest.approx(1 - 2 * 3 / 45)
    assert only_size.beyond_size is None
    assert "hardly more than the size" in verdict(
        only_size.tau, only_size.low, only_size.tau_size, only_size.beyond_size
    )
    perfect = rank_agreement(errors, errors, sizes)
    assert [perfect.tau, perfect.low, perfect.high, perfect.beyond_size] == pytest.approx([1.0] * 4)
    assert perfect.p_value is not None
    assert perfect.p_value < 0.001
    assert "like size, so that a search" in verdict(perfect.tau, perfect.low, perfect.tau_size, perfect.beyond_size)


def test_an_unrelated_proxy_cannot_be_told_from_chance() -> None:
    rng = np.random.default_rng(3)
    found = rank_agreement(rng.normal(size=20), rng.normal(size=20), rng.normal(size=20))
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high
    assert "random order" in verdict(found.tau, found.low, found.tau_size, found.beyond_size)


def test_the_interval_narrows_with_more_architectures_and_is_repeatable() -> None:
    def width(count: int) -> float:
        rng = np.random.default_rng(5)
        truth, noise, sizes = rng.normal(size=(3, count))
        found = rank_agreement(truth + noise, truth, sizes, seed=1)
        assert found == rank_agreement(truth + noise, truth, sizes, seed=1)
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    assert width(40) < width(8)


def test_equal_results_rank_nothing() -> None:
    found = rank_agreement([1.0, 2, 3], [5.0, 5, 5], [1.0, 2, 3])
    assert found.tau is found.beyond_size is None
    assert "cannot be judged" in verdict(found.tau, found.low, found.tau_size, found.beyond_size)


@settings(max_examples=30)
@given(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9), st.floats(-0.9, 0.9))
def test_partial_tau_is_tau_where_the_third_knows_neither(both: float, second: float, first: float) -> None:
    assert partial_tau(both, 0.0, 0.0) == pytest.approx(both)
    assert partial_tau(second * first, second, first) == pytest.approx(0.0, abs=1e-9)


def test_spearman() -> None:
    assert spearman([1.0, 2, 3, 4], [10.0, 20, 30, 100]) == pytest.approx(1.0)
    assert spearman([1.0, 1, 1, 1], [10.0, 20, 30, 100]) is None
