"""EfficientBERT's space beyond the exam: uniform draws, stages, encodings, and what is refused in which words."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.strategies.enumeration import enumerate_architectures
from spaces.efficient_bert.anchors import PUBLISHED, published
from spaces.efficient_bert.counting import SERIAL_KINDS, TreeCounter
from spaces.efficient_bert.membership import in_window
from spaces.efficient_bert.options import EfficientBertOptions
from spaces.efficient_bert.rules import TreeLimits
from spaces.efficient_bert.space import EfficientBertSpace
from spaces.encoder_shape import EncoderShape
from spaces.errors import SpaceError
from spaces.registry import load_space, space_names
from tests.spaces.efficient_bert.microscopic import make_options
from tests.spaces.microscopic import parameters_of

FOUND = published(540, 6)
WINDOW = (15_000_000, 16_000_000)
FIRST_STAGE = EfficientBertSpace(EfficientBertOptions(parameter_window=WINDOW))
SECOND_STAGE = FIRST_STAGE.narrowed(FOUND, ["sizes"])
THIRD_STAGE = FIRST_STAGE.narrowed(FOUND, ["expressions"])


def make_space(**changes):
    return EfficientBertSpace(make_options(**changes))


def test_the_space_is_found_by_name():
    assert "efficient_bert" in space_names()
    space = load_space("efficient_bert", {"preset": "tiny", "parameter_window": [9_000_000, 10_000_000]})
    assert isinstance(space, EfficientBertSpace)
    assert published(360, 6) in space.anchors()
    assert load_space("efficient_bert", {"preset": "plus_plus"}).contains(published(360, 12))


def test_draws_within_a_window_are_uniform():
    """Chi-square over all architectures of a small window; twice the degrees of freedom is far beyond chance."""
    tiny = {"max_nodes": 6, "max_height": 3, "stacked": (1, 2), "divisors": (1, 2, 3), "fixed_expressions": None}
    whole = make_space(**tiny)
    parameters = sorted(whole.cost(architecture).parameters for architecture in enumerate_architectures(whole))
    window = (parameters[len(parameters) // 3], parameters[len(parameters) // 2])
    space = make_space(**tiny, parameter_window=window)
    everything = {one for one in enumerate_architectures(whole) if in_window(one, space.options)}
    assert 50 < len(everything) == space.cardinality() < whole.cardinality()
    rng = random.Random(0)
    drawn = Counter(space.sample(rng) for _ in range(8 * len(everything)))
    assert set(drawn) <= everything
    assert sum((drawn[one] - 8) ** 2 / 8 for one in everything) < 1.3 * len(everything)


def test_the_number_of_networks():
    assert EfficientBertSpace.from_options({"max_nodes": 7}).cardinality() == (16 * 111) ** 6
    ids = ["1_1"] * 6
    assert EfficientBertSpace.from_options({"max_nodes": 7, "fixed_linear_ids": ids}).cardinality() == 111**6
    third = EfficientBertSpace.from_options({"fixed_expressions": ["linear2(gelu(linear1(x)))"] * 6})
    assert third.cardinality() == 16**6


def test_parallel_trees_are_counted_where_they_run():
    limits = TreeLimits(max_nodes=8)
    serial = TreeCounter(limits).count(SERIAL_KINDS)
    space = EfficientBertSpace.from_options({"max_nodes": 8, "parallel": True})
    assert space.cardinality() == (4 * 811 + 12 * serial) ** 6
    text = "add(gelu(linear1(x)),linear2(x))"
    rest = "|".join(["1_1:linear2(gelu(linear1(x)))"] * 5)
    assert space.contains(space.parse(f"540|3_1:{text}|{rest}"))
    with pytest.raises(SpaceError, match=r"block 1: .* breaks the rule widths: linear2 gets something 540 wide"):
        space.parse(f"540|3_2:{text}|{rest}")
    with pytest.raises(SpaceError, match=r"block 1: .* breaks the rule serial: .*set space.options.parallel"):
        EfficientBertSpace().parse(f"540|3_1:{text}|{rest}")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_stages_change_what_they_search_and_keep_to_the_window(seed):
    rng = random.Random(seed)
    for space, kept in ((FIRST_STAGE, None), (SECOND_STAGE, "linear_ids"), (THIRD_STAGE, "expressions")):
        first, second = space.sample(rng), space.sample(rng)
        for architecture in (first, second, space.mutate(first, rng), space.crossover(first, second, rng)):
            assert WINDOW[0] <= space.cost(architecture).parameters <= WINDOW[1]
            assert FIRST_STAGE.contains(architecture)
            assert space.contains(architecture)
            if kept is not None:
                assert getattr(architecture, kept) == getattr(FOUND, kept)


def test_narrowing_needs_an_aspect_and_a_member():
    assert FIRST_STAGE.aspects() == ("expressions", "sizes")
    with pytest.raises(SpaceError, match="cannot keep depth, expected one of expressions, sizes"):
        FIRST_STAGE.narrowed(FOUND, ["sizes", "depth"])
    with pytest.raises(SpaceError, match="cannot keep nothing"):
        FIRST_STAGE.narrowed(FOUND, [])
    with pytest.raises(SpaceError, match="is not in the space: its hidden size is 360, expected 540"):
        FIRST_STAGE.narrowed(published(360, 6), ["sizes"])
    only = FIRST_STAGE.narrowed(FOUND, ["sizes", "expressions"])
    assert only.cardinality() == 1
    assert only.sample(random.Random(0)) == FOUND
    nas_bert = load_space("nas_bert")
    with pytest.raises(SpaceError, match="space nas_bert: cannot keep sizes of an architecture; its aspects: none"):
        nas_bert.narrowed(nas_bert.smallest(), ["sizes"])


def test_encodings_are_those_of_the_paper():
    assert [len(space.encode(FOUND)) for space in (FIRST_STAGE, SECOND_STAGE, THIRD_STAGE)] == [126, 120, 6]
    expressions, sizes = FIRST_STAGE.encode(FOUND)[:120], FIRST_STAGE.encode(FOUND)[120:]
    assert np.array_equal(sizes, THIRD_STAGE.encode(FOUND))
    assert np.array_equal(expressions, SECOND_STAGE.encode(FOUND))
    assert list(sizes) == [FIRST_STAGE.options.all_sizes.index(choice.sizes) for choice in FOUND.blocks]
    assert [np.count_nonzero(block >= 0) for block in expressions.reshape(6, 20)] == [7, 7, 7, 9, 8, 7]


def test_encodings_tell_all_trees_apart():
    """All 811 valid trees of up to 8 nodes, and some of 20."""
    space = make_space(max_nodes=8, parallel=True, layers=1, fixed_linear_ids=("1_1",))
    everything = list(enumerate_architectures(space))
    assert len(everything) == 811
    assert len({space.encode(architecture).tobytes() for architecture in everything}) == 811
    large = make_space(max_nodes=None, layers=1, fixed_linear_ids=("1_1",))
    rng = random.Random(0)
    drawn = {large.sample(rng) for _ in range(30)}
    assert max(one.blocks[0].expression.nodes for one in drawn) == 20
    assert len({large.encode(one).tobytes() for one in drawn}) == len(drawn)
    assert {large.encode(one).shape for one in drawn} == {(20,)}


def test_a_window_that_asks_for_exchanges():
    """Where only one sum is allowed, sizes change two at a time."""
    given = ("linear2(gelu(linear1(x)))",) * 3
    whole = make_space(layers=3, fixed_expressions=given, stacked=(1, 2))
    start = whole.parse("|".join(["24", "1_1:" + given[0], "2_2:" + given[0], "2_3:" + given[0]]))
    exactly = whole.cost(start).parameters
    space = make_space(layers=3, fixed_expressions=given, stacked=(1, 2), parameter_window=(exactly, exactly))
    assert space.cardinality() >= 6
    rng = random.Random(0)
    met = {start}
    current = start
    for _ in range(60):
        current = space.mutate(current, rng)
        assert space.cost(current).parameters == exactly
        met.add(current)
    assert len(met) == space.cardinality()


def test_the_smallest_is_the_smallest_of_all():
    assert FIRST_STAGE.cost(FIRST_STAGE.smallest()).parameters == 15_001_569
    tiny = make_space(max_nodes=6, stacked=(1, 2), divisors=(1, 3))
    least = min(tiny.cost(one).encoder_parameters for one in enumerate_architectures(tiny))
    assert tiny.cost(tiny.smallest()).encoder_parameters == least


def test_anchors_are_plain_networks_and_the_published_one():
    anchors = EfficientBertSpace().anchors()
    assert len(anchors) == 17
    assert {str(block.expression) for one in anchors[:16] for block in one.blocks} == {"linear2(gelu(linear1(x)))"}
    parameters = [EfficientBertSpace().cost(one).parameters for one in anchors[:16]]
    assert parameters == sorted(parameters, reverse=True)
    assert anchors[16] == FOUND
    assert SECOND_STAGE.anchors()[-1] == FOUND
    assert FOUND in THIRD_STAGE.anchors()
    assert all(one.expressions == FOUND.expressions for one in THIRD_STAGE.anchors())


def test_random_networks_are_built_as_they_are_counted():
    """Every tensor counted is one that the forward pass touches: no feed-forward is wider or deeper than its choice."""
    space = make_space(layers=3, parameter_window=(3_000, 10**6))
    rng = random.Random(1)
    for _ in range(5):
        architecture = space.sample(rng)
        counts = space.parameter_counts(architecture)
        assert parameters_of(space.build(architecture)) == counts["with_projection_without_pooler"]
        extracted = space.supernet().extract(architecture)
        assert parameters_of(extracted) == counts["with_projection_without_pooler"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "small"}, "preset: found 'small', expected one of base, tiny, plus_plus"),
        ({"max_node": 8}, "max_node: unknown key; did you mean 'max_nodes'?"),
        ({"shape": {}}, "shape: cannot be set, it is the teacher's; remove the key"),
        ({"max_nodes": 5}, "max_nodes: found 5; input should be greater than or equal to 6"),
        ({"max_nodes": 21}, "max_nodes: found 21; input should be less than or equal to 20"),
        ({"max_nodes": "many"}, "max_nodes: found 'many'; input should be a valid integer"),
        ({"parallel": 1}, "parallel: found 1; input should be true or false"),
        ({"heads": 7}, "heads: found 7, which does not divide hidden_size 540"),
        ({"stacked": []}, "stacked: found [], expected one or more different numbers from 1 on"),
        ({"divisors": [2, 0]}, "divisors: found [2, 0], expected one or more different numbers from 1 on"),
        ({"inner_width": 3, "divisors": [1, 4]}, "divisors: found 4, which leaves nothing of 3"),
        ({"min_height": 8}, "min_height: found 8, expected at most max_height 7"),
        ({"min_height": 7, "max_nodes": 6}, "max_nodes: no valid expression has a height of 7 to 7 and at most 6"),
        ({"width_rule": "stretch"}, "width_rule: found 'stretch'; input should be 'crop' or 'pad'"),
        ({"mutation": "none"}, "mutation: found 'none'; input should be 'uniform' or 'proposal'"),
        (
            {"parameter_window": 15e6},
            "parameter_window: found 15000000.0; input should be a valid tuple, as a list of 2",
        ),
        ({"parameter_window": [1]}, "parameter_window: found [1]; input should be a list of 2 numbers"),
        ({"parameter_window": [2, 1]}, "parameter_window: found [2, 1], expected the least parameters before the"),
        (
            {"parameter_window": [1, 2]},
            "parameter_window: found [1, 2], in which no architecture lies; they have from 12,712,014 to 25,875,324",
        ),
        ({"fixed_linear_ids": ["1_1"]}, "fixed_linear_ids: found 1 entries, expected 6, one for each of layers"),
        ({"fixed_linear_ids": ["1_5"] * 6}, "fixed_linear_ids.0: found '1_5', expected a linear id, one of 1_1, 1_2"),
        ({"fixed_expressions": ["y"] * 6}, "fixed_expressions.0: expression 'y', column 1: found 'y', which is no op"),
        (
            {"fixed_expressions": ["linear2(linear1(x))"] * 6},
            "fixed_expressions.0: found 'linear2(linear1(x))'; its height is 2, expected 3 to 7 (rule height)",
        ),
        (
            {"fixed_expressions": ["linear2(add(x,linear1(x)))"] * 6, "inner_width": 900, "divisors": [1]},
            "fixed_expressions.0: found 'linear2(add(x,linear1(x)))', linear2 gets something 540 wide, expected 900",
        ),
    ],
)
def test_wrong_options_are_named_in_one_line(options, message):
    with pytest.raises(SpaceError) as raised:
        EfficientBertSpace.from_options(options)
    assert str(raised.value).startswith(f"space.options.{message}")
    assert "\n" not in str(raised.value)


def test_teachers_that_do_not_fit():
    with pytest.raises(SpaceError, match="layers: found 6, which does not divide the teacher's 4 layers"):
        EfficientBertSpace.from_options({}, EncoderShape(num_layers=4))
    with pytest.raises(SpaceError, match="heads: found 12, but the teacher has 16"):
        EfficientBertSpace.from_options({}, EncoderShape(num_heads=16))
    shape = EncoderShape(num_layers=6, hidden_size=384, vocab_size=99)
    space = EfficientBertSpace.from_options({"hidden_size": 192}, shape)
    assert space.parameter_counts(space.smallest())["projection"] == 192 * 384 + 384


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("540|1_1:linear2(gelu(linear1(x)))", "it has 1 block, expected 6"),
        ("|".join(["540", "5_1:linear2(gelu(linear1(x)))", *PUBLISHED[1:]]), "block 1: 5_1 is not one of 1_1, 1_2"),
        (
            "|".join(["540", *PUBLISHED[:5], "1_1:gelu(gelu(linear2(gelu(linear1(x)))))"]),
            "block 6: gelu(gelu(linear2(gelu(linear1(x))))) breaks the rule activations: gelu(gelu(...)) has an",
        ),
        (
            "|".join(["540", *["4_1:linear2(gelu(linear1(x)))"] * 6]),
            "it has 25,875,324 parameters, expected 15,000,000 to 16,000,000 (space.options.parameter_window)",
        ),
    ],
)
def test_texts_outside_the_space(text, message):
    with pytest.raises(SpaceError) as raised:
        FIRST_STAGE.parse(text)
    assert str(raised.value).startswith(f"architecture '{text}' is not in the space: {message}")
