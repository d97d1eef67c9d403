"""The report's figure of a one-shot search: how supernet and distribution learned, phase by phase."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd
import plotly.graph_objects as go

from orchestrator.report import palette
from orchestrator.report.figure_style import empty_figure
from orchestrator.report.figures import training_error

_SHARES = (0.3, 0.28, 0.14, 0.28)
"""Of the figure's height, from the top: error, expected cost, lambda, entropy."""
_AIR = 0.035
"""Between two panels, as a share of the height."""
_AXES = ("y", "y2", "y3", "y4")


@dataclass(frozen=True)
class PhaseSteps:
    """The steps of a training's phases: ``warm_up`` first, then ``search``, and the frozen rest of ``total``."""

    warm_up: int
    search: int
    total: int

    @property
    def spans(self) -> list[tuple[str, int, int]]:
        """Each phase that has steps: its name, and the steps done before and after it."""
        ends = (0, self.warm_up, self.warm_up + self.search, self.total)
        named = zip(("warm-up", "search", "frozen"), pairwise(ends), strict=True)
        return [(name, begin, end) for name, (begin, end) in named if end > begin]


def course(rows: pd.DataFrame, cost: str, phases: PhaseSteps | None) -> go.Figure:
    """Relative error (or loss, of a task), expected cost, lambda and entropy below each other, against optimiser steps.

    Args:
        rows: rows of ``training`` of the supernet, in the order of steps.
        cost: what becomes cheaper, as people call it.
        phases: how long each phase is; ``None`` if unknown.
    """
    figure = empty_figure(height=640)
    frozen = rows["arch_id"] != ""
    error = "relative error" if rows["relative_mse"].notna().any() else "loss"
    _panel(figure, 0, rows, training_error(rows), error, "%{y:.4f}")
    _panel(figure, 1, rows[~frozen], rows["expected_cost"], f"expected {cost}", "%{y:.1%} expected")
    _panel(figure, 1, rows[frozen], rows["expected_cost"], "", "%{y:.1%}, the frozen architecture", dash="dot")
    _panel(figure, 2, rows[~frozen], rows["cost_weight"], "lambda", "%{y:.3~g}")
    bits = rows["entropy"] / math.log(2)
    _panel(figure, 3, rows, bits, "entropy, bits", "%{y:.1f} bits")
    tops = [1 - sum(_SHARES[:place]) for place in range(len(_SHARES))]
    for place, (top, share) in enumerate(zip(tops, _SHARES, strict=True)):
        axis = figure.layout["yaxis" if place == 0 else f"yaxis{place + 1}"]
        axis.domain = [max(0.0, top - share + (_AIR if place < len(_SHARES) - 1 else 0.0)), top]
    figure.layout.yaxis2.tickformat = ".0%"
    if bits.notna().any():
        _mark_start(figure, float(bits.dropna().iloc[0]))
    for name, begin, end in () if phases is None else phases.spans:
        _mark_phase(figure, name, begin, end)
    last = rows["step"].max() if phases is None else phases.total
    figure.update_xaxes(title_text="step", range=[0, last], anchor="y4")
    figure.update_layout(showlegend=False, margin_t=28)
    return figure


def _panel(
    figure: go.Figure, place: int, rows: pd.DataFrame, values: pd.Series, title: str, hover: str, dash: str = "solid"
) -> None:
    """One curve in one of the panels, which has its own vertical axis and shares the horizontal one."""
    figure.add_trace(
        go.Scatter(
            x=rows["step"],
            y=values.loc[rows.index],
            yaxis=_AXES[place],
            mode="lines+markers",
            line={"color": palette.category(place), "width": 2, "dash": dash},
            marker={"size": 4},
            hovertemplate=f"step %{{x}}<br>{hover}<extra></extra>",
        )
    )
    if title:
        style = figure.layout.yaxis.to_plotly_json()
        style |= {"title": {"text": title}, "rangemode": "tozero", "domain": None}
        figure.update_layout({"yaxis" if place == 0 else f"yaxis{place + 1}": style})


def _mark_start(figure: go.Figure, bits: float) -> None:
    """A line at the entropy that the distribution began with."""
    line = {"color": palette.MUTED, "width": 1, "dash": "dash"}
    figure.add_shape(type="line", xref="paper", x0=0, x1=1, yref="y4", y0=bits, y1=bits, line=line, layer="below")


def _mark_phase(figure: go.Figure, name: str, begin: int, end: int) -> None:
    """The name of a phase above all panels, and a line where it begins; the search is shaded."""
    if begin:
        line = {"color": palette.MUTED, "width": 1, "dash": "dash"}
        figure.add_shape(type="line", x0=begin, x1=begin, yref="paper", y0=0, y1=1, line=line)
    if name == "search":
        figure.add_shape(
            type="rect", x0=begin, x1=end, yref="paper", y0=0, y1=1, fillcolor=palette.GRID, opacity=0.4,
            line_width=0, layer="below",
        )  # fmt: skip
    font = {"color": palette.MUTED, "size": 12}
    figure.add_annotation(
        text=name, x=(begin + end) / 2, yref="paper", y=1, yanchor="bottom", showarrow=False, font=font
    )
