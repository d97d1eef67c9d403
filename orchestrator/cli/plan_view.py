"""A plan, printed for people."""

from __future__ import annotations

from orchestrator.cli.output import console, new_table
from orchestrator.formatting import count, file_size, seconds
from orchestrator.plan import Plan

_ACTIONS = {"run": "run", "resume": "go on", "skip": "skip"}
_COLUMNS = ("", "stage", "action", "work", "steps", "tokens", "evaluations", "time", "disk")


def print_plan(plan: Plan) -> None:
    """Print the stages of a run and what each would do."""
    table = new_table(f"{plan.recipe} in {plan.run_dir}", *_COLUMNS, right=("", *_COLUMNS[4:]))
    for number, stage in enumerate(plan.stages, start=1):
        work = f"{stage.work} ({stage.reason})" if stage.reason else stage.work
        numbers = [count(value) for value in (stage.steps, stage.tokens, stage.evaluations)]
        estimates = [seconds(stage.seconds), file_size(stage.disk_bytes)]
        table.add_row(str(number), stage.name, _ACTIONS[stage.action], work, *numbers, *estimates)
    out = console()
    out.print(table)
    if plan.is_done:
        out.print("Everything is done: nothing would be computed, the summary and the report are there.", markup=False)
    else:
        out.print(f"To do, estimated: {seconds(plan.seconds)}, {file_size(plan.disk_bytes)} of disk.", markup=False)
    for note in plan.notes:
        out.print(f"Note: {note}", markup=False)
