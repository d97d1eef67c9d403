"""What the two training stages share: settings for the trainers, rows into the results, estimates."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.progress import StageProgress
from orchestrator.recipe.models import ScalingSettings, TrainingSettings
from orchestrator.results import ResultsWriter
from trainers.optimisation import OptimiserSettings
from trainers.ray_train import Intervals, Scaling
from trainers.task import Row

ASSUMED_FLOPS_PER_SECOND = 1.0e11
"""What plans assume of one processor core with bfloat16; only an order of magnitude."""

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


def scaling(settings: ScalingSettings) -> Scaling:
    """The adapter's view of a recipe's scaling section."""
    return Scaling(settings.workers, settings.cpus_per_worker, settings.gpus_per_worker, settings.max_failures)


def intervals(settings: TrainingSettings) -> Intervals:
    """The adapter's view of how often a training reports."""
    return Intervals(settings.checkpoint_every, settings.report_every)


def record_rows(results: ResultsWriter, progress: StageProgress) -> Callable[[list[Row]], None]:
    """A callback that writes training rows and shows the newest error in the progress line."""

    def record(rows: list[Row]) -> None:
        results.extend("training", rows)
        newest = [row["relative_mse"] for row in rows if row["step"] == rows[-1]["step"]]
        progress.update(rows[-1]["step"], note=f"relative error {sum(newest) / len(newest):.3f}")

    return record


def estimated_seconds(settings: TrainingSettings, flops_per_sequence: float) -> float:
    """A rough time of a training: three times a forward pass a step, on the cores it asked for."""
    cores = settings.scaling.workers * max(1.0, settings.scaling.cpus_per_worker)
    return START_SECONDS + settings.steps * settings.batch_size * flops_per_sequence / (
        ASSUMED_FLOPS_PER_SECOND * cores
    )


def teacher_flops(num_layers: int, hidden_size: int, intermediate_size: int, sequence_length: int) -> float:
    """FLOPs of the teacher's forward pass of one sequence."""
    per_token = 8 * hidden_size**2 + 4 * hidden_size * intermediate_size + 4 * sequence_length * hidden_size
    return float(num_layers * per_token * sequence_length)
