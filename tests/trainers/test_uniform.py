from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spaces.encoder_shape import EncoderShape
from spaces.extraction import uniform_layers
from tests.spaces.microscopic import SHAPE, largest_difference, make_batch, make_bert, parameters_of
from trainers.errors import TrainingInputError
from trainers.uniform import UniformArchitecture, extract_uniform, uniform_of_size

BERT_BASE = EncoderShape()
MINI_LM = EncoderShape(num_layers=6, hidden_size=384, num_heads=12, intermediate_size=1536)


@given(
    shape=st.sampled_from([BERT_BASE, MINI_LM]),
    share=st.floats(0.06, 1.0),
    how=st.sampled_from(["layers", "feed_forward"]),
)
def test_the_size_asked_is_met_within_two_thousandths(shape, share, how):
    wanted = round(share * shape.encoder_parameters)
    found = uniform_of_size(shape, wanted, how)
    assert found.shape(shape).encoder_parameters == pytest.approx(wanted, rel=0.002)
    assert 1 <= found.num_layers <= shape.num_layers
    assert 1 <= found.intermediate_size <= shape.intermediate_size


@given(share=st.floats(0.06, 1.0))
def test_one_way_keeps_few_layers_and_the_other_many(share):
    wanted = round(share * BERT_BASE.encoder_parameters)
    few, many = (uniform_of_size(BERT_BASE, wanted, how) for how in ("layers", "feed_forward"))
    assert few.num_layers <= many.num_layers
    assert few.intermediate_size >= many.intermediate_size


def test_half_of_a_bert():
    half = BERT_BASE.encoder_parameters // 2
    assert uniform_of_size(BERT_BASE, half, "layers") == UniformArchitecture(6, 3072)
    assert uniform_of_size(BERT_BASE, half, "feed_forward").num_layers == 12


@pytest.mark.parametrize("how", ["layers", "feed_forward"])
def test_what_is_as_large_as_the_teacher_is_the_teacher(how):
    for parameters in (MINI_LM.encoder_parameters, MINI_LM.encoder_parameters + 10**6):
        assert uniform_of_size(MINI_LM, parameters, how) == UniformArchitecture(6, 1536)


@pytest.mark.parametrize("how", ["layers", "feed_forward"])
def test_what_is_too_small(how):
    with pytest.raises(TrainingInputError) as raised:
        uniform_of_size(MINI_LM, 100_000, how)
    assert str(raised.value) == (
        "budgets: no uniform BERT of width 384 has only 100000 encoder parameters; set distillation.uniform_baseline: "
        "false or raise the budget"
    )


def test_text_and_shape():
    architecture = UniformArchitecture(3, 64)
    assert str(architecture) == "BERT L3 I64"
    assert architecture.shape(SHAPE) == EncoderShape(**{**vars(SHAPE), "num_layers": 3, "intermediate_size": 64})


def output(model, batch):
    with torch.no_grad():
        return model(*batch).last_hidden_state


def test_the_full_size_is_the_teacher():
    teacher, batch = make_bert(), make_batch()
    student = extract_uniform(teacher, UniformArchitecture(4, 128), *batch)
    assert torch.equal(output(student, batch), output(teacher, batch))


@pytest.mark.parametrize(("layers", "inner"), [(4, 40), (2, 128), (3, 7), (1, 1)])
def test_a_cut_model_has_the_size_it_says(layers, inner):
    teacher, batch = make_bert(), make_batch()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    architecture = UniformArchitecture(layers, inner)
    student = extract_uniform(teacher, architecture, *batch)
    assert parameters_of(student.encoder) == architecture.shape(SHAPE).encoder_parameters
    assert (student.config.num_hidden_layers, student.config.intermediate_size) == (layers, inner)
    assert torch.isfinite(output(student, batch)).all()
    assert teacher.config.num_hidden_layers == 4
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_a_cut_model_is_an_ordinary_bert(tmp_path):
    from transformers import AutoModel

    batch = make_batch()
    student = extract_uniform(make_bert(), UniformArchitecture(2, 20), *batch)
    student.save_pretrained(tmp_path)
    assert torch.equal(output(AutoModel.from_pretrained(tmp_path), batch), output(student, batch))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_layers_are_evenly_spaced_and_the_last_is_kept(layers):
    teacher = make_bert()
    student = extract_uniform(teacher, UniformArchitecture(layers, 128), *make_batch())
    for mine, index in zip(student.encoder.layer, uniform_layers(4, layers), strict=True):
        theirs = teacher.encoder.layer[index].state_dict()
        for name, tensor in mine.state_dict().items():
            if "attention" in name or "LayerNorm" in name or name == "output.dense.bias":
                torch.testing.assert_close(tensor, theirs[name])
        assert torch.equal(mine.intermediate.dense.weight, theirs["intermediate.dense.weight"])


@pytest.mark.parametrize("kind", ["silent", "constant"])
def test_useless_neurons_go_first_and_their_mean_is_kept(kind):
    """100 of 128 neurons add nothing that varies: without them the model says the same."""
    teacher, batch = make_bert(), make_batch()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in teacher.encoder.layer:
            useless = torch.randperm(128, generator=generator)[:100]
            if kind == "silent":
                layer.output.dense.weight[:, useless] = 0
            else:
                layer.intermediate.dense.weight[useless] = 0
    student = extract_uniform(teacher, UniformArchitecture(4, 28), *batch)
    assert largest_difference(output(student, batch), output(teacher, batch), batch[1]) <= 1e-5


def test_calibration_ignores_padding():
    teacher, (input_ids_BT, mask_BT) = make_bert(), make_batch()
    other_BT = torch.where(mask_BT.bool(), input_ids_BT, 50)
    first, second = (
        extract_uniform(teacher, UniformArchitecture(4, 30), ids, mask_BT) for ids in (input_ids_BT, other_BT)
    )
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
