"""Microscopic one-shot searches by a task: single texts with a class, and pairs with a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from spaces.encoder_shape import EncoderShape
from spaces.registry import load_space
from tests.spaces.microscopic import shaken
from tests.trainers import oneshot_tasks
from tests.trainers.oneshot_tasks import OPTIONS
from tests.trainers.tasks.toy_tasks import FAST, source, write_sentiment, write_similarity
from tests.trainers.teachers import save_teacher
from trainers.oneshot import OneShotSearch
from trainers.tasks.catalogue import Task, find_task
from trainers.tasks.finetuning import FineTuningSettings
from trainers.tasks.losses import Imitation
from trainers.tasks.models import load_for_task, load_tokenizer, save_for_task
from trainers.tasks.oneshot_task import OneShotTaskFactory, OneShotTaskSettings
from trainers.tasks.slices import TrainSlices

SHAPE = EncoderShape(2, 16, 4, 32, 99, 24, 2)
"""Two layers of four heads; long enough for pairs of texts."""
SENTIMENT, SIMILARITY = find_task("sst2"), find_task("stsb")
SLICES = TrainSlices(0.8, 0.2)
LABELS = replace(FAST, distillation_weight=0.0)
IMITATION = replace(FAST, distillation_weight=0.5, imitation=Imitation("kl"))
POOLINGS = ("first", "mean", "own")


def make_place(folder: Path, sentiment: int = 100, similarity: int = 60) -> Path:
    """Teacher, data, and for each task and kind of head a teacher that was tuned on it (nobody asks how well)."""
    save_teacher(folder / "teacher", shape=SHAPE)
    write_sentiment(folder / "data", sentiment)
    write_similarity(folder / "data", similarity)
    for pooling in POOLINGS:
        for number, task in enumerate((SENTIMENT, SIMILARITY)):
            torch.manual_seed(number)
            model = load_for_task(str(folder / "teacher"), task, pooling=pooling)
            save_for_task(
                shaken(model, seed=number), load_tokenizer(str(folder / "teacher")), tuned(folder, task, pooling)
            )
    return folder


def tuned(place: Path, task: Task = SENTIMENT, pooling: str = "first") -> Path:
    """The folder of a teacher that was tuned on a task."""
    return place / f"tuned-{task.name}-{pooling}"


def make_settings(tuning: FineTuningSettings = IMITATION, **changes: Any) -> OneShotTaskSettings:
    """Settings of a search; see :func:`tests.trainers.oneshot_tasks.make_settings` for the changes."""
    return OneShotTaskSettings(oneshot_tasks.make_settings(**{"batch_size": 8, **changes}), tuning)


def make_factory(place: Path, settings: OneShotTaskSettings, task: Task = SENTIMENT, **more: Any) -> OneShotTaskFactory:
    """One that starts at the tuned teacher and imitates it as the settings say."""
    teacher = str(tuned(place, task, settings.tuning.pooling))
    factory = OneShotTaskFactory(
        teacher_folder=place / "teacher",
        space_name="components",
        space_options=OPTIONS,
        task=task,
        source=source(place / "data"),
        settings=settings,
        slices=SLICES,
        teacher=teacher,
        start=teacher,
        cost="parameters",
    )
    return replace(factory, **more)


def make_search(
    place: Path,
    tuning: FineTuningSettings = IMITATION,
    task: Task = SENTIMENT,
    more: Mapping[str, Any] | None = None,
    **changes: Any,
) -> OneShotSearch:
    """One worker's search.

    Args:
        place: of :func:`make_place`.
        tuning: what is learnt of labels and the teacher.
        task: one of both.
        more: changes of the factory.
        changes: of the settings.
    """
    return make_factory(place, make_settings(tuning, **changes), task, **(more or {}))(0, 1, torch.device("cpu"))


def make_task_space() -> Any:
    return load_space("components", OPTIONS, SHAPE)
