"""The report's figures of candidates and trainings: pure functions from rows to plotly figures.

Rows come from :func:`orchestrator.report.data.tidy` (numbers are floats, NaN where nothing was measured; texts are
never missing). Every function draws what it is given, also no rows at all; whether a figure is worth showing is decided
in ``sections``. Only colours of ``palette`` are used, since the page exchanges them on dark screens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from orchestrator.report import palette
from orchestrator.report.data import LIMIT_COLUMNS, UNIFORM, Budget, Student
from orchestrator.report.figure_style import (
    COLOUR_BAR_MARGIN,
    empty_figure,
    escaped,
    flat_colour_bar,
    outline,
    span,
    value_axis,
)
from orchestrator.results.pareto import non_dominated

MOST_POINTS = 2_500
"""Points a cloud shows at most: more would not be seen, but make the page slow. The front always stays whole."""

_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "hexagon", "triangle-down")


@dataclass(frozen=True)
class Cost:
    """A cost that candidates are compared by: its column, the axis title, and plotly's number format with unit."""

    column: str
    title: str
    hover: str

    def limit(self, budget: Budget) -> float | None:
        """The budget's limit on this cost."""
        return budget.max_encoder_parameters if self is PARAMETERS else budget.max_latency_ms


PARAMETERS = Cost("encoder_parameters", "encoder parameters", ":.3s} encoder parameters")
LATENCY = Cost("latency_ms", "predicted latency, ms", ":.3~g} ms predicted")


def pareto(candidates: pd.DataFrame, cost: Cost) -> pd.DataFrame:
    """The candidates that no other beats in both loss and ``cost``, the cheapest first, one for each point."""
    return pareto_of(candidates, cost.column, "loss")


def pareto_of(rows: pd.DataFrame, cost: str, loss: str) -> pd.DataFrame:
    """The rows that no other beats in both of two columns, by the first of them, one for each point."""
    mask = non_dominated(rows[[cost, loss]].to_numpy(dtype=float))
    return rows[mask].drop_duplicates([cost, loss]).sort_values(cost)


def front(
    candidates: pd.DataFrame,
    winners: pd.DataFrame,
    budgets: Sequence[Budget],
    cost: Cost,
    shade: Cost,
    loss: str = "relative MSE to the teacher",
) -> go.Figure:
    """Loss against a cost of all candidates, with the Pareto front, the budgets' limits and the winners.

    Args:
        candidates: rows of ``evaluations``, whole networks.
        winners: the chosen rows of ``selections``.
        budgets: whose limits on ``cost`` are drawn.
        cost: the horizontal axis.
        shade: what the colours tell.
        loss: what the loss is, in a few words.
    """
    shown = candidates.dropna(subset=[cost.column, "loss"]).drop_duplicates("arch_id")
    best = pareto(shown, cost)
    figure = empty_figure(height=520)
    for index, (strategy, rows) in enumerate(thinned(shown, best.index).groupby("strategy", sort=True)):
        cloud = _cloud(rows, str(strategy), index, cost, shade)
        figure.add_traces([cloud, _legend_entry(cloud)])
    figure.add_trace(staircase_of(best, cost.column, "loss", "Pareto front"))
    figure.add_trace(_winner_stars(winners.dropna(subset=[cost.column, "loss"]), cost))
    limits = {budget.name: limit for budget in budgets if (limit := cost.limit(budget)) is not None}
    _draw_limits(figure, limits)
    value_axis(figure, [*shown["loss"], *winners["loss"]], f"loss ({loss})")
    figure.update_xaxes(
        title_text=cost.title, tickformat="~s" if cost is PARAMETERS else None, range=span(shown[cost.column], limits)
    )
    figure.update_layout(
        margin_b=COLOUR_BAR_MARGIN,
        coloraxis={
            "colorscale": palette.colour_scale(),
            "colorbar": flat_colour_bar(shade.title, "~s" if shade is PARAMETERS else "~g"),
        },
    )
    return figure


def progress(candidates: pd.DataFrame, budget: Budget) -> go.Figure:
    """The lowest loss found so far within ``budget``, against the evaluations each strategy has spent.

    Args:
        candidates: rows of ``evaluations``, whole networks, in the order in which they were scored.
        budget: candidates above one of its limits do not count, but their evaluations do.
    """
    figure = empty_figure(height=300)
    losses: list[float] = []
    for index, (strategy, rows) in enumerate(candidates.groupby("strategy", sort=True)):
        best = rows["loss"].where(within(rows, budget)).reset_index(drop=True).cummin().ffill().dropna()
        # A staircase is told by its corners, and by its end.
        corners = best[~best.duplicated() | (best.index == len(rows) - 1)]
        losses += corners.tolist()
        figure.add_trace(
            go.Scatter(
                x=corners.index + 1,
                y=corners,
                mode="lines+markers",
                line={"color": palette.category(index), "shape": "hv", "width": 2},
                marker={"symbol": _SYMBOLS[index % len(_SYMBOLS)], "size": 6},
                name=escaped(strategy),
                hovertemplate="evaluation %{x}<br>loss %{y:.4f}",
            )
        )
    value_axis(figure, losses, "best loss")
    figure.update_xaxes(title_text="evaluations", rangemode="tozero")
    return figure


def within(candidates: pd.DataFrame, budget: Budget) -> pd.Series:
    """Which rows keep all limits of ``budget`` (a cost that is not known keeps none)."""
    mask = pd.Series(True, index=candidates.index)
    for column in LIMIT_COLUMNS:
        limit = getattr(budget, column)
        if limit is not None:
            mask &= candidates[column.removeprefix("max_")] <= limit
    return mask


def supernet_training(training: pd.DataFrame) -> go.Figure:
    """Relative MSE of every block of the supernet against optimiser steps; a row without a block is the whole."""
    figure = empty_figure(height=360)
    rows = training.assign(value=training_error(training)).dropna(subset=["value"]).sort_values("step", kind="stable")
    blocks = sorted(rows["block"].dropna().unique())
    colours = {block: palette.category(index) for index, block in enumerate(blocks)}
    for block, part in rows.groupby("block", dropna=False, sort=True):
        is_block = block in colours
        name = f"block {block:.0f}" if is_block else "whole supernet"
        figure.add_trace(_curve(part, name, colours[block] if is_block else palette.INK))
    value_axis(figure, rows["value"], "relative MSE")
    figure.update_xaxes(title_text="step", rangemode="tozero")
    return figure


def distillation(training: pd.DataFrame, students: Mapping[str, Student]) -> go.Figure:
    """Error of every student against optimiser steps: one colour a budget, the uniform baseline dashed."""
    figure = empty_figure(height=360)
    rows = training.assign(value=training_error(training)).dropna(subset=["value"]).sort_values("step", kind="stable")
    trained = [students.get(label, Student(label, "", "")) for label in rows["subject"].drop_duplicates()]
    groups = list(dict.fromkeys(student.budget or student.label for student in trained))
    for student in sorted(trained, key=lambda one: (groups.index(one.budget or one.label), one.role == UNIFORM)):
        part = rows[rows["subject"] == student.label]
        colour = groups.index(student.budget or student.label)
        dash = "dash" if student.role == UNIFORM else "solid"
        figure.add_trace(_curve(part, escaped(student_name(student)), palette.category(colour), dash))
    value_axis(figure, rows["value"], error_name(training))
    figure.update_xaxes(title_text="step", rangemode="tozero")
    return figure


def student_name(student: Student) -> str:
    """How a student is called in legends: its budget and role where they are known, else its label."""
    return f"{student.budget}, {student.role}" if student.budget and student.role else student.label


def _cloud(rows: pd.DataFrame, strategy: str, index: int, cost: Cost, shade: Cost) -> go.Scatter:
    """Candidates of one strategy; without a known shade they have the strategy's colour."""
    marker: dict[str, Any] = {
        "symbol": _SYMBOLS[index % len(_SYMBOLS)],
        "size": 7,
        "opacity": 0.85,
        "line": outline(),
    }
    shade_hover = ""
    if rows[shade.column].notna().any():
        marker |= {"color": rows[shade.column], "coloraxis": "coloraxis"}
        shade_hover = "<br>%{marker.color" + shade.hover
    else:
        marker["color"] = palette.category(index)
    return go.Scatter(
        x=rows[cost.column],
        y=rows["loss"],
        mode="markers",
        marker=marker,
        name=escaped(strategy) or "no strategy",
        legendgroup=escaped(strategy),
        showlegend=False,
        text=rows["architecture"].map(escaped),
        hovertemplate="<b>%{text}</b><br>loss %{y:.4f}<br>%{x" + cost.hover + shade_hover,
    )


def staircase_of(best: pd.DataFrame, cost: str, loss: str, name: str) -> go.Scatter:
    """The line of a Pareto front: between two of its points, what the cheaper one reaches is the best there is."""
    return go.Scatter(
        x=best[cost],
        y=best[loss],
        mode="lines",
        line={"color": palette.INK, "width": 1.5, "shape": "hv"},
        name=name,
        hoverinfo="skip",
    )


def _curve(rows: pd.DataFrame, name: str, colour: str, dash: str = "solid") -> go.Scatter:
    """A training curve through ``step`` and ``value``; a single row is a point, since no line can be drawn."""
    return go.Scatter(
        x=rows["step"],
        y=rows["value"],
        mode="lines" if len(rows) > 1 else "markers",
        line={"color": colour, "width": 2, "dash": dash},
        marker={"color": colour},
        name=name,
        hovertemplate="step %{x}<br>relative MSE %{y:.4f}",
    )


def _legend_entry(cloud: go.Scatter) -> go.Scatter:
    """The legend's entry for a cloud: its symbol without any of its colours, which tell something else."""
    marker = {"symbol": cloud.marker.symbol, "size": 8, "color": palette.MUTED}
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=cloud.name, legendgroup=cloud.legendgroup)


def _winner_stars(winners: pd.DataFrame, cost: Cost) -> go.Scatter:
    return go.Scatter(
        x=winners[cost.column],
        y=winners["loss"],
        mode="markers+text",
        marker={
            "symbol": "star",
            "size": 17,
            "color": palette.ACCENT,
            "line": {"color": palette.PAPER, "width": 1.5},
        },
        # Below and left of a point of the front nothing else can lie.
        text=winners["budget"].map(escaped),
        textposition="bottom left",
        textfont={"color": palette.ACCENT, "size": 13, "shadow": palette.HALO},
        customdata=winners["architecture"].map(escaped),
        name="winner",
        hovertemplate="<b>%{customdata}</b><br>winner of %{text}<br>loss %{y:.4f}<br>%{x" + cost.hover,
    )


def _draw_limits(figure: go.Figure, limits: Mapping[str, float]) -> None:
    for name, limit in limits.items():
        figure.add_vline(
            x=limit,
            line={"color": palette.MUTED, "width": 1, "dash": "dash"},
            annotation={
                "text": escaped(name),
                "font": {"color": palette.MUTED, "size": 11},
                "textangle": -90,
                "yanchor": "top",
                "xanchor": "right",
            },
        )


def thinned(rows: pd.DataFrame, keep: pd.Index, most: int = MOST_POINTS) -> pd.DataFrame:
    """At most ``most`` rows, in their order: those of ``keep``, and a fixed random choice of the others."""
    if len(rows) <= most:
        return rows
    others = rows.index.difference(keep)
    chosen = np.random.default_rng(0).choice(others, size=max(most - len(keep), 0), replace=False)
    return rows.loc[rows.index.isin(keep) | rows.index.isin(chosen)]


def training_error(training: pd.DataFrame) -> pd.Series:
    """Relative MSE, or the loss where a training records nothing else."""
    return training["relative_mse"].fillna(training["loss"])


def error_name(training: pd.DataFrame) -> str:
    """What :func:`training_error` is of these rows: students that predict masked tokens have a loss alone."""
    return "training loss" if training["relative_mse"].isna().all() else "relative MSE"
