"""Microscopic searches whose candidates are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.spaces.microscopic import SHAPE, shaken
from tests.trainers.corpora import make_corpus
from tests.trainers.layerwise_space import CroppedBertSpace
from tests.trainers.tasks.toy_tasks import source, write_sentiment
from tests.trainers.teachers import save_teacher
from trainers.candidate_training import CandidateSettings, CandidateTaskSource
from trainers.tasks.catalogue import find_task
from trainers.tasks.finetuning import FineTuningSettings
from trainers.tasks.slices import TrainSlices

TUNING = FineTuningSettings(
    epochs=2, batch_size=16, learning_rate=5e-3, max_length=24, dropout=0.0, precision="float32", warmup_share=0.1
)


def make_settings(**changes: Any) -> CandidateSettings:
    chosen: dict[str, Any] = {
        "warm_up_steps": 8,
        "batch_size": 6,
        "learning_rate": 5e-3,
        "seed": 3,
        "precision": "float32",
        "fidelities": 4,
        **changes,
    }
    return CandidateSettings(**chosen)


def make_place(folder: Path, space: CroppedBertSpace | None = None) -> Path:
    """Teacher, corpora, task data, and the supernet's weights."""
    save_teacher(folder / "teacher")
    make_corpus(folder / "corpus")
    make_corpus(folder / "validation")
    write_sentiment(folder / "data")
    torch.manual_seed(1)
    space = space or CroppedBertSpace.from_options({}, SHAPE)
    save_file(shaken(space.supernet()).state_dict(), folder / "supernet.safetensors")
    return folder


def sentiment(folder: Path, teacher: str | None = None) -> CandidateTaskSource:
    return CandidateTaskSource(find_task("sst2"), source(folder / "data"), TrainSlices(0.5, 0.2), teacher)
