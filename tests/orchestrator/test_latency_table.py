"""The additive latency table."""

from __future__ import annotations

import json
import random

import pytest

from cluster.latency import LatencyMeasurement
from orchestrator.latency_table import LatencyConditions, LatencyTable, measure_part
from tests.spaces.microscopic import architecture, make_space

CONDITIONS = LatencyConditions(batch_size=2, sequence_length=12, threads=1, warm_up=1, repeats=3)


@pytest.fixture(scope="module")
def table():
    """Made-up latencies, all different, so that no part stands in for another unnoticed."""
    parts = make_space().parts()
    medians = [2.0**-number for number in range(len(parts))]
    measured = [LatencyMeasurement(median, median / 2, median * 2, 3, 1) for median in medians]
    return LatencyTable(dict(zip(parts, measured, strict=True)))


def test_a_prediction_is_the_sum_of_the_parts(table):
    space = make_space()
    rng = random.Random(2)
    for _ in range(20):
        sampled = space.sample(rng)
        parts = [table.entries[part].median_ms for part in space.parts_of(sampled)]
        assert len(parts) > sum(len(block.operations) for block in sampled.blocks)
        assert table.predict_ms(space, sampled) == pytest.approx(sum(parts))


def test_one_more_operation_costs_that_operation(table):
    space = make_space()
    with_more, with_less = (table.predict_ms(space, architecture(t)) for t in ("E32|32:M-F|16:M", "E32|32:M|16:M"))
    (entry,) = [entry for entry in table.entries if (entry.kind, entry.name, entry.size) == ("operation", "F", 32)]
    assert with_more - with_less == pytest.approx(table.entries[entry].median_ms)


def test_json_keeps_every_entry(table):
    restored = LatencyTable.from_json(json.loads(json.dumps(table.to_json())))
    assert restored == table


def test_every_part_can_be_measured():
    space = make_space()
    for part in space.parts():
        measured = measure_part(space, part, CONDITIONS, vocab_size=99)
        assert measured.median_ms > 0, part
        assert measured.repeats == 3
