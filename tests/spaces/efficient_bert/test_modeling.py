"""The stand-alone encoder: embeddings, attention scores, padding, what is saved and loaded."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.efficient_bert.configuration import EfficientBertConfig
from spaces.model_parts.attention import PADDED_KEY
from tests.spaces.efficient_bert.microscopic import HIDDEN_SIZE, PLAIN, make_model
from tests.spaces.microscopic import largest_difference, make_batch, parameters_of

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model():
    return make_model()


def test_an_embedding_is_made_of_three_tokens(model):
    """Next, current and previous; zero beyond both ends, of which the last valid token is one."""
    input_ids_BT, mask_BT = torch.tensor([[7, 8, 9, 0]]), torch.tensor([[1, 1, 1, 0]])
    part = model.embeddings
    none = torch.zeros(8)
    with torch.no_grad():
        token = part.token.weight
        neighbours = [(token[8], token[7], none), (token[9], token[8], token[7]), (none, token[9], token[8])]
        for position, three in enumerate(neighbours):
            sum_H = part.transform.weight @ torch.cat(three) + part.transform.bias
            sum_H = sum_H + part.position.weight[position] + part.segment.weight[0]
            expected_H = torch.nn.functional.layer_norm(
                sum_H, (HIDDEN_SIZE,), part.norm.weight, part.norm.bias, model.config.layer_norm_eps
            )
            found_BTH = part(input_ids_BT, mask_BT.bool())
            torch.testing.assert_close(found_BTH[0, position], expected_H)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 10), padding=st.integers(0, 6), left=st.integers(0, 98), seed=st.integers(0, 99))
def test_padding_never_changes_valid_positions(model, length, padding, left, seed):
    """Neither how much of it there is nor what stands there; a text alone says the same."""
    alone_BT, _ = make_batch((length,), length, seed)
    padded_BT = torch.cat([alone_BT, torch.full((1, padding), left)], dim=1)
    mask_BT = (torch.arange(length + padding) < length).long()[None]
    with torch.no_grad():
        expected = model.layer_states(alone_BT)
        found = model.layer_states(padded_BT, mask_BT)
        fast_BTD = model(padded_BT, mask_BT).last_hidden_state
    for before, after in zip((expected[0], *expected[1]), (found[0], *found[1]), strict=True):
        assert largest_difference(before, after[:, :length]) <= TOLERANCE
    for before, after in zip(expected[2], found[2], strict=True):
        assert largest_difference(before, after[..., :length, :length]) <= TOLERANCE
        assert float(after[..., length:].max() if padding else PADDED_KEY) < PADDED_KEY / 2
    assert largest_difference(expected[1][-1], fast_BTD[:, :length]) <= TOLERANCE


def test_padding_gets_no_gradient_and_gives_none(model):
    model.zero_grad(set_to_none=True)
    input_ids_BT, mask_BT = torch.tensor([[7, 8, 9, 50, 51]]), torch.tensor([[1, 1, 1, 0, 0]])
    model(input_ids_BT, mask_BT).last_hidden_state[:, :3].square().sum().backward()
    touched = model.embeddings.token.weight.grad.abs().sum(-1).nonzero().flatten().tolist()
    model.zero_grad(set_to_none=True)
    assert touched == [7, 8, 9]


def test_layer_states_are_those_of_the_forward_pass(model):
    batch = make_batch()
    valid_BT = batch[1].bool()
    with torch.no_grad():
        embeddings_BTD, hidden_BTD, scores_BNTT = model.layer_states(*batch)
        output = model(*batch, output_hidden_states=True)
    assert len(hidden_BTD) == len(scores_BNTT) == model.config.num_hidden_layers == 2
    for slow_BTD, fast_BTD in zip((embeddings_BTD, *hidden_BTD), output.hidden_states, strict=True):
        assert slow_BTD.shape == (3, 12, 32)
        assert largest_difference(slow_BTD[valid_BT], fast_BTD[valid_BT]) <= TOLERANCE
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    assert scores_BNTT[0].shape == (3, 4, 12, 12)


def test_scores_are_queries_times_keys(model):
    """Scaled by the root of the head's size, before the softmax."""
    input_ids_BT, mask_BT = make_batch()
    with torch.no_grad():
        hidden_BTH = model.embeddings(input_ids_BT, mask_BT.bool())
        scores_BNTT = model.layer_states(input_ids_BT, mask_BT)[2][0]
        attention = model.blocks[0].attention
        query_BTH, key_BTH = attention.query(hidden_BTH), attention.key(hidden_BTH)
        for head in range(4):
            part = slice(6 * head, 6 * head + 6)
            expected = query_BTH[1, 3, part] @ key_BTH[1, 5, part] / math.sqrt(6)
            torch.testing.assert_close(scores_BNTT[1, head, 3, 5], expected)
            padded = query_BTH[1, 3, part] @ key_BTH[1, 9, part] / math.sqrt(6) - 10_000
            torch.testing.assert_close(scores_BNTT[1, head, 3, 9], padded)


def test_a_text_of_nothing_but_padding_is_finite(model):
    input_ids_BT, mask_BT = torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.int64)
    with torch.no_grad():
        assert all(torch.isfinite(state).all() for state in model.layer_states(input_ids_BT, mask_BT)[1])


def test_the_output_is_as_wide_as_the_teacher_only_with_the_map(model):
    narrow = make_model(projection_size=None)
    assert (model.config.hidden_size, narrow.config.hidden_size) == (32, HIDDEN_SIZE)
    with torch.no_grad():
        batch = make_batch()
        narrow_BTH = narrow(*batch).last_hidden_state
        assert narrow_BTH.shape[-1] == HIDDEN_SIZE
        assert narrow.layer_states(*batch)[0].shape[-1] == HIDDEN_SIZE
    assert parameters_of(model) - parameters_of(narrow) == HIDDEN_SIZE * 32 + 32


def test_dropout_only_in_training():
    model, batch = make_model(hidden_dropout_prob=0.5), make_batch()
    with torch.no_grad():
        assert torch.equal(model(*batch)[0], model(*batch)[0])
        model.train()
        assert not torch.equal(model(*batch)[0], model(*batch)[0])


def test_gradients_of_a_whole_model():
    """Against finite differences, through embeddings, attention, cropping and the map to the teacher."""
    model = make_model(
        block_hidden_size=4,
        embedding_size=2,
        blocks=[{"expression": ["linear2", ["tanh", ["mul", ["linear1", "x"], "x"]]], "stacked": 2, "inner_size": 2}],
        num_attention_heads=2,
        projection_size=3,
        vocab_size=6,
        max_position_embeddings=3,
    ).double()
    names = [name for name, _ in model.named_parameters()]
    input_ids_BT, mask_BT = torch.tensor([[1, 2, 0]]), torch.tensor([[1, 1, 0]])

    def run(*tensors):
        given = dict(zip(names, tensors, strict=True))
        return torch.func.functional_call(model, given, (input_ids_BT, mask_BT)).last_hidden_state[:, :2]

    tensors = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    assert torch.autograd.gradcheck(run, tensors)


def test_the_configuration_s_defaults_describe_a_model():
    config = EfficientBertConfig()
    assert config.blocks[0]["expression"] == PLAIN
    assert (config.hidden_size, config.num_hidden_layers) == (48, 1)
