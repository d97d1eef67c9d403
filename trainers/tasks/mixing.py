"""Batches of several tasks, one task a batch, in an order that depends on the seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainers.tasks.batching import Encoded, GroupedBatches


class MixedBatches:
    """The batches of every epoch: all of every task, shuffled, so that tasks come in proportion to their batches.

    Whoever resumes sees the batches that an undisturbed training would have: nothing is remembered between steps but
    what can be drawn again.

    Args:
        tasks: examples of each, in an order that stays.
        batch_size: examples of a batch, all workers together; the last one of a task's epoch may have fewer.
        seed: of the order.
    """

    def __init__(self, tasks: Sequence[Encoded], batch_size: int, seed: int) -> None:
        self.seed = seed
        self._batches = [GroupedBatches(examples.lengths, batch_size, seed) for examples in tasks]
        self._counts = [batches.per_epoch for batches in self._batches]
        self.per_epoch = sum(self._counts)
        self._epoch = -1
        self._turns: NDArray[np.int64] = np.empty(0, np.int64)
        self._places: NDArray[np.int64] = np.empty(0, np.int64)

    def task(self, step: int) -> int:
        """Whose turn optimiser step ``step`` is: the task's place in the order given."""
        return self._turn(step)[0]

    def rows(self, step: int, rank: int = 0, world_size: int = 1) -> NDArray[np.int64]:
        """The examples of one worker in optimiser step ``step``, of the task whose turn it is."""
        task, own_step = self._turn(step)
        return self._batches[task].rows(own_step, rank, world_size)

    def _turn(self, step: int) -> tuple[int, int]:
        """The task whose turn a step is, and how many turns it has had before, over all epochs."""
        epoch, number = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng((self.seed, epoch))
            self._turns = rng.permutation(np.repeat(np.arange(len(self._counts)), self._counts))
            self._places = np.empty_like(self._turns)
            for task, count in enumerate(self._counts):
                self._places[self._turns == task] = np.arange(count)
            self._epoch = epoch
        task = int(self._turns[number])
        return task, epoch * self._counts[task] + int(self._places[number])
