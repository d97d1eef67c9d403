"""The report's figures: pure functions from rows to plotly figures.

Rows come from :func:`orchestrator.report.data.tidy` (numbers are floats, NaN where nothing was measured; texts are
never missing). Every function draws what it is given, also no rows at all; whether a figure is worth showing is decided
in ``sections``. Only colours of ``palette`` are used, since the page exchanges them on dark screens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from orchestrator.report import palette
from orchestrator.report.data import TEACHER, UNIFORM, WINNER, Budget, Student
from orchestrator.report.figure_style import (
    COLOUR_BAR_MARGIN,
    empty_figure,
    escaped,
    flat_colour_bar,
    outline,
    span,
    value_axis,
)
from orchestrator.report.formatting import significant
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
    mask = non_dominated(candidates[[cost.column, "loss"]].to_numpy(dtype=float))
    return candidates[mask].drop_duplicates([cost.column, "loss"]).sort_values(cost.column)


def front(
    candidates: pd.DataFrame, winners: pd.DataFrame, budgets: Sequence[Budget], cost: Cost, shade: Cost
) -> go.Figure:
    """Loss against a cost of all candidates, with the Pareto front, the budgets' limits and the winners.

    Args:
        candidates: rows of ``evaluations``, whole networks.
        winners: the chosen rows of ``selections``.
        budgets: whose limits on ``cost`` are drawn.
        cost: the horizontal axis.
        shade: what the colours tell.
    """
    shown = candidates.dropna(subset=[cost.column, "loss"]).drop_duplicates("arch_id")
    best = pareto(shown, cost)
    figure = empty_figure(height=520)
    for index, (strategy, rows) in enumerate(_thinned(shown, best.index).groupby("strategy", sort=True)):
        cloud = _cloud(rows, str(strategy), index, cost, shade)
        figure.add_traces([cloud, _legend_entry(cloud)])
    figure.add_trace(_staircase(best, cost, "Pareto front"))
    figure.add_trace(_winner_stars(winners.dropna(subset=[cost.column, "loss"]), cost))
    limits = {budget.name: limit for budget in budgets if (limit := cost.limit(budget)) is not None}
    _draw_limits(figure, limits)
    value_axis(figure, [*shown["loss"], *winners["loss"]], "loss (relative MSE to the teacher)")
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
    if budget.max_encoder_parameters is not None:
        mask &= candidates["encoder_parameters"] <= budget.max_encoder_parameters
    if budget.max_latency_ms is not None:
        mask &= candidates["latency_ms"] <= budget.max_latency_ms
    return mask


def supernet_training(training: pd.DataFrame) -> go.Figure:
    """Relative MSE of every block of the supernet against optimiser steps; a row without a block is the whole."""
    figure = empty_figure(height=360)
    rows = training.assign(value=training_error(training)).dropna(subset=["value"]).sort_values("step", kind="stable")
    blocks = sorted(rows["block"].dropna().unique())
    colours = {block: palette.category(index) for index, block in enumerate(blocks)}
    for block, part in rows.groupby("block", dropna=False, sort=True):
        is_block = block in colours
        name = f"block {block:.0f}" if is_block else "all blocks"
        figure.add_trace(_curve(part, name, colours[block] if is_block else palette.INK))
    value_axis(figure, rows["value"], "relative MSE")
    figure.update_xaxes(title_text="step", rangemode="tozero")
    return figure


def distillation(training: pd.DataFrame, students: Mapping[str, Student]) -> go.Figure:
    """Relative MSE of every student against optimiser steps: one colour a budget, the uniform baseline dashed."""
    figure = empty_figure(height=360)
    rows = training.assign(value=training_error(training)).dropna(subset=["value"]).sort_values("step", kind="stable")
    trained = [students.get(label, Student(label, "", "")) for label in rows["subject"].drop_duplicates()]
    groups = list(dict.fromkeys(student.budget or student.label for student in trained))
    for student in sorted(trained, key=lambda one: (groups.index(one.budget or one.label), one.role == UNIFORM)):
        part = rows[rows["subject"] == student.label]
        colour = groups.index(student.budget or student.label)
        dash = "dash" if student.role == UNIFORM else "solid"
        figure.add_trace(_curve(part, escaped(student_name(student)), palette.category(colour), dash))
    value_axis(figure, rows["value"], "relative MSE")
    figure.update_xaxes(title_text="step", rangemode="tozero")
    return figure


def student_name(student: Student) -> str:
    """How a student is called in legends: its budget and role where they are known, else its label."""
    return f"{student.budget}, {student.role}" if student.budget and student.role else student.label


def block_losses(rows: pd.DataFrame) -> go.Figure:
    """Loss against parameters of the architectures of one block, one colour for each hidden size.

    Args:
        rows: rows of ``evaluations`` of scope "block" and one block.
    """
    figure = empty_figure(height=320)
    shown = rows.dropna(subset=["encoder_parameters", "loss"])
    best = pareto(shown, PARAMETERS)
    shown = _thinned(shown, best.index, MOST_POINTS // 2)
    sizes = shown["architecture"].map(hidden_size)
    known = sorted(sizes.dropna().unique())
    colours = dict(zip(known, palette.steps(len(known)), strict=True))
    for size, part in shown.groupby(sizes, dropna=False, sort=True):
        is_known = size in colours
        figure.add_trace(
            go.Scatter(
                x=part["encoder_parameters"],
                y=part["loss"],
                mode="markers",
                marker={"color": colours[size] if is_known else palette.MUTED, "size": 5, "opacity": 0.8},
                name=f"{size:.0f} wide" if is_known else "other",
                text=part["architecture"].map(escaped),
                hovertemplate="<b>%{text}</b><br>loss %{y:.4f}<br>%{x:.3s} parameters",
            )
        )
    figure.add_trace(_staircase(best, PARAMETERS, "lowest loss"))
    value_axis(figure, shown["loss"], "loss")
    figure.update_xaxes(title_text="parameters of the block", tickformat="~s")
    return figure


def hidden_size(architecture: str) -> float:
    """The first hidden size in an architecture's text ("192:S3-M" is 192 wide); NaN where the text names none."""
    found = re.search(r"(?:^|\|)(\d+):", architecture)
    return float(found.group(1)) if found else math.nan


def operation_latency(rows: pd.DataFrame) -> go.Figure:
    """Median latency of every operation at every hidden size, as a heat map with the numbers in it.

    Args:
        rows: rows of ``latency`` of kind "operation", measured at one batch size and sequence length.
    """
    operations = list(dict.fromkeys(rows["operation"]))
    sizes = sorted(rows["hidden_size"].dropna().unique())
    latest = rows.drop_duplicates(["operation", "hidden_size"], keep="last")
    grid = latest.pivot(index="hidden_size", columns="operation", values="median_ms").reindex(sizes)[operations]
    spread = latest.pivot(index="hidden_size", columns="operation", values="spread_ms").reindex(sizes)[operations]
    figure = empty_figure(height=130 + 44 * len(sizes))
    figure.add_trace(
        go.Heatmap(
            x=[escaped(operation) for operation in operations],
            y=[f"{size:.0f}" for size in sizes],
            z=grid.to_numpy(dtype=float),
            text=[["" if math.isnan(value) else significant(value) for value in row] for row in grid.to_numpy()],
            texttemplate="%{text}",
            customdata=spread.to_numpy(dtype=float),
            hovertemplate="%{x} at %{y}<br>%{z:.4~g} ms, quartiles %{customdata:.2~g} ms apart<extra></extra>",
            colorscale=palette.colour_scale(),
            showscale=False,
            xgap=2,
            ygap=2,
        )
    )
    figure.update_xaxes(title_text="operation", type="category", showgrid=False, side="bottom")
    figure.update_yaxes(title_text="hidden size", type="category", showgrid=False)
    return figure


def latency_agreement(models: pd.DataFrame) -> go.Figure:
    """Measured against predicted latency of whole models, with the spread as error bars and the line of equality.

    Args:
        models: columns ``label``, ``role`` (empty: only timed, not a student), ``predicted_ms``, ``measured_ms`` and
            ``spread_ms`` (between the quartiles).
    """
    figure = empty_figure(height=400)
    values = [*models["predicted_ms"], *models["measured_ms"]]
    top = 1.12 * max(values, default=1.0)
    figure.add_trace(
        go.Scatter(
            x=[0, top],
            y=[0, top],
            mode="lines",
            line={"color": palette.MUTED, "width": 1, "dash": "dot"},
            name="equal",
            hoverinfo="skip",
        )
    )
    looks = {WINNER: (palette.ACCENT, "star", 13), UNIFORM: (palette.category(0), "diamond", 10)}
    looks |= {TEACHER: (palette.INK, "square", 10), "": (palette.category(2), "circle", 7)}
    for role, part in models.groupby("role", sort=False):
        colour, symbol, size = looks.get(str(role), looks[""])
        figure.add_trace(
            go.Scatter(
                x=part["predicted_ms"],
                y=part["measured_ms"],
                error_y={"type": "data", "array": part["spread_ms"].fillna(0.0) / 2, "thickness": 1.2, "width": 4},
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": size, "line": outline()},
                name=escaped(role) or "other models",
                text=part["label"].map(escaped),
                hovertemplate="<b>%{text}</b><br>predicted %{x:.3~g} ms<br>measured %{y:.3~g} ms",
            )
        )
    figure.update_xaxes(title_text="predicted, ms", range=[0, top])
    figure.update_yaxes(title_text="measured, ms", range=[0, top])
    return figure


def shrinking(rows: pd.DataFrame) -> go.Figure:
    """Architectures alive after each round of shrinking, one line for each block (all its bins together)."""
    figure = empty_figure(height=320)
    blocks = sorted(rows["block"].dropna().unique())
    counts: list[float] = []
    for index, block in enumerate(blocks):
        alive = rows[rows["block"] == block].groupby("round")[["live_before", "live_after"]].sum()
        left = [alive["live_before"].iloc[0], *alive["live_after"]]
        counts += left
        figure.add_trace(
            go.Scatter(
                x=[alive.index[0] - 1, *alive.index],
                y=left,
                mode="lines+markers",
                line={"color": palette.category(index), "width": 2},
                name=f"block {block:.0f}",
                hovertemplate="after round %{x}<br>%{y:,} architectures alive",
            )
        )
    figure.update_xaxes(title_text="round", dtick=1)
    value_axis(figure, counts, "architectures alive")
    return figure


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


def _staircase(best: pd.DataFrame, cost: Cost, name: str) -> go.Scatter:
    """The line of a Pareto front: between two of its points, what the cheaper one reaches is the best there is."""
    return go.Scatter(
        x=best[cost.column],
        y=best["loss"],
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


def _thinned(rows: pd.DataFrame, keep: pd.Index, most: int = MOST_POINTS) -> pd.DataFrame:
    """At most ``most`` rows, in their order: those of ``keep``, and a fixed random choice of the others."""
    if len(rows) <= most:
        return rows
    others = rows.index.difference(keep)
    chosen = np.random.default_rng(0).choice(others, size=max(most - len(keep), 0), replace=False)
    return rows.loc[rows.index.isin(keep) | rows.index.isin(chosen)]


def training_error(training: pd.DataFrame) -> pd.Series:
    """Relative MSE, or the loss where a training records nothing else."""
    return training["relative_mse"].fillna(training["loss"])
