"""The stand-alone model of components: its LayerNorms and attention, padding, what is saved and loaded."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spaces.components.blocks import Norm, attend, normalise
from spaces.components.configuration import ComponentsConfig
from spaces.components.modeling import ComponentsModel
from tests.spaces.components.microscopic import make_model
from tests.spaces.microscopic import largest_difference, make_batch, parameters_of

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model():
    return make_model()


def rows(seed: int = 0, count: int = 7, width: int = 24) -> torch.Tensor:
    return 3 * torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + 2


def norm_weights(width: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.linspace(0.5, 2, width), torch.linspace(-1, 1, width)


@pytest.mark.parametrize("mean", [1, 1.0, torch.tensor(1.0)])
def test_with_the_mean_it_is_a_layer_norm(mean):
    weights, theirs = norm_weights(), nn.LayerNorm(24, eps=1e-12)
    theirs.load_state_dict(dict(zip(("weight", "bias"), weights, strict=True)))
    hidden = rows()
    found = normalise(hidden, *weights, 1e-12, mean)
    assert largest_difference(found, theirs(hidden).detach()) <= 1e-6 * float(found.abs().max())
    for same in (hidden + 5, 3 * hidden):
        assert largest_difference(normalise(same, *weights, 1e-12, mean), found) <= TOLERANCE


@pytest.mark.parametrize("mean", [0, 0.0, torch.tensor(0.0)])
def test_without_the_mean_only_the_scale_plays_no_role(mean):
    """Root mean square: the second moment is that around zero."""
    weights, hidden = norm_weights(), rows()
    found = normalise(hidden, *weights, 1e-12, mean)
    torch.testing.assert_close(found, hidden / hidden.square().mean(-1, keepdim=True).sqrt() * weights[0] + weights[1])
    assert largest_difference(normalise(3 * hidden, *weights, 1e-12, mean), found) <= TOLERANCE
    assert largest_difference(normalise(hidden + 5, *weights, 1e-12, mean), found) > 0.1


@torch.no_grad()
def test_the_epsilon_counts():
    for mean in (0, 1):
        norm = Norm(24, eps=10.0, mean=bool(mean))
        exact = normalise(rows(), norm.weight, norm.bias, 10.0, torch.tensor(float(mean)))
        found = norm(rows())
        torch.testing.assert_close(found, exact)
        assert largest_difference(found, normalise(rows(), norm.weight, norm.bias, 0.0, mean)) > 0.1


def attention_rows(query_key_weight, valid):
    """The attention of each token to each, by hidden states that are one-hot: values are then the tokens themselves."""
    tokens = len(valid)
    unit = (torch.eye(tokens), None)
    scores = None if query_key_weight is None else (query_key_weight * torch.randn(tokens, tokens), None)
    mask_BT = torch.tensor([valid])
    return attend(torch.eye(tokens)[None], mask_BT, scores, scores, unit, unit, heads=1, head_size=tokens)[0]


@pytest.mark.parametrize("valid", [[True] * 6, [True, True, False, True, False, False], [True] + [False] * 5])
def test_without_query_key_slices_all_valid_tokens_are_alike(valid):
    """Exactly 1/n, with slices of weight 0 and with none at all."""
    expected_T = torch.tensor(valid, dtype=torch.float32) / sum(valid)
    for weight in (None, 0.0):
        assert torch.equal(attention_rows(weight, valid), expected_T.expand(6, 6))
    if sum(valid) > 1:
        assert not torch.allclose(attention_rows(1.0, valid), expected_T.expand(6, 6), atol=0.01)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 10), padding=st.integers(0, 6), left=st.integers(0, 98), seed=st.integers(0, 99))
def test_padding_never_changes_valid_positions(model, length, padding, left, seed):
    """Neither how much of it there is nor what stands there; a text alone says the same."""
    alone_BT, _ = make_batch((length,), length, seed)
    padded_BT = torch.cat([alone_BT, torch.full((1, padding), left)], dim=1)
    mask_BT = (torch.arange(length + padding) < length).long()[None]
    with torch.no_grad():
        expected_BTD = model(alone_BT).last_hidden_state
        found_BTD = model(padded_BT, mask_BT).last_hidden_state
    assert largest_difference(expected_BTD, found_BTD[:, :length]) <= TOLERANCE


def test_dropout_only_in_training():
    model, batch = make_model("H1-2|F1|H1.Q1|0", dropout=0.5), make_batch()
    with torch.no_grad():
        assert torch.equal(model(*batch)[0], model(*batch)[0])
        for block in model.blocks:
            model.eval()
            block.train()
            assert not torch.equal(model(*batch)[0], model(*batch)[0])


def test_the_configuration_s_defaults_describe_a_model():
    config = ComponentsConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.embedding_size) == (64, 2, 64)
    assert parameters_of(ComponentsModel(config).blocks) == 4 * 64 * 65 + 2 * 64 + 2 * 64 * 65 + 2 * 64
