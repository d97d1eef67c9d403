"""Supernets trained by two real processes against one with the whole batch."""

from __future__ import annotations

import pytest
import torch

from tests.spaces.microscopic import OPTIONS
from tests.trainers import oneshot_tasks, warm_up_tasks
from tests.trainers.blockwise_tasks import make_settings
from tests.trainers.corpora import make_corpus, make_documents
from tests.trainers.tasks import joint_tasks, task_searches
from tests.trainers.tasks.toy_tasks import write
from tests.trainers.teachers import save_teacher
from tests.trainers.two_workers import main as run_worker
from tests.trainers.two_workers import run_two
from trainers.blockwise import BlockwiseFactory
from trainers.oneshot import OneShotFactory
from trainers.warm_up import WarmUpFactory

STEPS = 3


ONE_SHOT = ("score_function", "straight_through")
"""Of the estimators, the one whose workers have to tell each other more than gradients, and one that they do not."""
BY_A_TASK = "one-shot search by a task"
UNLIKE = "one-shot search whose workers started elsewhere"
KINDS = ("block by block", "layer by layer", "on tasks", *ONE_SHOT, BY_A_TASK, UNLIKE)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two workers and a single one found, by kind: equal masks, so that the mean of means is the mean.

    In a one-shot search each worker draws a path of its own, where the single one draws two.
    """
    folder = tmp_path_factory.mktemp("workers")
    teacher_folder = save_teacher(folder / "teacher")
    make_corpus(folder / "corpus", make_documents(count=20, words=20))  # 40 full sequences of 10 words
    changes = {"batch_size": 8, "total_steps": STEPS, "learning_rate": 1e-4, "gradient_clip": 0.0}
    place, settings = (teacher_folder, folder / "corpus"), make_settings(paths_per_step=2, **changes)
    sampled = warm_up_tasks.make_settings(sampling="sampled", **changes)
    same = {
        "block by block": BlockwiseFactory(*place, "nas_bert", {**OPTIONS, "dropout": 0.0}, settings),
        "layer by layer": WarmUpFactory(*place, "efficient_bert", warm_up_tasks.OPTIONS, sampled),
        "on tasks": joint_tuning(folder / "tasks"),
    }
    factories = {(kind, workers): factory for kind, factory in same.items() for workers in (1, 2)}
    for kind in ONE_SHOT:
        for workers in (1, 2):
            drawn = {"estimator": kind, "paths": 2 // workers, "certainty": 0.6}
            searching = oneshot_tasks.make_settings(**drawn, **changes)
            factories[kind, workers] = OneShotFactory(*place, "components", {"dropout": 0.0}, searching)
    for workers in (1, 2):
        drawn = {"estimator": "score_function", "paths": 2 // workers, "certainty": 0.6}
        factories[UNLIKE, workers] = oneshot_tasks.UnlikeStarts(*place, oneshot_tasks.make_settings(**drawn, **changes))
        factories[BY_A_TASK, workers] = task_search(folder / f"searched {workers}", workers, changes)
    jobs = {(kind, workers): folder / f"{kind} {workers}" for kind, workers in factories}
    for (kind, workers), job in jobs.items():
        job.mkdir()
        torch.save({"factory": factories[kind, workers], "workers": workers, "steps": STEPS}, job / "job.pt")
    run_two(*(job for (_, workers), job in jobs.items() if workers == 2))
    for (_, workers), job in jobs.items():
        if workers == 1:
            run_worker(job, 0)
    return {
        kind: {n: [torch.load(jobs[kind, n] / f"worker-{rank}.pt") for rank in range(n)] for n in (1, 2)}
        for kind in KINDS
    }


def joint_tuning(folder):
    """Texts of a task are equally long, so that workers pad alike."""
    folder.mkdir()
    place = joint_tasks.make_place(folder)
    texts = [f"w{row} w{7 + row} w{11 + row} w3" for row in range(40)]
    write(folder / "data", "glue/sst2/train", sentence=texts, label=[row % 2 for row in range(40)])
    numbers = [row / 10 for row in range(40)]
    write(folder / "data", "glue/stsb/train", sentence1=texts, sentence2=texts[::-1], label=numbers)
    changes = {"batch_size": 8, "total_steps": STEPS, "learning_rate": 1e-4, "gradient_clip": 0.0}
    return joint_tasks.make_factory(place, joint_tasks.make_settings(joint_tasks.IMITATION, **changes))


def task_search(folder, workers, changes):
    """The same; the head learns too."""
    folder.mkdir()
    place = task_searches.make_place(folder)
    texts = [f"w{row} w{7 + row} w{11 + row} w3" for row in range(40)]
    write(folder / "data", "glue/sst2/train", sentence=texts, label=[row % 2 for row in range(40)])
    drawn = {"estimator": "score_function", "paths": 2 // workers, "certainty": 0.6}
    return task_searches.make_factory(place, task_searches.make_settings(**drawn, **changes))


@pytest.fixture(params=KINDS)
def results(request, both):
    """Of one kind of training, by the number of workers."""
    return both[request.param]


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
        assert mine.get("path_updates") == whole.get("path_updates")
