"""Encoded examples, and batches of similar length padded to their longest: on a CPU padding is paid like text.

Shape legend: B batch, T tokens of the batch's longest sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.tasks.catalogue import Kind

NO_LABEL = -100
"""PyTorch's mark for positions that no loss counts."""
_BATCHES_OF_A_POOL = 50


@dataclass(frozen=True)
class Encoded:
    """Tokenised examples.

    Attributes:
        input_ids: token ids of each example, special tokens included.
        token_type_ids: segments of each; ``None`` where the tokenizer gives none.
        labels: of each: a class, a number, a class a token (``NO_LABEL`` where there is none), or the first and last
            token of the answer.
        pad_token_id: what fills a batch.
    """

    input_ids: Sequence[Sequence[int]]
    token_type_ids: Sequence[Sequence[int]] | None
    labels: Sequence[Any]
    pad_token_id: int

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example."""
        return np.array([len(ids) for ids in self.input_ids], dtype=np.int64)

    def subset(self, rows: Sequence[int]) -> Encoded:
        """Some of the examples, in the order given."""
        types = None if self.token_type_ids is None else [self.token_type_ids[row] for row in rows]
        ids, labels = [self.input_ids[row] for row in rows], [self.labels[row] for row in rows]
        return Encoded(ids, types, labels, self.pad_token_id)

    def inputs(self, rows: Sequence[int], device: torch.device | None = None) -> dict[str, Tensor]:
        """A batch as a model takes it: ``input_ids``, ``attention_mask`` and, where there are any, segments."""
        batch = {
            "input_ids": self.pad([self.input_ids[row] for row in rows], self.pad_token_id),
            "attention_mask": self.pad([[1] * len(self.input_ids[row]) for row in rows], 0),
        }
        if self.token_type_ids is not None:
            batch["token_type_ids"] = self.pad([self.token_type_ids[row] for row in rows], 0)
        return {name: tensor.to(device) for name, tensor in batch.items()} if device else batch

    @staticmethod
    def pad(sequences: Sequence[Sequence[int]], filling: int) -> Tensor:
        """Sequences of integers as an int64 tensor ``[B, T]``."""
        width = max(len(sequence) for sequence in sequences)
        rows_BT = np.full((len(sequences), width), filling, dtype=np.int64)
        for row, sequence in enumerate(sequences):
            rows_BT[row, : len(sequence)] = sequence
        return torch.from_numpy(rows_BT)


def labels_of(encoded: Encoded, rows: Sequence[int], kind: Kind) -> Tensor:
    """The labels of a batch as losses take them (:func:`trainers.tasks.losses.supervised_loss`), on the CPU."""
    chosen = [encoded.labels[row] for row in rows]
    if kind == "tagging":
        return Encoded.pad(chosen, NO_LABEL)
    return torch.tensor(chosen, dtype=torch.float32 if kind == "regression" else torch.int64)


class GroupedBatches:
    """The batches of every epoch: random, but each of examples of similar length.

    The order depends on seed and epoch alone, so a resumed training sees what an uninterrupted one would have.

    Args:
        lengths: tokens of each example.
        batch_size: examples of a batch; the last one of an epoch may have fewer.
        seed: of the order.
    """

    def __init__(self, lengths: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.per_epoch = -(-len(lengths) // batch_size)
        self._epoch = -1
        self._batches: list[NDArray[np.int64]] = []

    def rows(self, step: int, rank: int = 0, world_size: int = 1) -> NDArray[np.int64]:
        """The examples of one worker in optimiser step ``step``; every worker gets at least one."""
        epoch, number = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._shuffled(epoch)
        batch = self._batches[number]
        share = batch[rank::world_size]
        return share if len(share) else batch[rank % len(batch)][None]

    def _shuffled(self, epoch: int) -> list[NDArray[np.int64]]:
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(len(self.lengths))
        pool = self.batch_size * _BATCHES_OF_A_POOL
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[first : first + self.batch_size] for first in range(0, len(part), self.batch_size)]
        return [batches[number] for number in rng.permutation(len(batches))]


def batches_by_length(lengths: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Every example once, longest first, in batches of similar length: for evaluation."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def random_subset(count: int, wanted: int | None) -> list[int]:
    """The rows of a data set that a limit leaves: the same for every model and seed, in their order."""
    if wanted is None or wanted >= count:
        return list(range(count))
    return sorted(np.random.default_rng(0).permutation(count)[:wanted].tolist())
