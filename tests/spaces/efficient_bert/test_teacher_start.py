"""Starting the supernet at the teacher: exact where widths allow it, near elsewhere, always nearer than at random."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from spaces.efficient_bert.architecture import BlockChoice, EfficientBertArchitecture
from spaces.efficient_bert.stack_fit import before_norm
from spaces.efficient_bert.supernet import EfficientBertSupernet
from spaces.efficient_bert.teacher_start import Moments
from spaces.errors import SpaceError
from spaces.extraction import TeacherImportance, correct_linear
from spaces.teacher_layers import copy_layers
from tests.spaces.efficient_bert.microscopic import make_options, make_space
from tests.spaces.microscopic import SHAPE, largest_difference, make_batch, make_bert
from trainers.layer_recording import run_layers
from trainers.losses import masked_mse, masked_variance

FULL = {"hidden_size": 32, "layers": 4, "embedding_size": 32}
WHOLE_FEED_FORWARD = {**FULL, "inner_width": 128, "stacked": (1,), "divisors": (1,), "layer_norm_eps": 1e-12}
TEXT = make_batch((12,) * 40 + (7,) * 8, seed=5)
HELD_OUT = make_batch((12,) * 20 + (5,) * 4, seed=6)


@pytest.fixture(scope="module")
def model():
    return make_bert()


def start(model, init="teacher", text=TEXT, importance=None, **options):
    torch.manual_seed(0)
    supernet = EfficientBertSupernet(make_options(**options)).eval()
    supernet.start(model, *text, init=init, importance=importance)
    return supernet


def states_of(supernet, model, batch=HELD_OUT, architecture=None):
    """Of student and teacher, in the layers that belong together."""
    interval = SHAPE.num_layers // supernet.options.layers
    with torch.no_grad():
        ours = supernet.layer_states(architecture or supernet.largest(), *batch)
        theirs = run_layers(model, *batch, list(range(interval, SHAPE.num_layers + 1, interval)))
    return ours, theirs


def error_of(supernet, model, architecture=None):
    """Of the last state, as a share of the teacher's variance."""
    ours, theirs = states_of(supernet, model, architecture=architecture)
    error = masked_mse(ours.hidden_BTD[-1], theirs.hidden_BTD[-1], HELD_OUT[1])
    return float(error / masked_variance(theirs.hidden_BTD[-1], HELD_OUT[1]))


def path(supernet, stacked, divisor):
    options = supernet.options
    return EfficientBertArchitecture(options.hidden_size, (BlockChoice(stacked, divisor),) * options.layers)


# --- exact where nothing has to be left out --------------------------------------------------------------------------


def test_with_all_of_the_teacher_s_neurons_the_teacher_is_a_path(model):
    """But for GELU, which is the approximate one here."""
    supernet = start(model, **WHOLE_FEED_FORWARD)
    ours, theirs = states_of(supernet, model)
    assert largest_difference(ours.embeddings_BTD, theirs.embeddings_BTD, HELD_OUT[1]) < 1e-5
    for mine, teachers in zip(ours.hidden_BTD, theirs.hidden_BTD, strict=True):
        assert largest_difference(mine, teachers, HELD_OUT[1]) < 0.02
    assert error_of(supernet, model) < 1e-4


def test_attention_of_the_teacher_s_width_is_copied(model):
    """Whatever the feed-forwards between can say: given the same input, the scores are the teacher's."""
    supernet = start(model, **FULL)
    torch.testing.assert_close(supernet.projection.weight, torch.eye(32))
    mask_BT = HELD_OUT[1].bool()
    state_BTD = torch.randn(*mask_BT.shape, 32, generator=torch.Generator().manual_seed(3))
    for block, theirs in zip(supernet.blocks, copy_layers(model)[::2], strict=True):
        with torch.no_grad():
            mine_BNTT, teachers_BNTT = (one.scores(state_BTD, mask_BT) for one in (block.attention, theirs))
        assert float((mine_BNTT - teachers_BNTT).abs().max()) < 1e-4


def test_a_product_of_low_rank_is_kept_by_heads_that_narrow():
    generator = torch.Generator().manual_seed(1)
    states_NH = torch.randn(200, 10, generator=generator) @ torch.randn(10, 10, generator=generator)
    low, first = torch.randn(3, 6, generator=generator), torch.randn(6, 11, generator=generator)
    second = low.T @ torch.randn(3, 11, generator=generator)
    with_one = torch.cat([states_NH, torch.ones(200, 1)], 1)
    expected_NN = (with_one @ first.T) @ (second @ with_one.T)
    narrow_first, narrow_second = Moments(states_NH).product(first, second, 3)
    assert narrow_first.shape == narrow_second.shape == (3, 11)
    found_NN = (with_one @ narrow_first.T) @ (narrow_second @ with_one.T)
    torch.testing.assert_close(found_NN, expected_NN, rtol=1e-3, atol=1e-3 * float(expected_NN.abs().max()))


def test_a_sum_before_its_norm_is_found_again():
    """At the scale and mean that the sum has; where the norm hears nothing, anything will do."""
    generator = torch.Generator().manual_seed(1)
    norm = torch.nn.LayerNorm(8)
    sums_NH = 3.0 * torch.randn(20, 8, generator=generator) + 1.0
    with torch.no_grad():
        norm.weight.copy_(torch.rand(8, generator=generator) + 0.5)
        norm.bias.copy_(torch.randn(8, generator=generator))
        norm.weight[2] = 0.0
        torch.testing.assert_close(before_norm(norm, sums_NH, norm(sums_NH)), sums_NH, rtol=1e-4, atol=1e-4)


def test_a_guess_stays_where_inputs_settle_nothing():
    inputs_NH = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    inputs_NH[:, 3] = 0.0
    linear = torch.nn.Linear(4, 2)
    guess = linear.weight.detach().clone()
    correct_linear(linear, inputs_NH, inputs_NH[:, :2], ridge=1e-6)
    torch.testing.assert_close(linear.weight[:, 3], guess[:, 3])
    torch.testing.assert_close(linear.weight[:, :3], torch.eye(2, 3), rtol=1e-3, atol=1e-3)


# --- near elsewhere --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        FULL,
        {**FULL, "embedding_size": 8},
        {**FULL, "layers": 2},
        {**FULL, "hidden_size": 24},
        {**FULL, "hidden_size": 48},
    ],
    ids=["full", "narrow token table", "two layers a block", "narrow", "wide"],
)
def test_plain_and_cropped_paths_start_nearer_than_at_random(model, options):
    ours, random = start(model, **options), start(model, "paper", **options)
    for sizes in ((4, 1), (2, 2), (1, 4)):
        near, far = (error_of(one, model, path(one, *sizes)) for one in (ours, random))
        assert near < 0.8 * far, f"{sizes}: {near:.3f} against {far:.3f}"
    assert error_of(ours, model, path(ours, 1, 1)) < error_of(ours, model, path(ours, 1, 4)), "more neurons, less error"


@pytest.mark.parametrize("options", [{**FULL, "hidden_size": 24}, {**FULL, "layers": 2}], ids=["narrow", "deep"])
def test_scores_start_nearer_than_at_random(model, options):
    for place in range(options["layers"]):
        errors = []
        for init in ("teacher", "paper"):
            ours, theirs = states_of(start(model, init, **options), model, make_batch((12,) * 8))
            errors.append(float((ours.scores_BHTT[place] - theirs.scores_BHTT[place]).square().mean()))
        assert errors[0] < 0.6 * errors[1]


def test_dimensions_beyond_the_teacher_s_width_are_silent_but_learn(model):
    supernet = start(model, **{**FULL, "hidden_size": 48})
    with torch.no_grad():
        embedded_BTH = supernet.embeddings(HELD_OUT[0], HELD_OUT[1].bool())
    assert float(embedded_BTH[..., 32:].abs().max()) == 0.0
    plain, wide = start(model, **FULL), supernet
    assert error_of(wide, model) < 1.2 * error_of(plain, model)
    supernet(supernet.largest(), *HELD_OUT).square().sum().backward()
    for block in supernet.blocks:
        assert float(block.attention.norm.weight.grad[32:].abs().min()) > 0.0


def test_neurons_come_in_the_order_of_their_importance(model):
    """The most important are the first of the first feed-forward, those after them are the second's."""
    scores = tuple(torch.randperm(128, generator=torch.Generator().manual_seed(seed)).float() for seed in range(4))
    supernet = start(model, importance=TeacherImportance((), scores), **FULL)
    inner = model.encoder.layer[2].intermediate.dense
    order = scores[2].argsort(descending=True)
    first, second = (supernet.blocks[2].feed_forwards[number].linear1.weight for number in (0, 1))
    for mine, kept in ((first, order[:32]), (second, order[32:64])):
        likeness = torch.nn.functional.cosine_similarity(mine, inner.weight[kept])
        others = torch.nn.functional.cosine_similarity(mine, inner.weight[order[64:96]])
        assert likeness.mean() > 0.5 > others.mean() + 0.3


# --- the same every time, and what cannot be -------------------------------------------------------------------------


def test_a_start_depends_on_its_text_alone(model):
    options = {**FULL, "hidden_size": 24}
    first, again, other = (start(model, text=text, **options) for text in (TEXT, TEXT, HELD_OUT))
    pairs = [(again, True), (other, False)]
    for supernet, same in pairs:
        assert all(map(torch.equal, first.state_dict().values(), supernet.state_dict().values())) is same


def test_dropout_plays_no_part_and_the_mode_is_the_caller_s(model):
    torch.manual_seed(0)
    supernet = EfficientBertSupernet(make_options(dropout=0.5, **FULL)).train()
    supernet.start(model, *TEXT, init="teacher")
    assert all(module.training for module in supernet.modules())
    plain = start(model, **FULL)
    assert all(map(torch.equal, plain.state_dict().values(), supernet.state_dict().values()))


def test_the_paper_s_start_is_the_random_one(model):
    torch.manual_seed(0)
    fresh = EfficientBertSupernet(make_options())
    assert all(map(torch.equal, fresh.state_dict().values(), start(model, "paper").state_dict().values()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": dataclasses.replace(SHAPE, activation="relu")}, "supernet.init: teacher needs a teacher with GELU"),
        ({"heads": 2}, r"space\.options\.heads: found 2, but the teacher has 4"),
        ({"layers": 3}, r"space\.options\.layers: found 3, which does not divide the teacher's 4 layers"),
    ],
)
def test_what_cannot_start_at_the_teacher_is_told_beforehand(options, message):
    space = make_space(**options)
    space.check_start("paper")
    with pytest.raises(SpaceError, match=message):
        space.check_start("teacher")
