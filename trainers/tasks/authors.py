"""The bundled task ``authors``: who wrote this paragraph? Its rows are made of the bundled novels when they are read.

Each book is a run of passages in reading order. Paragraphs of the last two are for validation, those of the first ones
for training, and the passage between is left out, so that no paragraph that is judged borders on one that is learnt.
Every author has equally many rows of each split, spread evenly over the passages, and the rows take turns between the
authors, so that any slice of a split is a mix of them.

Names of people and places stay in the text: many a paragraph is told by them, so the scores say how well a model learns
a task of sixteen classes, not how well it knows a style. The same text is what ``corpus.source: bundled:novels`` trains
on, the passages for validation included.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from pathlib import Path

import pyarrow.parquet as pq

from trainers.errors import TrainingInputError
from trainers.tasks.catalogue import Task

TRAIN, VALIDATION = "train", "validation"
ROWS_OF_AN_AUTHOR = {TRAIN: 160, VALIDATION: 32}
_PASSAGES_JUDGED, _PASSAGES_BETWEEN = 2, 1
_FEWEST_WORDS, _MOST_WORDS = 30, 200
_FILE = "novels-train.parquet"

Rows = tuple[tuple[str, int], ...]
"""Texts with the number of their author among the task's labels."""


@cache
def rows_of(task: Task, split: str) -> Rows:
    """The rows of a split; the same on every machine.

    Args:
        task: names the authors by its labels.
        split: ``train`` or ``validation``.

    Raises:
        TrainingInputError: there is no such split.
    """
    if split not in ROWS_OF_AN_AUTHOR:
        known = " and ".join(ROWS_OF_AN_AUTHOR)
        raise TrainingInputError(f"task '{task.name}': found the split '{split}', expected {known}")
    count = ROWS_OF_AN_AUTHOR[split]
    texts = [_spread(_paragraphs(_passages()[author], split), count) for author in task.labels]
    return tuple((texts[label][place], label) for place in range(count) for label in range(len(task.labels)))


def fingerprint_of(task: Task) -> str:
    """A hash that changes with the rows of the task."""
    rows = [rows_of(task, split) for split in (TRAIN, VALIDATION)]
    return hashlib.sha256(repr((task.name, rows)).encode()).hexdigest()[:16]


@cache
def _passages() -> dict[str, list[str]]:
    """The passages of each author, in reading order."""
    found: dict[str, list[str]] = {}
    file = Path(str(resources.files("trainers") / "corpora" / _FILE))
    for row in pq.read_table(file, columns=["author", "text"]).to_pylist():
        found.setdefault(row["author"], []).append(row["text"])
    return found


def _paragraphs(passages: list[str], split: str) -> list[str]:
    """Paragraphs of a length that says something, of the passages of a split."""
    judged = len(passages) - _PASSAGES_JUDGED
    chosen = passages[judged:] if split == VALIDATION else passages[: judged - _PASSAGES_BETWEEN]
    paragraphs = [paragraph for passage in chosen for paragraph in passage.split("\n\n")]
    return [one for one in paragraphs if _FEWEST_WORDS <= len(one.split()) <= _MOST_WORDS]


def _spread(paragraphs: list[str], count: int) -> list[str]:
    """So many of the paragraphs, at even distances."""
    return [paragraphs[place * len(paragraphs) // count] for place in range(count)]
