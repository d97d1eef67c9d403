"""The stand-alone model of components: its LayerNorms and attention, padding, what is saved and loaded."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from spaces.components.blocks import Norm, attend, normalise
from spaces.components.configuration import ComponentsConfig
from spaces.components.modeling import ComponentsModel
from spaces.huggingface import own_family
from tests.spaces.components.microscopic import TEXT, make_model
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


def test_the_epsilon_counts():
    for mean in (0, 1):
        norm = Norm(24, eps=10.0, mean=bool(mean))
        exact = normalise(rows(), norm.weight, norm.bias, 10.0, torch.tensor(float(mean)))
        found = norm(rows()).detach()
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


def test_a_text_of_nothing_but_padding_is_finite(model):
    nothing_BT = torch.zeros(1, 4, dtype=torch.int64)
    with torch.no_grad():
        assert torch.isfinite(model(nothing_BT, nothing_BT).last_hidden_state).all()


def test_what_comes_out(model):
    batch = make_batch()
    with torch.no_grad():
        output = model(*batch, output_hidden_states=True)
        assert len(output.hidden_states) == model.config.num_hidden_layers + 1 == 9
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
        assert output.last_hidden_state.shape == (3, 12, 32)
        assert model(batch[0]).hidden_states is None
        plain = model(batch[0], torch.ones_like(batch[0]), return_dict=False)
        assert torch.equal(plain[0], model(batch[0]).last_hidden_state)
        assert [len(model(*batch, output_hidden_states=shown, return_dict=False)) for shown in (0, 1)] == [1, 2]
        segments_BT = torch.ones_like(batch[0])
        assert torch.equal(output.last_hidden_state, model(*batch, 0 * segments_BT).last_hidden_state)
        assert not torch.equal(output.last_hidden_state, model(*batch, segments_BT).last_hidden_state)


def test_saved_models_load_with_auto_model_and_say_the_same(tmp_path, model):
    model.save_pretrained(tmp_path)
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(loaded, ComponentsModel)
    assert not any(report.values())
    assert not loaded.training
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == loaded.config.to_dict()
    assert loaded.config.architecture == TEXT
    with torch.no_grad():
        batch = make_batch()
        assert torch.equal(model(*batch).last_hidden_state, loaded(*batch).last_hidden_state)
    assert own_family(loaded.config).encoder_class is ComponentsModel


def test_it_predicts_tokens_by_its_own_table(tmp_path, model):
    family = own_family(model.config)
    whole = family.masked_lm_class.of_encoder(make_model()).eval()
    assert parameters_of(whole) == parameters_of(model) + (32 * 32 + 32) + 2 * 32 + 99
    whole.save_pretrained(tmp_path)
    loaded, report = AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is family.masked_lm_class
    assert not any(report.values())
    with torch.no_grad():
        batch = make_batch()
        assert torch.equal(whole(*batch).logits, loaded(*batch).logits)
        assert torch.equal(AutoModel.from_pretrained(tmp_path)(*batch)[0], model(*batch)[0])


def test_the_random_start():
    """N(0, 0.02), no biases, plain LayerNorms with the configuration's epsilon."""
    torch.manual_seed(0)
    start = ComponentsModel(ComponentsConfig(layer_norm_eps=1e-7))
    for name, parameter in start.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif "norm" in name:
            assert (parameter == 1).all()
        else:
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.15), name
    assert {part.eps for part in start.modules() if isinstance(part, nn.LayerNorm)} == {1e-7}


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
