"""The corpus: documents read from many kinds of source, tokenised once, packed and memory-mapped.

Shape legend: S sequences, T tokens of a sequence.

A packed corpus is a folder with ``tokens.npy`` (int32, [S, T], every row ``[CLS] tokens [SEP]`` and padding),
``lengths.npy`` (int32, [S], valid tokens of each row) and ``corpus.json``, which says what it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainers.errors import TrainingInputError

BUNDLED_PREFIX = "bundled:"
DATASET_PREFIX = "dataset:"
_PARAGRAPHS_AT_ONCE = 2048
_TEXT_SUFFIXES = (".txt", ".text", ".md")

Rows = tuple[NDArray[np.int32], NDArray[np.int32]]
"""``tokens_ST`` and ``lengths_S`` of some sequences."""


@dataclass(frozen=True)
class CorpusSource:
    """Where text comes from.

    Attributes:
        source: ``bundled:<name>``, a file (.txt, .parquet) or folder of such files, or ``dataset:<name>[:<config>]``.
        split: split of a data set or bundled corpus; for a folder, the files whose name starts with it, if any.
        text_column: column of the text in Parquet files and data sets.
        key: the recipe key that named the source, for error messages.
    """

    source: str
    split: str = "train"
    text_column: str = "text"
    key: str = "corpus.source"

    def check(self) -> None:
        """Make sure that the source exists and has the text column, without reading the text.

        Data sets from a hub are not looked up.

        Raises:
            TrainingInputError: file, folder, bundled name or column is missing.
        """
        if not self.source.startswith(DATASET_PREFIX):
            for file in self.files():
                if file.suffix == ".parquet":
                    self._check_column(file)

    def documents(self) -> Iterator[str]:
        """Yield the documents one after another.

        Raises:
            TrainingInputError: the source cannot be read.
        """
        if self.source.startswith(DATASET_PREFIX):
            yield from self._data_set_documents()
            return
        for file in self.files():
            if file.suffix == ".parquet":
                yield from self._parquet_documents(file)
            else:
                try:
                    yield file.read_text(encoding="utf-8")
                except UnicodeDecodeError as error:
                    raise TrainingInputError(f"{self.key}: '{file}' is not UTF-8 text: {error}; convert it") from error

    def files(self) -> list[Path]:
        """The files behind a bundled name, file or folder, sorted by name.

        Raises:
            TrainingInputError: there are none.
        """
        if self.source.startswith(BUNDLED_PREFIX):
            return [self._bundled_file(self.source.removeprefix(BUNDLED_PREFIX))]
        path = Path(self.source).expanduser()
        if path.is_file():
            if path.suffix not in (*_TEXT_SUFFIXES, ".parquet"):
                raise TrainingInputError(
                    f"{self.key}: found '{self.source}'; expected a .txt or .parquet file, or a folder of them"
                )
            return [path]
        if not path.is_dir():
            raise TrainingInputError(
                f"{self.key}: '{self.source}' does not exist; expected a .txt or .parquet file, a folder of them, "
                f"bundled:novels, or dataset:<name>"
            )
        found = sorted(file for file in path.rglob("*") if file.suffix in (*_TEXT_SUFFIXES, ".parquet"))
        found = [file for file in found if file.name.startswith(self.split)] or found
        if not found:
            raise TrainingInputError(f"{self.key}: the folder '{self.source}' has no .txt or .parquet files")
        return found

    def _bundled_file(self, name: str) -> Path:
        folder = Path(str(resources.files("trainers") / "corpora"))
        file = folder / f"{name}-{self.split}.parquet"
        if not file.is_file():
            known = ", ".join(sorted(path.stem for path in folder.glob("*.parquet")))
            raise TrainingInputError(
                f"{self.key}: there is no bundled corpus '{name}' with split '{self.split}'; bundled: {known}"
            )
        return file

    def _parquet_documents(self, file: Path) -> Iterator[str]:
        self._check_column(file)
        batches = pq.ParquetFile(file).iter_batches(columns=[self.text_column], batch_size=256)
        while True:
            try:
                batch = next(batches, None)
            except (OSError, pa.ArrowException) as error:
                raise TrainingInputError(f"{self.key}: '{file}' is damaged: {error}; write it again") from error
            if batch is None:
                return
            yield from (text for text in batch.column(0).to_pylist() if text)

    def _check_column(self, file: Path) -> None:
        try:
            schema = pq.ParquetFile(file).schema_arrow
        except Exception as error:
            raise TrainingInputError(f"{self.key}: '{file}' is not a readable Parquet file: {error}") from error
        if self.text_column not in schema.names:
            raise TrainingInputError(
                f"corpus.text_column: '{file}' has no column '{self.text_column}'; it has {', '.join(schema.names)}"
            )
        kind = schema.field(self.text_column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise TrainingInputError(
                f"corpus.text_column: column '{self.text_column}' of '{file}' holds {kind}, not text; it has "
                f"{', '.join(schema.names)}"
            )

    def _data_set_documents(self) -> Iterator[str]:
        from datasets import load_dataset

        name, _, configuration = self.source.removeprefix(DATASET_PREFIX).partition(":")
        try:
            data = load_dataset(name, configuration or None, split=self.split, streaming=True)
        except Exception as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise TrainingInputError(
                f"{self.key}: the data set '{name}' cannot be loaded: {line}; check its name, split and the network"
            ) from error
        for row in data:
            if self.text_column not in row:
                raise TrainingInputError(
                    f"corpus.text_column: the data set '{name}' has no column '{self.text_column}'; "
                    f"it has {', '.join(row)}"
                )
            if row[self.text_column]:
                yield str(row[self.text_column])


@dataclass(frozen=True)
class CorpusDescription:
    """What a packed corpus holds.

    Attributes:
        sequences: S, rows.
        sequence_length: T, tokens of a row, special tokens included.
        tokens: valid tokens, special tokens included.
        shards: rows of each shard.
    """

    sequences: int
    sequence_length: int
    tokens: int
    shards: tuple[int, ...]


def pack(
    documents: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    sequence_length: int,
    max_tokens: int | None = None,
    key: str = "corpus.source",
) -> Iterator[Rows]:
    """Tokenise documents and cut each into sequences; the last one of a document is padded.

    Args:
        documents: texts.
        tokenizer: with CLS, SEP and padding tokens.
        sequence_length: T, special tokens included.
        max_tokens: stop after so many tokens of text.
        key: the recipe key that named the documents, for error messages.

    Yields:
        ``tokens_ST`` and ``lengths_S`` of each document.

    Raises:
        TrainingInputError: there is no text, or less than one sequence of it.
    """
    body = sequence_length - 2
    total = 0
    for document in documents:
        ids = _tokenise(document, tokenizer)
        if max_tokens is not None:
            ids = ids[: max_tokens - total]
        total += len(ids)
        if len(ids):
            yield _cut(ids, tokenizer, body)
        if max_tokens is not None and total >= max_tokens:
            break
    if total == 0:
        raise TrainingInputError(f"{key}: the corpus is empty; expected at least one document with text")
    if total < body:
        raise TrainingInputError(
            f"corpus.sequence_length: found {sequence_length}, but all of {key} has only {total} tokens; give more "
            f"text or a shorter sequence_length"
        )


def _tokenise(document: str, tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int32]:
    paragraphs = iter([line for line in document.split("\n") if line.strip()])
    parts: list[NDArray[np.int32]] = []
    while some := list(islice(paragraphs, _PARAGRAPHS_AT_ONCE)):
        encoded: Any = tokenizer(some, add_special_tokens=False, return_attention_mask=False, verbose=False)
        parts.extend(np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"])
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)


def _cut(
    ids: NDArray[np.int32], tokenizer: PreTrainedTokenizerBase, body: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    count = -(-len(ids) // body)
    padded = np.full(count * body, tokenizer.pad_token_id, dtype=np.int32)
    padded[: len(ids)] = ids
    lengths = np.full(count, body, dtype=np.int32)
    lengths[-1] = len(ids) - (count - 1) * body
    rows = np.full((count, body + 2), tokenizer.pad_token_id, dtype=np.int32)
    rows[:, 0] = tokenizer.cls_token_id
    rows[:, 1:-1] = padded.reshape(count, body)
    rows[np.arange(count), lengths + 1] = tokenizer.sep_token_id
    return rows, lengths + 2


def hold_out(rows: Iterable[Rows], fraction: float, seed: int, held_out: list[Rows]) -> Iterator[Rows]:
    """Pass rows on, but for about ``fraction`` of them, drawn at random, which are appended to ``held_out``.

    Raises:
        TrainingInputError: the corpus is too small for both parts to have a row.
    """
    rng = np.random.default_rng(seed)
    held = kept = 0
    for tokens_ST, lengths_S in rows:
        chosen_S = rng.random(len(lengths_S)) < fraction
        held, kept = held + int(chosen_S.sum()), kept + int((~chosen_S).sum())
        held_out.append((tokens_ST[chosen_S], lengths_S[chosen_S]))
        yield tokens_ST[~chosen_S], lengths_S[~chosen_S]
    if not held or not kept:
        raise TrainingInputError(
            f"corpus.validation_fraction: found {fraction}, but the corpus has only {held + kept} sequences, too few "
            f"to hold some out; give more text or a validation_source"
        )


def save_corpus(folder: Path, rows: Iterable[Rows], rows_per_shard: int = 65_536) -> CorpusDescription:
    """Write a packed corpus in shards; ``corpus.json`` comes last, so a folder that has it is complete.

    Args:
        folder: made if absent; an older corpus in it is replaced.
        rows: ``tokens_ST`` and ``lengths_S`` in any portions.
        rows_per_shard: rows of a shard; only so many are held in memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("corpus.json"), *folder.glob("*.npy")):
        old.unlink()
    shards: list[int] = []
    tokens = width = 0
    waiting: list[Rows] = []

    def write(tokens_ST: NDArray[np.int32], lengths_S: NDArray[np.int32]) -> None:
        np.save(folder / f"tokens-{len(shards):05d}.npy", tokens_ST)
        np.save(folder / f"lengths-{len(shards):05d}.npy", lengths_S)
        shards.append(len(lengths_S))

    for portion in rows:
        waiting.append(portion)
        tokens, width = tokens + int(portion[1].sum()), portion[0].shape[1]
        while sum(len(lengths_S) for _, lengths_S in waiting) >= rows_per_shard:
            tokens_ST, lengths_S = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
            write(tokens_ST[:rows_per_shard], lengths_S[:rows_per_shard])
            waiting = [(tokens_ST[rows_per_shard:], lengths_S[rows_per_shard:])]
    if waiting and sum(len(lengths_S) for _, lengths_S in waiting):
        tokens_ST, lengths_S = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
        write(tokens_ST, lengths_S)
    description = CorpusDescription(sum(shards), width, tokens, tuple(shards))
    (folder / "corpus.json").write_text(json.dumps(asdict(description), indent=2) + "\n", encoding="utf-8")
    return description


class PackedCorpus:
    """A packed corpus, memory-mapped for reading.

    Args:
        folder: as written by :func:`save_corpus`.
    """

    def __init__(self, folder: Path) -> None:
        text = (Path(folder) / "corpus.json").read_text(encoding="utf-8")
        fields = json.loads(text)
        self.description = CorpusDescription(**{**fields, "shards": tuple(fields["shards"])})
        numbers = range(len(self.description.shards))
        self._tokens = [np.load(Path(folder) / f"tokens-{number:05d}.npy", mmap_mode="r") for number in numbers]
        self._lengths = [np.load(Path(folder) / f"lengths-{number:05d}.npy", mmap_mode="r") for number in numbers]
        self._starts = np.concatenate([[0], np.cumsum(self.description.shards)])
        self._newest_order: tuple[tuple[int, int], NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return self.description.sequences

    def rows(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The rows of the given numbers.

        Returns:
            ``input_ids_BT`` and ``attention_mask_BT``, both int64.
        """
        tokens_BT = np.empty((len(indices), self.description.sequence_length), dtype=np.int64)
        lengths_B = np.empty(len(indices), dtype=np.int64)
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        for shard in np.unique(shards):
            chosen = shards == shard
            offsets = indices[chosen] - self._starts[shard]
            tokens_BT[chosen] = self._tokens[shard][offsets]
            lengths_B[chosen] = self._lengths[shard][offsets]
        mask_BT = np.arange(tokens_BT.shape[1])[None, :] < lengths_B[:, None]
        return torch.from_numpy(tokens_BT), torch.from_numpy(mask_BT.astype(np.int64))

    def step_rows(
        self, step: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        """This worker's share of the batch of one training step: the rows of :meth:`step_indices`."""
        return self.rows(self.step_indices(step, batch_size, seed, rank, world_size))

    def step_indices(
        self, step: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> NDArray[np.int64]:
        """The numbers of the rows of this worker's share of the batch of one training step.

        Rows are drawn without repeats within an epoch, in an order that depends on seed and epoch alone, so a resumed
        training sees what an uninterrupted one would have, with any number of workers.
        """
        positions = np.arange(step * batch_size, (step + 1) * batch_size)[rank::world_size]
        epochs, offsets = np.divmod(positions, len(self))
        indices = np.empty(len(positions), dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            indices[chosen] = self._order(seed, int(epoch))[offsets[chosen]]
        return indices

    def _order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The rows' order in an epoch; the newest is kept, since every step of the epoch asks for it."""
        if self._newest_order is None or self._newest_order[0] != (seed, epoch):
            self._newest_order = (seed, epoch), np.random.default_rng((seed, epoch)).permutation(len(self))
        return self._newest_order[1]

    def even_batches(self, count: int, batch_size: int, share: tuple[int, int] = (0, 1)) -> list[tuple[Tensor, Tensor]]:
        """Up to ``count`` batches spread evenly over the corpus, the same every time.

        Args:
            count: batches.
            batch_size: sequences of each.
            share: ``(k, n)`` takes rows k, k + n, k + 2n, ... only, so that text can be kept apart for two purposes.
        """
        first, stride = share if len(self) >= share[1] else (0, 1)
        rows = np.arange(first, len(self), stride)
        wanted = min(count * batch_size, len(rows))
        indices = rows[np.linspace(0, len(rows) - 1, wanted).astype(np.int64)]
        return [self.rows(part) for part in np.array_split(indices, -(-wanted // batch_size))]
