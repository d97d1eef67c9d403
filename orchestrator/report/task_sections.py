"""What the report shows of tasks that models were fine-tuned for."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from orchestrator import formatting as f
from orchestrator.finetuning.summary import GLUE_LABEL, MeanScore, glue_score
from orchestrator.report import ranking_figures as figures
from orchestrator.report.data import TEACHER, UNIFORM, WINNER, RunData, records
from orchestrator.report.views import Column, Grid, Note, Part, Plot, Plots, Section

_GLUE_NOTE = (
    f"{GLUE_LABEL}: mean of MNLI matched and mismatched, QQP (F1), QNLI, SST-2, CoLA, STS-B (Spearman), MRPC (F1) and "
    "RTE, as published tables have it, here on dev splits."
)
_ROLE_ORDER = {TEACHER: 0, WINNER: 1, UNIFORM: 2}


def scores(data: RunData) -> pd.DataFrame:
    """Headline scores on development text, one row a model and task.

    Returns:
        Columns ``model``, ``name``, ``role``, ``budget``, ``task``, ``mean`` and ``spread`` (standard deviation over
        seeds, NaN for a single one) and ``seeds``.
    """
    columns = ["model", "name", "role", "budget", "task", "mean", "spread", "seeds"]
    rows = _present_rows(data)
    if rows.empty:
        return pd.DataFrame(columns=columns)
    rows = rows[rows["headline"]]
    # A task with several parts (matched and mismatched) counts once for each seed.
    by_seed = rows.groupby(["model", "role", "budget", "task", "seed"], dropna=False)["value"].mean().reset_index()
    grouped = by_seed.groupby(["model", "role", "budget", "task"], dropna=False)["value"]
    found = grouped.agg(mean="mean", spread="std", seeds="count").reset_index()
    found["name"] = [
        f"{row['budget']}, {row['role']}" if row["budget"] and row["role"] else row["model"] for row in records(found)
    ]
    order = [(row["budget"], _ROLE_ORDER.get(row["role"], 3), row["model"]) for row in records(found)]
    return found.iloc[sorted(range(len(found)), key=lambda place: order[place])].reset_index(drop=True)[columns]


def _present_rows(data: RunData) -> pd.DataFrame:
    """All metrics of the tasks that count, under the settings that were used last."""
    rows = data.tables.get("task_scores")
    if rows is None or rows.empty:
        return pd.DataFrame()
    rows = rows[rows["value"].notna()].sort_values("recorded_at", kind="stable")
    if data.task_names:  # MNLI may have served as the start of others alone: then it is in no average
        rows = rows[rows["task"].isin(data.task_names)]
    # Scores of other settings cannot be compared.
    return rows[rows["signature"] == rows.groupby(["model", "task"])["signature"].transform("last")]


def glue_means(data: RunData) -> dict[str, MeanScore]:
    """The mean over GLUE's nine columns, by model, of those for which all nine are there with every seed."""
    rows = _present_rows(data)
    if rows.empty:
        return {}
    means = {
        str(model): glue_score(records(part), sorted(map(int, part["seed"].dropna().unique())))
        for model, part in rows.groupby("model", sort=False)
    }
    return {model: mean for model, mean in means.items() if mean is not None}


def tasks(data: RunData) -> Section:
    """Scores of every model on every task, with the spread over seeds."""
    found = scores(data)
    seeds = int(found["seeds"].max())
    counted = [f.plural(found["model"].nunique(), "model"), f.plural(found["task"].nunique(), "task")]
    lead = (
        f"{counted[0]}, fine-tuned for {counted[1]} with {f.plural(seeds, 'seed')}: the headline metric of each task, "
        "computed over its whole development set. "
        + ("Bars show the standard deviation over seeds." if seeds > 1 else "One seed: small differences mean nothing.")
    )
    plot = Plot("task-scores", figures.task_scores(found), "Headline score of every model on every task")
    parts: list[Part] = [Note(text) for text in task_sentences(data, found)]
    return Section("tasks", "Tasks", lead, (*parts, Plots((plot,)), _table(found, glue_means(data))))


def task_sentences(data: RunData, found: pd.DataFrame) -> list[str]:
    """For every budget: the winner's mean over tasks against the uniform baseline's, over the tasks both have."""
    texts = []
    for budget in data.budgets:
        by_role = {
            role: rows.set_index("task")
            for role, rows in found[found["budget"] == budget.name].groupby("role")
            if role in (WINNER, UNIFORM)
        }
        if len(by_role) < 2:
            continue
        shared = [task for task in by_role[WINNER].index if task in by_role[UNIFORM].index]
        if not shared:
            continue
        winner, uniform = (by_role[role].loc[shared, "mean"].mean() for role in (WINNER, UNIFORM))
        # Tasks are independent: variances of their means add up.
        spread = sum(by_role[role].loc[shared, "spread"].fillna(0.0).pow(2).sum() for role in (WINNER, UNIFORM)) ** 0.5
        difference = winner - uniform
        spread_text = f", with a spread of {f.significant(spread / len(shared), 2)} over seeds" if spread else ""
        word = "better" if difference > 0 else "worse" if difference < 0 else "neither better nor worse"
        texts.append(
            f"Budget {budget.name}: over {f.plural(len(shared), 'task')}, the winner scores {f.significant(winner)} on "
            f"average and the uniform model of equal size {f.significant(uniform)}: {word} by "
            f"{f.significant(abs(difference))}{spread_text}."
        )
    if glue := glue_means(data):
        order = [model for model in dict.fromkeys(found["model"]) if model in glue]
        listed = ", ".join(f"{model} {glue[model].text()}" for model in order)
        texts.append(f"{GLUE_LABEL}, dev splits, × 100: {listed}.")
    return texts


def _table(found: pd.DataFrame, glue: Mapping[str, MeanScore]) -> Grid:
    names = list(dict.fromkeys(found["task"]))
    means = ["average", *([GLUE_LABEL] if glue else [])]
    columns = (Column("model"), *(Column(name, is_number=True) for name in (*names, *means)))
    texts = []
    for name, part in found.groupby("name", sort=False):
        by_task = part.set_index("task")
        known = {task: _cell(by_task.loc[task, "mean"], by_task.loc[task, "spread"]) for task in by_task.index}
        cells = [known.get(task, f.NOTHING) for task in names]
        whole = f.significant(part["mean"].mean()) if len(part) == len(names) else f.NOTHING
        nine = glue.get(part["model"].iloc[0])
        last = [] if not glue else [f.NOTHING if nine is None else _cell(nine.mean, nine.spread)]
        texts.append((str(name), *cells, whole, *last))
    note = "Mean ± standard deviation over seeds; average: plain mean of the tasks."
    return Grid(columns, tuple(texts), f"{note} {_GLUE_NOTE}" if glue else note)


def _cell(mean: float, spread: float | None) -> str:
    return f.significant(mean) + (f" ± {f.significant(spread, 2)}" if pd.notna(spread) else "")
