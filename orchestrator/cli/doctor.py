"""``netsuke doctor``: whether this machine, or a running cluster, can do what a run needs."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import JsonOption, console, new_table, only_results_on_stdout, print_json

if TYPE_CHECKING:
    from cluster.doctor import Check

_STYLES = {"ok": "green", "warning": "yellow", "failure": "bold red"}


def doctor(
    address: Annotated[
        str | None, typer.Option("--address", help="a running cluster: auto or host:port; default: start Ray here")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check whether this machine can do what a run needs.

    Really starts Ray, which takes a few seconds. Ends with exit code 1 if something keeps runs from working.
    """
    with only_results_on_stdout() if as_json else nullcontext():
        from cluster.doctor import diagnose

        checks = diagnose(address)
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        _print(checks)
    if any(check.status == "failure" for check in checks):
        raise typer.Exit(1)


def _print(checks: list[Check]) -> None:
    from rich.markup import escape

    table = new_table("", "", "check", "found", "what to do")
    for check in checks:
        status = f"[{_STYLES[check.status]}]{check.status}[/]"
        table.add_row(status, escape(check.name), escape(check.found), escape(check.advice))
    console().print(table)
