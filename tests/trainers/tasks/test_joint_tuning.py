"""Tuning a supernet on two tasks at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from safetensors.torch import load_file

from spaces.narrowing import Narrowing
from tests.spaces.microscopic import OPTIONS as NAS_BERT_OPTIONS
from tests.trainers.candidates import A
from tests.trainers.tasks.joint_tasks import (
    IMITATION,
    LABELS,
    TASKS,
    make_factory,
    make_place,
    make_settings,
    make_tuning,
)
from tests.trainers.tasks.toy_tasks import save_bert, save_turned_round
from tests.trainers.warm_up_tasks import OPTIONS
from trainers.errors import TrainingInputError
from trainers.layer_losses import layer_losses
from trainers.layer_recording import run_layers
from trainers.losses import soft_cross_entropy
from trainers.students import encoder_of
from trainers.task import load_checkpoint, run_locally, save_checkpoint
from trainers.tasks.catalogue import find_task
from trainers.tasks.joint_tuning import JointTuning, tuned_parts
from trainers.tasks.models import load_for_task, load_tokenizer, save_for_task
from trainers.tasks.shared_heads import SharedHeads
from trainers.tasks.taught_tasks import supernet_inputs

CPU = torch.device("cpu")
PLAIN = Narrowing(str(A), ("expressions",))
"""Networks of every size, with BERT's expression."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("joint"))


def first_step_of(tuning, name):
    """The first step whose turn is a task's."""
    return next(step for step in range(100) if TASKS[tuning.batches.task(step)].name == name)


def weights(tuning):
    return {name: tensor.clone() for name, tensor in tuning.tensors().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def gradients_of(tuning, step):
    """Names of the weights that get a gradient in a step."""
    named = {
        **{f"supernet.{name}": parameter for name, parameter in tuning.supernet.named_parameters()},
        **{f"heads.{name}": parameter for name, parameter in tuning.heads.named_parameters()},
    }
    found = set()
    handle = tuning.optimiser.register_step_pre_hook(
        lambda *_: found.update(name for name, parameter in named.items() if parameter.grad is not None)
    )
    tuning.step(step)
    handle.remove()
    return found


def test_networks_of_all_sizes_learn_both_tasks(place):
    settings = replace(LABELS, pooling="mean")
    task = make_tuning(place, settings, PLAIN, pooler="none", total_steps=200, learning_rate=5e-3)
    rows = run_locally(task, report_every=50)
    assert [row["subject"] for row in rows] == ["sst2", "stsb"] * 4
    for first, last in zip(rows[:2], rows[-2:], strict=True):
        assert last["loss"] < 0.2 * first["loss"]


def test_networks_of_all_sizes_come_closer_to_both_teachers(place):
    rows = run_locally(make_tuning(place, IMITATION, PLAIN, total_steps=60, learning_rate=1e-2), report_every=20)
    for first, last in zip(rows[:2], rows[-2:], strict=True):
        assert last["loss"] < 0.9 * first["loss"]


def test_rows_count_each_tasks_own_batches(place):
    task = make_tuning(place)
    rows = run_locally(task, report_every=12)
    turns = Counter(TASKS[task.batches.task(step)].name for step in range(12))
    assert set(turns) == {"sst2", "stsb"}
    expected = dict.fromkeys(turns, 0)
    for step in range(12):
        one = task.tasks[task.batches.task(step)]
        expected[one.task.name] += sum(len(one.training.input_ids[row]) for row in task.batches.rows(step))
    assert {row["subject"]: row["tokens"] for row in rows} == expected
    assert {(row["stage"], row["step"], row["workers"]) for row in rows} == {("tuning", 12, 1)}


@pytest.mark.parametrize("numbers", ["labels", "teacher"])
def test_the_loss_is_imitation_and_layers_of_the_tasks_own_teacher(place, numbers):
    """Computed beside it, by passes of their own; numbers are compared with whatever the settings say."""
    settings = replace(IMITATION, imitation=replace(IMITATION.imitation, numbers=numbers), layer_weight=0.5)
    for task in TASKS:
        tuning = make_tuning(place, settings)
        step = first_step_of(tuning, task.name)
        one = tuning.tasks[tuning.batches.task(step)]
        rows = tuning.batches.rows(step).tolist()
        inputs = one.training.inputs(rows)
        teacher = load_for_task(str(place / "tuned" / task.name), task, keep_head=True)
        with torch.no_grad():
            theirs = run_layers(encoder_of(teacher), inputs["input_ids"], inputs["attention_mask"], [2, 4])
            soft = teacher(**inputs).logits
            ours = tuning.supernet.layer_states(tuning.architecture_of(step), *supernet_inputs(inputs))
            logits = tuning.heads(task.name, ours.hidden_BTD[-1], inputs["attention_mask"])
        if task.kind == "regression":
            labels = torch.tensor([one.training.labels[row] for row in rows])
            predicted = F.mse_loss(logits[:, 0], labels if numbers == "labels" else soft[:, 0])
            assert int(inputs["token_type_ids"].sum()) > 0, "the second text of a pair is told apart"
            with torch.no_grad():  # run_layers knows no segments
                encoder = encoder_of(teacher)
                states = encoder(**inputs, output_hidden_states=True).hidden_states
            theirs = replace(theirs, embeddings_BTD=states[0], hidden_BTD=(states[2], states[4]))
            theirs = replace(theirs, scores_BHTT=tuning._teachers[1].ask(inputs)[1].scores_BHTT)
        else:
            predicted = soft_cross_entropy(logits, soft, 1.0, "mean")
        compared = layer_losses(ours, theirs, inputs["attention_mask"]).total
        tuning.step(step)
        (row,) = tuning.rows(step + 1)
        assert (row["subject"], row["loss"]) == (task.name, pytest.approx(float(predicted + 0.5 * compared), rel=1e-5))


def test_a_step_leaves_other_tasks_and_what_the_network_does_not_use(place):
    """The first feed-forward of each block learns; those behind it, and the other task's classifier, do not."""
    tuning = make_tuning(place, narrowing=Narrowing(str(A), ("sizes",)), weight_decay=0.0)
    for name, other in (("sst2", "stsb"), ("stsb", "sst2")):
        before = weights(tuning)
        found = gradients_of(tuning, first_step_of(tuning, name))
        assert {f"heads.classifiers.{name}.weight", "heads.pooler.weight", "supernet.projection.weight"} <= found
        assert not [one for one in found if other in one]
        stacks = {one.split("feed_forwards.")[1][0] for one in found if "feed_forwards" in one}
        assert stacks == {"0"}
        moved = {one for one, tensor in tuning.tensors().items() if not torch.equal(tensor, before[one])}
        assert moved <= found


def test_networks_and_tasks_depend_on_seed_and_step_alone(place):
    """So workers of one training take the same ones."""
    first = make_tuning(place)
    parts = first.supernet, first.space, first.tasks, first.settings
    second = JointTuning(*parts, rank=1, world_size=2)  # type: ignore[arg-type]
    drawn = [first.architecture_of(step) for step in range(20)]
    assert drawn == [second.architecture_of(step) for step in range(20)]
    assert len(set(drawn)) == 20
    assert [first.batches.task(step) for step in range(20)] == [second.batches.task(step) for step in range(20)]
    assert drawn != [make_tuning(place, seed=4).architecture_of(step) for step in range(20)]


def test_the_networks_are_those_of_the_narrowed_space(place):
    tuning = make_tuning(place, narrowing=PLAIN)
    assert {tuning.architecture_of(step).expressions for step in range(20)} == {A.expressions}
    assert len({tuning.architecture_of(step).linear_ids for step in range(20)}) > 5


@pytest.mark.parametrize("tuning", [LABELS, IMITATION], ids=["labels", "teachers"])
def test_a_resumed_tuning_is_the_undisturbed_one(place, tmp_path, tuning):
    settings = replace(tuning, dropout=0.1)
    options = {**OPTIONS, "dropout": 0.1}
    whole, first, second = (
        make_tuning(place, settings, total_steps=30, more={"space_options": options}) for _ in range(3)
    )
    for step in range(25):
        whole.step(step)
    for step in range(18):  # an epoch has 16 steps
        first.step(step)
    save_checkpoint(first, tmp_path, 18, [])
    done, _ = load_checkpoint(second, tmp_path)
    for step in range(done, 25):
        second.step(step)
    assert same(weights(whole), weights(second))
    for ours, theirs in zip(whole.rows(25), second.rows(25), strict=True):
        for column in ("subject", "loss", "tokens", "learning_rate", "step"):
            assert ours[column] == theirs[column]


def test_the_teachers_get_no_gradient_and_stay_in_evaluation(place):
    tuning = make_tuning(place, IMITATION)
    models = [one.teacher for one in tuning.tasks]
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in models]
    run_locally(tuning)
    for model, kept in zip(models, before, strict=True):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
        assert same(kept, model.state_dict())


def test_classes_are_those_of_the_data_whatever_their_order_in_the_teacher(place, tmp_path):
    """A teacher that counts the classes the other way round teaches the same."""
    save_turned_round(place / "tuned" / "sst2", TASKS[0], tmp_path / "turned")
    plain = make_tuning(place, IMITATION)
    teachers = {"sst2": str(tmp_path / "turned"), "stsb": str(place / "tuned" / "stsb")}
    turned = make_tuning(place, IMITATION, more={"teachers": teachers})
    step = first_step_of(plain, "sst2")
    for tuning in (plain, turned):
        tuning.step(step)
    assert turned.rows(1)[0]["loss"] == pytest.approx(plain.rows(1)[0]["loss"], rel=1e-6)


def test_no_teacher_is_loaded_that_has_no_say(place):
    assert [one.teacher for one in make_tuning(place).tasks] == [None, None]
    alone = make_tuning(place, IMITATION, more={"teachers": {"stsb": str(place / "tuned" / "stsb")}})
    assert [one.teacher is None for one in alone.tasks] == [True, False]
    run_locally(alone)


def test_the_rows_are_the_first_of_each_training_split(place):
    tuning = make_tuning(place)
    assert [len(one.training) for one in tuning.tasks] == [160, 96]
    few = make_tuning(place, replace(LABELS, max_train_examples=10))
    assert [len(one.training) for one in few.tasks] == [10, 10]
    known = {tuple(ids) for ids in tuning.tasks[0].training.input_ids}
    assert {tuple(ids) for ids in few.tasks[0].training.input_ids} <= known


# --- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pooler", "pooling"), [("shared", "first"), ("none", "mean")])
def test_heads_come_back_from_their_weights(place, pooler, pooling):
    tuning = make_tuning(place, replace(LABELS, pooling=pooling, dropout=None), pooler=pooler)
    assert tuning.heads.dropout.p == 0.1
    run_locally(tuning)
    supernet, heads = tuned_parts(tuning.tensors())
    assert supernet.keys() == load_file(place / "supernet.safetensors").keys()
    assert ("pooler.weight" in heads) == (pooler == "shared")
    again = SharedHeads.with_weights(heads, pooling)
    assert not again.training
    hidden_BTD, mask_BT = torch.randn(3, 5, 32), torch.ones(3, 5)
    mask_BT[1, 2:] = 0
    tuning.heads.eval()
    for task in TASKS:
        with torch.no_grad():
            found, expected = (part(task.name, hidden_BTD, mask_BT) for part in (again, tuning.heads))
        assert torch.equal(found, expected)
        assert found.shape == (3, task.num_outputs)


def test_the_pooler_is_one_for_all_tasks_and_padding_says_nothing():
    torch.manual_seed(0)
    heads = SharedHeads(4, {"a": 2, "b": 1}, "mean")
    with torch.no_grad():
        heads.pooler.weight.copy_(torch.eye(4))
        heads.classifiers["b"].weight.fill_(1.0)
    hidden_BTD, mask_BT = torch.randn(2, 3, 4), torch.tensor([[1, 1, 1], [1, 0, 0]])
    expected = torch.stack([hidden_BTD[0].mean(0), hidden_BTD[1, 0]]).tanh().sum(-1, keepdim=True)
    torch.testing.assert_close(heads("b", hidden_BTD, mask_BT), expected)
    assert [name for name, _ in heads.named_parameters() if "pooler" in name] == ["pooler.weight", "pooler.bias"]


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_a_head_of_each_models_own_is_refused(place):
    with pytest.raises(TrainingInputError, match=r"^finetuning.pooling: found own, expected first or mean"):
        make_tuning(place, replace(LABELS, pooling="own"))


def test_a_supernet_of_blocks_is_refused(place):
    factory = make_factory(place, make_settings(), space_name="nas_bert", space_options=NAS_BERT_OPTIONS)
    with pytest.raises(TrainingInputError, match=r"space.name: found 'nas_bert', whose supernet does not say"):
        factory(0, 1, CPU)


def test_a_task_of_words_is_refused(place):
    factory = make_factory(place, make_settings(), tasks=(find_task("wnut17"),))
    with pytest.raises(TrainingInputError, match="task 'wnut17': candidates are tuned on texts with a class or"):
        factory(0, 1, CPU)


def test_a_teacher_of_another_task_is_refused(place):
    teachers = {"sst2": str(place / "tuned" / "stsb")}
    with pytest.raises(TrainingInputError, match="found no head for the task 'sst2'"):
        make_tuning(place, IMITATION, more={"teachers": teachers})


def test_a_teacher_of_other_heads_is_refused(place, tmp_path):
    save_bert(tmp_path / "encoder", layers=4)
    model = load_for_task(str(tmp_path / "encoder"), TASKS[0])
    save_for_task(model, load_tokenizer(str(place / "teacher")), tmp_path / "tuned")
    with pytest.raises(TrainingInputError, match="heads: found 4, expected the teacher's 2"):
        make_tuning(place, IMITATION, more={"teachers": {"sst2": str(tmp_path / "tuned")}})
