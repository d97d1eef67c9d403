"""A training that learns next to nothing, slowly: what Ray Train does with it can be watched, and disturbed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spaces.errors import SpaceError
from trainers.errors import TrainingInputError
from trainers.task import Row, TrainingTask


@dataclass(frozen=True)
class SluggishFactory:
    """Makes a :class:`SluggishTask`.

    Attributes:
        log: file that gets a line for each step: process id and step.
        steps: of the training.
        seconds: how long a step takes.
        mistake: what the factory refuses to work with: ``trainer``, ``space``, or nothing.
        fails_at: step that raises, every time.
        enough: sum at which the training is finished.
    """

    log: Path
    steps: int = 8
    seconds: float = 0.0
    mistake: str = ""
    fails_at: int = -1
    enough: float = math.inf

    def __call__(self, rank: int, world_size: int, device: torch.device) -> SluggishTask:
        if self.mistake:
            with self.log.open("a") as file:
                file.write(f"{os.getpid()} {rank}\n")
        if self.mistake == "trainer":
            raise TrainingInputError("corpus.source: found nothing, expected text")
        if self.mistake == "space":
            raise SpaceError("space.options.head_size: found 3, expected 4")
        return SluggishTask(self)


class SluggishTask(TrainingTask):
    """Adds the step's number to a sum."""

    def __init__(self, settings: SluggishFactory) -> None:
        self.settings = settings
        self.total_steps = settings.steps
        self.sum = torch.zeros((), dtype=torch.float64)

    def step(self, step: int) -> None:
        if step == self.settings.fails_at:
            raise ArithmeticError(f"step {step} diverged\nin two lines")
        with self.settings.log.open("a") as file:
            file.write(f"{os.getpid()} {step}\n")
        time.sleep(self.settings.seconds)
        self.sum += step
        self.tell(f"added {step}")

    @property
    def finished(self) -> bool:
        return bool(self.sum >= self.settings.enough)

    def news(self) -> list[Row]:
        return [{"table": "news", "sum": float(self.sum)}] if self.finished else []

    def rows(self, steps_done: int) -> list[Row]:
        return [{"stage": "sluggish", "subject": "sum", "step": steps_done, "loss": float(self.sum)}]

    def tensors(self) -> Mapping[str, Tensor]:
        return {"sum": self.sum}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.sum = tensors["sum"].clone()

    def optimiser_state(self) -> dict[str, Any]:
        return {}

    def load_optimiser_state(self, state: Mapping[str, Any]) -> None:
        pass
