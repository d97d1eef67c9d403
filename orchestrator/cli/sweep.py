"""``netsuke sweep``: spaces × strategies × seeds × budgets as one run."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import JsonOption, console, new_table, only_results_on_stdout, print_json
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.sweep.summary import SweepSummary


def sweep(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="name of a shipped sweep, or path of a YAML file")] = "",
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", metavar="DIR", help="the sweep's folder; default: runs/<sweep name>")
    ] = None,
    reuse: Annotated[
        Path | None,
        typer.Option("--reuse", metavar="RUN", help="copy from this run what the sweep would make again, its supernet"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything and print what would happen, then end")
    ] = False,
    as_json: JsonOption = False,
    list_them: Annotated[bool, typer.Option("--list", help="list the shipped sweeps and end")] = False,
) -> None:
    """Compare strategies: search with every strategy, seed and budget over the same supernets.

    What searches share is made once, no architecture is scored twice, and a sweep's folder that exists is continued.
    """
    if list_them:
        _list(as_json)
        return
    if not name:
        raise UserError("SWEEP: missing; expected a shipped sweep (netsuke sweep --list) or the path of a YAML file")
    from orchestrator.cli.plan_view import print_plan
    from orchestrator.progress import Progress
    from orchestrator.sweep.loading import load_sweep
    from orchestrator.sweep.running import check_sweep, plan_sweep, run_sweep

    if reuse is not None and not (reuse / "run.json").is_file():
        raise UserError(f"--reuse {reuse}: found no run there, expected a run folder such as runs/quickstart")
    with only_results_on_stdout() if as_json else nullcontext():
        loaded = load_sweep(name)
        checked = check_sweep(loaded, run_dir or Path("runs") / loaded.sweep.name)
        plan = plan_sweep(checked, reuse)
        summary = None if dry_run else run_sweep(checked, Progress("silent" if as_json else "auto"), reuse)
    if summary is None:
        print_json(plan.as_dict()) if as_json else print_plan(plan)
    else:
        print_json(summary.as_dict()) if as_json else print_sweep(summary)


def print_sweep(summary: SweepSummary) -> None:
    """Print what a sweep found: a row for each combination of everything but seeds."""
    from orchestrator.formatting import count, plural, seconds
    from orchestrator.report.sweep_page import with_spread

    numbers = ("evaluations", "best loss", "hypervolume", "time", "on actors")
    title = f"{summary.sweep}: means over seeds"
    table = new_table(title, "space", "budget", "strategy", "seeds", *numbers, right=("seeds", *numbers))
    for one in summary.groups:
        table.add_row(
            one.space,
            one.budget or "all",
            one.strategy,
            str(one.seeds),
            count(one.evaluations),
            with_spread(one.best_loss, one.best_loss_spread),
            with_spread(one.hypervolume, one.hypervolume_spread),
            seconds(one.seconds),
            seconds(one.evaluation_seconds),
        )
    out = console()
    out.print(table)
    corners = ", ".join(f"{name} {best:.4g} to {worst:.4g}" for name, (best, worst) in summary.box.items())
    reused, scored = (sum(row[name] for row in summary.members) for name in ("reused", "scored"))
    out.print(f"hypervolume: share of the box {corners}", markup=False)
    searches = plural(len(summary.members), "search", "searches")
    out.print(f"{searches}, {scored:,} scores, {reused:,} of them known already", markup=False)
    out.print(f"report: {summary.report}", markup=False)


def _list(as_json: bool) -> None:
    from orchestrator.sweep.loading import list_sweeps

    sweeps = list_sweeps()
    if as_json:
        print_json([{"name": one.name, "description": one.description} for one in sweeps])
        return
    table = new_table("", "sweep", "what it compares")
    for one in sweeps:
        table.add_row(one.name, one.description)
    console().print(table)
