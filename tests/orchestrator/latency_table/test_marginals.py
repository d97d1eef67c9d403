"""Marginal prices: planted ones come back, and what is left out of the fit tells what they are worth."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.latency_table import LatencyConditions, LatencyTable, Marginals, TableOrigin
from orchestrator.latency_table.building import MeasuredSpace, build_table, check_table
from orchestrator.latency_table.marginals import fewest_architectures, fit_marginals, predicts_latency, priced
from orchestrator.latency_table.reliability import reliability_warning, warn_if_unreliable
from orchestrator.latency_table.sampling import spread_architectures
from orchestrator.testing.toy_space import ToySpace
from tests.spaces.components.microscopic import make_space
from tests.spaces.microscopic import SHAPE
from tests.spaces.microscopic import make_space as make_space_of_parts

SPACE = make_space()
CONDITIONS = LatencyConditions(batch_size=2, sequence_length=12, threads=1, warm_up=1, repeats=1)


@cache
def networks(count: int = 120):
    return spread_architectures(SPACE, count, "test", 12)


def planted(seed: int = 1):
    rng = random.Random(seed)
    return {name: rng.uniform(0.1, 2) for name in SPACE.latency_terms()}, rng.uniform(0.5, 3)


def timed(prices, base, noise=0.0, seed=1):
    cost, rng = SPACE.latency_cost(prices, base), random.Random(seed)
    return [cost.of(one) * math.exp(rng.gauss(0, noise)) for one in networks()]


@cache
def fitted() -> Marginals:
    """Prices of made-up measurements with a noise of 3 %."""
    return fit_marginals(SPACE, networks(), timed(*planted(), noise=0.03))


def make_table() -> LatencyTable:
    origin = TableOrigin("a device", CONDITIONS, "components", {}, asdict(SHAPE), {"torch": "9"})
    return LatencyTable({}, origin=origin, marginals=fitted())


# --- fitting ---------------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), free=st.sets(st.sampled_from(SPACE.latency_terms()), max_size=4))
def test_planted_prices_come_back_from_measurements_without_noise(seed, free):
    prices, base = planted(seed)
    prices |= dict.fromkeys(free, 0.0)
    found = fit_marginals(SPACE, networks(), timed(prices, base))
    assert found.by_name() == pytest.approx(prices, rel=1e-5, abs=1e-6)
    assert found.base_ms == pytest.approx(base, rel=1e-5)
    assert found.held_out.r_squared == pytest.approx(1)
    assert found.held_out.spearman > 0.999, "but for networks that cost the same"
    assert found.held_out.mape < 1e-5


def test_prices_still_order_networks_where_measurements_are_noisy():
    found, (prices, base) = fitted(), planted()
    assert found.architectures == found.held_out.architectures == 120
    assert found.held_out.spearman > 0.98
    assert 0.02 < found.held_out.mape < 0.04
    assert found.in_sample.mape < found.held_out.mape
    others = [SPACE.sample(random.Random(seed)) for seed in range(200)]
    told, true = found.cost(SPACE), SPACE.latency_cost(prices, base)
    assert max(abs(told.of(one) / true.of(one) - 1) for one in others) < 0.05


def test_no_price_is_below_zero_though_something_saves_time():
    prices, base = planted()
    prices |= {"attention.norm": 0.1, "attention.norm_without_mean": 0.4}
    found = fit_marginals(SPACE, networks(), timed(prices, base, noise=0.1))
    assert min(term.value for term in found.terms) >= 0
    told = {cost.name: cost.horizontal_ms for cost in fit_marginals(SPACE, networks(), timed(prices, base)).costs}
    assert told["mean of the LayerNorm behind attention"] == pytest.approx(-0.3, rel=1e-4)


def test_a_few_disturbed_networks_do_not_bend_the_prices():
    prices, base = planted()
    measured = timed(prices, base, noise=0.01)
    for index in range(0, 120, 15):
        measured[index] *= 1.8
    found = fit_marginals(SPACE, networks(), measured)
    told, true = found.cost(SPACE), SPACE.latency_cost(prices, base)
    assert np.mean([abs(told.of(one) / true.of(one) - 1) for one in networks()]) < 0.015


def test_held_out_networks_tell_what_measurements_of_nothing_are_worth():
    rng = random.Random(4)
    found = fit_marginals(SPACE, networks(), [rng.uniform(1, 2) for _ in networks()])
    assert abs(found.held_out.spearman) < 0.4
    assert found.held_out.r_squared < found.in_sample.r_squared < 0.4


def test_hardly_any_networks_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"^space 'components': found 4 networks .* expected 5 or more; .*[^.]$"):
        fit_marginals(SPACE, networks()[:4], [1.0, 2.0, 3.0, 4.0])


# --- which spaces have prices ----------------------------------------------------------------------------------------


def test_spaces_predict_by_parts_or_by_prices_or_not_at_all():
    parts, nothing, fixed = (
        make_space_of_parts(),
        ToySpace(),
        make_space(fixed_attention=("H1-4",) * 4, fixed_feed_forward=("F1",) * 4),
    )
    assert [predicts_latency(space) for space in (SPACE, parts, nothing, fixed)] == [True, True, False, False]
    assert [priced(space) is None for space in (SPACE, parts, nothing, fixed)] == [False, True, True, True]
    assert fewest_architectures(SPACE) == 4 * 12


# --- the table -------------------------------------------------------------------------------------------------------


def test_a_table_of_prices_predicts():
    table, (one, *_) = make_table(), networks()
    expected = fitted().base_ms + sum(
        price * count for price, count in zip(fitted().by_name().values(), SPACE.latency_counts(one), strict=True)
    )
    assert table.predict_ms(SPACE, one) == pytest.approx(expected)
    assert table.known_ms(SPACE, one) == table.objectives(SPACE)["latency_ms"](one) == table.predict_ms(SPACE, one)
    assert table.predicts
    narrow = SPACE.narrowed(one, ["attention"])
    assert table.predict_ms(narrow, one) == pytest.approx(expected)


def test_a_distribution_can_be_learnt_by_a_table_of_prices():
    cost = make_table().expected_cost(SPACE)
    assert cost.name == "latency_ms"
    assert cost.of(networks()[5]) == make_table().predict_ms(SPACE, networks()[5])
    distribution = SPACE.distribution(1 - 1e-9)
    whole = SPACE.supernet().largest()
    assert float(cost.expected(distribution).detach()) == pytest.approx(cost.of(whole), rel=1e-5)
    torch.autograd.grad(cost.expected(distribution), distribution.attention.presence_LN)


def test_a_table_of_parts_or_of_nothing_has_no_expected_cost():
    assert LatencyTable({}).expected_cost(SPACE) is None
    assert not LatencyTable({}).predicts
    assert LatencyTable({}).known_ms(SPACE, networks()[0]) is None
    assert LatencyTable({}).objectives(SPACE) == {}


def test_prices_of_another_kind_of_space_are_refused():
    toy = ToySpace()
    with pytest.raises(UserError, match=r"^latency table: found marginal prices, but the space 'toy'"):
        make_table().predict_ms(toy, toy.smallest())


def test_json_keeps_everything():
    table = make_table()
    checked = replace(table, marginals=replace(fitted(), checked=replace(fitted().held_out, spearman=math.nan)))
    for one in (table, checked):
        again = LatencyTable.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False)))
        assert again.to_json() == one.to_json()
        assert again.predict_ms(SPACE, networks()[7]) == one.predict_ms(SPACE, networks()[7])
    assert LatencyTable.from_json(table.to_json()) == table


def test_files_that_are_older_than_prices_stay_readable():
    old = LatencyTable({}).to_json()
    del old["marginals"]
    assert LatencyTable.from_json(old) == LatencyTable({})


@pytest.mark.parametrize("damage", ["prices", "held_out", "base_ms"])
def test_damaged_prices_are_named(damage):
    value = make_table().to_json()
    del value["marginals"][damage]
    with pytest.raises(UserError, match=rf"^latency table: it is damaged or not one \(no '{damage}'\)"):
        LatencyTable.from_json(value)


# --- warnings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held_out", "checked", "count", "number"),
    [
        (0.95, None, 0, None),
        (0.89, None, 0, "0.89"),
        (math.nan, None, 0, "nan"),
        (0.95, 0.7, 10, "0.70"),
        (0.95, 0.2, 3, None),
        (0.6, 0.99, 50, "0.60"),
    ],
)
def test_whoever_searches_is_warned_of_prices_that_order_networks_badly(held_out, checked, count, number):
    marginals = replace(
        fitted(),
        held_out=replace(fitted().held_out, spearman=held_out),
        checked=None if checked is None else replace(fitted().held_out, spearman=checked, architectures=count),
    )
    told: list[str] = []
    warn_if_unreliable(replace(make_table(), marginals=marginals), told.append)
    if number is None:
        assert told == []
        return
    (line,) = told
    assert "\n" not in line
    for said in (f"of {number} ", "0.9 or more", "quiet machine", "tables.latency.marginal_repeats", "(found 120)"):
        assert said in line


def test_tables_without_prices_are_not_warned_of():
    assert reliability_warning(LatencyTable({})) is None


# --- measured on this device -----------------------------------------------------------------------------------------


def test_prices_are_fitted_to_networks_of_this_device_and_checked_with_others():
    measured = MeasuredSpace(SPACE, "components", {}, SHAPE)
    rounds: list[tuple[int, int]] = []
    built = build_table(
        measured,
        CONDITIONS,
        fit_architectures=30,
        check_architectures=4,
        seed=3,
        on_round=lambda *round_: rounds.append(round_),
    )
    assert rounds == [(1, 1)]
    fitted_to, checked = ([one.architecture for one in part] for part in (built.fitted, built.check.networks))
    assert len(fitted_to) == built.table.marginals.architectures == 30
    assert set(SPACE.anchors()) <= set(fitted_to), "the teacher, which a search begins at, is regular"
    assert len(checked) == 4
    assert not set(fitted_to) & set(checked)
    assert built.table.marginals.checked == built.check.with_remainder
    assert built.check.without_remainder is None
    for network in (*built.fitted, *built.check.networks):
        assert network.predicted_ms == built.table.predict_ms(SPACE, network.architecture)
        assert network.additive_ms is None
    again = check_table(built.table, SPACE, CONDITIONS, SHAPE.vocab_size, architectures=4, seed=3)
    assert [one.architecture for one in again.networks] == checked


def test_nothing_is_measured_where_no_prices_are_wanted():
    built = build_table(MeasuredSpace(SPACE, "components", {}, SHAPE), CONDITIONS, fit_architectures=0)
    assert not built.table.predicts
    assert (built.fitted, built.check) == ([], None)
