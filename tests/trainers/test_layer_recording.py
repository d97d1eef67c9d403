"""Layers read out of ordinary passes, against what Hugging Face's slow attention says of itself."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from tests.spaces.microscopic import make_batch, make_bert, make_space
from tests.trainers.teachers import make_teacher
from trainers.errors import TrainingInputError
from trainers.layer_recording import LayerRecording, run_layers

LAYERS = (2, 4)


@pytest.fixture
def batch():
    return make_batch()


def test_the_softmax_of_the_scores_is_the_attention(teacher, batch):
    """Of the slow attention, to which the same model is switched: the scores come from the fast one."""
    input_ids_BT, mask_BT = batch
    found = teacher.layer_states(input_ids_BT, mask_BT, LAYERS)
    assert teacher.model.config._attn_implementation == "sdpa"
    slow = make_bert(attn_implementation="eager")
    slow.load_state_dict(teacher.model.state_dict())
    with torch.no_grad():
        output = slow(input_ids_BT, mask_BT, output_attentions=True, output_hidden_states=True)
    for place, layer in enumerate(LAYERS):
        torch.testing.assert_close(found.scores_BHTT[place].softmax(-1), output.attentions[layer - 1])
        torch.testing.assert_close(found.hidden_BTD[place], output.hidden_states[layer])
    torch.testing.assert_close(found.embeddings_BTD, output.hidden_states[0])
    padded = (mask_BT == 0)[:, None, None, :].expand_as(found.scores_BHTT[0])
    assert bool((found.scores_BHTT[0][padded] < -9_000).all())
    assert bool((found.scores_BHTT[0][~padded].abs() < 100).all())


def test_the_states_are_those_that_the_teacher_gives_without_scores(teacher, batch):
    found = teacher.layer_states(*batch, LAYERS)
    for ours, theirs in zip(
        (found.embeddings_BTD, *found.hidden_BTD), teacher.states(*batch, [0, *LAYERS]), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_the_teacher_runs_once_without_gradients_and_is_left_as_it_was(teacher, batch):
    passes = []
    handle = teacher.model.embeddings.register_forward_hook(lambda *_: passes.append(1))
    found = teacher.layer_states(*batch, LAYERS)
    handle.remove()
    assert passes == [1]
    assert not teacher.model.training
    tensors = (found.embeddings_BTD, *found.hidden_BTD, *found.scores_BHTT)
    assert not any(tensor.requires_grad for tensor in tensors)
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    attention = teacher.model.encoder.layer[1].attention.self
    assert not attention.query._forward_hooks
    assert not teacher.model._forward_pre_hooks


def test_what_a_model_says_is_the_same_while_it_is_listened_to(batch):
    """A head on top, segments and gradients included."""
    input_ids_BT, mask_BT = batch
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=99, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    model = BertForSequenceClassification(config).eval()
    inputs = {"input_ids": input_ids_BT, "attention_mask": mask_BT, "token_type_ids": mask_BT.clone()}
    plain = model(**inputs).logits
    with LayerRecording(model.bert) as recording:
        assert torch.equal(model(**inputs).logits, plain)
    states = recording.states()
    assert [len(states.hidden_BTD), len(states.scores_BHTT)] == [2, 2]
    states.scores_BHTT[1][mask_BT.bool()[:, None, None, :].expand_as(states.scores_BHTT[1])].sum().backward()
    assert model.bert.encoder.layer[1].attention.self.query.weight.grad.abs().sum() > 0
    without_segments = run_layers(model.bert, input_ids_BT, mask_BT)
    assert not torch.equal(without_segments.embeddings_BTD, states.embeddings_BTD)


def test_models_without_one_attention_a_layer_are_refused(batch):
    space = make_space()
    model = space.build(space.parse("E32|32:M-F|32:S3-F"))
    with pytest.raises(TrainingInputError, match="found layer_states, but a student of type NasBertModel has not one"):
        run_layers(model, *batch)


def test_a_real_teacher(real_teacher):
    text = real_teacher.tokenizer(["a small net", "the carver sat and looked at it"], padding=True, return_tensors="pt")
    found = real_teacher.layer_states(text["input_ids"], text["attention_mask"], [6])
    assert found.scores_BHTT[0].shape[1] == 12
    sums = found.scores_BHTT[0].softmax(-1) * text["attention_mask"][:, None, None, :]
    torch.testing.assert_close(sums.sum(-1), torch.ones_like(sums.sum(-1)))


def test_bfloat16_scores_are_close(batch):
    teacher = make_teacher()
    exact = teacher.layer_states(*batch, [4]).scores_BHTT[0]
    with torch.autocast("cpu", torch.bfloat16):
        rough = teacher.layer_states(*batch, [4]).scores_BHTT[0]
    visible = batch[1].bool()[:, None, None, :].expand_as(exact)
    assert float((rough - exact)[visible].abs().max()) < 0.1 * float(exact[visible].abs().max())
