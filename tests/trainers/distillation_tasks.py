"""Microscopic students and their distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.spaces.microscopic import make_space, shaken
from trainers.corpus import PackedCorpus
from trainers.distillation import Distillation, DistillationSettings, Student
from trainers.optimisation import OptimiserSettings
from trainers.students import load_whole_student, with_masked_lm_head
from trainers.teacher import Teacher

ALIGNMENT = ((0, 0), (1, 2))
HIDDEN_STATES = {
    "objective": "hidden_states",
    "train_embeddings": False,
    "hidden_weight": 1.0,
    "intermediate_weight": 0.5,
    "embedding_weight": 0.5,
}


def make_settings(**changes: Any) -> DistillationSettings:
    """Settings of a distillation, its optimiser's among them."""
    optimiser = {"learning_rate": 1e-3, "warmup_steps": 2, "total_steps": 6}
    optimiser.update({key: changes.pop(key) for key in [*changes] if key in OptimiserSettings.__annotations__})
    settings: dict[str, Any] = {
        "batch_size": 6,
        "seed": 5,
        "precision": "float32",
        **(HIDDEN_STATES if changes.get("objective", "hidden_states") == "hidden_states" else {}),
        **changes,
    }
    return DistillationSettings(**settings, optimiser=OptimiserSettings(**optimiser))  # type: ignore[arg-type]


def make_student(
    folder: Path,
    text: str = "E32|16:M-F|32:S3-F1",
    label: str = "a",
    alignment: Any = ALIGNMENT,
    with_head: bool = False,
    **options: Any,
) -> Student:
    """A student whose start lies in a folder of its label."""
    space = make_space(**options)
    torch.manual_seed(len(text))
    model = shaken(space.build(space.parse(text)), seed=len(text))
    if with_head:
        model = shaken(with_masked_lm_head(model), seed=3)
    model.save_pretrained(folder / label)
    return Student(label, space.parse(text).arch_id, folder / label, alignment)


def make_distillation(students: list[Student], teacher: Teacher, corpus: PackedCorpus, **changes: Any) -> Distillation:
    models = [load_whole_student(student.folder) for student in students]
    return Distillation(students, models, teacher, corpus, make_settings(**changes))
