"""Parameters and FLOPs are the published ones (paper notes, sections 4.2 and 4.3)."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from spaces.efficient_bert.anchors import published
from spaces.efficient_bert.cost import (
    attention_parameters,
    block_parameters,
    embedding_parameters,
    feed_forward_parameters,
    fixed_parameters,
    projection_parameters,
)
from spaces.efficient_bert.options import EfficientBertOptions
from spaces.efficient_bert.space import EfficientBertSpace
from spaces.encoder_shape import EncoderShape
from spaces.errors import SpaceError

FOUND = "with_projection_without_pooler"


@pytest.mark.parametrize(
    ("hidden_size", "embeddings_and_projection", "attention", "feed_forwards"),
    [
        (540, 4_808_844, 1_169_640, {1: 585_360, 2: 293_490, 3: 196_200, 4: 147_555}),
        (360, 4_508_424, 520_560, {1: 260_640, 2: 130_860, 3: 87_600, 4: 65_970}),
    ],
)
def test_parts_have_their_published_parameters(hidden_size, embeddings_and_projection, attention, feed_forwards):
    options = EfficientBertOptions(hidden_size=hidden_size)
    assert embedding_parameters(options) + projection_parameters(options) == embeddings_and_projection
    assert attention_parameters(hidden_size) == attention
    for stacked, divisor in options.all_sizes:
        assert block_parameters((stacked, divisor), options) == stacked * feed_forwards[divisor]


@pytest.mark.parametrize(
    ("preset", "parameters", "without_projection", "millions_of_multiply_adds"),
    [("base", 15_737_724, 15_322_236, 1_530), ("tiny", 9_375_144, 9_097_896, 710)],
)
def test_published_networks(preset, parameters, without_projection, millions_of_multiply_adds):
    space = EfficientBertSpace.from_options({"preset": preset})
    architecture = published(space.options.hidden_size, space.options.layers)
    counts = space.parameter_counts(architecture)
    assert counts[FOUND] == space.cost(architecture).parameters == parameters
    assert counts["without_projection_without_pooler"] == without_projection
    hidden = space.options.hidden_size
    assert counts["with_projection_with_pooler"] - parameters == counts["pooler"] == hidden * hidden + hidden
    assert counts["projection"] == parameters - without_projection
    assert space.cost(architecture, 128).flops / 2e6 == pytest.approx(millions_of_multiply_adds, rel=0.005)
    bare = EfficientBertSpace.from_options({"preset": preset, "projection": False})
    assert bare.cost(architecture).parameters == without_projection
    with pytest.raises(SpaceError, match=r"space\.options\.projection: found false, but students"):
        bare.check_inheritance()
    space.check_inheritance()


@pytest.mark.parametrize(("inner_width", "parameters", "multiply_adds"), [(540, 16.0, 1.62), (None, 14.0, 1.40)])
def test_the_larger_network_has_its_published_size_with_inner_widths_of_540(inner_width, parameters, multiply_adds):
    space = EfficientBertSpace.from_options({"preset": "plus_plus", "inner_width": inner_width})
    architecture = published(360, 12)
    assert round(space.parameter_counts(architecture)[FOUND] / 1e6, 0 if inner_width is None else 1) == parameters
    assert round(space.cost(architecture).flops / 2e9, 2) == multiply_adds


def test_other_networks_of_the_paper():
    base = EfficientBertSpace()
    plain = base.parse("|".join(["540", *["1_1:linear2(gelu(linear1(x)))"] * 6]))
    largest = base.parse("|".join(["540", *["4_1:linear2(gelu(linear1(x)))"] * 6]))
    assert base.parameter_counts(plain)[FOUND] == 15_338_844
    assert base.parameter_counts(largest)[FOUND] == 25_875_324
    bert = EncoderShape()
    assert bert.encoder_parameters + bert.embedding_parameters == 108_891_648
    wide = EfficientBertOptions(hidden_size=768, inner_width=3072)
    found = [block_parameters(choice.sizes, wide) for choice in published(768, 6).blocks]
    attention_and_map = 6 * attention_parameters(768) + projection_parameters(wide)
    assert bert.embedding_parameters + attention_and_map + sum(found) == 70_116_608, "EfficientBERT (TinyBERT-6)"


def test_all_sixteen_to_the_sixth_sizes_of_the_third_stage():
    """The exact number within the window, by walking through all 16,777,216."""
    space = EfficientBertSpace()
    options = space.options
    ids = [block_parameters(sizes, options) for sizes in options.all_sizes]
    three = np.array([sum(some) for some in product(ids, repeat=3)], dtype=np.int32)
    within = 0
    for half in three:
        sums = three + (half + fixed_parameters(options))
        within += np.count_nonzero((sums >= 15_000_000) & (sums <= 16_000_000))
    assert within / 16**6 == pytest.approx(0.267, abs=0.0005)
    window = EfficientBertOptions(parameter_window=(15_000_000, 16_000_000))
    third_stage = EfficientBertSpace(window).narrowed(published(540, 6), ["expressions"])
    assert third_stage.cardinality() == within
    assert space.counts()["parameters"] == {"least": 12_712_014, "most": 25_875_324}


def test_electra_counts_the_token_table_as_a_product():
    space = EfficientBertSpace()
    architecture = published(540, 6)
    more = space.cost(architecture, 64, "electra").flops - space.cost(architecture, 64).flops
    assert more == 2 * 128 * 30_522 * 64


def test_feed_forwards_are_counted_by_their_formula():
    assert feed_forward_parameters(5, 3, 2) == 2 * (5 * 3 + 3 + 3 * 5 + 5 + 2 * 5)
