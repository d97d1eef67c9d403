"""The report's figures of a supernet: its blocks' losses, what they can tell apart, and how its space was shrunk.

See :mod:`orchestrator.report.figures` for what holds for all figures.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from orchestrator.formatting import count
from orchestrator.report import palette
from orchestrator.report.figure_style import empty_figure, escaped, value_axis
from orchestrator.report.figures import MOST_POINTS, pareto_of, staircase_of, thinned

CLEAR_SIGNAL = 2.0
"""Spread ÷ noise below which the order within a hidden size is mostly noise."""


def block_losses(rows: pd.DataFrame) -> go.Figure:
    """Relative loss against parameters of the architectures of one block, one colour for each hidden size.

    Args:
        rows: rows of ``block_losses`` of one block.
    """
    figure = empty_figure(height=320)
    shown = rows.dropna(subset=["parameters", "relative_loss"])
    best = pareto_of(shown, "parameters", "relative_loss")
    shown = thinned(shown, best.index, MOST_POINTS // 2)
    sizes = sorted(shown["hidden_size"].dropna().unique())
    colours = dict(zip(sizes, palette.steps(len(sizes)), strict=True))
    for size, part in shown.groupby("hidden_size", dropna=False, sort=True):
        is_known = size in colours
        figure.add_trace(
            go.Scatter(
                x=part["parameters"],
                y=part["relative_loss"],
                mode="markers",
                marker={"color": colours[size] if is_known else palette.MUTED, "size": 5, "opacity": 0.8},
                name=f"{size:.0f} wide" if is_known else "other",
                text=part["architecture"].map(escaped),
                hovertemplate="<b>%{text}</b><br>relative loss %{y:.4f}<br>%{x:.3s} parameters",
            )
        )
    figure.add_trace(staircase_of(best, "parameters", "relative_loss", "lowest loss"))
    value_axis(figure, shown["relative_loss"], "relative loss")
    figure.update_xaxes(title_text="parameters of the block", tickformat="~s")
    return figure


def signals(rows: pd.DataFrame) -> go.Figure:
    """Signal (spread ÷ noise) of every hidden size of every block, with the line below which there is hardly any.

    Args:
        rows: rows of ``signals``.
    """
    figure = empty_figure(height=320)
    known = rows.dropna(subset=["signal"])
    for index, (block, part) in enumerate(known.groupby("block", sort=True)):
        part = part.sort_values("hidden_size")
        figure.add_trace(
            go.Bar(
                x=[f"{size:.0f}" for size in part["hidden_size"]],
                y=part["signal"],
                marker={"color": palette.category(index)},
                name=f"block {block:.0f}",
                customdata=part[["spread", "noise", "kendall_tau"]].to_numpy(dtype=float),
                hovertemplate=(
                    "%{x} wide<br>signal %{y:.3~g}<br>spread %{customdata[0]:.3~g}, noise %{customdata[1]:.3~g}"
                    "<br>tau of two halves %{customdata[2]:.2f}"
                ),
            )
        )
    line = {"color": palette.INK, "width": 1.2, "dash": "dash"}
    font = {"color": palette.INK, "size": 11, "shadow": palette.HALO}
    note = {"text": f"{CLEAR_SIGNAL:g}: mostly noise below", "font": font, "yanchor": "bottom"}
    # The narrowest blocks are on the left: their signals are the weakest, and leave the line's name room.
    figure.add_hline(y=CLEAR_SIGNAL, line=line, annotation=note, annotation_position="top left")
    figure.update_layout(barmode="group")
    figure.update_xaxes(title_text="hidden size", type="category")
    figure.update_yaxes(title_text="signal (spread ÷ noise)", rangemode="tozero")
    return figure


def alive(rows: pd.DataFrame) -> go.Figure:
    """Architectures alive after each round of shrinking, one line for each block (all its bins together)."""
    figure = empty_figure(height=320)
    counts: list[float] = []
    for index, (block, part) in enumerate(rows.dropna(subset=["block", "round"]).groupby("block", sort=True)):
        table = part.pivot_table(index="round", columns="bin", values="live_after", aggfunc="last")
        first = part.sort_values("round").drop_duplicates("bin")["live_before"].sum()
        # A bin that is done has no rows in later rounds: it keeps what it had.
        left = [first, *table.ffill().sum(axis=1)]
        counts += left
        figure.add_trace(
            go.Scatter(
                x=[table.index[0] - 1, *table.index],
                y=left,
                mode="lines+markers",
                line={"color": palette.category(index), "width": 2},
                name=f"block {block:.0f}",
                hovertemplate="after round %{x}<br>%{y:,} architectures alive",
            )
        )
    figure.update_xaxes(title_text="round", dtick=1 if rows["round"].max() < 16 else None)
    value_axis(figure, counts, "architectures alive")
    return figure


def alive_by_bin(rows: pd.DataFrame) -> go.Figure:
    """Architectures alive in every size bin of one block after each round, as a heat map with the numbers in it.

    Args:
        rows: rows of ``shrinking`` of one block.
    """
    table = rows.pivot_table(index="bin", columns="round", values="live_after", aggfunc="last").sort_index()
    table = table.ffill(axis=1)
    figure = empty_figure(height=120 + 26 * len(table))
    numbers = table.to_numpy(dtype=float)
    figure.add_trace(
        go.Heatmap(
            x=[f"{number:.0f}" for number in table.columns],
            y=[f"{number:.0f}" for number in table.index],
            z=np.log10(np.maximum(numbers, 1.0)),
            text=[["" if np.isnan(value) else count(value) for value in row] for row in numbers],
            texttemplate="%{text}" if len(table.columns) <= 14 else None,
            hovertemplate="bin %{y}, round %{x}<br>%{text} alive<extra></extra>",
            colorscale=palette.colour_scale(),
            showscale=False,
            xgap=2,
            ygap=2,
        )
    )
    figure.update_xaxes(title_text="round", type="category", showgrid=False)
    figure.update_yaxes(title_text="size bin (1: smallest)", type="category", showgrid=False)
    return figure


def shrinking_losses(rows: pd.DataFrame) -> go.Figure:
    """Losses of the evaluated architectures in each round: the best of each block, and the median of its bins."""
    figure = empty_figure(height=320)
    known = rows.dropna(subset=["block", "round", "best_loss"])
    for index, (block, part) in enumerate(known.groupby("block", sort=True)):
        by_round = part.groupby("round")
        for values, name, dash in (
            (by_round["median_loss"].median(), f"block {block:.0f}, median", "solid"),
            (by_round["best_loss"].min(), f"block {block:.0f}, best", "dot"),
        ):
            figure.add_trace(
                go.Scatter(
                    x=values.index,
                    y=values,
                    mode="lines+markers",
                    line={"color": palette.category(index), "width": 2, "dash": dash},
                    name=name,
                    hovertemplate="round %{x}<br>loss %{y:.4f}",
                )
            )
    value_axis(figure, [*known["best_loss"], *known["median_loss"].dropna()], "loss")
    figure.update_xaxes(title_text="round", dtick=1 if rows["round"].max() < 16 else None)
    return figure
