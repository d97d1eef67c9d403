"""Progressive shrinking (NAS-BERT, section 3.3): at the end of an epoch the worst architectures of each bin die.

Shape legend: N block architectures of the space, in the order of :meth:`~spaces.space.BlockwiseSpace.enumerate_blocks`.

An epoch is a number of optimiser steps. The first ones warm the supernet up; from then on a round at the end of each
epoch evaluates architectures of every bin of every block on validation text and removes the worst of them, until each
bin has no more than it keeps. Workers share the evaluation, and all come to the same verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from cluster.storage import write_atomically
from spaces.space import BlockwiseSpace, SamplingLaw
from trainers.population import (
    BinRound,
    LatencyRule,
    Population,
    RemovalRules,
    assign_bins,
    check_enumerable,
    rounds_ahead,
)
from trainers.task import Row, saved_state

_TELL_SECONDS = 1.0


@dataclass(frozen=True)
class ShrinkingSettings:
    """When and how a supernet is shrunk.

    Attributes:
        rules: how many and which architectures die in a round.
        steps_per_epoch: optimiser steps between rounds.
        warm_epochs: epochs before the first whose end is a round.
        bins: B, of each block.
        latency_rule: which architectures are removed for good before the training begins.
        latency_from: where the latencies come from: a measured ``table`` or ``flops``.
        latencies_ms: of each block architecture, from the table; ``None`` with ``flops``.
        sequence_length: tokens of a sequence, for FLOPs.
        validation_batches: on which losses are measured.
        batch_size: sequences of each.
        stop_when_done: whether the training ends once no bin has more than it keeps; see :meth:`last_step`.
    """

    rules: RemovalRules
    steps_per_epoch: int
    warm_epochs: int = 3
    bins: int = 10
    latency_rule: LatencyRule = "two_sided"
    latency_from: Literal["table", "flops"] = "flops"
    latencies_ms: NDArray[np.float64] | None = None
    sequence_length: int = 128
    validation_batches: int = 5
    batch_size: int = 32
    stop_when_done: bool = True

    def rounds(self, total_steps: int) -> int:
        """Rounds that a training of so many steps has time for."""
        return max(0, total_steps // self.steps_per_epoch - self.warm_epochs)

    def sorted_out(self, space: BlockwiseSpace[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The bin of each block architecture, and whether the latency rule allows it.

        Raises:
            TrainingInputError: the space is too large to enumerate.
        """
        check_enumerable(space)
        costs = space.block_costs(self.sequence_length)
        latencies_N = costs.flops if self.latencies_ms is None else self.latencies_ms
        return assign_bins(costs.parameters, latencies_N, self.bins, self.latency_rule)

    def evaluations_ahead(self, space: BlockwiseSpace[Any], total_steps: int) -> list[int]:
        """Architectures that each round of a training evaluates, all blocks together; with PS-op, at most."""
        bins_N, allowed_N = self.sorted_out(space)
        live = np.bincount(bins_N[allowed_N], minlength=self.bins + 1)[1:]
        rounds = rounds_ahead([int(count) for count in live], self.rules)
        return [space.num_blocks * evaluated for evaluated in rounds[: self.rounds(total_steps)]]

    def last_step(self, space: BlockwiseSpace[Any], total_steps: int) -> int:
        """Steps after which a training ends that may take ``total_steps``.

        How many architectures a round removes follows from how many live, so the last round is known beforehand (by
        operations, the latest it can be). A training that stops when it is done is planned over that many steps: its
        learning rate falls to zero by the last round instead of being cut off high up, which would leave the weights
        that are ranked, and inherited, as noisy as in the middle of the training. Where there is nothing to remove,
        the warm epochs are the training.
        """
        if not self.stop_when_done:
            return total_steps
        bins_N, allowed_N = self.sorted_out(space)
        live = np.bincount(bins_N[allowed_N], minlength=self.bins + 1)[1:]
        rounds = len(rounds_ahead([int(count) for count in live], self.rules))
        return min(total_steps, self.steps_per_epoch * max(1, self.warm_epochs + rounds))


class BlockEvaluator(Protocol):
    """Scores architectures of one block; see :class:`~trainers.prefix_evaluation.PrefixEvaluator`."""

    def losses(
        self, index: int, blocks: Sequence[Any], on_result: Callable[[int, float], None] | None = None
    ) -> NDArray[np.float64]:
        """The mean squared error of each of ``blocks`` as architectures of block ``index``."""


class Shrinking:
    """The shrinking of one training: its population, its rounds, and what there is to tell of them.

    Args:
        space: whose block architectures are trained.
        settings: when and how.
        law: by which living architectures are drawn.
        seed: of the samples that are evaluated.
        rank: number of this worker.
        world_size: workers, among whom evaluation is shared out.
        device: where workers exchange losses.
    """

    def __init__(
        self,
        space: BlockwiseSpace[Any],
        settings: ShrinkingSettings,
        law: SamplingLaw,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.space = space
        self.settings = settings
        self.rank, self.world_size = rank, world_size
        self.device = device or torch.device("cpu")
        bins_N, allowed_N = settings.sorted_out(space)
        self.population = Population(space, bins_N, allowed_N, settings.rules, law, seed)
        self.round = 0
        self._done = self.population.done
        self._news = self._rows_of_the_latency_rule()

    @property
    def done(self) -> bool:
        """Whether no bin has more than it keeps."""
        return self._done

    def is_due(self, steps_done: int) -> bool:
        """Whether a round comes after so many steps."""
        epoch, rest = divmod(steps_done, self.settings.steps_per_epoch)
        return rest == 0 and epoch > self.settings.warm_epochs and not self._done

    def run_round(self, steps_done: int, evaluator: BlockEvaluator, tell: Callable[[str], None]) -> None:
        """Evaluate and remove, in every block.

        Args:
            steps_done: optimiser steps before the round.
            evaluator: of the supernet as it is now.
            tell: told how far the round is.
        """
        self.round += 1
        for block in range(self.space.num_blocks):
            started = time.perf_counter()
            chosen = self.population.to_evaluate(self.round, block)
            losses = self._losses(block, chosen, evaluator, tell)
            bins = self.population.shrink(block, chosen, losses)
            seconds = time.perf_counter() - started
            rule = self.settings.rules.remove if self.settings.rules.by == "architectures" else "operations"
            self._news += self._rows(steps_done, block, bins, rule, seconds)
        self._done = self.population.done

    def news(self) -> list[Row]:
        """Rows of the table ``shrinking`` that nobody has been told yet."""
        news, self._news = self._news, []
        return news

    def state(self) -> dict[str, Any]:
        """Who lives, and how many rounds there were, for a checkpoint."""
        return {"alive": torch.from_numpy(self.population.alive), "round": self.round}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.population.restore(state["alive"].numpy())
        self.round = state["round"]
        self._done = self.population.done
        self._news = []

    def _losses(
        self, block: int, chosen: NDArray[np.int64], evaluator: BlockEvaluator, tell: Callable[[str], None]
    ) -> NDArray[np.float64]:
        """Losses of the chosen, each evaluated by one worker; neighbours, which share their beginnings, by the same."""
        mine = np.array_split(np.arange(len(chosen)), self.world_size)[self.rank]
        progress = _RoundProgress(self.round, block, self.space.num_blocks, len(mine), tell)
        losses = torch.zeros(len(chosen), dtype=torch.float64)
        blocks = [self.space.block_at(int(index)) for index in chosen[mine]]
        if blocks:
            losses[torch.from_numpy(mine)] = torch.from_numpy(evaluator.losses(block, blocks, progress.count))
        if self.world_size > 1:
            shared = losses.to(self.device)
            dist.all_reduce(shared)
            losses = shared.cpu()
        found: NDArray[np.float64] = losses.numpy()
        return found

    def _rows_of_the_latency_rule(self) -> list[Row]:
        """What was removed before the training, as a round of number 0."""
        everyone = np.bincount(self.population.bins_N, minlength=self.population.bins + 1)[1:]
        rows = []
        for block in range(self.space.num_blocks):
            live = self.population.live_counts(block)
            bins = [
                BinRound(place + 1, int(everyone[place]), np.zeros(0), int(everyone[place] - live[place]))
                for place in range(self.population.bins)
            ]
            rows += self._rows(0, block, bins, "latency", None)
        return rows

    def _rows(
        self, steps_done: int, block: int, bins: Sequence[BinRound], rule: str, seconds: float | None
    ) -> list[Row]:
        live_total = int(self.population.live_counts(block).sum())
        latency_rule = self.settings.latency_rule
        if latency_rule != "none":
            latency_rule = f"{latency_rule} ({self.settings.latency_from})"  # type: ignore[assignment]
        return [
            {
                "table": "shrinking",
                "round": self.round,
                "block": block,
                "bin": entry.bin,
                "step": steps_done,
                "rule": rule,
                "latency_rule": latency_rule,
                "live_before": entry.live_before,
                "sampled": len(entry.losses),
                "removed": entry.removed,
                "live_after": entry.live_before - entry.removed,
                "live_total": live_total,
                "dropped_operations": ", ".join(entry.dropped_operations) or None,
                **_loss_columns(entry.losses),
                "seconds": seconds,
            }
            for entry in bins
        ]


class _RoundProgress:
    """Tells how far this worker's evaluation of a block is, about once a second."""

    def __init__(self, number: int, block: int, blocks: int, total: int, tell: Callable[[str], None]) -> None:
        self._text = f"shrinking round {number}, block {block + 1} of {blocks}"
        self._total = total
        self._tell = tell
        self._done = 0
        self._told = time.monotonic()
        tell(f"{self._text}: {total:,} architectures")

    def count(self, place: int, loss: float) -> None:
        """Count one evaluated architecture."""
        self._done += 1
        if time.monotonic() - self._told >= _TELL_SECONDS:
            self._told = time.monotonic()
            self._tell(f"{self._text}: {self._done:,} of {self._total:,} architectures")


def _loss_columns(losses: NDArray[np.float64]) -> Row:
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        return {}
    return {
        "best_loss": float(finite[0]),
        "median_loss": float(np.median(finite)),
        "worst_loss": float(finite[-1]),
    }


def save_alive(alive: Sequence[NDArray[np.bool_]], path: Path) -> None:
    """Write who survived, one bool array ``block_<n>`` a block (from 0), in the order of ``enumerate_blocks``."""
    arrays = {f"block_{number}": living for number, living in enumerate(alive)}
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(partial: Path) -> None:
        with partial.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]

    write_atomically(path, write)


def load_alive(path: Path) -> list[NDArray[np.bool_]]:
    """Read what :func:`save_alive` wrote, an array a block."""
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[f"block_{number}"] for number in range(len(arrays.files))]


def alive_in_checkpoint(folder: Path) -> list[NDArray[np.bool_]] | None:
    """Who lives in a checkpoint of a supernet's training; ``None`` if nothing was shrunk."""
    state = saved_state(folder).get("shrinking")
    return None if state is None else [*state["alive"].numpy()]
