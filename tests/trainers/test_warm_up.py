"""Warm-up distillation of a layer-wise supernet."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from tests.spaces.microscopic import OPTIONS as NAS_BERT_OPTIONS
from tests.spaces.microscopic import SHAPE, make_space
from tests.trainers.teachers import make_teacher, save_teacher
from tests.trainers.warm_up_tasks import OPTIONS, make_layerwise_space, make_settings, make_warm_up
from trainers.errors import TrainingInputError
from trainers.layer_losses import layer_losses
from trainers.losses import masked_mse, masked_variance
from trainers.task import load_checkpoint, run_locally, save_checkpoint
from trainers.warm_up import CALIBRATION_TOKENS, WarmUp, WarmUpFactory, calibration_text, check_layerwise


def weights(task):
    return {name: tensor.clone() for name, tensor in task.tensors().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("sampling", ["largest", "sampled"])
def test_the_loss_falls(teacher, corpus, sampling):
    task = make_warm_up(teacher, corpus, sampling=sampling, total_steps=60, learning_rate=5e-3)
    rows = run_locally(task, report_every=15)
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert rows[-1]["relative_mse"] < 0.8 * rows[0]["relative_mse"]


@pytest.mark.parametrize(("padding", "scale"), [("counted", "raw"), ("masked", "raw"), ("counted", "relative")])
def test_the_loss_is_that_of_all_layers(teacher, corpus, padding, scale):
    """Blocks 1 and 2 of the student against layers 2 and 4 of the teacher; the error is that of the last state."""
    task = make_warm_up(teacher, corpus, padding=padding, scale=scale)
    assert task.layers == (2, 4)
    input_ids_BT, mask_BT = corpus.step_rows(0, 6, 3)
    with torch.no_grad():
        ours = task.supernet.layer_states(task.supernet.largest(), input_ids_BT, mask_BT)
    theirs = teacher.layer_states(input_ids_BT, mask_BT, [2, 4])
    task.step(0)
    (row,) = task.rows(1)
    assert row["loss"] == pytest.approx(float(layer_losses(ours, theirs, mask_BT, padding, scale).total), rel=1e-5)
    error = masked_mse(ours.hidden_BTD[-1], theirs.hidden_BTD[-1], mask_BT)
    assert row["relative_mse"] == pytest.approx(
        float(error / masked_variance(theirs.hidden_BTD[-1], mask_BT)), rel=1e-5
    )


def test_drawn_architectures_depend_on_seed_and_step_alone(teacher, corpus):
    """So workers of one training draw the same one, and a resumed training draws on."""
    task = make_warm_up(teacher, corpus, sampling="sampled")
    other = WarmUp(task.supernet, task.space, teacher, corpus, task.settings, rank=1, world_size=2)
    drawn = [task.architecture_of(step) for step in range(30)]
    assert drawn == [other.architecture_of(step) for step in range(30)]
    assert len(set(drawn)) == 30
    assert all(task.space.contains(architecture) for architecture in drawn)
    seeded = make_warm_up(teacher, corpus, sampling="sampled", seed=4)
    assert drawn != [seeded.architecture_of(step) for step in range(30)]
    largest = {str(make_warm_up(teacher, corpus).architecture_of(step)) for step in range(5)}
    assert largest == {"24|4_1:linear2(gelu(linear1(x)))|4_1:linear2(gelu(linear1(x)))"}


def test_a_step_on_a_cropped_architecture_leaves_what_it_does_not_use(teacher, corpus):
    """The first quarter of the first feed-forward learns; the rest of it, and those behind it, do not."""
    space = make_layerwise_space(fixed_linear_ids=("1_4", "1_4"))
    task = make_warm_up(teacher, corpus, space, sampling="sampled", weight_decay=0.0)
    before = weights(task)
    task.step(0)
    after = weights(task)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert "projection.weight" in moved
    stacks = [name for name in after if "feed_forwards" in name]
    assert {name for name in stacks if name in moved} == {name for name in stacks if "feed_forwards.0." in name}
    first = [name for name in stacks if "feed_forwards.0." in name and after[name].shape == (24, 24)]
    assert len(first) == 4
    for name in first:
        changed = after[name] != before[name]
        assert changed[:6].all() != changed[:, :6].all(), "a quarter of the rows, or of the columns"
        assert int(changed.sum()) == 6 * 24


@pytest.mark.parametrize("sampling", ["largest", "sampled"])
def test_a_resumed_training_is_the_undisturbed_one(teacher, corpus, tmp_path, sampling):
    space = make_layerwise_space(dropout=0.1)
    whole, first, second = (make_warm_up(teacher, corpus, space, sampling=sampling) for _ in range(3))
    for step in range(8):
        whole.step(step)
    for step in range(3):
        first.step(step)
    save_checkpoint(first, tmp_path, 3, [])
    done, _ = load_checkpoint(second, tmp_path)
    for step in range(done, 8):
        second.step(step)
    assert same(weights(whole), weights(second))
    (ours,), (theirs,) = whole.rows(8), second.rows(8)
    for column in ("loss", "relative_mse", "tokens", "learning_rate", "step"):
        assert ours[column] == theirs[column]


def test_rows_say_what_was_consumed(teacher, corpus):
    rows = run_locally(make_warm_up(teacher, corpus), report_every=4)
    assert [(row["stage"], row["subject"], row["step"], row["path_updates"]) for row in rows] == [
        ("supernet", "supernet", 4, 4),
        ("supernet", "supernet", 8, 8),
    ]
    assert rows[-1]["tokens"] == sum(int(corpus.step_rows(step, 6, 3)[1].sum()) for step in range(8))
    assert rows[-1]["learning_rate"] < rows[0]["learning_rate"]


def test_the_teacher_gets_no_gradient_and_stays_in_evaluation(corpus):
    teacher = make_teacher(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    run_locally(make_warm_up(teacher, corpus))
    assert not teacher.model.training
    assert all(parameter.grad is None for parameter in teacher.model.parameters())
    assert same(before, teacher.model.state_dict())


def test_bfloat16_learns_nearly_the_same(teacher, corpus):
    exact, rough = (
        run_locally(make_warm_up(teacher, corpus, precision=precision))[-1]["loss"]
        for precision in ("float32", "bfloat16")
    )
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.05)


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_other_heads_than_the_teachers_are_refused(teacher, corpus):
    with pytest.raises(TrainingInputError, match="heads: found 2, expected the teacher's 4"):
        make_warm_up(teacher, corpus, make_layerwise_space(heads=2))


def test_blocks_that_do_not_divide_the_layers_are_refused(teacher, corpus):
    with pytest.raises(TrainingInputError, match="found 3, expected a divisor of the teacher's 4 layers"):
        make_warm_up(teacher, corpus, make_layerwise_space(layers=3))


@pytest.mark.parametrize(
    ("options", "message"), [({"heads": 2}, "heads: found 2"), ({"layers": 3}, "found 3, expected a divisor"), ({}, "")]
)
def test_what_does_not_fit_can_be_told_without_any_weights(options, message):
    space = make_layerwise_space(**options)
    if not message:
        assert check_layerwise(space, "efficient_bert", SHAPE) == (2, 4)
        return
    with pytest.raises(TrainingInputError, match=message):
        check_layerwise(space, "efficient_bert", SHAPE)


def test_a_space_of_blocks_is_refused_without_any_weights():
    with pytest.raises(TrainingInputError, match=r"space.name: found 'nas_bert', whose supernet does not say"):
        check_layerwise(make_space(), "nas_bert", SHAPE)


def test_a_supernet_of_blocks_is_refused(tmp_path, corpus_folder):
    factory = WarmUpFactory(save_teacher(tmp_path), corpus_folder, "nas_bert", NAS_BERT_OPTIONS, make_settings())
    with pytest.raises(TrainingInputError, match=r"space.name: found 'nas_bert', whose supernet does not say"):
        factory(0, 1, torch.device("cpu"))


# --- the factory -----------------------------------------------------------------------------------------------------


def test_the_factory_makes_what_the_folders_say(tmp_path, corpus_folder, corpus, teacher):
    folder = save_teacher(tmp_path / "teacher")
    factory = WarmUpFactory(folder, corpus_folder, "efficient_bert", OPTIONS, make_settings())
    made = [factory(0, 1, torch.device("cpu")) for _ in range(2)]
    assert same(weights(made[0]), weights(made[1])), "the random start is the seed's"
    run_locally(made[0])
    reference = WarmUp(made[1].supernet, make_layerwise_space(), teacher, corpus, make_settings())
    run_locally(reference)
    assert same(weights(made[0]), weights(reference))


def test_a_training_starts_at_the_teacher_or_at_random(tmp_path, corpus_folder, teacher, corpus):
    """At the teacher the plain network is nearer to it from the first step on."""
    folder = save_teacher(tmp_path)
    errors = {}
    for init in ("teacher", "paper"):
        task = WarmUpFactory(folder, corpus_folder, "efficient_bert", OPTIONS, make_settings(init=init))(
            0, 1, torch.device("cpu")
        )
        assert task.supernet.training
        task.step(0)
        (row,) = task.rows(1)
        errors[init] = row["relative_mse"]
    assert errors["teacher"] < 0.7 * errors["paper"]


def test_nothing_is_fitted_where_weights_are_given(tmp_path, corpus_folder, monkeypatch):
    space = make_layerwise_space()
    save_file(space.supernet().state_dict(), tmp_path / "given.safetensors")
    monkeypatch.setattr("trainers.warm_up.calibration_text", lambda _: pytest.fail("text was read to start by"))
    factory = WarmUpFactory(
        save_teacher(tmp_path / "teacher"),
        corpus_folder,
        "efficient_bert",
        OPTIONS,
        make_settings(init="teacher"),
        tmp_path / "given.safetensors",
    )
    factory(0, 1, torch.device("cpu"))


def test_the_text_of_a_start_is_a_share_of_the_corpus(corpus):
    input_ids_BT, mask_BT = calibration_text(corpus)
    assert input_ids_BT.shape == mask_BT.shape == (min(len(corpus), CALIBRATION_TOKENS // 12), 12)


def test_a_training_can_begin_with_another_ones_weights(tmp_path, corpus_folder, teacher, corpus):
    """As the sampled supernet does with the plain one's."""
    plain = make_warm_up(teacher, corpus)
    run_locally(plain)
    save_file(dict(plain.tensors()), tmp_path / "plain.safetensors")
    folder = save_teacher(tmp_path / "teacher")
    settings = make_settings(sampling="sampled")
    start = tmp_path / "plain.safetensors"
    factory = WarmUpFactory(folder, corpus_folder, "efficient_bert", OPTIONS, settings, start)
    assert same(weights(factory(0, 1, torch.device("cpu"))), weights(plain))


def test_a_training_can_begin_with_the_weights_of_a_wider_and_shallower_supernet(tmp_path, corpus_folder):
    """As the paper's 12 blocks of 360 do with 6 blocks of 540."""
    torch.manual_seed(0)
    wide = make_layerwise_space(hidden_size=32).supernet()
    save_file(wide.state_dict(), tmp_path / "wide.safetensors")
    options = {**OPTIONS, "layers": 4, "hidden_size": 16}
    factory = WarmUpFactory(
        save_teacher(tmp_path / "teacher"),
        corpus_folder,
        "efficient_bert",
        options,
        make_settings(),
        tmp_path / "wide.safetensors",
        {**OPTIONS, "hidden_size": 32},
    )
    task = factory(0, 1, torch.device("cpu"))
    given, taken = wide.state_dict(), task.tensors()
    name = "attention.query.weight"
    for block in range(4):
        assert torch.equal(taken[f"blocks.{block}.{name}"], given[f"blocks.{block // 2}.{name}"][:16, :16])
    assert task.layers == (1, 2, 3, 4)
    assert all(parameter.requires_grad for parameter in task.supernet.parameters())
    before = taken["projection.weight"].clone()
    task.step(0)
    assert not torch.equal(task.tensors()["projection.weight"], before)
