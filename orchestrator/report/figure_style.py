"""How the report's figures look: the empty figure, axes, the colour bar, and texts that plotly shows as they are."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from orchestrator.report import palette

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
COLOUR_BAR_MARGIN = 104
"""Pixels below a plot: its axis, and a flat colour bar."""

_LOG_FROM = 6.0
"""Values that differ by this factor or more are shown on a logarithmic axis."""


def empty_figure(height: int) -> go.Figure:
    """An empty figure in the report's style; colours of paper and plot come from the page."""
    axis = {
        "gridcolor": palette.GRID,
        "linecolor": palette.MUTED,
        "tickcolor": palette.MUTED,
        "showline": True,
        "zeroline": False,
        "automargin": True,
        "title_standoff": 8,
        "ticks": "outside",
        "ticklen": 4,
    }
    layout: dict[str, Any] = {
        "template": go.layout.Template(),
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
        "font": {"family": FONT, "size": 12, "color": palette.INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": palette.PAPER, "bordercolor": palette.MUTED, "font": {"color": palette.INK}},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.03, "yanchor": "bottom"},
        "showlegend": True,
        "xaxis": axis,
        "yaxis": axis,
    }
    return go.Figure(layout=layout)


def flat_colour_bar(title: str, tick_format: str) -> dict[str, Any]:
    """A colour bar at the figure's foot, where it takes no width away on narrow screens.

    The figure has to leave :data:`COLOUR_BAR_MARGIN` below its plot.
    """
    return {
        "orientation": "h",
        "thickness": 9,
        "len": 0.6,
        "x": 0.5,
        "xanchor": "center",
        "yref": "container",
        "y": 0,
        "ypad": 6,
        "yanchor": "bottom",
        "title": {"text": title, "side": "bottom", "font": {"size": 11}},
        "tickfont": {"size": 11},
        "tickformat": tick_format,
        "nticks": 6,
        "outlinewidth": 0,
    }


def outline() -> dict[str, Any]:
    """The line around a marker that keeps it apart from those below it."""
    return {"color": palette.PAPER, "width": 0.7}


def value_axis(figure: go.Figure, values: Iterable[float], title: str) -> None:
    """A vertical axis for positive values: logarithmic where they differ much, with ticks at round numbers."""
    positive = [value for value in values if math.isfinite(value) and value > 0]
    low, high = min(positive, default=1.0), max(positive, default=1.0)
    figure.update_yaxes(title_text=title)
    if high < _LOG_FROM * low:
        return
    steps = (1, 1.5, 2, 3, 5, 7) if high < 20 * low else (1, 2, 5) if high < 1_000 * low else (1,)
    exponents = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
    figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


def span(values: pd.Series, limits: Mapping[str, float]) -> list[float] | None:
    """A range with a little air around all values and limits; None (plotly's own choice) where there are none."""
    present = [*values.dropna(), *limits.values()]
    if not present:
        return None
    low, high = min(present), max(present)
    air = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return [low - air, high + air]


def escaped(text: object) -> str:
    """Text that plotly shows as it is: it reads a little HTML in names and hover texts."""
    return html.escape(str(text), quote=False)
