"""Tasks in words that the microscopic teacher of whole runs knows."""

from __future__ import annotations

import random
from pathlib import Path

from tests.orchestrator.pipeline.microscopic_run import text
from tests.trainers.tasks.toy_tasks import write


def write_words(folder: Path, rows: int) -> Path:
    """SST-2's form: whether a sentence has one of three words."""
    rng, good, others = _words()
    for split, count in (("train", rows), ("validation", 16)):
        labels = [row % 2 for row in range(count)]
        sentences = [" ".join([*rng.choices(others, k=4), rng.choice(good if label else others)]) for label in labels]
        write(folder, f"glue/sst2/{split}", sentence=sentences, label=labels)
    return folder


def write_pairs(folder: Path, rows: int) -> Path:
    """STS-B's form: how many words two sentences have in common, from 0 to 5."""
    rng, _, others = _words()
    for split, count in (("train", rows), ("validation", 16)):
        first = [rng.sample(others, 5) for _ in range(count)]
        common = [row % 6 for row in range(count)]
        second = [[*one[:kept], *rng.choices(others, k=5 - kept)] for one, kept in zip(first, common, strict=True)]
        pairs = {"sentence1": map(" ".join, first), "sentence2": map(" ".join, second), "label": map(float, common)}
        write(folder, f"glue/stsb/{split}", **{name: list(values) for name, values in pairs.items()})
    return folder


def _words() -> tuple[random.Random, list[str], list[str]]:
    words = sorted(set(text().split()))
    return random.Random(5), words[:3], words[20:60]
