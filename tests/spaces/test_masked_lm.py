from __future__ import annotations

import random

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoModelForMaskedLM

import spaces.huggingface
from spaces.nas_bert.masked_lm import NasBertForMaskedLM
from spaces.nas_bert.modeling import NasBertModel
from tests.spaces.microscopic import make_batch, make_space, parameters_of, shaken


def make_model(text="E48|16:M-F1|32:S3-F-S5", **changes):
    torch.manual_seed(0)
    space = make_space(**changes)
    return shaken(NasBertForMaskedLM.of_encoder(space.build(space.parse(text)))).eval()


@pytest.mark.parametrize("projections", ["paper", "supernet"])
def test_saved_models_load_with_and_without_their_head(tmp_path, projections):
    space = make_space(projections=projections)
    model = make_model(str(space.sample(random.Random(3))), projections=projections)
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(loaded, NasBertForMaskedLM)
    assert not any(report.values())
    batch = make_batch()
    with torch.no_grad():
        assert torch.equal(model(*batch).logits, loaded(*batch).logits)
    encoder, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(encoder) is NasBertModel
    assert not report["missing_keys"]
    assert all(key.startswith("head.") for key in report["unexpected_keys"])
    with torch.no_grad():
        assert torch.equal(model.encoder(*batch).last_hidden_state, encoder(*batch).last_hidden_state)


def test_there_is_one_token_table_in_memory_and_on_disk(tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        tables = [name for name in file.keys() if 99 in file.get_slice(name).get_shape()]  # noqa: SIM118
    assert sorted(tables) == ["encoder.embeddings.token.weight", "head.bias"]
    head = 32 * 48 + 48 + 2 * 48 + 99
    assert parameters_of(model) == parameters_of(model.encoder) + head
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    with torch.no_grad():
        loaded.get_input_embeddings().weight[7] += 1.0
        changed = (loaded.predict(torch.ones(1, 32)) - model.predict(torch.ones(1, 32)))[0]
    assert (changed.abs() > 1e-4).nonzero().flatten().tolist() == [7], "what is read is what is predicted with"


def test_the_head_by_hand():
    """Linear, GELU, LayerNorm, table, bias."""
    model = make_model()
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    head = model.head
    with torch.no_grad():
        inner = torch.nn.functional.gelu(hidden @ head.transform.weight.T + head.transform.bias)
        normal = (inner - inner.mean(-1, keepdim=True)) / (inner.var(-1, keepdim=True, correction=0) + 1e-12).sqrt()
        table = model.encoder.embeddings.token.weight
        expected = (normal * head.norm.weight + head.norm.bias) @ table.T + head.bias
        torch.testing.assert_close(model.predict(hidden), expected, rtol=1e-4, atol=1e-4)


def test_the_loss_counts_labelled_positions_only():
    model, (input_ids_BT, mask_BT) = make_model(), make_batch()
    labels_BT = torch.full_like(input_ids_BT, -100)
    labels_BT[0, 3], labels_BT[1, 2] = 9, 17
    with torch.no_grad():
        output = model(input_ids_BT, mask_BT, labels=labels_BT)
        plain = model(input_ids_BT, mask_BT, labels=labels_BT, output_hidden_states=True, return_dict=False)
    chances = output.logits.log_softmax(-1)
    expected = -(chances[0, 3, 9] + chances[1, 2, 17]) / 2
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert plain[0].item() == output.loss.item()
    assert (len(plain), len(plain[2])) == (3, 3)
    assert output.hidden_states is None


def test_a_plain_encoder_gets_a_fresh_head(tmp_path):
    """Nothing of it is left to chance: tables that a checkpoint lacks start as the paper says."""
    model = make_model()
    model.encoder.save_pretrained(tmp_path)
    loaded, report = AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert {key.split(".")[0] for key in report["missing_keys"]} == {"head"}
    assert torch.equal(loaded.encoder.embeddings.token.weight, model.encoder.embeddings.token.weight)
    head = loaded.head
    assert not head.bias.any()
    assert not head.transform.bias.any()
    assert not head.norm.bias.any()
    assert (head.norm.weight == 1).all()
    assert float(head.transform.weight.detach().std()) == pytest.approx(0.02, rel=0.1)


def test_a_new_model_starts_like_its_encoder_alone():
    space = make_space()
    value = space.parse("E32|32:M|16:F")
    torch.manual_seed(5)
    alone = space.build(value)
    torch.manual_seed(5)
    whole = NasBertForMaskedLM(alone.config)
    for mine, theirs in zip(whole.encoder.parameters(), alone.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert spaces.huggingface.NasBertForMaskedLM is NasBertForMaskedLM
