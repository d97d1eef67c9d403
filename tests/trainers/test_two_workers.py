"""Supernets trained by two real processes against one with the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.spaces.microscopic import OPTIONS
from tests.trainers import oneshot_tasks, warm_up_tasks
from tests.trainers.blockwise_tasks import make_settings
from tests.trainers.corpora import make_corpus, make_documents
from tests.trainers.teachers import save_teacher
from tests.trainers.two_workers import main as run_worker
from trainers.blockwise import BlockwiseFactory
from trainers.oneshot import OneShotFactory
from trainers.warm_up import WarmUpFactory

STEPS = 3
REPOSITORY = Path(__file__).resolve().parents[2]


ONE_SHOT = ["score_function", pytest.param("straight_through", marks=pytest.mark.slow)]
"""Of the estimators, the one whose workers have to tell each other more than gradients, and one that they do not."""


@pytest.fixture(scope="module", params=["block by block", "layer by layer", *ONE_SHOT])
def results(request, tmp_path_factory):
    """What both workers and the single one found: equal masks, so that the mean of means is the mean.

    In a one-shot search each worker draws a path of its own, where the single one draws two.
    """
    folder = tmp_path_factory.mktemp("workers")
    teacher_folder = save_teacher(folder / "teacher")
    make_corpus(folder / "corpus", make_documents(count=20, words=20))  # 40 full sequences of 10 words
    changes = {"batch_size": 8, "total_steps": STEPS, "learning_rate": 1e-4, "gradient_clip": 0.0}
    place = teacher_folder, folder / "corpus"
    if request.param == "block by block":
        settings = make_settings(paths_per_step=2, **changes)
        factory = BlockwiseFactory(*place, "nas_bert", {**OPTIONS, "dropout": 0.0}, settings)
        return run_both(folder, {2: factory, 1: factory})
    if request.param == "layer by layer":
        sampled = warm_up_tasks.make_settings(sampling="sampled", **changes)
        factory = WarmUpFactory(*place, "efficient_bert", warm_up_tasks.OPTIONS, sampled)
        return run_both(folder, {2: factory, 1: factory})
    factories = {}
    for workers in (2, 1):
        drawn = {"estimator": request.param, "paths": 2 // workers, "certainty": 0.6}
        settings = oneshot_tasks.make_settings(**drawn, **changes)
        factories[workers] = OneShotFactory(*place, "components", {"dropout": 0.0}, settings)
    return run_both(folder, factories)


def run_both(folder, factories):
    """A training by two processes and by one, by the number of workers, and so are the factories."""
    found = {}
    for workers, factory in factories.items():
        place = folder / str(workers)
        place.mkdir()
        torch.save({"factory": factory, "workers": workers, "steps": STEPS}, place / "job.pt")
        command = [sys.executable, "-m", "tests.trainers.two_workers", str(place)]
        if workers == 1:
            run_worker(place, 0)
        else:
            processes = [
                subprocess.Popen([*command, str(rank)], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
                for rank in range(workers)
            ]
            try:
                errors = [process.communicate(timeout=120)[1] for process in processes]
            finally:
                for process in processes:
                    process.kill()
            assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
        found[workers] = [torch.load(place / f"worker-{rank}.pt") for rank in range(workers)]
    return found


def test_averaged_gradients_are_those_of_the_whole_batch(results):
    (alone,) = results[1]
    for worker in results[2]:
        assert worker["gradients"].keys() == alone["gradients"].keys()
        for name, gradient in alone["gradients"].items():
            torch.testing.assert_close(worker["gradients"][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_weights_are_those_of_one_worker_with_the_whole_batch(results):
    """But for the keys' biases: a softmax does not see them, and Adam makes steps of the noise in their gradient."""
    (alone,) = results[1]
    moved = 0
    for name, tensor in results[2][0]["weights"].items():
        if "key.bias" not in name:
            torch.testing.assert_close(tensor, alone["weights"][name], rtol=0, atol=1e-6, msg=name)
            moved += name.removeprefix("supernet.") in alone["gradients"]
    assert moved > 20


def test_workers_stay_equal_bit_for_bit(results):
    first, second = (worker["weights"] for worker in results[2])
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_rows_are_means_over_all_workers(results):
    (alone,) = results[1]
    first, second = (worker["rows"] for worker in results[2])
    for mine, theirs, whole in zip(first, second, alone["rows"], strict=True):
        assert mine["loss"] == theirs["loss"] == pytest.approx(whole["loss"], rel=1e-4)
        assert (mine.get("block"), mine["step"], mine["tokens"]) == (whole.get("block"), whole["step"], whole["tokens"])
        assert (mine["workers"], whole["workers"]) == (2, 1)
        assert mine["path_updates"] == whole["path_updates"]
