"""Parameters and FLOPs by arithmetic are those of the modules that are built and run."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spaces.components.cost import attention_flops, attention_parameters, feed_forward_parameters
from spaces.components.space import ComponentsSpace
from spaces.encoder_shape import EncoderShape
from tests.spaces.components.microscopic import TEXT, make_space
from tests.spaces.components.test_exam import make_tiny
from tests.spaces.microscopic import SHAPE, parameters_of

SPACES = [make_space(), make_tiny(), make_space(feed_forward_slices=2, query_key_slices=8)]


def flops_of(model: torch.nn.Module, tokens: int) -> int:
    """What PyTorch counts in a pass of one sequence; not all of its fast attention is known to its counter."""
    input_ids_BT = torch.ones(1, tokens, dtype=torch.int64)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eval()(input_ids_BT)
    return counter.get_total_flops()


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("seed", range(4))
def test_costs_are_those_of_what_is_built(space, seed):
    architecture = space.sample(random.Random(seed))
    model, tokens = space.build(architecture), 3 + seed
    cost = space.cost(architecture, tokens)
    assert cost.parameters == parameters_of(model)
    assert cost.encoder_parameters == parameters_of(model.blocks)
    assert cost.flops == flops_of(model, tokens)
    tables = space.cost(architecture, tokens, "electra").flops - cost.flops
    assert tables == 2 * space.shape.vocab_size * space.shape.hidden_size * tokens


def test_the_teacher_costs_what_it_is():
    space, shape = ComponentsSpace(), EncoderShape()
    whole = space.anchors()[0]
    cost = space.cost(whole)
    assert cost.encoder_parameters == shape.encoder_parameters == 85_054_464
    assert cost.parameters == shape.encoder_parameters + shape.embedding_parameters
    assert cost.flops == 12 * 2 * 128 * (12 * 768**2 + 2 * 128 * 768)
    stacked = space.parse("|".join(["H1-12.Q1-2.M/F1>2>3>4>5>6>7>8.M"] * 12))
    assert space.cost(stacked) == cost, "eight stacked feed-forwards of 384 neurons have as much to do as one of 3072"


def test_what_components_cost():
    """By hand, for a width of 32 with heads of 8 and slices of 16."""
    space = make_space()
    layer, bare = space.parse("H1-2>4.Q2.M/F1>3|F1-8.M|0|0").layers[:2]
    keys, values = 3 * 4, 3 * 8
    expected = 2 * (32 + 1) * keys + (32 + 1) * values + values * 32 + 32 + 2 * 32
    assert attention_parameters(layer.attention, space.options) == expected
    assert feed_forward_parameters(layer.feed_forward, space.options) == (2 * 32 + 1) * 32 + 32 + 2 * 32
    assert attention_parameters(bare.attention, space.options) == attention_flops(bare.attention, space.options, 9) == 0
    pooled = space.parse("H1-2>4/F1>3|F1-8.M|0|0").layers[0].attention
    assert attention_flops(pooled, space.options, 100) == 2 * (2 * 100 * 32 + 2 * 32 * values)


def test_dropping_anything_but_a_mean_makes_it_smaller():
    space = make_space()
    before = space.cost(space.parse(TEXT))
    for less in (
        "H1>4.Q2.M/F1,3>4-5>8|H2-3.M|0|H1-4.Q1-2/F1-8.M",
        TEXT.replace("Q1-2", "Q1"),
        TEXT[: TEXT.rindex("/")],
    ):
        after = space.cost(space.parse(less))
        assert after.parameters < before.parameters
        assert after.flops < before.flops
    assert space.cost(space.parse(TEXT.replace("|H2-3.M", "|H2-3"))) == before
    vanished = space.cost(space.parse("0|0|0|F1"))
    assert vanished.encoder_parameters == 2 * 32 * 16 + 16 + 3 * 32
    assert vanished.parameters == vanished.encoder_parameters + SHAPE.embedding_parameters
