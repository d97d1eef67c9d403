"""The supernet: paths are slices of shared weights, what they leave unused stays untouched, and models equal them."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.efficient_bert.modeling import EfficientBertModel
from spaces.efficient_bert.space import EfficientBertSpace
from spaces.layer_states import LayerwiseSupernet
from tests.spaces.efficient_bert.microscopic import architecture, make_space, make_supernet
from tests.spaces.microscopic import largest_difference, make_batch, parameters_of
from tests.spaces.supernets import (
    assert_models_are_copies,
    assert_padding_says_nothing,
    assert_passes_change_nothing,
)

TOLERANCE = 1e-5
PLAIN = "linear2(gelu(linear1(x)))"
NARROW = f"24|2_3:tanh({PLAIN})|1_4:linear2(relu(mul(linear1(x),x)))"


@pytest.fixture(scope="module")
def supernet():
    return make_supernet()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), lengths=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_extracted_models_equal_their_paths(supernet, seed, lengths):
    value = make_space().sample(random.Random(seed))
    batch = make_batch(lengths)
    with torch.no_grad():
        path_BTD = supernet(value, *batch)
        model = supernet.extract(value)
        alone_BTD = model(*batch).last_hidden_state
        mine, theirs = supernet.layer_states(value, *batch), model.layer_states(*batch)
    assert path_BTD.shape == (2, 12, 32)
    assert torch.isfinite(path_BTD).all()
    scale = max(1.0, float(path_BTD.abs().max()))
    assert largest_difference(path_BTD, alone_BTD) <= TOLERANCE * scale
    assert model.config.architecture == str(value)
    pairs = [(mine.embeddings_BTD, theirs[0])]
    pairs += zip((*mine.hidden_BTD, *mine.scores_BHTT), (*theirs[1], *theirs[2]), strict=True)
    assert all(largest_difference(first, second) <= TOLERANCE * scale for first, second in pairs)
    valid_BT = batch[1].bool()
    assert largest_difference(mine.hidden_BTD[-1][valid_BT], path_BTD[valid_BT]) <= TOLERANCE * scale


def test_segments_are_told_apart_as_the_extracted_model_does(supernet):
    value, (input_ids_BT, mask_BT) = architecture(NARROW), make_batch()
    types_BT = (torch.arange(12) > 4).long().expand_as(input_ids_BT)
    with torch.no_grad():
        path_BTD = supernet(value, input_ids_BT, mask_BT, types_BT)
        states = supernet.layer_states(value, input_ids_BT, mask_BT, types_BT)
        alone_BTD = supernet.extract(value)(input_ids_BT, mask_BT, types_BT).last_hidden_state
        without_BTD = supernet(value, input_ids_BT, mask_BT)
    assert largest_difference(path_BTD, alone_BTD) <= TOLERANCE * max(1.0, float(path_BTD.abs().max()))
    valid_BT = mask_BT.bool()
    assert largest_difference(states.hidden_BTD[-1][valid_BT], path_BTD[valid_BT]) <= TOLERANCE
    assert largest_difference(path_BTD, without_BTD) > 0.01


@pytest.mark.parametrize("changes", [{"width_rule": "pad", "inner_width": 96}, {"inner_width": 48}, {"layers": 3}])
def test_other_options(changes):
    """Padding with inner widths above the hidden one (the TinyBERT shape), and EfficientBERT++'s wider base."""
    supernet = make_supernet(**changes)
    text = f"24|{'|'.join(['2_2:elu(' + PLAIN + ')'] * (supernet.options.layers - 1))}|1_1:{PLAIN}"
    if "width_rule" in changes:
        text = "24|2_2:linear2(relu(mul(linear1(x),x)))|1_1:linear2(max(x,tanh(linear1(x))))"
    with torch.no_grad():
        path_BTD = supernet(architecture(text), *make_batch())
        alone_BTD = supernet.extract(architecture(text))(*make_batch()).last_hidden_state
    assert largest_difference(path_BTD, alone_BTD) <= TOLERANCE * max(1.0, float(path_BTD.abs().max()))


def test_the_largest_path_is_the_supernet(supernet):
    """Four plain full-width feed-forwards a block: every weight is used, none is cropped (item 5)."""
    value = supernet.largest()
    assert str(value) == f"24|4_1:{PLAIN}|4_1:{PLAIN}"
    model = supernet.extract(value)
    ours, theirs = dict(supernet.named_parameters()), dict(model.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with torch.no_grad():
        path_BTD, alone_BTD = supernet(value, *make_batch()), model(*make_batch()).last_hidden_state
    assert largest_difference(path_BTD, alone_BTD) <= TOLERANCE * max(1.0, float(path_BTD.abs().max()))
    supernet.zero_grad(set_to_none=True)
    supernet(value, *make_batch((12, 12))).square().sum().backward()
    assert all(parameter.grad is not None for parameter in supernet.parameters())
    supernet.zero_grad(set_to_none=True)


def test_a_block_by_hand(supernet):
    """Plain arithmetic over the leading slices of the first feed-forwards."""
    block = supernet.blocks[0]
    hidden_BTH = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        layers = list(supernet._layers(architecture(NARROW)))
        found_BTH = layers[0][1](hidden_BTH)
        expected_BTH = hidden_BTH
        for part in list(block.feed_forwards)[:2]:
            inner = F.gelu(expected_BTH @ part.linear1.weight[:8].T + part.linear1.bias[:8], approximate="tanh")
            added = torch.tanh(inner @ part.linear2.weight[:, :8].T + part.linear2.bias)
            expected_BTH = part.norm(expected_BTH + added)
    torch.testing.assert_close(found_BTH, expected_BTH)


def used_mask(supernet, value):
    """For every parameter, which of its entries a path may use."""
    masks = {name: torch.ones_like(parameter, dtype=torch.bool) for name, parameter in supernet.named_parameters()}
    for index, choice in enumerate(value.blocks):
        for position in range(4):
            prefix = f"blocks.{index}.feed_forwards.{position}."
            inner = 24 // choice.divisor if position < choice.stacked else 0
            masks[f"{prefix}linear1.weight"][inner:] = False
            masks[f"{prefix}linear1.bias"][inner:] = False
            masks[f"{prefix}linear2.weight"][:, inner:] = False
            for name in ("linear2.bias", "norm.weight", "norm.bias"):
                masks[prefix + name][...] = position < choice.stacked
    return masks


def gradients(supernet, value):
    supernet.zero_grad(set_to_none=True)
    states = supernet.layer_states(value, *make_batch((12, 12)))
    sum(state.square().sum() for state in (*states.hidden_BTD, *states.scores_BHTT)).backward()
    found = {name: parameter.grad for name, parameter in supernet.named_parameters()}
    supernet.zero_grad(set_to_none=True)
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_unused_weights_get_no_gradient_and_do_not_matter(supernet, seed):
    value = make_space().sample(random.Random(seed))
    masks, found = used_mask(supernet, value), gradients(supernet, value)
    for name, gradient in found.items():
        if not masks[name].any():
            assert gradient is None, name
        else:
            assert not gradient[~masks[name]].any(), name
    before = {name: parameter.detach().clone() for name, parameter in supernet.named_parameters()}
    with torch.no_grad():
        path_BTD = supernet(value, *make_batch())
        for name, parameter in supernet.named_parameters():
            parameter[~masks[name]] = 1e3
        changed_BTD = supernet(value, *make_batch())
        for name, parameter in supernet.named_parameters():
            parameter.copy_(before[name])
    assert torch.equal(path_BTD, changed_BTD)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_as_many_weights_are_touched_as_the_model_has(supernet, seed):
    """Counted by gradients, but for the token and position tables, of which a batch uses some rows (item 3)."""
    value = make_space().sample(random.Random(seed))
    masks = used_mask(supernet, value)
    counted = make_space().cost(value).parameters
    assert sum(int(mask.sum()) for mask in masks.values()) == parameters_of(supernet.extract(value)) == counted
    smooth = "24|" + "|".join(f"{block.linear_id}:sigmoid({PLAIN})" for block in value.blocks)
    found = gradients(supernet, architecture(smooth))
    for name, mask in masks.items():
        if mask.any() and not name.startswith(("embeddings.token", "embeddings.position", "embeddings.segment")):
            assert int(found[name].count_nonzero()) == int(mask.sum()), name


def test_paths_of_equal_sizes_share_all_weights_and_others_the_smaller_one_s(supernet):
    """Item 15: what a narrow network teaches, a wider one knows, and no more of it."""
    same = [gradients(supernet, architecture(f"24|2_3:{one}({PLAIN})|1_2:{PLAIN}")) for one in ("tanh", "elu")]
    for name in same[0]:
        assert (same[0][name] is None) == (same[1][name] is None), name
    narrow, wide = architecture(f"24|1_4:{PLAIN}|1_4:{PLAIN}"), architecture(f"24|3_2:{PLAIN}|3_2:{PLAIN}")
    small, large = used_mask(supernet, narrow), used_mask(supernet, wide)
    assert all((small[name] & large[name]).equal(small[name]) for name in small)
    twin = make_supernet()
    with torch.no_grad():
        before_BTD = twin(wide, *make_batch())
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1)
    twin(narrow, *make_batch()).square().mean().backward()
    optimiser.step()
    with torch.no_grad():
        assert not torch.allclose(before_BTD, twin(wide, *make_batch()), atol=1e-3)
    untouched = dict(supernet.named_parameters())
    for name, parameter in twin.named_parameters():
        assert torch.equal(parameter[~small[name]], untouched[name][~small[name]]), name


def test_a_narrow_path_does_not_move_what_a_wider_one_adds(supernet):
    found = gradients(supernet, architecture(NARROW))
    linear1 = found["blocks.0.feed_forwards.1.linear1.weight"]
    assert linear1[:8].any(dim=1).all()
    assert not linear1[8:].any()
    assert found["blocks.0.feed_forwards.2.linear1.weight"] is None
    assert found["blocks.1.feed_forwards.1.norm.weight"] is None


def test_a_forward_pass_changes_nothing(supernet):
    assert_passes_change_nothing(supernet, architecture(NARROW))


def test_padding_never_changes_valid_positions_of_a_path(supernet):
    rng = random.Random(6)
    assert_padding_says_nothing(supernet, [make_space().sample(rng) for _ in range(10)])


def test_models_are_copies_in_the_same_mode_with_the_map_to_the_teacher():
    supernet = make_supernet(projection=False)
    value = architecture(NARROW)
    model = supernet.extract(value)
    assert isinstance(supernet, LayerwiseSupernet)
    assert isinstance(model, EfficientBertModel)
    assert model.config.hidden_size == 32, "a path ends at the teacher's width"
    assert_models_are_copies(supernet, value)


def test_sizes_that_no_block_can_have_are_not_built():
    supernet = make_supernet(stacked=(1, 2), divisors=(2, 3))
    assert str(supernet.largest()) == f"24|2_2:{PLAIN}|2_2:{PLAIN}"
    block = supernet.blocks[0]
    assert [tuple(part.linear1.weight.shape) for part in block.feed_forwards] == [(12, 24), (12, 24)]


def test_the_paper_s_supernet_has_its_size():
    """25,875,324 with the map to the teacher (notes, section 4.2)."""
    with torch.device("meta"):
        supernet = EfficientBertSpace().supernet()
    assert parameters_of(supernet) == 25_875_324
