"""How long fine-tunings take, before one has run: rows counted without reading them, tokens by experience."""

from __future__ import annotations

import pyarrow.parquet as pq

from trainers.tasks.catalogue import Task
from trainers.tasks.finetuning import FineTuningSettings
from trainers.tasks.sources import TRAIN, TaskSource

FLOPS_PER_SECOND = 8.0e10
"""What plans assume of one processor core with bfloat16 and short batches; only an order of magnitude."""
_PASSES = 3.0
"""A training step costs about three forward passes."""
_UNKNOWN_ROWS = (10_000, 1_000)
_TOKENS = {"cola": 12, "sst2": 16, "mrpc": 53, "qqp": 31, "stsb": 32, "mnli": 40, "qnli": 51, "rte": 68, "wnli": 38} | {
    "authors": 85
}
_TOKENS_OF_KIND = {"classification": 40, "regression": 32, "tagging": 32, "answering": 180}
_ROWS_ON_THE_HUB = {
    "cola": (8_551, 1_043),
    "sst2": (67_349, 872),
    "mrpc": (3_668, 408),
    "qqp": (363_846, 40_430),
    "stsb": (5_749, 1_500),
    "mnli": (392_702, 19_647),
    "qnli": (104_743, 5_463),
    "rte": (2_490, 277),
    "wnli": (635, 71),
    "squad_v1": (87_599, 10_570),
    "squad_v2": (130_319, 11_873),
}


def count_rows(task: Task, source: TaskSource, settings: FineTuningSettings) -> tuple[int, int]:
    """Rows that a fine-tuning trains and is judged on, within the settings' limits."""
    train = count_training_rows(task, source)
    if task.bundled:
        dev = _rows_read(task, source, task.dev_splits[0].name)
    elif source.is_folder:
        dev = sum(_rows_of_files(task, source, split.name) for split in task.dev_splits)
    else:
        dev = _ROWS_ON_THE_HUB.get(task.name, _UNKNOWN_ROWS)[1]
    return min(train, settings.max_train_examples or train), min(dev, settings.max_eval_examples or dev)


def _rows_of_files(task: Task, source: TaskSource, split: str) -> int:
    if not source.has(task, split):
        return 0
    return sum(pq.ParquetFile(file).metadata.num_rows for file in source.files(task, split))


def _rows_read(task: Task, source: TaskSource, split: str) -> int:
    return len(source.read(task, split)["label"])


def count_training_rows(task: Task, source: TaskSource) -> int:
    """Rows of a task's training split: exact for a folder or a bundled task, else what the hub has of it."""
    if task.bundled:
        return _rows_read(task, source, TRAIN)
    if source.is_folder:
        return _rows_of_files(task, source, TRAIN)
    return _ROWS_ON_THE_HUB.get(task.name, _UNKNOWN_ROWS)[0]


def typical_tokens(task: Task, settings: FineTuningSettings) -> int:
    """Tokens of an example, by experience."""
    return min(_TOKENS.get(task.name, _TOKENS_OF_KIND[task.kind]), settings.max_length * 3)


def estimated_seconds(encoder_parameters: int, task: Task, source: TaskSource, settings: FineTuningSettings) -> float:
    """A rough time of one fine-tuning on one processor core.

    Args:
        encoder_parameters: weights behind the embeddings.
        task: which.
        source: where its data is.
        settings: how it is tuned.
    """
    train, dev = count_rows(task, source, settings)
    tokens = typical_tokens(task, settings)
    passes = _PASSES * settings.epochs * train + dev
    return 2.0 * encoder_parameters * tokens * passes / FLOPS_PER_SECOND
