"""Scoring many block architectures of a supernet: pieces of work, the worker that does them, and rows of the table.

Plain PyTorch and Python; whoever runs the pieces (Ray actors, or this process) is chosen by the caller.

Shape legend: A architectures, N validation batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError
from orchestrator.evaluation.supernet_evaluator import SupernetEvaluatorFactory
from orchestrator.latency_table import LatencyTable
from orchestrator.results import ResultsWriter, open_results
from orchestrator.results.storage import Place
from spaces.space import BlockwiseSpace, SearchSpace
from trainers.prefix_evaluation import OutputForm, PrefixEvaluator, mean_over_batches, pieces_of_walk
from trainers.validation import variance_at

LARGEST_PIECE = 1000
"""Architectures of a piece at most: what is lost when a run is killed, and how often progress is seen."""

PIECES_PER_ACTOR = 4
"""So that actors end at about the same time."""


@dataclass(frozen=True)
class Piece:
    """Architectures of one block that are scored together.

    Attributes:
        index: the block, from 0.
        blocks: its architectures, in the order of a walk through their tree.
        batches: validation batches.
    """

    index: int
    blocks: tuple[Any, ...]
    batches: int


@dataclass(frozen=True)
class PieceLosses:
    """What scoring a piece gave.

    Attributes:
        by_batch_AN: mean squared errors.
        tokens_N: valid tokens of each batch.
        variance: of the teacher's states at the block's end.
    """

    by_batch_AN: NDArray[np.float64]
    tokens_N: NDArray[np.float64]
    variance: float

    @property
    def losses(self) -> NDArray[np.float64]:
        """One loss for each architecture."""
        return mean_over_batches(self.by_batch_AN, self.tokens_N)


class RunItems(Protocol):
    """Does items in some processes; :func:`~orchestrator.evaluation.actor_pool.run_on_actors` without its resources."""

    def __call__(
        self,
        make_worker: Callable[[], Callable[[Piece], PieceLosses]],
        items: Sequence[Piece],
        *,
        on_result: Callable[[int, PieceLosses], None],
    ) -> None:
        """Do all items and hand over each result once, with the item's number."""
        ...


@dataclass(frozen=True)
class BlockScorerFactory:
    """Makes what scores pieces; picklable, called once in each process.

    Attributes:
        evaluators: makes the supernet and the validation batches.
        output: see :class:`~trainers.prefix_evaluation.PrefixEvaluator`.
    """

    evaluators: SupernetEvaluatorFactory
    output: OutputForm = "full"

    def __call__(self) -> BlockScorer:
        """A scorer that loads its validation batches when a piece asks for them."""
        return BlockScorer(self)


class BlockScorer:
    """Scores pieces in this process."""

    def __init__(self, factory: BlockScorerFactory) -> None:
        self._factory = factory
        self._evaluators: dict[int, PrefixEvaluator] = {}

    def __call__(self, piece: Piece) -> PieceLosses:
        """The losses of a piece's architectures."""
        if piece.batches not in self._evaluators:
            made = replace(self._factory.evaluators, batches=piece.batches)().blocks()
            made.output = self._factory.output
            self._evaluators[piece.batches] = made
        evaluator = self._evaluators[piece.batches]
        by_batch_AN = evaluator.batch_losses(piece.index, piece.blocks)
        return PieceLosses(by_batch_AN, evaluator.tokens(), variance_at(evaluator.batches, piece.index + 1))


def blockwise(space: SearchSpace[Any]) -> BlockwiseSpace[Any]:
    """The space, if it is one of blocks.

    Raises:
        UserError: it is not.
    """
    if not isinstance(space, BlockwiseSpace):
        raise UserError(
            f"space.name: '{space.name}' is not a space of blocks, which could be scored by themselves; expected one "
            f"such as nas_bert (in a recipe: tables.block_architectures: 0 and tables.signal_architectures: 0)"
        )
    return space


def cut_into_pieces(
    space: BlockwiseSpace[Any], wanted: Mapping[int, Sequence[Any]], batches: int, actors: int
) -> list[Piece]:
    """Pieces of about equal cost, the costliest first.

    Args:
        space: of the blocks.
        wanted: for each block (from 0) the architectures to score.
        batches: validation batches.
        actors: processes that will share the work.
    """
    import torch

    with torch.device("meta"):
        supernet: Any = space.supernet()
    count = sum(len(blocks) for blocks in wanted.values())
    pieces: list[tuple[float, Piece]] = []
    known: dict[Any, float] = {}  # blocks often have the same architectures to score
    for index, blocks in wanted.items():
        own = [known[block] if block in known else known.setdefault(block, _own_cost(space, block)) for block in blocks]
        most = max(-(-PIECES_PER_ACTOR * actors * len(blocks) // max(1, count)), -(-len(blocks) // LARGEST_PIECE))
        paths = [supernet.block_steps(block) for block in blocks]
        for places in pieces_of_walk(paths, own, most):
            chosen = tuple(blocks[place] for place in places)
            pieces.append((sum(own[place] for place in places), Piece(index, chosen, batches)))
    return [piece for _, piece in sorted(pieces, key=lambda weighed: -weighed[0])]


def _own_cost(space: BlockwiseSpace[Any], block: Any) -> float:
    """What a block costs where its beginning is shared: about one of its layers."""
    return space.block_cost(block).flops / max(1, len(space.parts_of_block(block)))


class BlockRows:
    """Makes rows of the table ``block_losses``; what does not depend on the block's number is computed once.

    Args:
        space: of the blocks.
        supernet_signature: which supernet is scored.
        batches: validation batches behind each loss.
        sequence_length: that FLOPs are counted for.
        latency: of the device, if there is a table.
        alive: who survived shrinking, an array for each block, if anything was shrunk.
    """

    def __init__(
        self,
        space: BlockwiseSpace[Any],
        supernet_signature: str,
        batches: int,
        sequence_length: int,
        latency: LatencyTable | None = None,
        alive: Sequence[NDArray[np.bool_]] | None = None,
    ) -> None:
        self.space = space
        self.supernet_signature = supernet_signature
        self.batches = batches
        self._sequence_length = sequence_length
        self._latency = latency
        self._alive = alive
        self._known: dict[Any, dict[str, Any]] = {}

    def row(self, index: int, block: Any, loss: float, variance: float) -> dict[str, Any]:
        """One row, ready for the results writer."""
        return {
            "supernet_signature": self.supernet_signature,
            "block": index,
            "fidelity": self.batches,
            "loss": loss,
            "variance": variance,
            "relative_loss": loss / variance,
            "alive": None if self._alive is None else bool(self._alive[index][self.space.block_index(block)]),
            **self._facts(block),
        }

    def record(self, results: ResultsWriter, piece: Piece, found: PieceLosses) -> None:
        """Write the rows of a piece."""
        losses = found.losses.tolist()
        rows = (
            self.row(piece.index, block, loss, found.variance) for block, loss in zip(piece.blocks, losses, strict=True)
        )
        results.extend("block_losses", rows)

    def _facts(self, block: Any) -> dict[str, Any]:
        if block not in self._known:
            cost = self.space.block_cost(block, self._sequence_length)
            self._known[block] = {
                "arch_id": block.arch_id,
                "architecture": str(block),
                "hidden_size": self.space.block_width(block),
                "layers": len(self.space.parts_of_block(block)),
                "parameters": cost.parameters,
                "flops": cost.flops,
                "latency_ms": None if self._latency is None else self._latency.block_ms(self.space, block),
            }
        return self._known[block]


def leave_out_recorded(
    results: ResultsWriter, folder: Place, rows: BlockRows, wanted: Mapping[int, Sequence[Any]]
) -> dict[int, list[Any]]:
    """What of ``wanted`` has no row yet for this supernet and fidelity.

    Recorded losses are not measured again, but where latency or survival have changed since, their rows are written
    anew with what is known now.

    Args:
        results: of the run.
        folder: of its tables.
        rows: names supernet and fidelity.
        wanted: for each block the architectures whose losses are asked for.
    """
    results.flush()
    columns = ["supernet_signature", "fidelity", "block", "arch_id", "loss", "variance", "latency_ms", "alive"]
    table = open_results(folder).table("block_losses", columns)
    recorded = {
        (block, arch_id): (loss, variance, latency_ms, alive)
        for signature, fidelity, block, arch_id, loss, variance, latency_ms, alive in zip(
            *(column.to_pylist() for column in table.columns), strict=True
        )
        if signature == rows.supernet_signature and fidelity == rows.batches
    }
    missing: dict[int, list[Any]] = {}
    for index, blocks in wanted.items():
        missing[index] = []
        changed = []
        for block in blocks:
            known = recorded.get((index, block.arch_id))
            if known is None:
                missing[index].append(block)
                continue
            row = rows.row(index, block, known[0], known[1])
            if (row["latency_ms"], row["alive"]) != known[2:]:
                changed.append(row)
        results.extend("block_losses", changed)
    return missing


def score_blocks(
    run_items: RunItems,
    factory: BlockScorerFactory,
    results: ResultsWriter,
    rows: BlockRows,
    wanted: Mapping[int, Sequence[Any]],
    actors: int,
    on_scored: Callable[[int], None],
) -> None:
    """Score block architectures and record each loss as soon as its piece is done.

    Args:
        run_items: does the pieces.
        factory: of the workers.
        results: where rows go.
        rows: makes them.
        wanted: for each block the architectures to score; see :func:`leave_out_recorded`.
        actors: processes that share the work.
        on_scored: told how many architectures more are done.
    """
    pieces = cut_into_pieces(rows.space, wanted, rows.batches, actors)

    def take(number: int, found: PieceLosses) -> None:
        rows.record(results, pieces[number], found)
        on_scored(len(pieces[number].blocks))

    run_items(factory, pieces, on_result=take)


def losses_by_batch(
    run_items: RunItems,
    factory: BlockScorerFactory,
    space: BlockwiseSpace[Any],
    wanted: Mapping[int, Sequence[Any]],
    batches: int,
    actors: int,
    on_scored: Callable[[int], None],
) -> dict[int, dict[Any, NDArray[np.float64]]]:
    """The loss of every wanted architecture on each batch by itself, for each block; nothing is recorded.

    Arguments as in :func:`score_blocks`.
    """
    pieces = cut_into_pieces(space, wanted, batches, actors)
    found: dict[int, dict[Any, NDArray[np.float64]]] = {index: {} for index in wanted}

    def take(number: int, losses: PieceLosses) -> None:
        piece = pieces[number]
        found[piece.index].update(zip(piece.blocks, losses.by_batch_AN, strict=True))
        on_scored(len(piece.blocks))

    run_items(factory, pieces, on_result=take)
    return found


def on_actors(actors: int, cpus_per_actor: float, gpus_per_actor: float) -> RunItems:
    """Ray actors as what does the items; Ray is loaded only when this is called."""
    from orchestrator.evaluation.actor_pool import run_on_actors

    return partial(run_on_actors, actors=actors, cpus_per_actor=cpus_per_actor, gpus_per_actor=gpus_per_actor)
