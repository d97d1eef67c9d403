from __future__ import annotations

import numpy as np
import pytest
import torch

from spaces.nas_bert.options import NasBertOptions
from tests.spaces.microscopic import OPTIONS, make_space
from tests.trainers.blockwise_tasks import gradients_of_first_step, make_settings, make_training
from tests.trainers.teachers import save_teacher
from trainers import blockwise
from trainers.blockwise import BlockwiseFactory
from trainers.errors import TrainingInputError
from trainers.task import load_checkpoint, run_locally, save_checkpoint


def weights(task):
    return {name: tensor.clone() for name, tensor in task.tensors().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def watched(teacher, corpus, monkeypatch):
    """A training, and what its blocks are given and judged by."""
    task = make_training(teacher, corpus, paths_per_step=2, weight_decay=0.3, learning_rate=1e-2)
    calls, losses = [], []
    forward_block, masked_mse = task.supernet.forward_block, blockwise.masked_mse

    def watched_block(index, block, hidden_BTD, mask_BT):
        output_BTD = forward_block(index, block, hidden_BTD, mask_BT)
        calls.append((index, block, hidden_BTD))
        return output_BTD

    def watched_loss(output_BTD, target_BTD, mask_BT):
        losses.append(target_BTD)
        return masked_mse(output_BTD, target_BTD, mask_BT)

    monkeypatch.setattr(task.supernet, "forward_block", watched_block)
    monkeypatch.setattr(blockwise, "masked_mse", watched_loss)
    return task, calls, losses


def test_inputs_and_targets_are_the_teacher_s_states(watched, teacher, corpus):
    """Block n goes from the state after layer (n-1)N/B to that after layer nN/B, whatever the student says."""
    task, calls, losses = watched
    for step in range(2):
        task.step(step)
    for step in range(2):
        batch = corpus.step_rows(step, 6, 3)
        output = teacher.model(*batch, output_hidden_states=True).hidden_states
        assert [index for index, _, _ in calls[4 * step : 4 * step + 4]] == [0, 0, 1, 1]
        for (index, _, hidden_BTD), target_BTD in zip(
            calls[4 * step : 4 * step + 4], losses[5 * step : 5 * step + 4], strict=True
        ):
            assert torch.equal(hidden_BTD, output[2 * index])
            assert torch.equal(target_BTD, output[2 * index + 2])
        assert torch.equal(losses[5 * step + 4], output[0]), "embeddings learn the teacher's"


def test_a_step_touches_the_sampled_paths_and_nothing_else(watched):
    """Not even by weight decay, or by the momentum of earlier steps."""
    task, calls, _ = watched
    touched_before = set()
    for step in range(6):
        before = weights(task)
        calls.clear()
        task.step(step)
        expected = set()
        for index, path, _ in calls:
            size = path.hidden_size
            expected |= {f"blocks.{index}.{kind}.{size}." for kind in ("entries", "exits")}
            expected |= {
                f"blocks.{index}.layers.{layer}.{size}_{operation}." for layer, operation in enumerate(path.operations)
            }
        changed = {name for name, tensor in task.tensors().items() if not torch.equal(tensor, before[name])}
        in_blocks = {name for name in changed if name.startswith("blocks.")}
        allowed = {name for name in before if any(name.startswith(prefix) for prefix in expected)}
        # a key's bias has no gradient but noise: the softmax does not see it
        assert {name for name in allowed - in_blocks if "key.bias" not in name} == set()
        assert in_blocks <= allowed
        sizes = {name.split(".")[1] for name in changed - in_blocks}
        assert len(sizes) == 1, "one size of the embeddings"
        assert sizes <= {"16", "48"}
        touched_before |= changed
    assert touched_before < set(before), "after a few steps some weights must still be as they were"


def test_paths_of_a_step_are_different_draws(watched):
    task, calls, _ = watched
    for step in range(5):
        task.step(step)
    paths = {(index, path) for index, path, _ in calls}
    assert len(calls) == 5 * 2 * 2
    assert len(paths) > 15


def test_the_gradient_is_the_mean_over_paths(teacher, corpus):
    """A space of a single path: K times the same path is that path once."""
    space = make_space(hidden_sizes=(16,), layers_per_block=1, operations=("F1",), dropout=0.0)
    gradients = []
    for paths in (1, 3):
        task = make_training(teacher, corpus, space, paths_per_step=paths, gradient_clip=0.0)
        gradients.append(gradients_of_first_step(task))
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)


def test_shared_beginnings_learn_what_each_path_alone_would(teacher, corpus):
    """The gradient of a family is the mean of its members' gradients; common layers are run once."""
    space = make_space(hidden_sizes=(16,), layers_per_block=3, operations=("M", "F1"), dropout=0.0)
    options = {"paths_per_step": 4, "gradient_clip": 0.0, "shared_layers": 2, "seed": 8}
    together = make_training(teacher, corpus, space, **options)
    apart = make_training(teacher, corpus, space, **options)
    steps_run, drawn = [], []
    run_step, draw = together.supernet.run_step, together._draw

    def watched_step(index, position, *rest):
        steps_run.append((index, position))
        return run_step(index, position, *rest)

    def watched_draw(index, rng):
        drawn.append(draw(index, rng))
        return drawn[-1]

    together.supernet.run_step, together._draw = watched_step, watched_draw
    apart._draw = lambda index, rng: [[path] for path in draw(index, rng)[0]]
    gradients = [gradients_of_first_step(task) for task in (together, apart)]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)
    assert any(len(path.operations) == 3 for (family,) in drawn for path in family)
    for index in (0, 1):
        assert [steps_run.count((index, position)) for position in (0, 1)] == [1, 1], "entry and first layer, once"
        assert steps_run.count((index, 3)) <= 2, "there are only two operations that can follow"


def test_embeddings_of_the_teacher_s_width_stay(teacher, corpus):
    task = make_training(teacher, corpus, weight_decay=0.5)
    before = weights(task)
    for step in range(4):
        task.step(step)
    after = task.tensors()
    kept = [name for name in before if name.startswith("embeddings.32.")]
    assert len(kept) == 5
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert torch.equal(after["embeddings.32.token.weight"], teacher.model.embeddings.word_embeddings.weight)


def test_the_teacher_does_not_learn(teacher, corpus):
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    task = make_training(teacher, corpus)
    for step in range(3):
        task.step(step)
    assert same(before, teacher.model.state_dict())
    assert all(parameter.grad is None for parameter in teacher.model.parameters())


def test_equal_seeds_train_equally(teacher, corpus):
    trained = []
    for seed, disturbance in ((3, 0), (3, 1), (4, 0)):
        task = make_training(teacher, corpus, seed=seed, paths_per_step=2)
        torch.manual_seed(disturbance)  # the state of the process does not matter
        for step in range(4):
            task.step(step)
        trained.append(weights(task))
    assert same(trained[0], trained[1])
    assert not same(trained[0], trained[2])


@pytest.mark.parametrize("saved_after", [1, 4])
def test_a_resumed_training_equals_an_uninterrupted_one(teacher, corpus, tmp_path, saved_after):
    """Bit for bit, dropout and momentum included."""
    whole = make_training(teacher, corpus, total_steps=6)
    first = make_training(teacher, corpus, total_steps=6)
    for step in range(6):
        whole.step(step)
    for step in range(saved_after):
        first.step(step)
    save_checkpoint(first, tmp_path, saved_after, first.rows(saved_after))
    resumed = make_training(teacher, corpus, total_steps=6, init="paper")
    assert not same(weights(resumed), weights(first))
    steps_done, history = load_checkpoint(resumed, tmp_path)
    assert steps_done == saved_after
    assert [row["step"] for row in history] == [saved_after] * 3
    for step in range(steps_done, 6):
        resumed.step(step)
    assert same(weights(whole), weights(resumed))
    tokens = {row["tokens"] for task in (whole, resumed) for row in task.rows(6)}
    assert len(tokens) == 1


@pytest.mark.parametrize("init", ["teacher", "paper"])
def test_the_loss_falls(teacher, corpus, init):
    space = make_space(hidden_sizes=(16, 32), layers_per_block=2, operations=("M", "F", "S3"), dropout=0.0)
    task = make_training(
        teacher, corpus, space, init=init, total_steps=60, learning_rate=1e-2, paths_per_step=2, batch_size=8
    )
    rows = run_locally(task, report_every=15)
    by_block = {block: [row["loss"] for row in rows if row["block"] == block] for block in (None, 0, 1)}
    for block, losses in by_block.items():
        assert len(losses) == 4
        assert losses[-1] < 0.8 * losses[0], f"block {block}: {losses}"


def test_rows_say_what_was_consumed(teacher, corpus):
    task = make_training(teacher, corpus, total_steps=5, paths_per_step=3)
    rows = run_locally(task, report_every=2)
    assert [(row["step"], row["block"]) for row in rows] == [(s, b) for s in (2, 4, 5) for b in (None, 0, 1)]
    tokens = [sum(int(corpus.step_rows(step, 6, 3)[1].sum()) for step in range(done)) for done in (2, 4, 5)]
    for row in rows:
        assert row["tokens"] == tokens[(2, 4, 5).index(row["step"])]
        assert row["path_updates"] == row["step"] * (1 if row["block"] is None else 3 * 2)
        assert row["learning_rate"] == task.settings.optimiser.learning_rate_at(row["step"] - 1)
        assert row["tokens_per_second"] > 0
        assert row["relative_mse"] > 0
        assert (row["stage"], row["subject"], row["workers"]) == ("supernet", "supernet", 1)


def test_relative_error_is_the_loss_over_the_target_s_variance(teacher, corpus):
    from trainers.losses import masked_variance

    space = make_space(hidden_sizes=(16,), layers_per_block=1, operations=("F",))
    task = make_training(teacher, corpus, space, total_steps=1)
    rows = {row["block"]: row for row in run_locally(task)}
    input_ids_BT, mask_BT = corpus.step_rows(0, 6, 3)
    states = teacher.states(input_ids_BT, mask_BT, [0, 2, 4])
    for block, target_BTD in zip((None, 0, 1), states, strict=True):
        variance = float(masked_variance(target_BTD, mask_BT))
        assert rows[block]["relative_mse"] == pytest.approx(rows[block]["loss"] / variance, rel=1e-5)


def test_bfloat16_trains_float32_weights(teacher, corpus):
    task = make_training(teacher, corpus, precision="bfloat16", total_steps=2)
    rows = run_locally(task)
    assert all(0 < row["loss"] < 100 for row in rows)
    assert {tensor.dtype for tensor in task.tensors().values()} == {torch.float32}


def test_the_factory_makes_what_the_folders_say(tmp_path, corpus_folder):
    save_teacher(tmp_path)
    options = {**OPTIONS, "hidden_sizes": [16, 32]}
    settings = make_settings(total_steps=3)
    factory = BlockwiseFactory(tmp_path, corpus_folder, "nas_bert", options, settings)
    first, second = (factory(0, 1, torch.device("cpu")) for _ in range(2))
    assert same(weights(first), weights(second))
    assert first.space.options == NasBertOptions.from_mapping(options, first.teacher.shape)
    assert (first.rank, first.world_size, first.total_steps) == (0, 1, 3)
    run_locally(first)
    assert not same(weights(first), weights(second))


def test_masked_text_hides_other_tokens_in_each_step_and_the_same_again(teacher, corpus):
    training = make_training(teacher, corpus, mask_probability=0.5)
    rows_B = np.arange(4)
    plain_BT, mask_BT = corpus.rows(rows_B)
    first_BT, _ = training._text(rows_B, 0)
    hidden_BT = first_BT != plain_BT
    special_BT = torch.isin(plain_BT, torch.tensor(teacher.tokenizer.all_special_ids))
    assert 0.2 < hidden_BT[mask_BT.bool() & ~special_BT].float().mean() < 0.7
    assert not hidden_BT[special_BT].any()
    assert torch.equal(first_BT, training._text(rows_B, 0)[0])
    assert not torch.equal(first_BT, training._text(rows_B, 1)[0])
    assert torch.equal(plain_BT, make_training(teacher, corpus)._text(rows_B, 0)[0])


def test_masked_text_is_what_teacher_and_blocks_are_given(teacher, corpus):
    def losses(probability):
        training = make_training(teacher, corpus, mask_probability=probability)
        training.step(0)
        return [row["loss"] for row in training.rows(1)]

    assert losses(0.5) == losses(0.5) != losses(0.0)


def test_kept_states_and_masked_text_exclude_each_other(teacher, corpus, tmp_path):
    with pytest.raises(TrainingInputError, match=r"supernet\.teacher_cache: found float32, expected off"):
        make_training(teacher, corpus, cache_folder=tmp_path, mask_probability=0.1, teacher_cache="float32")
