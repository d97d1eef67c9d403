from __future__ import annotations

import random

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertModel

from spaces.nas_bert.modeling import NasBertModel
from tests.spaces.efficient_bert.microscopic import make_space as make_efficient_bert_space
from tests.spaces.microscopic import make_batch, make_bert, make_space, shaken
from trainers.students import load_student
from trainers.supernet_store import load_supernet


@pytest.mark.parametrize("make", [make_space, make_efficient_bert_space])
def test_a_stored_supernet_runs_every_path_as_before(tmp_path, make):
    space = make(dropout=0.2)
    supernet = shaken(space.supernet()).eval()
    save_file(supernet.state_dict(), tmp_path / "weights.safetensors")
    stored = load_supernet(space, tmp_path / "weights.safetensors")
    assert not stored.training
    assert not any(parameter.requires_grad for parameter in stored.parameters())
    rng, batch = random.Random(0), make_batch()
    with torch.inference_mode():
        for value in (space.sample(rng) for _ in range(10)):
            assert torch.equal(stored(value, *batch), supernet(value, *batch))


@pytest.mark.parametrize("make", [make_space, make_efficient_bert_space])
def test_a_model_extracted_from_a_stored_supernet_can_learn(tmp_path, make):
    space = make()
    supernet = shaken(space.supernet()).eval()
    save_file(supernet.state_dict(), tmp_path / "weights.safetensors")
    stored = load_supernet(space, tmp_path / "weights.safetensors")
    value = space.sample(random.Random(1))
    model, batch = stored.extract(value), make_batch()
    with torch.no_grad():
        torch.testing.assert_close(model(*batch).last_hidden_state, supernet(value, *batch), rtol=1e-5, atol=1e-5)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_students_of_both_kinds_are_loaded_for_evaluation(tmp_path):
    space, batch = make_space(), make_batch()
    nas_bert = shaken(space.build(space.parse("E16|16:M|32:F"))).eval()
    for name, model, kind in (("nas", nas_bert, NasBertModel), ("bert", make_bert(), BertModel)):
        model.save_pretrained(tmp_path / name)
        loaded = load_student(tmp_path / name)
        assert isinstance(loaded, kind)
        assert not loaded.training
        assert loaded.state_dict().keys() == model.state_dict().keys(), "no pooler that nobody trained"
        with torch.no_grad():
            assert torch.equal(loaded(*batch).last_hidden_state, model(*batch).last_hidden_state)
