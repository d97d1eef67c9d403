"""Microscopic corpora."""

from __future__ import annotations

import random
from pathlib import Path

from tests.trainers.teachers import make_tokenizer
from trainers.corpus import PackedCorpus, pack, save_corpus


def make_documents(count: int = 20, words: int = 20, seed: int = 0) -> list[str]:
    """Documents of ``words`` words each, over a few lines."""
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(94)}" + rng.choice(("", "", "\n")) for _ in range(words)) for _ in range(count)]


def make_corpus(
    folder: Path, documents: list[str] | None = None, sequence_length: int = 12, rows_per_shard: int = 16
) -> PackedCorpus:
    rows = pack(documents or make_documents(words=15), make_tokenizer(), sequence_length)
    save_corpus(folder, rows, rows_per_shard)
    return PackedCorpus(folder)
