"""Building and checking a table on this device, with microscopic networks; nothing here depends on good timing."""

from __future__ import annotations

import math

import pytest

from orchestrator.latency_table import LatencyConditions
from orchestrator.latency_table.agreement import agreement
from orchestrator.latency_table.building import MeasuredSpace, build_table, check_table
from orchestrator.testing.toy_space import ToySpace
from tests.spaces.microscopic import OPTIONS, SHAPE, make_space

SMALL = OPTIONS | {"hidden_sizes": (16, 32), "embedding_sizes": (16,)}
SPACE = MeasuredSpace(make_space(**SMALL), "nas_bert", SMALL, SHAPE)
CONDITIONS = LatencyConditions(batch_size=2, sequence_length=12, threads=1, warm_up=1, repeats=2)


@pytest.fixture(scope="module")
def built():
    return build_table(SPACE, CONDITIONS, fit_architectures=5, check_architectures=4, seed=3)


def test_every_part_has_an_entry_and_the_table_knows_its_origin(built):
    assert set(built.table.entries) == set(SPACE.space.parts())
    origin = built.table.origin
    assert (origin.conditions, origin.space_name) == (CONDITIONS, "nas_bert")
    assert origin.device_name
    assert origin.versions["torch"]
    assert built.table.remainder.architectures == len(built.fitted) == 5


def test_networks_of_the_check_are_not_those_of_the_fit(built):
    fitted = {network.architecture for network in built.fitted}
    checked = {network.architecture for network in built.check.networks}
    assert len(checked) == 4
    assert not fitted & checked


def test_predictions_are_the_tables(built):
    for network in (*built.fitted, *built.check.networks):
        assert network.predicted_ms == built.table.predict_ms(SPACE.space, network.architecture)
        assert network.additive_ms == built.table.predict_ms(SPACE.space, network.architecture, remainder=False)
        assert network.measured.median_ms > 0
    measured = [network.measured.median_ms for network in built.check.networks]
    assert built.check.with_remainder == agreement([n.predicted_ms for n in built.check.networks], measured)
    assert built.check.without_remainder == agreement([n.additive_ms for n in built.check.networks], measured)


def test_a_finished_table_is_checked_with_the_same_networks(built):
    rounds = []
    check = check_table(
        built.table,
        SPACE.space,
        CONDITIONS,
        SHAPE.vocab_size,
        architectures=4,
        seed=3,
        on_round=lambda *round_: rounds.append(round_),
    )
    drawn = [network.architecture for network in check.networks]
    assert drawn == [network.architecture for network in built.check.networks]
    assert rounds == [(1, 2), (2, 2)]
    assert math.isfinite(check.with_remainder.mape)


def test_without_networks_there_is_no_remainder_and_no_check():
    plain = build_table(SPACE, CONDITIONS, fit_architectures=0)
    assert plain.table.remainder.terms == ()
    assert plain.fitted == []
    assert plain.check is None


def test_a_space_that_names_no_parts_gives_an_empty_table():
    toy = ToySpace()
    built = build_table(MeasuredSpace(toy, "toy", {}, SHAPE), CONDITIONS, fit_architectures=4, check_architectures=4)
    assert built.table.entries == {}
    assert built.check is None
    assert built.table.predict_ms(toy, toy.smallest()) == 0.0
