"""Fine-tuning with a tuned teacher whose layers are imitated too."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertModel

from tests.trainers.tasks.toy_tasks import FAST, save_bert, source, write_sentiment
from tests.trainers.teachers import make_tokenizer
from trainers.errors import TrainingInputError
from trainers.layer_losses import layer_losses
from trainers.layer_recording import run_layers
from trainers.task import load_checkpoint, run_locally, save_checkpoint
from trainers.tasks.catalogue import find_task
from trainers.tasks.finetuning import FineTuningFactory
from trainers.tasks.jobs import TuningJob, run_job
from trainers.tasks.losses import Imitation
from trainers.tasks.models import load_for_task

SHORT = replace(FAST, epochs=1, layer_weight=1.0, distillation_weight=1.0, imitation=Imitation("soft_cross_entropy"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, a student of one layer, and a teacher of two that was tuned on the task."""
    folder = tmp_path_factory.mktemp("guided")
    write_sentiment(folder / "data")
    save_bert(folder / "student")
    save_bert(folder / "encoder", layers=2, seed=1)
    run_job(TuningJob(str(folder / "encoder"), TASK, source(folder / "data"), FAST, 1, save_to=folder / "teacher"))
    return folder


TASK = find_task("sst2")


def tuning(place, model="student", teacher="teacher", settings=SHORT, seed=1):
    chosen = None if teacher is None else str(place / teacher)
    return FineTuningFactory(str(place / model), TASK, source(place / "data"), settings, seed, teacher=chosen)()


def test_the_layers_loss_is_added_to_the_tasks(place):
    """Computed beside it, by passes of their own; the student's layer learns from the teacher's last."""
    with_layers = tuning(place)
    without, more = (tuning(place, settings=replace(SHORT, layer_weight=weight)) for weight in (0.0, 3.0))
    rows = with_layers.batches.rows(0).tolist()
    inputs = with_layers.training.inputs(rows)
    teacher = load_for_task(str(place / "teacher"), TASK, keep_head=True)
    with torch.no_grad():
        types = inputs["token_type_ids"]
        assert int(types.sum()) == 0
        ours = run_layers(with_layers.model.eval().encoder, inputs["input_ids"], inputs["attention_mask"])
        theirs = run_layers(teacher.base_model, inputs["input_ids"], inputs["attention_mask"], [2])
    with_layers.model.train()
    expected = float(layer_losses(ours, theirs, inputs["attention_mask"]).total)
    losses = []
    for task in (without, with_layers, more):
        task.step(0)
        losses.append(task.rows(1)[0]["loss"])
    assert losses[1] - losses[0] == pytest.approx(expected, rel=1e-4)
    assert losses[2] - losses[0] == pytest.approx(3 * expected, rel=1e-4)


def test_the_layers_are_imitated_without_harm_to_the_task(place):
    settings = replace(SHORT, epochs=8)
    guided, plain = (tuning(place, settings=replace(settings, layer_weight=weight)) for weight in (1.0, 0.0))
    errors = []
    teacher = load_for_task(str(place / "teacher"), TASK, keep_head=True)
    for task in (guided, plain):
        run_locally(task)
        inputs = task.training.inputs(list(range(16)))
        text = inputs["input_ids"], inputs["attention_mask"]
        task.model.eval()
        with torch.no_grad():
            ours, theirs = run_layers(task.model.encoder, *text), run_layers(teacher.base_model, *text, [2])
        errors.append(float(layer_losses(ours, theirs, text[1]).total))
        assert task.judge(task.dev_sets[0])["accuracy"] > 0.9
    assert errors[0] < 0.5 * errors[1]


def test_the_teacher_keeps_its_weights_and_gets_no_gradient(place):
    task = tuning(place)
    teacher = task._guide.teacher
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    for step in range(3):
        task.step(step)
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_a_resumed_training_is_the_undisturbed_one(place, tmp_path):
    settings = replace(SHORT, dropout=0.1)
    whole, first, second = (tuning(place, settings=settings) for _ in range(3))
    run_locally(whole)
    for step in range(5):
        first.step(step)
    save_checkpoint(first, tmp_path, 5, [])
    load_checkpoint(second, tmp_path)
    for step in range(5, second.total_steps):
        second.step(step)
    assert all(torch.equal(tensor, second.tensors()[name]) for name, tensor in whole.tensors().items())


def test_without_a_teacher_the_weight_means_nothing(place):
    losses = []
    for weight in (0.0, 1.0):
        task = tuning(place, teacher=None, settings=replace(SHORT, layer_weight=weight))
        task.step(0)
        losses.append(task.rows(1)[0]["loss"])
    assert losses[0] == losses[1]


def test_steps_can_be_limited(place):
    """The learning rate falls to zero by the last one, and the best weights are looked for there, too."""
    task = tuning(place, teacher=None, settings=replace(FAST, epochs=2, max_steps=20, keep="best"))
    assert (task.batches.per_epoch, task.total_steps) == (15, 20)
    run_locally(task)
    assert task.optimiser_settings.learning_rate_at(19) < 0.2 * FAST.learning_rate
    assert task.finish() in (1, 2)
    assert tuning(place, teacher=None, settings=replace(FAST, epochs=2, max_steps=999)).total_steps == 30


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"hidden_size": 16}, "found states of width 16, expected the teacher's 32"), ({"num_attention_heads": 4}, "heads: found 4")],
)
def test_a_student_that_cannot_be_compared_is_refused(place, tmp_path, sizes, message):
    chosen = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, **sizes}
    BertModel(BertConfig(vocab_size=99, **chosen), add_pooling_layer=False).save_pretrained(tmp_path / "other")
    make_tokenizer().save_pretrained(str(tmp_path / "other"))
    with pytest.raises(TrainingInputError, match=message):
        tuning(place, tmp_path / "other")
