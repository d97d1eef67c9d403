"""Microscopic searches whose candidates are trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from spaces.efficient_bert.architecture import EfficientBertArchitecture
from tests.spaces.microscopic import shaken
from tests.trainers.corpora import make_corpus
from tests.trainers.tasks.toy_tasks import source, write_sentiment
from tests.trainers.teachers import save_teacher
from tests.trainers.warm_up_tasks import make_layerwise_space
from trainers.candidate_training import CandidateSettings, CandidateTaskSource
from trainers.tasks.catalogue import find_task
from trainers.tasks.finetuning import FineTuningSettings
from trainers.tasks.slices import TrainSlices

PLAIN = "linear2(gelu(linear1(x)))"
TEXTS = (
    f"24|1_4:{PLAIN}|1_4:{PLAIN}",
    "24|2_2:tanh(linear2(gelu(linear1(x))))|1_1:linear2(relu(mul(linear1(x),x)))",
    f"24|4_1:{PLAIN}|4_1:{PLAIN}",
)
"""A small candidate, one with expressions of its own, and the largest."""
A, B, C = map(EfficientBertArchitecture.parse, TEXTS)

TUNING = FineTuningSettings(
    epochs=2,
    batch_size=16,
    learning_rate=5e-3,
    max_length=24,
    dropout=0.0,
    pooling="mean",
    precision="float32",
    warmup_share=0.1,
)


LEARNT = replace(TUNING, epochs=10, learning_rate=1.5e-2)
"""Enough to learn the task."""


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


def make_place(folder: Path) -> Path:
    """Teacher, corpora, task data, and the supernet's weights."""
    save_teacher(folder / "teacher")
    make_corpus(folder / "corpus")
    make_corpus(folder / "validation")
    write_sentiment(folder / "data")
    torch.manual_seed(1)
    save_file(shaken(make_layerwise_space().supernet()).state_dict(), folder / "supernet.safetensors")
    return folder


def sentiment(folder: Path, teacher: str | None = None) -> CandidateTaskSource:
    return CandidateTaskSource(find_task("sst2"), source(folder / "data"), TrainSlices(0.5, 0.2), teacher)
