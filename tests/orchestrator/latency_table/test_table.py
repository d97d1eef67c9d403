"""The additive latency table: sums of parts, with a remainder that stays additive."""

from __future__ import annotations

import json
import random
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.latency import LatencyMeasurement
from orchestrator.errors import UserError
from orchestrator.latency_table import LatencyConditions, LatencyTable, Remainder, TableOrigin
from orchestrator.latency_table.remainder import LAYER, NETWORK, PROJECTION, Term
from spaces.nas_bert.architecture import BlockArchitecture, NasBertArchitecture
from spaces.space import Part
from tests.spaces.microscopic import OPTIONS, SHAPE, architecture, make_space

SPACE = make_space()
REMAINDER = Remainder(
    (
        Term(NETWORK, 0.7, "ms a network", ""),
        Term(LAYER, 0.11, "ms an operation", ""),
        Term(PROJECTION, 0.05, "ms a projection", ""),
        Term("scale:M", 1.3, "1", ""),
    ),
    architectures=5,
    error_without=0.2,
    error_in_sample=0.01,
    error_out_of_sample=0.02,
)


def make_table() -> LatencyTable:
    """Made-up latencies, all different, so that no part stands in for another unnoticed."""
    parts = SPACE.parts()
    medians = [1.5**-number for number in range(len(parts))]
    measured = [LatencyMeasurement(median, median / 2, median * 2, 3, 1) for median in medians]
    conditions = LatencyConditions(batch_size=2, sequence_length=12, threads=1, warm_up=1, repeats=3)
    origin = TableOrigin("a device", conditions, "nas_bert", OPTIONS, asdict(SHAPE), {"torch": "9"})
    return LatencyTable(dict(zip(parts, measured, strict=True)), REMAINDER, origin)


TABLE = make_table()
operations = st.lists(st.sampled_from(OPTIONS["operations"]), min_size=1, max_size=4).map(tuple)
blocks = st.builds(BlockArchitecture, st.sampled_from(OPTIONS["hidden_sizes"]), operations)
networks = st.builds(NasBertArchitecture, st.sampled_from(OPTIONS["embedding_sizes"]), st.tuples(blocks, blocks))


def test_without_the_remainder_a_prediction_is_the_sum_of_the_parts():
    rng = random.Random(2)
    for _ in range(20):
        sampled = SPACE.sample(rng)
        parts = [TABLE.entries[part].median_ms for part in SPACE.parts_of(sampled)]
        assert len(parts) > sum(len(block.operations) for block in sampled.blocks)
        assert TABLE.predict_ms(SPACE, sampled, remainder=False) == pytest.approx(sum(parts))


@given(networks, st.booleans())
def test_a_prediction_adds_up_over_blocks_and_links(network, remainder):
    first, second = network.blocks
    terms = [
        TABLE.constant_ms if remainder else 0.0,
        TABLE.embedding_ms(SPACE, network.embedding_size, remainder),
        TABLE.link_ms(SPACE, network.embedding_size, first.hidden_size, remainder),
        TABLE.block_ms(SPACE, first, remainder),
        TABLE.link_ms(SPACE, first.hidden_size, second.hidden_size, remainder),
        TABLE.block_ms(SPACE, second, remainder),
        TABLE.link_ms(SPACE, second.hidden_size, None, remainder),
    ]
    assert TABLE.predict_ms(SPACE, network, remainder) == pytest.approx(sum(terms))


@given(networks, st.randoms(use_true_random=False))
def test_the_order_of_layers_does_not_matter(network, rng):
    shuffled = tuple(
        BlockArchitecture(block.hidden_size, tuple(rng.sample(block.operations, len(block.operations))))
        for block in network.blocks
    )
    other = NasBertArchitecture(network.embedding_size, shuffled)
    assert TABLE.predict_ms(SPACE, other) == pytest.approx(TABLE.predict_ms(SPACE, network))


@given(blocks, st.sampled_from(OPTIONS["operations"]))
def test_one_more_operation_costs_that_operation_and_never_less_than_nothing(block, operation):
    more = BlockArchitecture(block.hidden_size, (*block.operations, operation))
    part = Part("operation", operation, block.hidden_size)
    grown = TABLE.block_ms(SPACE, more) - TABLE.block_ms(SPACE, block)
    assert grown > 0
    assert grown == pytest.approx(TABLE.part_ms(part), abs=1e-9)
    scale = 1.3 if operation == "M" else 1.0
    assert TABLE.part_ms(part) == pytest.approx(scale * TABLE.entries[part].median_ms + 0.11)


def test_a_block_of_identities_costs_nothing():
    assert TABLE.parts_ms([]) == 0.0


def test_all_blocks_at_once_are_the_blocks_one_by_one():
    at_once = TABLE.blocks_ms(SPACE)
    one_by_one = [TABLE.block_ms(SPACE, block) for block in SPACE.enumerate_blocks()]
    np.testing.assert_allclose(at_once, one_by_one)
    np.testing.assert_allclose(
        TABLE.blocks_ms(SPACE, remainder=False)[:7],
        [TABLE.block_ms(SPACE, SPACE.block_at(index), remainder=False) for index in range(7)],
    )


def test_a_remainder_without_terms_changes_nothing():
    plain = TABLE.with_remainder(Remainder())
    network = architecture("E32|16:M-F|32:S3")
    assert plain.predict_ms(SPACE, network) == plain.predict_ms(SPACE, network, remainder=False)
    assert plain.predict_ms(SPACE, network) < TABLE.predict_ms(SPACE, network)


def test_json_keeps_everything():
    restored = LatencyTable.from_json(json.loads(json.dumps(TABLE.to_json())))
    assert (restored.entries, restored.remainder) == (TABLE.entries, TABLE.remainder)
    assert restored.origin is not None
    assert TABLE.origin is not None
    assert restored.origin.conditions == TABLE.origin.conditions
    assert restored.origin.describe() == "batch 2 × 12 tokens on a device, 1 thread"
    network = architecture("E32|16:M-F|32:S3")
    assert restored.predict_ms(SPACE, network) == TABLE.predict_ms(SPACE, network)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"entries": None}, "damaged"),
        ({"entries": [{"part": {"kind": "operation"}}]}, "damaged"),
        ({"entries": [{"part": {"kind": "a", "name": "b", "size": 1}, "latency": {"median_ms": 1}}]}, "damaged"),
        ({"remainder": {}}, "damaged"),
        ({"format_version": 99}, "found format 99, expected 1"),
    ],
)
def test_damaged_tables_are_refused_in_one_line(change, said):
    with pytest.raises(UserError, match=said) as error:
        LatencyTable.from_json(TABLE.to_json() | change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [None, [], "table", {}, 3])
def test_what_is_no_table_is_refused(value):
    with pytest.raises(UserError, match="latency table"):
        LatencyTable.from_json(value)


def test_a_latency_that_is_not_a_number_is_refused():
    value = TABLE.to_json()
    value["entries"][0]["latency"]["median_ms"] = float("nan")
    with pytest.raises(UserError, match="median_ms"):
        LatencyTable.from_json(value)


def test_a_part_of_another_space_is_named():
    with pytest.raises(UserError, match="no entry for operation S9 at width 16"):
        TABLE.part_ms(Part("operation", "S9", 16))
