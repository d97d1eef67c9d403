"""What a comparison found: the mean over seeds of each model on each task, and over the tasks, with the spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trainers.tasks.metrics import average, glue_average

GLUE_LABEL = "GLUE (9 columns)"
"""How tables call the mean of GLUE's nine columns."""


@dataclass(frozen=True)
class MeanScore:
    """A metric over seeds.

    Attributes:
        mean: over the seeds.
        spread: standard deviation over the seeds (of a sample); ``None`` for one seed.
        seeds: how many.
    """

    mean: float
    spread: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanScore:
        """The mean of values."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    def text(self, scale: float = 100.0) -> str:
        """``84.3 ± 0.4``."""
        spread = "" if self.spread is None else f" ± {self.spread * scale:.1f}"
        return f"{self.mean * scale:.1f}{spread}"


@dataclass(frozen=True)
class ModelScores:
    """One model.

    Attributes:
        model: label.
        role: teacher, winner, uniform, or model.
        teacher: who gave the soft targets; empty for nobody.
        tasks: headline metric of each task.
        metrics: every metric, as ``task/split/metric``.
        average: of the headlines, where every task has been scored with every seed; ``None`` otherwise.
        glue: of GLUE's nine columns (:func:`trainers.tasks.metrics.glue_average`), where all are there with every seed.
    """

    model: str
    role: str
    teacher: str
    tasks: Mapping[str, MeanScore]
    metrics: Mapping[str, MeanScore]
    average: MeanScore | None
    glue: MeanScore | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def summarise(rows: Iterable[Mapping[str, Any]], tasks: Sequence[str], seeds: Sequence[int]) -> list[ModelScores]:
    """Gather the rows of ``task_scores`` by model, in the order in which the models first occur.

    Args:
        rows: of one comparison.
        tasks: that count for the average.
        seeds: that count.
    """
    by_model: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["seed"] in seeds:
            by_model.setdefault(row["model"], []).append(row)
    return [_summary(model, some, tasks, seeds) for model, some in by_model.items()]


def _summary(model: str, rows: list[Mapping[str, Any]], tasks: Sequence[str], seeds: Sequence[int]) -> ModelScores:
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(f"{row['task']}/{row['split']}/{row['metric']}", []).append(row["value"])
    headlines = {(row["task"], row["seed"]): row["value"] for row in rows if row["headline"]}
    by_task = {task: [headlines[task, seed] for seed in seeds if (task, seed) in headlines] for task in tasks}
    complete = all((task, seed) in headlines for task in tasks for seed in seeds)
    averages = [average({task: headlines[task, seed] for task in tasks}) for seed in seeds] if complete else []
    return ModelScores(
        model=model,
        role=rows[0]["role"],
        teacher=next((row["teacher"] for row in rows if row["teacher"]), ""),
        tasks={task: MeanScore.of(some) for task, some in by_task.items() if some},
        metrics={name: MeanScore.of(some) for name, some in values.items()},
        average=MeanScore.of(averages) if averages and not any(map(math.isnan, averages)) else None,
        glue=glue_score([row for row in rows if row["task"] in tasks], seeds),
    )


def glue_score(rows: Iterable[Mapping[str, Any]], seeds: Sequence[int]) -> MeanScore | None:
    """The mean over GLUE's nine columns of one model.

    Args:
        rows: of ``task_scores``, of one model and one setting.
        seeds: that count.

    Returns:
        ``None`` unless every column is there with every seed.
    """
    scores: dict[int, dict[tuple[str, str, str], float]] = {}
    for row in rows:
        scores.setdefault(row["seed"], {})[row["task"], row["split"], row["metric"]] = row["value"]
    means = [glue_average(scores.get(seed, {})) for seed in seeds]
    known = [mean for mean in means if mean is not None]
    return MeanScore.of(known) if known and len(known) == len(means) else None
