"""Progressive shrinking of real microscopic trainings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.spaces.microscopic import OPTIONS, make_space
from tests.trainers.blockwise_tasks import make_settings, make_training, shrinking_settings
from tests.trainers.corpora import make_corpus, make_documents
from tests.trainers.teachers import save_teacher
from tests.trainers.two_workers import run_two
from trainers.blockwise import BlockwiseFactory
from trainers.errors import TrainingInputError
from trainers.prefix_evaluation import PrefixEvaluator
from trainers.shrinking import alive_in_checkpoint, load_alive, save_alive
from trainers.task import load_checkpoint, run_locally, save_checkpoint
from trainers.validation import validation_batches

SPACE = make_space(layers_per_block=2, hidden_sizes=(16, 32), operations=("M", "F1", "S3"))  # 24 architectures


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("validation"), make_documents(count=16, words=10, seed=9))


@pytest.fixture
def shrunk(teacher, corpus, validation):
    """Makes trainings that shrink after steps 4, 6, 8, ..."""

    def make(total_steps: int = 20, **changes):
        settings = shrinking_settings(**changes)
        return make_training(
            teacher, corpus, SPACE, validation, shrinking=settings, total_steps=total_steps, paths_per_step=2
        )

    return make


def test_rounds_come_after_the_warm_epochs_and_the_training_ends_with_them(shrunk):
    task = shrunk()
    rows = run_locally(task, report_every=100)
    rounds = {row["round"]: row["step"] for row in rows if row.get("table") == "shrinking"}
    assert rounds == {number: 2 + 2 * number if number else 0 for number in range(len(rounds))}
    assert task.finished
    training = [row for row in rows if "table" not in row]
    assert {row["step"] for row in training} == {rounds[max(rounds)]}, "it went on after the last round"
    for block in range(2):
        assert (task.shrinking.population.live_counts(block) <= 4).all()


def test_a_training_goes_on_with_the_survivors_where_it_shall(shrunk):
    task = shrunk(stop_when_done=False)
    rows = run_locally(task, report_every=100)
    assert task.shrinking.done
    assert not task.finished
    assert [row["step"] for row in rows if "table" not in row] == [20] * 3
    assert max(row["step"] for row in rows if "table" in row) < 20


@pytest.mark.parametrize("how", [{}, {"evaluate": "all", "remove": "half_bin"}, {"latency_rule": "none", "sample": 6}])
def test_the_last_step_is_known_before_the_training(shrunk, how):
    task = shrunk(60, **how)
    run_locally(task)
    rounds = task.shrinking.round
    assert rounds > 1
    settings = task.shrinking.settings
    assert settings.last_step(SPACE, 60) == 2 * (1 + rounds)
    assert settings.last_step(SPACE, 5) == 5
    assert shrunk(stop_when_done=False, **how).shrinking.settings.last_step(SPACE, 60) == 60


def test_where_nothing_can_be_removed_the_warm_epochs_are_trained(shrunk):
    task = shrunk(20, keep=24)
    assert task.shrinking.done
    assert not task.finished
    assert task.shrinking.settings.last_step(SPACE, 20) == 2


def test_by_operations_no_training_is_longer_than_was_said(shrunk):
    task = shrunk(60, by="operations")
    rows = run_locally(task, report_every=1)
    assert task.finished
    assert max(row["step"] for row in rows) <= task.shrinking.settings.last_step(SPACE, 60)


def test_rows_tell_of_every_bin(shrunk):
    task = shrunk(latency_rule="two_sided")
    rows = [row for row in run_locally(task) if row.get("table") == "shrinking"]
    by_key = {(row["round"], row["block"], row["bin"]): row for row in rows}
    assert len(by_key) == len(rows) == (task.shrinking.round + 1) * 2 * 3
    for (number, block, place), row in by_key.items():
        assert row["live_after"] == row["live_before"] - row["removed"]
        assert row["live_total"] == sum(by_key[number, block, other]["live_after"] for other in (1, 2, 3))
        assert row["latency_rule"] == "two_sided (flops)"
        if number == 0:
            assert (row["rule"], row["sampled"], row["seconds"]) == ("latency", 0, None)
        else:
            assert row["live_before"] == by_key[number - 1, block, place]["live_after"]
            assert row["rule"] == "half_sampled"
            assert row["seconds"] > 0
            if row["sampled"]:
                assert 0 < row["best_loss"] <= row["median_loss"] <= row["worst_loss"]
    assert sum(row["live_before"] for row in rows if (row["round"], row["block"]) == (0, 0)) == 24


def test_those_with_the_highest_losses_die(shrunk, teacher, validation):
    task = shrunk()
    for step in range(3):
        task.step(step)
    before = task.shrinking.population.alive
    task.step(3)
    after = task.shrinking.population.alive
    batches = validation_batches(teacher, validation, 2, 2, 6)
    evaluator = PrefixEvaluator(task.supernet.eval(), batches)
    for block in range(2):
        chosen = np.flatnonzero(before[block])
        losses = np.array([evaluator.loss_alone(block, SPACE.block_at(int(index))) for index in chosen])
        bins = task.shrinking.population.bins_N[chosen]
        died = ~after[block][chosen]
        assert died.any()
        for number in (1, 2, 3):
            of_bin = bins == number
            if died[of_bin].any():
                assert losses[of_bin & died].min() > losses[of_bin & ~died].max()


def test_only_the_living_are_trained(shrunk, monkeypatch):
    latencies_ms = SPACE.block_costs(12).parameters * 1.0
    latencies_ms[5:9] *= 100
    task = shrunk(latencies_ms=latencies_ms, stop_when_done=False)
    forward_block = task.supernet.forward_block
    seen = []

    def watched(index, block, *inputs):
        seen.append((index, SPACE.block_index(block)))
        return forward_block(index, block, *inputs)

    monkeypatch.setattr(task.supernet, "forward_block", watched)
    forbidden = set(np.flatnonzero(~task.shrinking.population.allowed_N))
    assert forbidden == {5, 6, 7, 8}
    for step in range(20):
        alive = task.shrinking.population.alive
        seen.clear()
        task.step(step)
        assert all(alive[index, place] and place not in forbidden for index, place in seen)


@pytest.mark.parametrize("how", [{}, {"by": "operations"}, {"evaluate": "all", "remove": "half_bin"}])
def test_killed_and_resumed_equals_undisturbed(shrunk, tmp_path, how):
    whole, first, resumed = shrunk(12, **how), shrunk(12, **how), shrunk(12, **how)
    rows = run_locally(whole)
    history = []
    for step in range(5):
        first.step(step)
        history += first.news()
    save_checkpoint(first, tmp_path, 5, history)
    for step in range(5, 9):
        first.step(step)  # what a killed worker had done since
    done, history = load_checkpoint(resumed, tmp_path)
    assert resumed.news() == [], "the latency rule's rows would come twice"
    while done < resumed.total_steps and not resumed.finished:
        resumed.step(done)
        done += 1
        history += resumed.news()
    assert np.array_equal(whole.shrinking.population.alive, resumed.shrinking.population.alive)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name

    def told(rows):
        return [{**row, "seconds": None} for row in rows if row.get("table") == "shrinking"]

    assert told(rows) == told(history)
    assert {row["round"] for row in told(rows)} > {0, 1}


def test_a_latency_table_sorts_out(shrunk):
    """What is slow for its size dies; here, whatever has a convolution."""
    counts = [sum(operation == "S3" for operation in block.operations) for block in SPACE.enumerate_blocks()]
    costs = SPACE.block_costs(12).parameters
    slow = np.array(counts) > 0
    task = shrunk(latencies_ms=np.where(slow, 1e6, costs / 1e4), latency_from="table")
    assert not task.shrinking.population.alive[:, slow].any()
    assert task.shrinking.population.alive[:, ~slow].all()
    assert task.news()[0]["latency_rule"] == "upper (table)"


def test_survivors_on_disk(shrunk, tmp_path):
    task = shrunk(6)
    run_locally(task)
    save_checkpoint(task, tmp_path / "checkpoint", 6, [])
    alive = alive_in_checkpoint(tmp_path / "checkpoint")
    save_alive(alive, tmp_path / "supernet" / "alive.npz")
    loaded = load_alive(tmp_path / "supernet" / "alive.npz")
    assert len(loaded) == 2
    assert all(living.dtype == bool for living in loaded)
    assert np.array_equal(np.stack(loaded), task.shrinking.population.alive)


def test_an_unshrunk_checkpoint_has_no_survivors(teacher, corpus, tmp_path):
    save_checkpoint(make_training(teacher, corpus), tmp_path, 0, [])
    assert alive_in_checkpoint(tmp_path) is None


def test_shrinking_needs_held_out_text(teacher, corpus):
    with pytest.raises(TrainingInputError, match="held-out text"):
        make_training(teacher, corpus, SPACE, shrinking=shrinking_settings())


def test_what_a_plan_says_happens(shrunk):
    task = shrunk()
    rows = [row for row in run_locally(task) if row.get("table") == "shrinking" and row["round"]]
    evaluated = [sum(row["sampled"] for row in rows if row["round"] == n) for n in range(1, task.shrinking.round + 1)]
    assert task.shrinking.settings.evaluations_ahead(SPACE, 20) == evaluated
    assert task.shrinking.settings.evaluations_ahead(SPACE, 7) == evaluated[:2]
    assert task.shrinking.settings.evaluations_ahead(SPACE, 3) == []


def test_two_workers_share_the_evaluation_and_agree(tmp_path):
    """Each evaluates a part; both remove the same, which is what one worker with all their weights would."""
    teacher_folder = save_teacher(tmp_path / "teacher")
    make_corpus(tmp_path / "corpus", make_documents(count=20, words=20))
    options = {**OPTIONS, "dropout": 0.0, "layers_per_block": 2, "hidden_sizes": [16, 32], "operations": ["M", "F1"]}
    settings = make_settings(batch_size=8, shrinking=shrinking_settings(keep=2, bins=1), learning_rate=1e-4)
    factory = BlockwiseFactory(
        teacher_folder, tmp_path / "corpus", "nas_bert", options, settings, validation_folder=tmp_path / "corpus"
    )
    torch.save({"factory": factory, "workers": 2, "steps": 6}, tmp_path / "job.pt")
    run_two(tmp_path)
    first, second = (torch.load(tmp_path / f"worker-{rank}.pt") for rank in (0, 1))
    assert torch.equal(first["shrinking"]["alive"], second["shrinking"]["alive"])
    assert first["shrinking"]["round"] == 2
    assert not first["shrinking"]["alive"].all()
    losses = [[row.get("worst_loss") for row in worker["news"]] for worker in (first, second)]
    assert losses[0] == losses[1], "the workers heard of different losses"
    alone = factory(0, 1, torch.device("cpu"))
    alone.load_tensors(first["weights at the first round"])
    evaluator = PrefixEvaluator(alone.supernet.eval(), validation_batches(alone.teacher, alone.validation, 2, 2, 6))
    everyone = [*alone.space.enumerate_blocks()]
    for block in range(2):
        (worst,) = [row["worst_loss"] for row in first["news"] if (row["round"], row["block"]) == (1, block)]
        assert worst == pytest.approx(evaluator.losses(block, everyone).max(), rel=1e-6)
