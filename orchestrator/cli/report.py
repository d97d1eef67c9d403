"""``netsuke report``: one self-contained page about a run."""

from __future__ import annotations

from orchestrator.cli.output import JsonOption, RunArgument, check_run_folder, print_json
from orchestrator.errors import UserError


def report(run_dir: RunArgument, as_json: JsonOption = False) -> None:
    """Write the run's report.html and print its path."""
    check_run_folder(run_dir)
    if (run_dir / "sweep.json").is_file():
        raise UserError(
            f"{run_dir}: found a sweep, whose page netsuke sweep writes; expected a run, such as the one of a space: "
            f"{run_dir / 'spaces'}/<label>"
        )
    from orchestrator.report import write_report

    path = write_report(run_dir)
    if as_json:
        print_json({"report": str(path)})
    else:
        print(path)
