"""Scoring blocks of an existing run's supernet: what ``netsuke score`` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.resources import ResourceRequest
from orchestrator.errors import UserError
from orchestrator.evaluation.block_choice import choose_blocks
from orchestrator.evaluation.block_scoring import (
    BlockRows,
    blockwise,
    leave_out_recorded,
    on_actors,
    score_blocks,
)
from orchestrator.opened_run import OpenedRun, ray_for, writing_to
from orchestrator.results import open_results
from orchestrator.stages.block_losses import load_alive_if_any, scorer_factory
from spaces.errors import SpaceError
from spaces.space import BlockwiseSpace

WORDS = ("all", "alive")


@dataclass(frozen=True)
class BlockScores:
    """What scoring one block gave.

    Attributes:
        block: its number, from 0.
        asked: architectures that were asked for.
        scored: those among them that had not been recorded before.
        best: rows of the lowest losses among the asked, lowest first.
    """

    block: int
    asked: int
    scored: int
    best: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Scores:
    """What a whole scoring gave.

    Attributes:
        blocks: one entry each.
        batches: validation batches behind each loss.
        seconds: of the scoring, actors' start included.
        folder: where the rows are: a path, or a URL without keys.
        note: what a person should know; may be empty.
    """

    blocks: Sequence[BlockScores]
    batches: int
    seconds: float
    folder: str
    note: str

    @property
    def rate(self) -> float | None:
        """Architectures a second; ``None`` where none was left to score."""
        scored = sum(block.scored for block in self.blocks)
        return scored / self.seconds if scored and self.seconds > 0 else None


def parse_blocks(text: str, num_blocks: int) -> list[int]:
    """The numbers of blocks that ``--block`` means.

    Raises:
        UserError: neither ``all`` nor the number of a block.
    """
    if text == "all":
        return list(range(num_blocks))
    if not text.isdecimal() or int(text) >= num_blocks:
        raise UserError(f"--block: found {text!r}, expected all, or the number of a block, 0 to {num_blocks - 1}")
    return [int(text)]


def read_architectures(file: Path, space: BlockwiseSpace[Any], blocks: Sequence[int]) -> dict[int, list[Any]]:
    """Architectures from a text file, one a line: of a block (``192:S3-M``), or of a whole network.

    A block's architecture is meant for each of ``blocks``, a network's for the places its blocks have. Empty lines and
    what follows ``#`` are left out, repeats count once.

    Raises:
        UserError: the file cannot be read, or a line holds no architecture of the space; the message names the line.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(
            f"--architectures {file}: cannot be read ({reason}); expected all, alive, or a file of architectures"
        ) from error
    found: dict[int, dict[Any, None]] = {index: {} for index in blocks}
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            whole = "|" in text
            parsed = space.parse(text).blocks if whole else [space.parse_block(text)] * space.num_blocks
        except SpaceError as error:
            raise UserError(f"{file}:{number}: {error}") from error
        for index in blocks:
            found[index][parsed[index]] = None
    if not any(found.values()):
        raise UserError(f"--architectures {file}: found no architecture, expected one a line such as 192:S3-M")
    return {index: list(chosen) for index, chosen in found.items()}


def score_run(
    run: OpenedRun,
    block: str,
    architectures: str,
    batches: int | None,
    best: int,
    follow: Callable[[int, int], None],
) -> Scores:
    """Score what was asked for and is not recorded.

    Args:
        run: with a trained supernet.
        block: ``all`` or a number.
        architectures: ``all``, ``alive``, or the path of a file.
        batches: validation batches; ``None``: the recipe's ``tables.block_batches``.
        best: how many of the best of each block to return.
        follow: told how many of how many architectures are done.

    Raises:
        UserError: see :func:`parse_blocks` and :func:`read_architectures`.
        ClusterUserError: another process works on the run, or there is no room for the actors.
    """
    space = blockwise(run.space)
    search, tables = run.recipe.search, run.recipe.tables
    numbers = parse_blocks(block, space.num_blocks)
    alive = load_alive_if_any(run.folder)
    note = ""
    if architectures in WORDS:
        chosen = choose_blocks(space, "all" if architectures == "all" else "alive", run.recipe.seed, alive)
        wanted = {number: chosen[number] for number in numbers}
        if architectures == "alive" and alive is None:
            note = "nothing was shrunk, so all architectures are alive"
    else:
        wanted = read_architectures(Path(architectures), space, numbers)
    rows = BlockRows(
        space,
        run.supernet_signature,
        batches or tables.block_batches,
        run.recipe.corpus.sequence_length,
        run.latency,
        alive,
    )
    total = sum(map(len, wanted.values()))
    with writing_to(run) as results:
        missing = leave_out_recorded(results, run.folder.results, rows, wanted)
        left = sum(map(len, missing.values()))
        done = total - left
        follow(done, total)

        def on_scored(count: int) -> None:
            nonlocal done
            done += count
            follow(done, total)

        started = time.monotonic()
        if left:
            request = ResourceRequest("search.actors", search.actors, search.cpus_per_actor, search.gpus_per_actor)
            with ray_for(run, request):
                run_items = on_actors(search.actors, search.cpus_per_actor, search.gpus_per_actor)
                factory = scorer_factory(run.recipe, run.folder)
                score_blocks(run_items, factory, results, rows, missing, search.actors, on_scored)
                seconds = time.monotonic() - started
        else:
            seconds = 0.0
        results.flush()
        answers = [
            BlockScores(
                number, len(wanted[number]), len(missing[number]), _best(run, rows, number, wanted[number], best)
            )
            for number in numbers
        ]
    return Scores(answers, rows.batches, seconds, str(run.folder.results / "block_losses"), note)


def _best(run: OpenedRun, rows: BlockRows, number: int, wanted: Sequence[Any], count: int) -> list[dict[str, Any]]:
    """Rows of the lowest losses among the wanted architectures of a block."""
    frame = open_results(run.folder.results).frame("block_losses")
    frame = frame[
        (frame["supernet_signature"] == rows.supernet_signature)
        & (frame["fidelity"] == rows.batches)
        & (frame["block"] == number)
    ]
    frame = frame[frame["arch_id"].isin({block.arch_id for block in wanted})].nsmallest(count, "loss")
    columns = ["architecture", "loss", "relative_loss", "parameters", "flops", "latency_ms", "alive"]
    cells = frame[columns].astype(object)
    records = cells.where(cells.notna(), None).to_dict("records")
    return [{str(name): value for name, value in record.items()} for record in records]
