"""Models as folders that others load, for every family of models that the project's spaces build."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from orchestrator.export import save_model, write_model_card
from tests.spaces.components.microscopic import make_model as make_components
from tests.spaces.efficient_bert.microscopic import make_model as make_efficient_bert
from tests.spaces.elsewhere import run_elsewhere
from tests.spaces.microscopic import make_space, shaken
from tests.trainers.teachers import save_teacher
from trainers.students import encoder_of, has_masked_lm_head, load_student, with_masked_lm_head

SENTENCES = ["w1 w2 w3 w4", "w5", "w6 w7"]
LOAD_ELSEWHERE = """
import sys
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
folder, out, *sentences = sys.argv[1:]
batch = AutoTokenizer.from_pretrained(folder)(sentences, padding=True, return_tensors="pt")
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
with_head = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True).eval()
again = out + "-saved"
with torch.inference_mode():
    tensors = {"hidden": model(**batch).last_hidden_state, "logits": with_head(**batch).logits}
    model.save_pretrained(again)
    reloaded = AutoModel.from_pretrained(again, trust_remote_code=True).eval()
    assert torch.equal(reloaded(**batch).last_hidden_state, tensors["hidden"])
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out)
"""


def make_nas_bert():
    torch.manual_seed(0)
    space = make_space()
    return shaken(space.build(space.parse("E48|16:M-F1|32:S3-F-S5"))).eval()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.mark.parametrize("make", [make_nas_bert, make_efficient_bert, make_components])
def test_a_model_with_a_head_loads_where_netsuke_is_not_installed(make, teacher, tmp_path):
    """By the code that travels with it: the encoder alone and with its head; and can be saved again there."""
    torch.manual_seed(1)
    model, out = with_masked_lm_head(make()).eval(), tmp_path / "out"
    save_model(model, teacher, out)
    run_elsewhere(LOAD_ELSEWHERE, tmp_path, out, tmp_path / "said", *SENTENCES)
    batch = AutoTokenizer.from_pretrained(out)(SENTENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = {"hidden": encoder_of(model)(**batch).last_hidden_state, "logits": model(**batch).logits}
    for name, tensor in load_file(tmp_path / "said").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [make_nas_bert, make_efficient_bert, make_components])
def test_a_plain_encoder_is_what_it_was_and_the_card_says_how_to_load_it(make, teacher, tmp_path):
    model = make()
    save_model(model, teacher, tmp_path)
    write_model_card(tmp_path, {"name": "small", "teacher": "big", "architecture": model.config.architecture})
    loaded = load_student(tmp_path)
    assert type(loaded) is type(model)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert not has_masked_lm_head(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [type(model).__name__]
    assert "trust_remote_code=True" in (tmp_path / "README.md").read_text()
    for auto_class in (AutoModel, AutoModelForMaskedLM):
        assert auto_class.from_pretrained(tmp_path).config.architecture == model.config.architecture
