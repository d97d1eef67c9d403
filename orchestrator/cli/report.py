"""``netsuke report``: one self-contained page about a run."""

from __future__ import annotations

from orchestrator.cli.output import JsonOption, RunArgument, check_run_folder, print_json


def report(run_dir: RunArgument, as_json: JsonOption = False) -> None:
    """Write the run's report.html and print its path."""
    check_run_folder(run_dir)
    from orchestrator.report import write_report

    path = write_report(run_dir)
    if as_json:
        print_json({"report": str(path)})
    else:
        print(path)
