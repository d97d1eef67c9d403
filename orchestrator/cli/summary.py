"""A run's result, printed for people: the winners of each budget, their places on disk, and a plain sentence."""

from __future__ import annotations

from orchestrator.cli.output import console, new_table
from orchestrator.formatting import (
    count,
    file_size,
    milliseconds,
    percent,
    seconds,
    significant,
    similarity,
    times,
)
from orchestrator.summary import BudgetSummary, ModelSummary, RunSummary

_COLUMNS = (
    "budget",
    "model",
    "encoder weights",
    "of teacher",
    "supernet loss",
    "cosine similarity",
    "size",
    "latency",
    "speed-up",
)


def print_summary(summary: RunSummary) -> None:
    """Print the best architectures of each budget beside the teacher and the uniform baselines."""
    table = new_table(f"{summary.recipe}: the best of each budget", *_COLUMNS, right=_COLUMNS[2:])
    table.add_row("", "teacher", *_numbers(summary.teacher, summary.teacher))
    for budget in summary.budgets:
        table.add_row(_limits(budget), _label(budget.winner), *_numbers(budget.winner, summary.teacher), style="bold")
        if budget.uniform is not None:
            table.add_row("", _label(budget.uniform, "uniform"), *_numbers(budget.uniform, summary.teacher))
    out = console()
    out.print(table)
    for budget in summary.budgets:
        out.print(f"{budget.name}: {budget.winner.architecture}", markup=False)
        if budget.winner.path:
            out.print(f"  model: {budget.winner.path}", markup=False)
    if summary.report:
        out.print(f"report: {summary.report}", markup=False)
    for budget in summary.budgets:
        out.print(describe_winner(budget, summary.teacher), markup=False)
    for remark in summary.remarks:
        out.print(remark, markup=False)
    out.print(f"This took {seconds(summary.seconds)}.", markup=False)


def describe_winner(budget: BudgetSummary, teacher: ModelSummary) -> str:
    """One plain sentence: how much smaller, how much faster, how faithful."""
    winner = budget.winner
    if winner.same_as:
        return (
            f"The student for '{budget.name}' is that for '{winner.same_as}': both budgets chose the same "
            f"architecture, which was distilled once."
        )
    share = percent(winner.encoder_parameters / teacher.encoder_parameters) if teacher.encoder_parameters else ""
    size = f"has {share} of the teacher's encoder weights" if share else "has another size than the teacher"
    parts = [f"{size} ({count(winner.encoder_parameters)} of {count(teacher.encoder_parameters)})"]
    if winner.speed_up is not None:
        latencies = f"{milliseconds(winner.measured_latency_ms)} against {milliseconds(teacher.measured_latency_ms)}"
        pace = f"{significant(winner.speed_up)} times as fast" if winner.speed_up >= 1 else "no faster"
        parts.append(f"is {pace} ({latencies} a batch)")
    if winner.cosine_similarity is not None:
        fidelity = f"keeps a cosine similarity of {similarity(winner.cosine_similarity)} to it on held-out text"
        if budget.uniform is not None and budget.uniform.cosine_similarity is not None:
            fidelity += f", a uniform model of equal size {similarity(budget.uniform.cosine_similarity)}"
        parts.append(fidelity)
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"The student for '{budget.name}' {listed}."


def _label(model: ModelSummary, role: str = "") -> str:
    """The model's label and, in brackets, which one it is a copy of or, where it is none, its role if there is one."""
    note = f"same as {model.same_as}" if model.same_as else role
    return f"{model.label} ({note})" if note else model.label


def _numbers(model: ModelSummary, teacher: ModelSummary) -> list[str]:
    share = model.encoder_parameters / teacher.encoder_parameters if teacher.encoder_parameters else None
    return [
        count(model.encoder_parameters),
        percent(share),
        significant(model.loss),
        similarity(model.cosine_similarity),
        file_size(model.size_bytes),
        milliseconds(model.measured_latency_ms),
        times(model.speed_up),
    ]


def _limits(budget: BudgetSummary) -> str:
    limits = []
    if budget.max_encoder_parameters is not None:
        limits.append(f"≤ {count(budget.max_encoder_parameters)}")
    if budget.max_parameters is not None:
        limits.append(f"≤ {count(budget.max_parameters)} in all")
    if budget.max_flops is not None:
        limits.append(f"≤ {count(budget.max_flops)} FLOPs")
    if budget.max_latency_ms is not None:
        limits.append(f"≤ {milliseconds(budget.max_latency_ms)}")
    return f"{budget.name} ({', '.join(limits)})" if limits else budget.name
