"""Block tables from the results of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.errors import UserError
from orchestrator.results import open_results
from orchestrator.run_directory import RunDirectory
from orchestrator.solving.networks import BlockTable, LossKind
from spaces.space import BlockwiseSpace

BlockChoice = Literal["alive", "all"]

_COLUMNS = (
    "supernet_signature",
    "fidelity",
    "block",
    "architecture",
    "hidden_size",
    "loss",
    "relative_loss",
    "parameters",
    "flops",
    "latency_ms",
    "alive",
)


@dataclass(frozen=True)
class ReadTables:
    """What was read.

    Attributes:
        blocks: a table for each block.
        fidelity: validation batches behind each loss.
        whole: whether every architecture that could be chosen was scored; otherwise an optimum is only over a sample.
        shrunk: whether architectures that did not survive shrinking were left out.
    """

    blocks: tuple[BlockTable, ...]
    fidelity: int
    whole: bool
    shrunk: bool


def read_block_tables(
    folder: RunDirectory,
    space: BlockwiseSpace[Any],
    supernet_signature: str,
    *,
    fidelity: int | None = None,
    choice: BlockChoice = "alive",
    loss: LossKind = "raw",
) -> ReadTables:
    """The block losses of a run, as tables to solve.

    Args:
        folder: of the run.
        space: of the run.
        supernet_signature: which supernet's losses.
        fidelity: on how many validation batches; None: the most there are.
        choice: ``alive`` leaves out what did not survive shrinking (nothing, where nothing was shrunk).
        loss: ``raw`` takes mean squared errors (the paper's rule); ``normalised`` divides them by the variance of the
            teacher's states at the block's end, so that blocks with larger states do not count more.

    Raises:
        UserError: there are no losses, none of that fidelity, or none of some block.
    """
    rows = open_results(folder.results).table("block_losses", _COLUMNS)
    rows = rows.filter(pc.field("supernet_signature") == supernet_signature)
    if not rows.num_rows:
        raise UserError(
            f"{folder.results}: found no block losses of the run's supernet, expected some in the table block_losses; "
            f"score them first: netsuke score {folder.path} --block all --architectures all"
        )
    known = sorted(set(rows.column("fidelity").to_pylist()))
    wanted = known[-1] if fidelity is None else fidelity
    if wanted not in known:
        raise UserError(
            f"--batches: found {wanted}, expected a number of validation batches that blocks were scored on "
            f"({', '.join(map(str, known))}); leave it out, or score them on as many first: netsuke score "
            f"{folder.path} --batches {wanted}"
        )
    rows = rows.filter(pc.field("fidelity") == wanted)
    shrunk = choice == "alive" and rows.column("alive").null_count < rows.num_rows
    scored = np.bincount(rows.column("block").to_numpy(), minlength=space.num_blocks)
    if shrunk:
        rows = rows.filter(pc.field("alive").is_null() | pc.field("alive"))
    column = "loss" if loss == "raw" else "relative_loss"
    blocks = [_block(rows, number, column) for number in range(space.num_blocks)]
    empty = [str(number) for number, block in enumerate(blocks) if not len(block.texts)]
    if empty:
        raise UserError(
            f"{folder.results}: found no block losses of block {', '.join(empty)} (counted from 0), expected some of "
            f"each; score them first: netsuke score {folder.path} --block {empty[0]} --architectures all"
        )
    whole = shrunk or bool((scored >= space.block_cardinality()).all())
    return ReadTables(_sharing_texts(blocks), int(wanted), whole, shrunk)


def _block(rows: pa.Table, number: int, loss: str) -> BlockTable:
    of_block = rows.filter(pc.field("block") == number)
    of_block = of_block.take(pc.sort_indices(of_block.column("architecture")))
    latency = of_block.column("latency_ms")

    def numbers(name: str, dtype: type) -> Any:
        return of_block.column(name).to_numpy().astype(dtype)

    return BlockTable(
        of_block.column("architecture").to_pylist(),
        numbers("hidden_size", np.int64),
        numbers(loss, np.float64),
        numbers("parameters", np.int64),
        numbers("flops", np.int64),
        None if latency.null_count else numbers("latency_ms", np.float64),
    )


def _sharing_texts(blocks: Sequence[BlockTable]) -> tuple[BlockTable, ...]:
    """The same tables, equal lists of texts being one object: so they are sorted only once."""
    first = blocks[0]
    return tuple(
        BlockTable(first.texts, b.widths, b.losses, b.parameters, b.flops, b.latency_ms)
        if b.texts == first.texts
        else b
        for b in blocks
    )
