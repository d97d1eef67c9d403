"""How predictions agree with measurements: errors, the variance they explain, and two rank correlations."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from orchestrator.latency_table.agreement import Agreement, agreement

pairs = st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)), min_size=3, max_size=20)


def test_numbers_by_hand():
    found = agreement([1.1, 1.8, 4.0, 4.0], [1.0, 2.0, 4.0, 5.0])
    assert found.mape == pytest.approx((0.1 + 0.1 + 0.0 + 0.2) / 4)
    assert found.median_error == pytest.approx(0.1)
    assert found.bias == pytest.approx((0.1 - 0.1 + 0.0 - 0.2) / 4)
    assert found.r_squared == pytest.approx(1 - (0.01 + 0.04 + 0.0 + 1.0) / 10)
    assert found.architectures == 4


@given(pairs)
def test_rank_correlations_are_scipys(values):
    predicted, measured = ([pair[side] for pair in values] for side in (0, 1))
    if len(set(predicted)) == 1 or len(set(measured)) == 1:
        return
    found = agreement(predicted, measured)
    assert found.spearman == pytest.approx(spearmanr(predicted, measured).statistic)
    assert found.kendall_tau == pytest.approx(kendalltau(predicted, measured).statistic)


def test_what_cannot_be_told_is_no_number_and_nothing_in_json():
    found = agreement([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    assert math.isnan(found.spearman)
    assert math.isnan(found.kendall_tau)
    assert math.isnan(found.r_squared)
    text = json.dumps(found.to_json(), allow_nan=False)
    again = Agreement.from_json(json.loads(text))
    assert math.isnan(again.spearman)
    assert again.to_json() == found.to_json()


def test_predicting_the_mean_explains_nothing():
    assert agreement([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]).r_squared == pytest.approx(0)


@pytest.mark.parametrize(("predicted", "measured"), [([1.0], [1.0]), ([1.0, 2.0], [1.0, 2.0, 3.0])])
def test_what_cannot_be_compared_is_refused(predicted, measured):
    with pytest.raises(ValueError, match="expected equally many, 2 or more"):
        agreement(predicted, measured)
