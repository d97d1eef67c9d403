"""What a training is to those who run it: steps, rows, and a state that can be saved; nothing of Ray."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Row = dict[str, Any]
"""One row of a results table, without run id and time. The key ``table`` names the table; without it, ``training``."""


def no_listener(text: str) -> None:
    """What a task tells while nobody listens."""


class TrainingTask(ABC):
    """A training, one per worker, in plain PyTorch.

    Whoever runs it calls :func:`load_checkpoint` once if there is one, then :meth:`step` for every step number from
    ``start`` to ``total_steps``, :meth:`news` after each, and :meth:`rows` and :func:`save_checkpoint` at intervals;
    once :attr:`finished` is true, no more. All workers call :meth:`step` in lockstep. A task that is saved and loaded
    goes on exactly as one that was not.

    Attributes:
        total_steps: optimiser steps at most.
        tell: told in a few words what a long step is busy with; set by whoever runs the task.
    """

    total_steps: int
    tell: Callable[[str], None] = staticmethod(no_listener)

    @property
    def finished(self) -> bool:
        """Whether the training has reached its end before ``total_steps``; the same on every worker."""
        return False

    @abstractmethod
    def step(self, step: int) -> None:
        """Take optimiser step number ``step``, counted from 0."""

    @abstractmethod
    def rows(self, steps_done: int) -> list[Row]:
        """Means since the last call, as rows of results tables; the same on every worker."""

    def news(self) -> list[Row]:
        """Rows that the last step brought about by itself (a round of shrinking), each told once."""
        return []

    @abstractmethod
    def tensors(self) -> Mapping[str, Tensor]:
        """Everything learned, by name, for a safetensors file."""

    @abstractmethod
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`tensors` gave."""

    @abstractmethod
    def optimiser_state(self) -> dict[str, Any]:
        """The optimisers' state and counters, of tensors and plain values only."""

    @abstractmethod
    def load_optimiser_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`optimiser_state` gave."""


def tensors_of(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of what :meth:`TrainingTask.tensors` gave whose names begin with ``part.``, by the rest of their names."""
    prefix = f"{part}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class TaskFactory(Protocol):
    """Makes a worker's task; has to be picklable, since it travels to the workers."""

    def __call__(self, rank: int, world_size: int, device: torch.device) -> TrainingTask:
        """Make the task of worker ``rank`` of ``world_size``, on ``device``."""


def save_checkpoint(task: TrainingTask, folder: Path, steps_done: int, history: list[Row]) -> None:
    """Write a checkpoint folder: ``weights.safetensors``, ``optimiser.pt`` and ``progress.json`` (written last).

    Args:
        task: what to save.
        folder: made if absent.
        steps_done: optimiser steps behind the state.
        history: all rows so far, so that a resumed run records them all even if the reader of rows was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in task.tensors().items()}, folder / WEIGHTS)
    _save_pickled(task.optimiser_state(), folder / OPTIMISER)
    progress = {"steps_done": steps_done, "history": history}
    (folder / "progress.json").write_text(json.dumps(progress), encoding="utf-8")


def _save_pickled(state: dict[str, Any], file: Path) -> None:
    try:
        with file.open("wb") as stream:
            torch.save(state, stream)
    except RuntimeError as error:  # PyTorch tells of positions in a file where the system told of a full disk
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


WEIGHTS = "weights.safetensors"
OPTIMISER = "optimiser.pt"


def load_checkpoint(task: TrainingTask, folder: Path) -> tuple[int, list[Row]]:
    """Restore a task from a checkpoint folder; returns the steps done and the rows so far."""
    task.load_tensors(load_file(folder / WEIGHTS))
    task.load_optimiser_state(saved_state(folder))
    progress = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    return progress["steps_done"], progress["history"]


def saved_state(folder: Path) -> dict[str, Any]:
    """What :meth:`TrainingTask.optimiser_state` gave when the checkpoint in ``folder`` was saved."""
    state: dict[str, Any] = torch.load(folder / OPTIMISER, map_location="cpu", weights_only=True)
    return state


def run_locally(
    task: TrainingTask, report_every: int = 10, on_rows: Callable[[int, list[Row]], None] | None = None
) -> list[Row]:
    """Run a task in this process, without Ray: for bare machines, tests and as the reference of benchmarks.

    Args:
        task: a single worker's.
        report_every: steps between rows.
        on_rows: called with the steps done and the new rows.

    Returns:
        All rows.
    """
    history: list[Row] = []
    for step in range(task.total_steps):
        task.step(step)
        rows = rows_after(task, step + 1, report_every)
        history.extend(rows)
        if rows and on_rows is not None:
            on_rows(step + 1, rows)
        if task.finished:
            break
    return history


def rows_after(task: TrainingTask, steps_done: int, report_every: int) -> list[Row]:
    """The rows that are due after a step: what the step brought about, and at intervals and at the end the means."""
    ends = task.finished or steps_done == task.total_steps
    return [*task.news(), *(task.rows(steps_done) if ends or steps_done % report_every == 0 else [])]
