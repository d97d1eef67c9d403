from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from trainers.task import TrainingTask, load_checkpoint, run_locally, save_checkpoint


class Counting(TrainingTask):
    """Adds the step's number to a weight, with a momentum that has to be saved too."""

    def __init__(self, total_steps):
        self.total_steps = total_steps
        self.weight = torch.zeros(2, 2)
        self.momentum = torch.zeros(2)
        self.steps = []

    def step(self, step):
        self.momentum = 0.5 * self.momentum + step
        self.weight += self.momentum
        self.steps.append(step)

    def rows(self, steps_done):
        return [{"step": steps_done, "loss": float(self.weight.sum())}]

    def tensors(self):
        return {"weight": self.weight.T}  # not contiguous

    def load_tensors(self, tensors):
        self.weight = tensors["weight"].T

    def optimiser_state(self):
        return {"momentum": self.momentum}

    def load_optimiser_state(self, state):
        self.momentum = state["momentum"]


@pytest.mark.parametrize(
    ("total", "every", "reported"), [(10, 4, [4, 8, 10]), (8, 4, [4, 8]), (3, 10, [3]), (1, 1, [1]), (0, 5, [])]
)
def test_running_locally_reports_at_intervals_and_at_the_end(total, every, reported):
    task, told = Counting(total), []
    rows = run_locally(task, every, lambda step, new: told.append((step, new)))
    assert task.steps == list(range(total))
    assert [row["step"] for row in rows] == reported
    assert [(step, [row["step"] for row in new]) for step, new in told] == [(step, [step]) for step in reported]


def test_a_checkpoint_brings_back_everything(tmp_path):
    task = Counting(5)
    history = run_locally(task, 2)
    save_checkpoint(task, tmp_path / "deep" / "folder", 5, history)
    other = Counting(5)
    assert load_checkpoint(other, tmp_path / "deep" / "folder") == (5, history)
    assert torch.equal(other.weight, task.weight)
    assert torch.equal(other.momentum, task.momentum)


def test_a_checkpoint_is_plain_files(tmp_path):
    task = Counting(1)
    save_checkpoint(task, tmp_path, 1, run_locally(task))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "optimiser.pt",
        "progress.json",
        "weights.safetensors",
    ]
    assert load_file(tmp_path / "weights.safetensors").keys() == {"weight"}
    assert json.loads((tmp_path / "progress.json").read_text())["steps_done"] == 1


def test_a_checkpoint_with_code_in_it_is_not_loaded(tmp_path):
    """Only tensors and plain values: a pickled object of another class is refused."""
    task = Counting(1)
    save_checkpoint(task, tmp_path, 1, [])
    torch.save({"momentum": tmp_path}, tmp_path / "optimiser.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        load_checkpoint(Counting(1), tmp_path)


def test_a_checkpoint_can_be_written_over(tmp_path):
    task = Counting(4)
    for done in (1, 2):
        task.step(done)
        save_checkpoint(task, tmp_path, done, [])
    other = Counting(4)
    assert load_checkpoint(other, tmp_path)[0] == 2
    assert torch.equal(other.weight, task.weight)
