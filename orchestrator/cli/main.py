"""The command's entry point: its commands, and the one line and exit code that each kind of error gets.

Exit codes: 0 done; 1 something failed; 2 the user's input is wrong; 130 interrupted.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from cluster.errors import ClusterError, ClusterUserError
from orchestrator.cli.doctor import doctor
from orchestrator.cli.evaluate import evaluate
from orchestrator.cli.export import export
from orchestrator.cli.latency import latency_app
from orchestrator.cli.report import report
from orchestrator.cli.results import results
from orchestrator.cli.run import run
from orchestrator.cli.score import score
from orchestrator.cli.signal import signal
from orchestrator.cli.solve import solve
from orchestrator.cli.space import space_app
from orchestrator.cli.sweep import sweep
from orchestrator.errors import RunError, UserError
from spaces.errors import SpaceError
from trainers.errors import TrainingError, TrainingInputError

FAILED, USER_MISTAKE, INTERRUPTED = 1, 2, 130
USER_ERRORS = (UserError, SpaceError, TrainingInputError, ClusterUserError)
FAILURES = (RunError, ClusterError, TrainingError)

app = typer.Typer(
    name="netsuke",
    help="Carve small, fast transformer encoders out of big ones: supernet search and distillation on Ray.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("run")(run)
app.command("sweep")(sweep)
app.command("results")(results)
app.command("score")(score)
app.command("signal")(signal)
app.command("report")(report)
app.command("export")(export)
app.command("evaluate")(evaluate)
app.command("solve")(solve)
app.add_typer(space_app, name="space")
app.add_typer(latency_app, name="latency")
app.command("doctor")(doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"netsuke {version('netsuke')}")
        raise typer.Exit


@app.callback()
def _global_options(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and end")
    ] = False,
) -> None:
    """Options of every command; ``--debug`` itself is read in :func:`execute`, before anything can fail."""


def entry_point() -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: what follows ``netsuke``; ``--debug`` may stand anywhere.

    Returns:
        The exit code. Errors are one line on standard error (a recipe with several mistakes: a line for each).
    """
    options = list(arguments)[: arguments.index("--") if "--" in arguments else None]
    debug = "--debug" in options
    remaining = [argument for argument in options if argument != "--debug"] + list(arguments)[len(options) :]
    try:
        code = app(args=remaining or ["--help"], prog_name="netsuke", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # typer's answer to KeyboardInterrupt
            _say(_how_to_go_on(remaining))
        return code if isinstance(code, int) else 0
    except BrokenPipeError:  # the reader of our output (head, less) has had enough
        _abandon_output()
        return FAILED
    except (Exception, typer.Abort) as error:
        if debug:
            traceback.print_exc()
        message, code = describe_error(error)
        _say(message)
        try:
            sys.stdout.flush()
        except OSError:
            _abandon_output()
        return code


def _abandon_output() -> None:
    """Let what waits for standard output go nowhere, because the interpreter would try, and complain, at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe_error(error: BaseException) -> tuple[str, int]:
    """What a person reads of an error, and the exit code."""
    error = _behind(error)
    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "netsuke"
        message = " ".join(str(error.format_message()).split()).rstrip(".")
        return f"{message}; see {command} --help", USER_MISTAKE
    if isinstance(error, USER_ERRORS):
        return _lines(str(error)), USER_MISTAKE
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename is not None else ""
        return _lines(f"{place}{error.strerror}"), FAILED
    if isinstance(error, FAILURES):
        return _lines(str(error)), FAILED
    first_line = (str(error).strip().splitlines() or [""])[0]
    named = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
    return f"{named} (unexpected; --debug shows where)", FAILED


def _behind(error: BaseException) -> BaseException:
    """The error of ours that another one carries (Ray wraps what its workers raise), or the error itself."""
    current: BaseException | None = error
    seen: list[BaseException] = []
    while current is not None and current not in seen:
        seen.append(current)
        carried = getattr(current, "cause", None)
        if isinstance(carried, BaseException):  # Ray's copy is an instance of our class too, with a traceback as text
            current = carried
        elif isinstance(current, USER_ERRORS + FAILURES):
            return current
        else:
            current = current.__cause__
    return error


def _lines(message: str) -> str:
    """The message, each of its lines without stray white space."""
    return "\n".join(" ".join(line.split()) for line in message.strip().splitlines())


def _how_to_go_on(arguments: Sequence[str]) -> str:
    if arguments[:1] in (["run"], ["score"], ["sweep"]):
        command = shlex.join(["netsuke", *arguments])
        return f"interrupted; what was measured is kept. The same command goes on from there: {command}"
    return "interrupted"


def _say(message: str) -> None:
    for line in message.splitlines() or [""]:
        print(f"netsuke: {line}", file=sys.stderr)
