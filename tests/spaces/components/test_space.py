"""The space of components beyond the exam: its size, uniform draws, what is kept of an aspect, and what is refused."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from math import prod

import numpy as np
import pytest

from orchestrator.objectives import CheapObjectives, Constraint, Feasibility
from orchestrator.strategies.enumeration import enumerate_architectures
from orchestrator.strategies.starting_points import starting_points
from spaces.components.space import ComponentsSpace
from spaces.encoder_shape import EncoderShape
from spaces.errors import SpaceError
from spaces.registry import load_space, space_names
from tests.spaces.components.microscopic import TEXT, WITHIN, make_space
from tests.spaces.components.test_exam import TINY, make_tiny

MINILM = EncoderShape(num_layers=6, hidden_size=384, num_heads=12, intermediate_size=1536)


def test_the_space_is_found_by_name():
    assert "components" in space_names()
    space = load_space("components", {"preset": "pruning"}, MINILM)
    assert isinstance(space, ComponentsSpace)
    assert space.contains(space.parse("|".join(["H1-12.Q1-2.M/F1-8.M"] * 6)))


def test_how_many_there_are():
    """The notes count every code of genes (section 3.4); with heads that are never behind each other, 4.3e8 a layer."""
    counts = load_space("components", {"preset": "parallel_heads"}).counts()
    assert counts["gene_codes_of_layer"] == 2**12 * 2**2 * 3**8 * 2**2 == 429_981_696
    assert counts["choices_of_attention"] == 1 + (2**12 - 1) * 2**2 * 2
    assert counts["choices_of_feed_forward"] == 3**8, "a mean or none for each of (3^8 - 1) / 2, and nothing"
    space = ComponentsSpace()
    layer = space.counts()["choices_of_layer"]
    assert layer == (1 + (3**12 - 1) // 2 * 2**3) * 3**8
    assert space.cardinality() == layer**12 - 1
    architecture = space.anchors()[0]
    kept = space.narrowed(architecture, ["attention"])
    assert kept.cardinality() == (3**8) ** 12
    assert kept.counts()["searched_halves_of_layers"] == 12
    assert space.counts()["encoder_parameters"]["most"] == EncoderShape().encoder_parameters


def test_draws_are_uniform():
    """Chi-square over all architectures of a tiny space; a third above the degrees of freedom is beyond chance."""
    space = make_tiny(vertical=("feed_forward",), fixed_attention=("H1.Q1", "0"), drawing="architectures")
    everything = list(enumerate_architectures(space))
    assert len(everything) == space.cardinality() == 9**2
    rng = random.Random(0)
    drawn = Counter(space.sample(rng) for _ in range(20 * len(everything)))
    assert set(drawn) <= set(everything)
    assert sum((drawn[one] - 20) ** 2 / 20 for one in everything) < 1.34 * len(everything)


def test_the_empty_network_is_none():
    space = make_tiny()
    with pytest.raises(SpaceError, match=r"architecture '0\|0' is not in the space: nothing is left of any layer"):
        space.parse("0|0")
    rng = random.Random(0)
    smallest = space.smallest()
    assert all(str(space.mutate(smallest, rng)) != "0|0" for _ in range(200))
    first, second = space.parse("H1|0"), space.parse("0|F2")
    assert {str(space.crossover(first, second, rng)) for _ in range(100)} == {"H1|0", "0|F2", "H1|F2"}
    dropped = {decision.name: "drop" for decision in space.decisions()}
    assert str(space.from_decisions({**dropped, "layer_1_head_1": "keep"})) == "H1|0"
    del dropped["layer_2_slice_2"]
    assert str(space.from_decisions(dropped)) == "0|F2"
    assert space.to_decisions(space.parse("0|F2")).get("layer_2_slice_2") is None
    assert space.to_decisions(space.parse("0|F1-2"))["layer_2_slice_2"] == "keep"


def test_decisions_are_genes():
    space = make_space()
    assert len(space.decisions()) == 4 * (4 + 3 + 2 + 1 + 8 + 7 + 1)
    chosen = space.to_decisions(space.parse(TEXT))
    assert [chosen[f"layer_1_head_{number}"] for number in range(1, 5)] == ["keep", "keep", "drop", "keep"]
    assert (chosen["layer_1_head_1_edge"], chosen["layer_1_head_2_edge"]) == ("horizontal", "vertical")
    assert "layer_1_head_4_edge" not in chosen, "behind the last one nothing stands"
    assert (chosen["layer_1_query_key_1"], chosen["layer_1_query_key_2"]) == ("drop", "keep")
    assert (chosen["layer_1_attention_mean"], chosen["layer_1_feed_forward_mean"]) == ("keep", "drop")
    assert "layer_3_attention_mean" not in chosen


def test_encodings_are_bits():
    space = make_space()
    vector = space.encode(space.parse(TEXT))
    assert len(vector) == 4 * (2 * 4 + 2 + 1 + 2 * 8 + 1)
    assert set(np.unique(vector)) == {0.0, 1.0}
    assert list(vector[:11]) == [1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1]
    narrowed = space.narrowed(space.parse(TEXT), ["attention"])
    assert len(narrowed.encode(narrowed.parse(TEXT))) == 4 * (2 * 8 + 1)


def test_genes_for_dashboards():
    row = make_space().genes(make_space().parse(TEXT))
    assert (row["layers"], row["attention_blocks"], row["feed_forward_blocks"]) == (3, 2 + 1 + 0 + 1, 3 + 0 + 0 + 1)
    assert (row["heads"], row["query_key_slices"], row["neurons"], row["means"]) == (9, 3, 13 * 16, 3)
    assert [row[f"layer_{number}"] for number in range(1, 5)] == TEXT.split("|")


def test_anchors_are_the_teacher_and_its_thinnings():
    space = ComponentsSpace()
    anchors = space.anchors()
    assert str(anchors[0]) == "|".join(["H1-12.Q1-2.M/F1-8.M"] * 12)
    assert str(anchors[4]) == "|".join(["H1-6.Q1-2.M/F1-4.M"] * 12)
    depths = [space.genes(anchor)["layers"] for anchor in anchors]
    assert depths == [12] * 8 + [10, 9, 8, 6, 4, 3, 2]
    assert all(str(anchor).endswith("M") for anchor in anchors), "the last layer is always kept"
    kept = space.narrowed(anchors[4], ["attention"])
    assert {anchor.layers[0].attention for anchor in kept.anchors()} == {anchors[4].layers[0].attention}


def test_the_smallest_is_the_smallest_of_all():
    for space in (make_tiny(), make_tiny(fixed_attention=("0", "0"), vertical=())):
        least = min(space.cost(space.sample(random.Random(seed))).encoder_parameters for seed in range(300))
        assert space.cost(space.smallest()).encoder_parameters <= least
    fixed = make_tiny(fixed_attention=("H2.Q1.M", "0"))
    assert str(fixed.smallest()) == "H2.Q1.M|0"


def test_searches_begin_within_budgets():
    """As strategies do it, by a few dozen mutations of 120 components."""
    space = load_space("components", {}, MINILM)
    cheap = CheapObjectives(space)
    for share in (0.5, 0.1):
        limit = share * MINILM.encoder_parameters
        budget = Feasibility(cheap, [Constraint("encoder_parameters", limit)])
        sizes = [space.cost(point).encoder_parameters for point in starting_points(space, [budget], 0)]
        assert 0.9 * limit < max(sizes) <= limit


def test_draws_by_shares_have_all_sizes():
    """Every tenth of the range of sizes is met; among draws that are all alike nearly none is."""
    rng, spread = random.Random(0), {}
    for drawing in ("shares", "architectures"):
        space = load_space("components", {"drawing": drawing}, MINILM)
        sizes = [space.cost(space.sample(rng)).encoder_parameters for _ in range(300)]
        spread[drawing] = {10 * size // MINILM.encoder_parameters for size in sizes}
    assert spread["shares"] >= set(range(9))
    assert spread["architectures"] <= set(range(4, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "small"}, "preset: found 'small', expected one of paper, parallel_heads, pruning"),
        ({"slices": 8}, "slices: unknown key; "),
        ({"shape": {}}, "shape: cannot be set, it is the teacher's; remove the key"),
        ({"feed_forward_slices": 0}, "feed_forward_slices: found 0; input should be greater than or equal to 1"),
        (
            {"feed_forward_slices": 7},
            "feed_forward_slices: found 7, which does not divide the teacher's intermediate_size 3072; expected one "
            "such as 1, 2, 3, 4, 6, 8, 12, 16",
        ),
        (
            {"query_key_slices": 3},
            "query_key_slices: found 3, which does not divide the size of the teacher's heads, 64; expected one such",
        ),
        ({"drawing": "sizes"}, "drawing: found 'sizes'; input should be 'shares' or 'architectures'"),
        ({"dropout": 1}, "dropout: found 1.0; input should be less than 1"),
        ({"vertical": ["heads"]}, "vertical.0: found 'heads', expected attention or feed_forward, each once at most"),
        ({"vertical": ["attention"] * 2}, "vertical.1: found 'attention', expected attention or feed_forward"),
        ({"fixed_attention": ["H1"]}, "fixed_attention: found 1 entries, expected 12, one for each of the teacher's"),
        (
            {"fixed_attention": ["F1"] * 12},
            "fixed_attention.0: sublayer 'F1', column 1: expected H and the numbers of heads, or 0 for nothing",
        ),
        ({"fixed_feed_forward": ["F9"] * 12}, "fixed_feed_forward.0: found 'F9': slice 9 of feed_forward, expected 1"),
        ({"within": ["H1"]}, "within: found ['H1']; input should be a valid string"),
        ({"within": "H1|H2"}, "within: found 2 layers in 'H1|H2', expected 12, as many as the teacher has"),
        ({"within": "H1/|0"}, "within: architecture 'H1/|0', column 4: expected F and the numbers of slices behind"),
        ({"within": "0|" * 11 + "H13"}, f"within: found '{'0|' * 11}H13': layer 12: head 13 of attention, expected 1"),
        (
            {"within": "H1>2/F1>2|" + "0|" * 10 + "0", "vertical": ["feed_forward"]},
            f"within: found 'H1>2/F1>2|{'0|' * 10}0': layer 1: head 2 of attention stands behind others, expected all "
            "of them beside each other, since space.options.vertical leaves attention out",
        ),
        (
            {"within": "0|" * 11 + "0"},
            f"within: found '{'0|' * 11}0', of which nothing is left; expected a component at least",
        ),
        (
            {"within": "H1-3.Q2|" + "0|" * 10 + "0", "fixed_attention": ["H3.Q1-2"] + ["0"] * 11},
            "fixed_attention.0: found 'H3.Q1-2': query-key slice 1 of attention, which space.options.within drops",
        ),
        (
            {"within": "F1|" * 11 + "F1", "fixed_feed_forward": ["F1"] * 11 + ["F1.M"]},
            "fixed_feed_forward.11: found 'F1.M': the mean of feed_forward, which space.options.within drops",
        ),
        (
            {"within": "H1|" * 11 + "H1", "fixed_attention": ["0"] * 12},
            "fixed_attention: nothing is left of any layer, and within leaves nothing too",
        ),
        (
            {"fixed_feed_forward": ["0"] * 12, "fixed_attention": ["0"] * 12},
            "fixed_attention: nothing is left of any layer, and fixed_feed_forward leaves nothing too",
        ),
    ],
)
def test_wrong_options_are_named_in_one_line(options, message):
    with pytest.raises(SpaceError) as raised:
        ComponentsSpace.from_options(options)
    assert str(raised.value).startswith(f"space.options.{message}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("H1", "it has 1 layer, expected 4, as many as the teacher"),
        ("H1|0|H5|0", "layer 3: head 5 of attention, expected 1 to 4"),
        ("0|F1-9|0|0", "layer 2: slice 9 of feed_forward, expected 1 to 8"),
        ("H1.Q3|0|0|0", "layer 1: query-key slice 3 of attention, expected 1 to 2"),
    ],
)
def test_texts_outside_the_space(text, message):
    with pytest.raises(SpaceError) as raised:
        make_space().parse(text)
    assert str(raised.value) == f"architecture '{text}' is not in the space: {message}"


def test_texts_outside_a_part_of_the_space():
    with pytest.raises(
        SpaceError, match=r"layer 2: slice 3 of feed_forward stands behind others, expected all of them"
    ):
        make_space(vertical=("attention",)).parse("H1>2|F1,2>3|0|0")
    space = make_space().narrowed(make_space().parse("H1-2.M/F1|0|0|F1"), ["attention"])
    with pytest.raises(
        SpaceError, match=r"layer 1: its attention is H1-2, expected H1-2.M \(space.options.fixed_atten"
    ):
        space.parse("H1-2/F1|0|0|F1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("H1-3|0|0|0", "layer 1: head 3 of attention, which space.options.within drops"),
        ("H1.Q1-2|0|0|0", "layer 1: query-key slice 1 of attention, which space.options.within drops"),
        ("H1|H2.Q2|0|0", "layer 2: query-key slice 2 of attention, which space.options.within drops"),
        ("F1.M|0|0|0", "layer 1: the mean of feed_forward, which space.options.within drops"),
        ("H1|0|F4|0", "layer 3: slice 4 of feed_forward, which space.options.within drops"),
    ],
)
def test_texts_outside_what_the_space_lies_within(text, message):
    with pytest.raises(SpaceError) as raised:
        make_space(within=WITHIN).parse(text)
    assert str(raised.value) == f"architecture '{text}' is not in the space: {message}"


def test_what_lies_within_an_architecture():
    """All that keeps no more: the count is the product over what is left, and edges are free."""
    space, whole = make_space(within=WITHIN), make_space()
    patterns = {components: (3**components - 1) // 2 for components in (1, 2, 3, 5)}
    halves = [1 + patterns[3] * 2**2, 1 + patterns[5], 1 + patterns[2] * 2, 1 + 2, 1 + 1]
    assert space.cardinality() == prod(halves) - 1
    assert space.counts()["choices_of_layer"] == [halves[0] * halves[1], halves[2] * halves[3], 1, halves[4]]
    assert (space.counts()["layers"], space.counts()["searched_halves_of_layers"]) == (4, 5)
    most, least = space.parse(WITHIN), whole.parse("0|H2|0|0")
    assert space.counts()["encoder_parameters"] == {
        "least": whole.cost(least).encoder_parameters,
        "most": whole.cost(most).encoder_parameters,
    }
    assert space.supernet().largest() == space.anchors()[0] == most
    assert space.smallest() == least
    assert space.contains(space.parse("H1>2>4.Q2/F1>3>4>5>8|H2>3/F2|0|F5"))
    assert space.contains(space.parse("H1-2,4.Q2/F1,3-5,8|H2-3/F2|0|F5"))
    assert len(space.decisions()) == (3 + 2 + 1 + 1) + (5 + 4) + (2 + 1 + 1) + (1 + 1) + 1
    assert [str(anchor) for anchor in space.anchors()[3:5]] == [
        "H1-2.Q2.M/F1,3>4|H2.M/F2.M|0|F5",  # 5 eighths
        "H1-2.Q2.M/F1,3|H2.M/F2.M|0|F5",
    ]
    assert str(space.anchors()[-1]) == "0|0|0|F5"
    rng = random.Random(0)
    for one in (space.mutate(space.sample(rng), rng) for _ in range(100)):
        assert all(set(part.components) <= set(limit.components) for part, limit in _pairs(one, most))
        assert all(set(part.query_key) <= set(limit.query_key) for part, limit in _pairs(one, most))
        assert all(part.mean <= limit.mean for part, limit in _pairs(one, most))


def _pairs(one, other):
    return zip(one.sublayers, other.sublayers, strict=True)


def test_the_whole_teacher_is_no_limit():
    everything = "|".join(["H1-4.Q1-2.M/F1-8.M"] * 4)
    limited, free = make_space(within=everything), make_space()
    assert limited.cardinality() == free.cardinality()
    assert [limited.sample(random.Random(seed)) for seed in range(20)] == [
        free.sample(random.Random(seed)) for seed in range(20)
    ]
    assert [one.name for one in limited.decisions()] == [one.name for one in free.decisions()]


def test_the_smallest_may_be_a_head_of_an_early_layer():
    space = make_tiny(within="H2/F1-2|F1-2", shape=replace(TINY, intermediate_size=64))
    assert str(space.smallest()) == "H2|0"


def test_narrowing_needs_an_aspect_and_a_member():
    space, value = make_space(), make_space().parse(TEXT)
    assert space.aspects() == ("attention", "feed_forward")
    with pytest.raises(
        SpaceError, match="space components: cannot keep depth, expected one of attention, feed_forward"
    ):
        space.narrowed(value, ["attention", "depth"])
    with pytest.raises(SpaceError, match="cannot keep nothing"):
        space.narrowed(value, [])
    with pytest.raises(SpaceError, match="is not in the space: it has 2 layers"):
        space.narrowed(make_tiny().smallest(), ["attention"])
    only = space.narrowed(value, ["attention", "feed_forward"])
    assert (only.cardinality(), only.sample(random.Random(0))) == (1, value)
