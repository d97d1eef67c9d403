"""The stage that fetches the teacher into the run folder, so that all later ones read it from there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.storage import sha256_of_file
from orchestrator.export import copy_sentence_files
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Recipe
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from trainers.teacher import TeacherSource


def teacher_source(recipe: Recipe) -> TeacherSource:
    """Where the recipe's teacher is."""
    settings = recipe.teacher
    return TeacherSource(settings.source, settings.revision, settings.trust_remote_code)


class TeacherStage(Stage):
    """Loads the teacher and saves it as an ordinary Hugging Face folder."""

    name = "teacher"

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's teacher and, where it is a folder, the contents of its files."""
        location = Path(teacher_source(plan.recipe).location())
        files = sorted(location.glob("*.json")) + sorted(location.glob("*.safetensors")) if location.is_dir() else []
        return [plan.recipe.teacher, {file.name: sha256_of_file(file) for file in files}]

    def check(self, plan: RunPlan) -> None:
        """Nothing more: the plan's shape was read from the teacher."""

    def planned(self, plan: RunPlan) -> PlannedStage:
        """Loading and saving."""
        parameters = plan.shape.encoder_parameters + plan.shape.embedding_parameters
        work = f"load {plan.recipe.teacher.source} ({parameters / 1e6:.1f}M parameters, {plan.shape.num_layers} layers)"
        return PlannedStage(self.name, "run", work, seconds=3.0, disk_bytes=4 * parameters)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Load the teacher and save it."""
        teacher = teacher_source(context.recipe).load()
        shutil.rmtree(context.folder.teacher, ignore_errors=True)
        teacher.save(context.folder.teacher)
        location = Path(teacher_source(context.recipe).location())
        if location.is_dir():
            copy_sentence_files(location, context.folder.teacher)
        head = "with" if teacher.masked_lm_head is not None else "without"
        detail = (
            f"{teacher.shape.num_layers} layers, {teacher.shape.hidden_size} wide, "
            f"{teacher.shape.encoder_parameters / 1e6:.2f}M encoder parameters, {head} masked-LM head"
        )
        return StageResult(detail)

    def is_complete(self, plan: RunPlan) -> bool:
        """Whether the saved teacher is there."""
        return (plan.folder.teacher / "config.json").is_file()
