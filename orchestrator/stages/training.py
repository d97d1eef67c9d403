"""What the two training stages share: settings for the trainers, rows into the results, estimates."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from cluster.resources import ResourceRequest
from cluster.storage import write_atomically
from orchestrator.plan import CORE_FLOPS_PER_SECOND
from orchestrator.progress import StageProgress
from orchestrator.recipe.section import TrainingSettings
from orchestrator.recipe.signatures import SIGNATURE_LENGTH
from orchestrator.results import ResultsWriter
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.base import RunContext
from trainers.optimisation import OptimiserSettings
from trainers.ray_train import Intervals, Scaling, train_on_ray
from trainers.task import WEIGHTS, Row, TaskFactory

OnTable = Callable[[str, list[Row]], None]
"""Given a results table's name and new rows of it."""

START_SECONDS = 15.0
"""What starting a worker group costs before its first step."""


def optimiser_settings(settings: TrainingSettings) -> OptimiserSettings:
    """The trainers' view of a recipe's training section."""
    return OptimiserSettings(
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        total_steps=settings.steps,
        weight_decay=settings.weight_decay,
        gradient_clip=settings.gradient_clip or 0.0,
    )


def resources(key: str, settings: TrainingSettings) -> ResourceRequest:
    """What a training's workers need of the cluster; ``key`` names the recipe's section in errors."""
    asked = settings.scaling
    return ResourceRequest(f"{key}.scaling", asked.workers, asked.cpus_per_worker, asked.gpus_per_worker)


def train(
    context: RunContext,
    stage: str,
    settings: TrainingSettings,
    factory: TaskFactory,
    progress: StageProgress,
    recorded_as: str = "",
    on_table: OnTable | None = None,
) -> Path:
    """Train on Ray, or go on training, with rows into the results and steps into the progress.

    Args:
        context: of the stage.
        stage: its name; a stage of several trainings names each.
        settings: its section of the recipe.
        factory: makes the workers' tasks.
        progress: of the stage.
        recorded_as: the stage that the rows name; empty: what the task says.
        on_table: shown the rows of each table after they were recorded.

    Returns:
        The last checkpoint's folder. It stays until :func:`remove_checkpoints`: nothing is lost before the stage is
        recorded as finished.
    """
    progress.follow(settings.steps)
    _remove_trainings(context, stage, lambda signature: signature != context.signature)  # under settings of the past
    scaling = settings.scaling
    return train_on_ray(
        factory,
        name=training_name(context, stage),
        storage=context.folder.training,
        scaling=Scaling(scaling.workers, scaling.cpus_per_worker, scaling.gpus_per_worker, scaling.max_failures),
        intervals=Intervals(settings.checkpoint_every, settings.report_every),
        cluster=context.cluster,
        on_rows=_recorder(context.results, progress, recorded_as, on_table),
        on_progress=progress.update,
        on_note=progress.note,
    )


def keep_weights(checkpoint: Path, file: Path) -> None:
    """Put the weights of a checkpoint where later stages look for them, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda partial: shutil.copyfile(checkpoint / WEIGHTS, partial))


def remove_checkpoints(context: RunContext, stage: str) -> None:
    """Free the disk of a finished training's checkpoints and of whatever else served it."""
    _remove_trainings(context, stage, lambda signature: signature == context.signature)


def remove_abandoned(folder: RunDirectory, stage: str) -> tuple[int, int]:
    """Free the disk of what starts of a stage under other settings left, once the stage has finished.

    Only folders of trainings and trials that carry the stage's name and a signature go: the run made them to go on
    from, and nothing of a finished stage is gone on with.

    Returns:
        How many folders there were, and their bytes.
    """
    found = [path for path, _ in _trainings(folder, stage)]
    size = sum(file.stat().st_size for path in found for file in path.rglob("*") if file.is_file())
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    return len(found), size


def training_name(context: RunContext, stage: str) -> str:
    """What a stage's training is called in the folder of trainings; other names that begin with it belong to it."""
    return f"{stage}-{context.signature}"


def _remove_trainings(context: RunContext, stage: str, is_superfluous: Callable[[str], bool]) -> None:
    for path, signature in _trainings(context.folder, stage):
        if is_superfluous(signature):
            shutil.rmtree(path, ignore_errors=True)


def _trainings(folder: RunDirectory, stage: str) -> list[tuple[Path, str]]:
    """The folders that trainings of a stage left, and the signature that each names."""
    named = re.compile(rf"{re.escape(stage)}-([0-9a-f]{{{SIGNATURE_LENGTH}}})(-.*)?")
    found = [(path, named.fullmatch(path.name)) for path in sorted(folder.training.glob(f"{stage}-*"))]
    return [(path, matched[1]) for path, matched in found if matched is not None and path.is_dir()]


def _recorder(
    results: ResultsWriter, progress: StageProgress, recorded_as: str, on_table: OnTable | None
) -> Callable[[list[Row]], None]:
    def record(rows: list[Row]) -> None:
        tables: dict[str, list[Row]] = {}
        for row in rows:
            table = row.get("table", "training")
            columns = {name: value for name, value in row.items() if name != "table"}
            if recorded_as and table == "training":
                columns["stage"] = recorded_as
            tables.setdefault(table, []).append(columns)
        for table, of_table in tables.items():
            results.extend(table, of_table)
            if on_table is not None:
                on_table(table, of_table)
        training = tables.get("training", [])
        if training:
            newest = [row for row in training if row["step"] == training[-1]["step"]]
            progress.update(training[-1]["step"], note=_mean_error(newest))

    return record


def _mean_error(rows: list[Row]) -> str:
    """How far the learners are, in a few words: by the error of their states or, where none is measured, the loss."""
    name, column = ("relative error", "relative_mse") if rows[0].get("relative_mse") is not None else ("loss", "loss")
    return f"{name} {sum(row[column] for row in rows) / len(rows):.3f}"


def estimated_seconds(settings: TrainingSettings, flops_per_sequence: float) -> float:
    """A rough time of a training: three times a forward pass a step, on the cores it asked for."""
    cores = settings.scaling.workers * max(1.0, settings.scaling.cpus_per_worker)
    return START_SECONDS + settings.steps * settings.batch_size * flops_per_sequence / (CORE_FLOPS_PER_SECOND * cores)


def teacher_flops(num_layers: int, hidden_size: int, intermediate_size: int, sequence_length: int) -> float:
    """FLOPs of the teacher's forward pass of one sequence."""
    per_token = 8 * hidden_size**2 + 4 * hidden_size * intermediate_size + 4 * sequence_length * hidden_size
    return float(num_layers * per_token * sequence_length)
