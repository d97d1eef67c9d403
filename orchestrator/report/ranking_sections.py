"""What the report shows of guesses that were checked: finalists of the budgets, and the rank fidelity."""

from __future__ import annotations

import pandas as pd

from orchestrator import formatting as f
from orchestrator.rank_agreement import verdict
from orchestrator.report import ranking_figures as figures
from orchestrator.report.data import RunData, records
from orchestrator.report.views import Column, Grid, Note, Part, Plot, Plots, Section

_MEASURES = {
    "relative_mse": "relative MSE",
    "cosine_similarity": "1 − cosine similarity",
    "masked_lm_loss": "masked-LM loss",
}
_PROXIES = {
    "loss": "loss of the chained blocks",
    "block_loss_sum": "sum of block losses",
    "relative_block_loss_sum": "normalised sum of block losses",
    "encoder_parameters": "size alone",
}
"""What the columns of ``selections`` that serve as proxies are called."""

_SUMS_RANK_WELL, _SUMS_RANK_AT_ALL = 0.9, 0.5
"""Spearman correlations of block loss sums with chained losses, from which on each is said of the sums."""


def tried(data: RunData) -> pd.DataFrame:
    """The finalists of all budgets."""
    rows = data.selections
    return rows[rows["trial_rank"].notna()]


def finalists(data: RunData) -> Section:
    """Who was tried before a winner was chosen, and what the trials changed."""
    rows = tried(data)
    plots, grids, changed = [], [], 0
    groups = [(budget.name, part) for budget in data.budgets if len(part := rows[rows["budget"] == budget.name])]
    for index, (name, part) in enumerate(groups):
        winner = part[part["chosen"]]
        changed += bool(len(winner) and winner["rank"].iloc[0] > 1)
        description = f"Places of the finalists of budget {name} by the supernet’s loss and after their trial"
        plots.append(Plot(f"finalists-{index}", figures.finalists(part), description, f"Budget {name}"))
        grids.append(_finalists_table(name, part))
    steps = sorted(rows["trial_steps"].dropna().unique())
    length = f"{steps[0]:.0f}" if len(steps) == 1 else "a few"
    lead = (
        f"The loss of an untuned supernet is a guess. So {f.plural(rows['arch_id'].nunique(), 'finalist')} were "
        f"distilled for {length} steps on the same batches and judged on held-out text that judges nothing else; the "
        f"most faithful won. In {changed} of {f.plural(len(groups), 'budget')} the trial chose another than the loss "
        "would have."
    )
    return Section("finalists", "Finalists", lead, (Plots(tuple(plots)), *grids))


def finalist_sentences(data: RunData) -> list[str]:
    """For every budget whose finalists were tried: what the trial changed."""
    rows = tried(data)
    found = []
    for budget in data.budgets:
        part = rows[rows["budget"] == budget.name]
        winner = part[part["chosen"]]
        if winner.empty:
            continue
        place, steps = int(winner["rank"].iloc[0]), f.count(winner["trial_steps"].iloc[0])
        changed = (
            f"place {place} by the supernet’s loss won"
            if place > 1
            else "the candidate of lowest supernet loss won there as well"
        )
        found.append(
            f"Budget {budget.name}: {f.plural(len(part), 'finalist')} were distilled for {steps} steps; {changed}."
        )
    return found


def _finalists_table(budget: str, rows: pd.DataFrame) -> Grid:
    names = ("place by loss", "supernet loss", "encoder parameters", "relative MSE", "cosine", "place after trial")
    columns = (Column("architecture"), *(Column(name, is_number=True) for name in names), Column(""))
    texts = tuple(
        (
            row["architecture"],
            f.count(row["rank"]),
            f.significant(row["loss"]),
            f.count(row["encoder_parameters"]),
            f.significant(row["trial_relative_mse"]),
            f.similarity(row["trial_cosine_similarity"]),
            f.count(row["trial_rank"]),
            "winner" if row["chosen"] else "",
        )
        for row in records(rows.sort_values("trial_rank"))
    )
    return Grid(columns, texts, f"Finalists of budget {budget}, relative MSE and cosine similarity after the trial.")


def rank_fidelity(data: RunData) -> Section:
    """Whether the search's losses ranked what distillation finds."""
    sample, agreements = data.ranked_sample, data.agreements
    parts: list[Part] = [Note(text) for text in rank_sentences(agreements)]
    if len(sample):
        errors, title = trial_errors(sample)
        plots = [
            Plot(
                f"rank-fidelity-{column.replace('_', '-')}",
                figures.rank_fidelity(sample, column, _PROXIES[column], errors, f"{title} after the trial"),
                f"{_PROXIES[column].capitalize()} against the {title} after distillation, coloured by size",
                f"{_PROXIES[column].capitalize()} against the result",
            )
            for column in ("loss", "block_loss_sum")
            if sample[column].notna().any()
        ]
        caption = (
            "A proxy that ranks well climbs from lower left to upper right, also among points of one colour: those are "
            "architectures of like size."
        )
        parts.append(Plots(tuple(plots), caption))
    if len(agreements):
        parts.append(_agreements_table(agreements))
    count, steps = len(sample), sample["trial_steps"].max()
    lead = (
        f"{f.plural(count, 'random architecture')}, spread evenly over the sizes of the search, "
        f"distilled for {f.count(steps)} steps each and judged on held-out text: does what the supernet said of them "
        "come true?"
        if count
        else "Do the sum of block losses and the loss of the chained blocks rank scored networks alike?"
    )
    return Section("rank-fidelity", "Rank fidelity", lead, tuple(parts))


def trial_errors(sample: pd.DataFrame) -> tuple[pd.Series, str]:
    """What trials were ranked by, as an error of each, and what it is called."""
    measures = [measure for measure in sample["trial_measure"].unique() if measure in _MEASURES]
    measure = measures[0] if measures else "relative_mse"
    values = sample[f"trial_{measure}"]
    return (1 - values if measure == "cosine_similarity" else values), _MEASURES[measure]


def rank_sentences(agreements: pd.DataFrame) -> list[str]:
    """What the agreements mean, in words."""
    found = []
    rows = {row["proxy"]: row for row in records(agreements)}
    chained = rows.get("loss")
    if chained is not None and chained["architectures"] > 0:
        tau, low, high, size, beyond = (
            None if pd.isna(chained[column]) else float(chained[column])
            for column in ("tau", "tau_low", "tau_high", "tau_size", "tau_beyond_size")
        )
        text = f"The search’s loss {verdict(tau, low, size, beyond)}."
        if tau is not None:
            text += (
                f" Kendall’s tau of its order with that of the results is {tau:.2f} (95 % interval {_number(low)} to "
                f"{_number(high)}); the size alone reaches {_number(size)}"
                + (f", and given the size {_number(beyond)} is left (partial tau)." if beyond is not None else ".")
            )
        found.append(text)
    sums = rows.get("block_loss_sum")
    if sums is not None and pd.notna(sums["spearman"]):
        found.append(
            f"Over {f.count(sums['networks'])} scored networks, the sum of block losses and the loss of the chained "
            f"blocks have a Spearman correlation of {sums['spearman']:.2f}: " + _worth_of_sums(float(sums["spearman"]))
        )
    return found


def _worth_of_sums(spearman: float) -> str:
    if spearman >= _SUMS_RANK_WELL:
        return "adding up blocks ranks whole networks well."
    if spearman >= _SUMS_RANK_AT_ALL:
        return "adding up blocks is a rough guess, so rank the best sums once more by the chained loss."
    return "adding up blocks says little about whole networks here, so judge these by the chained loss, not by sums."


def _number(value: float | None) -> str:
    return f.NOTHING if value is None else f"{value:.2f}".replace("-", "−")


def _agreements_table(rows: pd.DataFrame) -> Grid:
    names = ("tau", "95 % interval", "p", "size alone", "beyond size", "Spearman to chained loss", "networks")
    columns = (Column("proxy"), *(Column(name, is_number=True) for name in names))

    def shown(value: float) -> str:
        return _number(None if pd.isna(value) else value)

    texts = tuple(
        (
            _PROXIES.get(row["proxy"], row["proxy"]),
            shown(row["tau"]),
            f"{shown(row['tau_low'])} to {shown(row['tau_high'])}" if pd.notna(row["tau_low"]) else f.NOTHING,
            f.significant(row["tau_p_value"], 2),
            shown(row["tau_size"]),
            shown(row["tau_beyond_size"]),
            shown(row["spearman"]),
            f.count(row["networks"]),
        )
        for row in records(rows)
    )
    return Grid(
        columns, texts, "Kendall’s tau-b against the trials’ results; a proxy is worth what it has beyond size."
    )
