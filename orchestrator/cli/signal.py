"""``netsuke signal``: whether a run's block losses are more than noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import JsonOption, RunArgument, check_run_folder, console, new_table, print_json

if TYPE_CHECKING:
    from orchestrator.loss_signal import SizeSignal


def signal(
    run_dir: RunArgument,
    other: Annotated[
        Path | None,
        typer.Option("--other", metavar="RUN2", help="a run of the same recipe with another seed, to compare with"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the spread of block losses within each hidden size, divided by their noise.

    The noise is that of other validation batches, or with --other that of another seed: how far the losses of
    the architectures that both runs scored disagree.
    """
    check_run_folder(run_dir)
    from orchestrator.compared_signals import recorded_signals, signals_against
    from orchestrator.loss_signal import warnings_about

    if other is None:
        signals = recorded_signals(run_dir)
    else:
        check_run_folder(other)
        signals = signals_against(run_dir, other)
    warnings = warnings_about(signals)
    if as_json:
        rows = [{"block": block, **one.columns()} for block, of_sizes in signals.items() for one in of_sizes]
        print_json({"noise": "batches" if other is None else "seeds", "signals": rows, "warnings": warnings})
        return
    _print(signals, "other validation batches" if other is None else f"the seeds of {run_dir} and {other}")
    for line in warnings:
        print(f"warning: {line}")


def _print(signals: dict[int, list[SizeSignal]], source: str) -> None:
    columns = ("block", "hidden size", "architectures", "spread", "noise", "signal", "Kendall tau", "explained by size")
    table = new_table(
        f"spread of losses within a hidden size against their noise from {source}", *columns, right=columns
    )
    for block, of_sizes in signals.items():
        for one in of_sizes:
            share = "" if one.explained_by_size is None else f"{one.explained_by_size:.1%}"
            table.add_row(
                str(block),
                str(one.hidden_size),
                str(one.architectures),
                f"{one.spread:.3g}",
                _number(one.noise, ".3g"),
                _number(one.signal, ".2f"),
                _number(one.kendall_tau, ".2f"),
                share,
            )
    console().print(table)


def _number(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)
