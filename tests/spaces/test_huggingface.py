from __future__ import annotations

import random

import pytest
import torch
from transformers import AutoConfig, AutoModel

import spaces.huggingface
from spaces.nas_bert.configuration import NasBertConfig
from spaces.nas_bert.modeling import NasBertModel
from tests.spaces.microscopic import architecture, make_batch, make_space, shaken

MIXED = "E48|16:M-F1|32:S3-F-S5"


def make_model(text=MIXED, **changes):
    torch.manual_seed(0)
    space = make_space(**changes)
    return shaken(space.build(space.parse(text))).eval()


@pytest.mark.parametrize("projections", ["paper", "supernet"])
@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize("types", [0, 2])
def test_saved_models_load_with_auto_model_and_say_the_same(tmp_path, projections, units, types):
    space = make_space(projections=projections, separable_units=units, type_vocab_size=types)
    value = space.sample(random.Random(units + types))
    torch.manual_seed(0)
    model = shaken(space.build(value)).eval()
    model.save_pretrained(tmp_path)
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(loaded, NasBertModel)
    assert not any(report.values())
    assert loaded.config.architecture == str(value)
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == loaded.config.to_dict()
    assert not loaded.training
    batch = make_batch()
    with torch.no_grad():
        assert torch.equal(model(*batch).last_hidden_state, loaded(*batch).last_hidden_state)
    assert (tmp_path / "model.safetensors").is_file()
    assert not list(tmp_path.glob("*.bin"))


def test_attention_with_fewer_heads_is_saved_and_loaded(tmp_path):
    model = make_model("E48|24:M1-F1|32:M2-M", operations=("M", "M1", "M2", "F1"), hidden_sizes=(24, 32))
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.config.block_operations == [["M1", "F1"], ["M2", "M"]]
    batch = make_batch()
    with torch.no_grad():
        assert torch.equal(model(*batch).last_hidden_state, loaded(*batch).last_hidden_state)


def test_the_shape_of_what_comes_out():
    model = make_model()
    input_ids_BT, mask_BT = make_batch()
    with torch.no_grad():
        output = model(input_ids_BT, mask_BT, output_hidden_states=True)
        assert [state.shape[-1] for state in output.hidden_states] == [48, 16, 32]
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
        assert model(input_ids_BT).hidden_states is None
        assert torch.equal(model(input_ids_BT, mask_BT, return_dict=False)[0], output.last_hidden_state)
        plain = model(input_ids_BT, mask_BT, output_hidden_states=True, return_dict=False)
        assert len(plain) == 2
        assert len(plain[1]) == 3


def test_without_a_mask_everything_is_valid():
    model = make_model()
    input_ids_BT, _ = make_batch()
    with torch.no_grad():
        assert torch.equal(
            model(input_ids_BT).last_hidden_state, model(input_ids_BT, torch.ones_like(input_ids_BT)).last_hidden_state
        )


def test_segments_default_to_the_first_and_matter_where_there_are_any():
    input_ids_BT, mask_BT = make_batch()
    segments_BT = torch.ones_like(input_ids_BT)
    with torch.no_grad():
        model = make_model()
        plain = model(input_ids_BT, mask_BT).last_hidden_state
        assert torch.equal(plain, model(input_ids_BT, mask_BT, 0 * segments_BT).last_hidden_state)
        assert not torch.equal(plain, model(input_ids_BT, mask_BT, segments_BT).last_hidden_state)
        without = make_model(type_vocab_size=0)
        plain = without(input_ids_BT, mask_BT).last_hidden_state
        assert torch.equal(plain, without(input_ids_BT, mask_BT, segments_BT).last_hidden_state)


def test_positions_matter():
    model = make_model("E32|32:F|32:F")
    with torch.no_grad():
        states = model(torch.full((1, 4), 7)).last_hidden_state[0]
    assert not torch.equal(states[0], states[1])


def test_the_configuration_tells_everything():
    config = make_model(projections="paper").config
    assert config.model_type == "netsuke-nas-bert"
    assert config.block_hidden_sizes == [16, 32]
    assert config.block_operations == [["M", "F1"], ["S3", "F", "S5"]]
    assert config.projections == [[48, 16], [16, 32], None]
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (32, 5, 99)
    assert NasBertModel(NasBertConfig()).config.projections == [None, None], "the defaults describe a model"
    assert spaces.huggingface.NasBertConfig is NasBertConfig


def test_the_paper_s_random_start():
    """N(0, 0.02) for feed-forward, embeddings and maps; Xavier-uniform for attention, smaller for query, key, value."""
    torch.manual_seed(0)
    space = make_space(dropout=0.1)
    model = space.build(architecture("E48|32:M-F|16:S3"))
    attention, feed_forward = model.blocks[0]
    xavier = (6 / (32 + 32)) ** 0.5
    for linear, largest in [
        (attention.query, xavier / 2**0.5),
        (attention.key, xavier / 2**0.5),
        (attention.value, xavier / 2**0.5),
        (attention.output, xavier),
    ]:
        assert 0.95 * largest < float(linear.weight.detach().abs().max()) <= largest
    for table in (feed_forward.inner, feed_forward.output, model.projections[0], model.embeddings.token):
        assert float(table.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    unit = model.blocks[1][0].units[0]
    assert float(unit.pointwise.weight.detach().std()) == pytest.approx((4 * 0.9 / 16) ** 0.5, rel=0.15)
    assert float(unit.depthwise.weight.detach().std()) == pytest.approx((4 * 0.9 / (3 * 16)) ** 0.5, rel=0.3)
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert all(not bias.any() for bias in biases)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert all((norm.weight == 1).all() for norm in norms)
