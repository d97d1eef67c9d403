"""What every family of stand-alone models does alike: its start, what is saved and loaded, heads, what comes out."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from spaces.components.configuration import ComponentsConfig
from spaces.efficient_bert.configuration import EfficientBertConfig
from spaces.huggingface import OWN_FAMILIES, own_family
from tests.spaces.components.microscopic import make_model as make_components
from tests.spaces.efficient_bert.microscopic import make_model as make_efficient_bert
from tests.spaces.microscopic import SHAPE, make_batch, parameters_of

MAKERS = [make_efficient_bert, make_components]


@pytest.fixture(scope="module", params=MAKERS)
def make(request):
    return request.param


@pytest.fixture(scope="module")
def model(make):
    return make()


def test_each_family_has_a_name_of_its_own():
    assert len({family.config_class.model_type for family in OWN_FAMILIES}) == len(OWN_FAMILIES)
    assert own_family(AutoConfig.for_model("bert")) is None


def test_saved_models_load_with_auto_model_and_say_the_same(tmp_path, model):
    model.save_pretrained(tmp_path)
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is type(model) is own_family(loaded.config).encoder_class
    assert not any(report.values())
    assert not loaded.training
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == loaded.config.to_dict()
    assert loaded.config.architecture == model.config.architecture
    assert loaded.config.blocks == model.config.blocks
    batch = make_batch()
    with torch.no_grad():
        assert torch.equal(model(*batch).last_hidden_state, loaded(*batch).last_hidden_state)


def test_it_predicts_tokens_by_its_own_table(tmp_path, model, make):
    family, config = own_family(model.config), model.config
    whole = family.masked_lm_class.of_encoder(make()).eval()
    head = (config.hidden_size + 1) * config.embedding_size + 2 * config.embedding_size + config.vocab_size
    assert parameters_of(whole) == parameters_of(model) + head
    whole.save_pretrained(tmp_path)
    loaded, report = AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is family.masked_lm_class
    assert not any(report.values())
    with torch.no_grad():
        batch = make_batch()
        assert torch.equal(whole(*batch).logits, loaded(*batch).logits)
        assert torch.equal(AutoModel.from_pretrained(tmp_path)(*batch)[0], model(*batch)[0])


@pytest.mark.parametrize("config_class", [EfficientBertConfig, ComponentsConfig])
def test_the_random_start(config_class):
    """N(0, 0.02), no biases, plain LayerNorms with the configuration's epsilon; defaults describe a model."""
    torch.manual_seed(0)
    config = config_class(layer_norm_eps=1e-7)
    start = own_family(config).encoder_class(config)
    for name, parameter in start.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif "norm" in name:
            assert (parameter == 1).all()
        else:
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.15), name
    assert {part.eps for part in start.modules() if isinstance(part, torch.nn.LayerNorm)} == {1e-7}


def make_components_of(type_vocab_size):
    return make_components(shape=dataclasses.replace(SHAPE, type_vocab_size=type_vocab_size))


@pytest.mark.parametrize("make", [make_efficient_bert, make_components_of])
def test_segments_default_to_the_first_and_matter_where_there_are_any(make):
    input_ids_BT, mask_BT = make_batch()
    segments_BT = torch.ones_like(input_ids_BT)
    with torch.no_grad():
        for types in (2, 0):
            model = make(type_vocab_size=types)
            plain = model(input_ids_BT, mask_BT).last_hidden_state
            assert torch.equal(plain, model(input_ids_BT, mask_BT, 0 * segments_BT).last_hidden_state)
            other = model(input_ids_BT, mask_BT, segments_BT).last_hidden_state
            assert torch.equal(plain, other) == (types == 0)


def test_plain_tuples_and_no_mask(model):
    input_ids_BT, _ = make_batch()
    with torch.no_grad():
        output = model(input_ids_BT)
        assert output.hidden_states is None
        every = model(input_ids_BT, torch.ones_like(input_ids_BT), return_dict=False)
        assert torch.equal(every[0], output.last_hidden_state)
        assert [len(model(input_ids_BT, output_hidden_states=shown, return_dict=False)) for shown in (0, 1)] == [1, 2]
        states = model(input_ids_BT, output_hidden_states=True).hidden_states
        assert len(states) == model.config.num_hidden_layers + 1
        assert torch.equal(states[-1], output.last_hidden_state)


def test_a_text_of_nothing_but_padding_is_finite(model):
    nothing_BT = torch.zeros(1, 4, dtype=torch.int64)
    with torch.no_grad():
        assert torch.isfinite(model(nothing_BT, nothing_BT).last_hidden_state).all()
