"""What commands share: options, JSON on standard output, tables, and checks of the run folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

JsonOption = Annotated[bool, typer.Option("--json", help="print JSON, and nothing else, on standard output")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="the run folder, such as runs/quickstart")]


def print_json(value: Any) -> None:
    """Print one JSON value; numbers that JSON does not know (NaN, infinity) become null."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str, allow_nan=False))


@contextmanager
def only_results_on_stdout() -> Iterator[None]:
    """Send to standard error whatever libraries print meanwhile."""
    with redirect_stdout(sys.stderr):
        yield


def check_run_folder(run_dir: Path) -> Path:
    """Make sure that there is a run folder.

    Raises:
        UserError: no such folder, or it holds no run.
    """
    if not run_dir.is_dir():
        found = "a file" if run_dir.exists() else "no such folder"
        raise UserError(f"{run_dir}: {found}, expected a run folder such as runs/quickstart (netsuke run makes it)")
    described = any((run_dir / name).is_file() for name in ("run.json", "sweep.json"))
    if not described and not (run_dir / "results").is_dir():
        raise UserError(f"{run_dir}: found a folder without a run (no run.json), expected one that netsuke run made")
    return run_dir


def console() -> Console:
    """Standard output for people: as wide as the terminal, or wide enough for a table in a log."""
    from rich.console import Console

    plain = not sys.stdout.isatty()
    return Console(highlight=False, soft_wrap=plain, width=160 if plain else None)


def new_table(title: str, *columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table; columns named in ``right`` hold numbers."""
    from rich import box
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value
