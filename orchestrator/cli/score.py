"""``netsuke score``: losses of block architectures of a run whose supernet is trained."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import (
    JsonOption,
    RunArgument,
    check_run_folder,
    console,
    new_table,
    only_results_on_stdout,
    print_json,
)
from orchestrator.errors import UserError
from orchestrator.formatting import plural

if TYPE_CHECKING:
    from orchestrator.progress import StageProgress
    from orchestrator.scoring import BlockScores, Scores

BEST_SHOWN = 5


def score(
    run_dir: RunArgument,
    block: Annotated[str, typer.Option("--block", metavar="all|N", help="a block, counted from 0")] = "all",
    architectures: Annotated[
        str,
        typer.Option(
            "--architectures",
            metavar="all|alive|FILE",
            help="all of the space, those that shrinking left, or a file with one block or network a line",
        ),
    ] = "alive",
    batches: Annotated[
        int | None,
        typer.Option("--batches", metavar="N", help="validation batches; default: the recipe's tables.block_batches"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score architectures of single blocks and add them to the run's table block_losses.

    What is recorded already for this supernet and number of batches is not scored again, so the same command goes on
    after an interruption.
    """
    check_run_folder(run_dir)
    if batches is not None and batches < 1:
        raise UserError(f"--batches: found {batches}, expected at least 1")
    from orchestrator.opened_run import open_run
    from orchestrator.progress import Progress
    from orchestrator.scoring import score_run

    with only_results_on_stdout() if as_json else nullcontext():
        run = open_run(run_dir)
        with ExitStack() as stack:
            shown: StageProgress | None = None

            def follow(done: int, total: int) -> None:
                """Begin to show progress once there is any: a mistake in an option is no scoring that was stopped."""
                nonlocal shown
                if shown is None:
                    progress = Progress("silent" if as_json else "auto")
                    shown = stack.enter_context(progress.stage("score", unit="block architectures"))
                if done == 0 or shown.done == 0:
                    shown.follow(total, "block architectures", done=done)
                else:
                    shown.update(done)

            scores = score_run(run, block, architectures, batches, BEST_SHOWN, follow)
    if as_json:
        print_json(_as_dict(scores))
    else:
        _print(scores)


def _as_dict(scores: Scores) -> dict[str, Any]:
    return {
        "rows": scores.folder,
        "batches": scores.batches,
        "seconds": scores.seconds,
        "architectures_per_second": scores.rate,
        "note": scores.note,
        "blocks": [
            {"block": one.block, "asked": one.asked, "scored": one.scored, "best": list(one.best)}
            for one in scores.blocks
        ],
    }


def _print(scores: Scores) -> None:
    numbers = ("block", "loss", "relative", "parameters", "latency")
    table = new_table("the best of each block", "block", "architecture", *numbers[1:], right=numbers)
    for one in scores.blocks:
        _add_rows(table, one)
    console().print(table)
    asked, scored = (sum(getattr(one, name) for one in scores.blocks) for name in ("asked", "scored"))
    rate = f" ({scores.rate:,.1f} a second)" if scores.rate else ""
    batches = plural(scores.batches, "validation batch", "validation batches")
    rest = ", the rest was recorded" if scored < asked else ""
    print(f"{asked:,} asked for, {scored:,} scored on {batches}{rate}{rest}")
    if scores.note:
        print(scores.note)
    print(f"rows: {_near(scores.folder)}")


def _add_rows(table: Any, one: BlockScores) -> None:
    for row in one.best:
        latency = "" if row["latency_ms"] is None else f"{row['latency_ms']:.3f} ms"
        table.add_row(
            str(one.block),
            row["architecture"],
            f"{row['loss']:.6g}",
            f"{row['relative_loss']:.4f}",
            f"{row['parameters']:,}",
            latency,
        )


def _near(place: str) -> str:
    """A path relative to the working folder, where it lies below it; a URL as it is."""
    working = Path.cwd()
    return str(Path(place).relative_to(working)) if Path(place).is_relative_to(working) else place
