"""What the report shows of the supernet: shrinking, block losses, and whether they tell architectures apart."""

from __future__ import annotations

import pandas as pd

from orchestrator import formatting as f
from orchestrator.report import supernet_figures as figures
from orchestrator.report.data import RunData, records
from orchestrator.report.views import Column, Grid, Note, Part, Plot, Plots, Section


def shrinking(data: RunData) -> Section:
    """How progressive shrinking thinned out the space."""
    rows = data.tables["shrinking"]
    by_latency, by_loss = rows[rows["round"] == 0], rows[rows["round"] > 0]
    removed = f.plural(int(by_loss["removed"].sum()), "architecture")
    rounds = int(by_loss["round"].nunique())
    lead = (
        f"Progressive shrinking removed {removed} of blocks in {f.plural(rounds, 'round')}: after each, the worst of "
        "every size bin were given up, so that the training could spend itself on the others."
    )
    if len(by_latency):
        gone = f.plural(int(by_latency["removed"].sum()), "architecture")
        lead += f" Before the first, the latency rule had taken out {gone}."
    plots = [
        Plot("shrinking-alive", figures.alive(rows), "Architectures of each block alive after each round", "Alive")
    ]
    judged = rows[rows["best_loss"].notna()]
    if len(judged):
        figure = figures.shrinking_losses(judged)
        plots.append(Plot("shrinking-losses", figure, "Median and best loss of the evaluated in each round", "Losses"))
    bins = [
        Plot(
            f"shrinking-bins-{block:.0f}",
            figures.alive_by_bin(part),
            f"Architectures alive in each size bin of block {block:.0f} after each round",
            f"Block {block:.0f}: alive in each bin",
        )
        for block, part in rows[rows["bin"].notna()].groupby("block", sort=True)
    ]
    caption = (
        "Losses fall because the training goes on and because the worst leave. A bin that stops early had few "
        "architectures from the beginning; one that has none left is a size that no student of this run can have."
    )
    parts: list[Part] = [Plots(tuple(plots), caption)]
    if bins:
        parts.append(Plots(tuple(bins)))
    return Section("shrinking", "Shrinking", lead, tuple(parts))


def blocks(data: RunData) -> Section:
    """Losses of block architectures."""
    title, rows = "Block losses", data.block_losses
    rows = rows[rows["parameters"].notna()]
    if rows.empty:
        return Section("blocks", title, "", (Note("No block architecture has been scored yet."),))
    plots = []
    for block, part in rows.groupby("block", sort=True):
        description = f"Relative loss against parameters of the architectures of block {block:.0f}, by hidden size"
        heading = f"Block {block:.0f}: {f.plural(len(part), 'architecture')}"
        plots.append(Plot(f"blocks-{block:.0f}", figures.block_losses(part), description, heading))
    lead = (
        "Loss of single blocks on validation text, each fed with the teacher’s own hidden states and divided by their "
        "variance at the block’s end, against the block’s parameters. Blocks are counted from 0, the one next to the "
        "embeddings. Clouds that lie above each other by colour alone say that the width decides and the operations "
        "hardly matter."
    )
    return Section("blocks", title, lead, (Plots(tuple(plots)), _by_width(rows)))


def _by_width(rows: pd.DataFrame) -> Grid:
    """Best, median and worst relative loss of every width of every block."""
    columns = (
        Column("block"),
        Column("hidden size", is_number=True),
        Column("architectures", is_number=True),
        Column("best", is_number=True),
        Column("median", is_number=True),
        Column("worst", is_number=True),
        Column("best architecture"),
    )
    texts = []
    for _, part in rows.groupby(["block", "hidden_size"], sort=True):
        ordered = part.sort_values(["relative_loss", "architecture"])
        best, losses = ordered.iloc[0], ordered["relative_loss"]
        numbers = (f.significant(value) for value in (losses.min(), losses.median(), losses.max()))
        size, count = f.count(best["hidden_size"]), f.count(len(part))
        texts.append((f"{best['block']:.0f}", size, count, *numbers, str(best["architecture"])))
    return Grid(columns, tuple(texts), "Relative loss of the architectures of each width.")


def signal(data: RunData) -> Section:
    """Whether the losses within a hidden size differ by more than their noise."""
    rows = data.signals
    description = "Signal of each hidden size and block, with the line below which the order is mostly noise"
    plot = Plot("signal-sizes", figures.signals(rows), description)
    lead = (
        "Does the loss see anything but the width? The signal is the spread of the losses within one hidden size of "
        f"one block, divided by their noise: below {figures.CLEAR_SIGNAL:g}, the order within the size is mostly noise."
    )
    weak = rows[rows["signal"] < figures.CLEAR_SIGNAL]
    if len(weak):
        named = ", ".join(
            f"block {row['block']:.0f} at {row['hidden_size']:.0f}" for row in records(weak.sort_values("signal"))[:6]
        )
        more = " and others" if len(weak) > 6 else ""
        advice = Note(
            f"Mostly noise: {named}{more}. What helps: more steps of the supernet, the start at the teacher "
            "(supernet.init: teacher), more validation batches. Until then, try finalists before a winner is chosen."
        )
    else:
        advice = Note(
            "Every hidden size of every block has a clear signal: the order of its architectures is measured."
        )
    return Section("signal", "The signal", lead, (advice, Plots((plot,)), _signal_table(rows)))


def _signal_table(rows: pd.DataFrame) -> Grid:
    names = ("hidden size", "architectures", "spread", "noise", "signal", "tau of two halves", "explained by size")
    columns = (Column("block"), *(Column(name, is_number=True) for name in names))
    texts = tuple(
        (
            f"{row['block']:.0f}",
            f.count(row["hidden_size"]),
            f.count(row["architectures"]),
            f.significant(row["spread"]),
            f.significant(row["noise"]),
            f.significant(row["signal"]),
            f.significant(row["kendall_tau"], 2),
            f.percent(row["explained_by_size"]),
        )
        for row in records(rows.sort_values(["block", "hidden_size"]))
    )
    caption = "Explained by size: the share of the block’s variance of losses that lies between its hidden sizes."
    return Grid(columns, texts, caption)
