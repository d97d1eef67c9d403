"""A run's result, printed for people: the winners of each budget, their places on disk, and a plain sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.output import console, new_table
from orchestrator.formatting import (
    TYING,
    count,
    file_size,
    milliseconds,
    percent,
    seconds,
    significant,
    similarity,
    times,
)
from orchestrator.summary import EQUAL_SIZE, BudgetSummary, ModelSummary, RunSummary

if TYPE_CHECKING:
    from rich.table import Table

Show = Callable[[ModelSummary, ModelSummary], str]
"""The text of a cell, from the model of its row and the teacher."""

_COLUMNS: dict[str, Show] = {
    "encoder weights": lambda model, teacher: count(model.encoder_parameters),
    "of teacher": lambda model, teacher: percent(_share(model, teacher)),
    "supernet loss": lambda model, teacher: significant(model.loss),
    "cosine similarity": lambda model, teacher: similarity(model.cosine_similarity),
    "masked-LM loss": lambda model, teacher: significant(model.masked_lm_loss),
    "tokens right": lambda model, teacher: percent(model.masked_lm_accuracy),
    "size": lambda model, teacher: file_size(model.size_bytes),
    "latency": lambda model, teacher: milliseconds(model.measured_latency_ms),
    "speed-up": lambda model, teacher: times(model.speed_up),
}
_OF_HEADS = ("masked-LM loss", "tokens right")
"""Columns that are left out where no model predicts masked tokens."""


def print_summary(summary: RunSummary) -> None:
    """Print the best architectures of each budget beside the teacher and the uniform baselines."""
    out = console()
    out.print(_table(summary))
    for budget in summary.budgets:
        out.print(f"{budget.name}: {budget.winner.architecture}", markup=False)
        out.print(f"  {describe_size(budget.winner)}", markup=False)
        if budget.winner.path:
            out.print(f"  model: {_from_here(budget.winner.path)}", markup=False)
    if summary.report:
        out.print(f"report: {_from_here(summary.report)}", markup=False)
    for budget in summary.budgets:
        out.print(describe_winner(budget, summary.teacher), markup=False)
    for remark in summary.remarks:
        out.print(remark, markup=False)
    out.print(f"This took {seconds(summary.seconds)}.", markup=False)


def _table(summary: RunSummary) -> Table:
    models = [summary.teacher, *(budget.winner for budget in summary.budgets)]
    predict = any(model.masked_lm_loss is not None for model in models)
    shown = {name: show for name, show in _COLUMNS.items() if predict or name not in _OF_HEADS}

    def numbers(model: ModelSummary) -> list[str]:
        return [show(model, summary.teacher) for show in shown.values()]

    title = f"{summary.recipe}: the best of each budget"
    table = new_table(title, "budget", "model", *shown, right=tuple(shown))
    table.add_row("", "teacher", *numbers(summary.teacher))
    for budget in summary.budgets:
        table.add_row(_limits(budget), _label(budget.winner), *numbers(budget.winner), style="bold")
        if budget.uniform is not None:
            table.add_row("", _label(budget.uniform, "uniform"), *numbers(budget.uniform))
    return table


def describe_size(model: ModelSummary) -> str:
    """All weights of a model, its vocabulary, and whether input and output share its embeddings."""
    parts = [f"{count(model.parameters)} weights, embeddings included"]
    if model.vocabulary_size is not None:
        parts.append(f"vocabulary of {model.vocabulary_size:,}")
    parts.append(TYING[model.tied_embeddings])
    return ", ".join(parts)


def describe_winner(budget: BudgetSummary, teacher: ModelSummary) -> str:
    """One plain sentence: how much smaller, how much faster, how faithful."""
    winner = budget.winner
    if winner.same_as:
        return (
            f"The student for '{budget.name}' is that for '{winner.same_as}': both budgets chose the same "
            f"architecture, which was distilled once.{_describe_choice(budget)}"
        )
    share = percent(winner.encoder_parameters / teacher.encoder_parameters) if teacher.encoder_parameters else ""
    size = f"has {share} of the teacher's encoder weights" if share else "has another size than the teacher"
    parts = [f"{size} ({count(winner.encoder_parameters)} of {count(teacher.encoder_parameters)})"]
    if winner.speed_up is not None:
        latencies = f"{milliseconds(winner.measured_latency_ms)} against {milliseconds(teacher.measured_latency_ms)}"
        pace = f"{significant(winner.speed_up)} times as fast" if winner.speed_up >= 1 else "no faster"
        parts.append(f"is {pace} ({latencies} a batch)")
    if winner.masked_lm_loss is not None:
        parts.append(_describe_prediction(budget, teacher))
    if winner.cosine_similarity is not None:
        fidelity = f"keeps a cosine similarity of {similarity(winner.cosine_similarity)} to it on held-out text"
        if budget.uniform is not None and budget.uniform.cosine_similarity is not None:
            fidelity += f", a uniform model of equal size {similarity(budget.uniform.cosine_similarity)}"
        parts.append(fidelity)
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"The student for '{budget.name}' {listed}.{_describe_choice(budget)}{_describe_matching(budget)}"


def _describe_prediction(budget: BudgetSummary, teacher: ModelSummary) -> str:
    """How well the winner predicts masked tokens, beside teacher and baseline as far as they do."""
    rivals = {"the teacher": teacher, "a uniform model of equal size": budget.uniform}
    compared = [
        f"{name} {percent(rival.masked_lm_accuracy)} at {significant(rival.masked_lm_loss)}"
        for name, rival in rivals.items()
        if rival is not None and rival.masked_lm_loss is not None
    ]
    own = (
        f"predicts {percent(budget.winner.masked_lm_accuracy)} of masked tokens right at a loss of "
        f"{significant(budget.winner.masked_lm_loss)}"
    )
    return f"{own} ({', '.join(compared)})" if compared else own


def _describe_choice(budget: BudgetSummary) -> str:
    """A sentence, a space before it, where the one-shot training has chosen the winner; else nothing."""
    if budget.choose != "oneshot":
        return ""
    place = "" if budget.winners_place is None else f", place {budget.winners_place} by loss of those within the budget"
    return f" It is what the one-shot training found{place}."


def _describe_matching(budget: BudgetSummary) -> str:
    """A sentence, a space before it, where the uniform model is not of the winner's size in all; else nothing."""
    winner, uniform = budget.winner, budget.uniform
    if uniform is None or abs(uniform.parameters / winner.parameters - 1) <= EQUAL_SIZE:
        return ""
    return (
        f" The uniform model has the teacher's embeddings: as many weights behind them, {count(uniform.parameters)} "
        f"against {count(winner.parameters)} in all."
    )


def _from_here(place: str) -> str:
    """A place below the current folder without what leads to that; any other as it is."""
    here = Path.cwd()
    return str(Path(place).relative_to(here)) if Path(place).is_relative_to(here) else place


def _label(model: ModelSummary, role: str = "") -> str:
    """The model's label and, in brackets, which one it is a copy of or, where it is none, its role if there is one."""
    note = f"same as {model.same_as}" if model.same_as else role
    return f"{model.label} ({note})" if note else model.label


def _share(model: ModelSummary, teacher: ModelSummary) -> float | None:
    return model.encoder_parameters / teacher.encoder_parameters if teacher.encoder_parameters else None


def _limits(budget: BudgetSummary) -> str:
    limits = ["one-shot"] if budget.choose == "oneshot" else []
    if budget.max_encoder_parameters is not None:
        limits.append(f"≤ {count(budget.max_encoder_parameters)}")
    if budget.max_parameters is not None:
        limits.append(f"≤ {count(budget.max_parameters)} in all")
    if budget.max_flops is not None:
        limits.append(f"≤ {count(budget.max_flops)} FLOPs")
    if budget.max_latency_ms is not None:
        limits.append(f"≤ {milliseconds(budget.max_latency_ms)}")
    return f"{budget.name} ({', '.join(limits)})" if limits else budget.name
