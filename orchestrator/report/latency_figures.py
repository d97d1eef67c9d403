"""The report's figures of latencies; see :mod:`orchestrator.report.figures` for what holds for all of them."""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from orchestrator.formatting import significant
from orchestrator.report import palette
from orchestrator.report.data import TEACHER, UNIFORM, WINNER
from orchestrator.report.figure_style import empty_figure, escaped, outline


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


def predictions(networks: pd.DataFrame) -> dict[str, str]:
    """The columns of the networks of a check that predict latencies, with what they are called.

    Args:
        networks: as :func:`latency_check` takes them.
    """
    if networks["additive_ms"].isna().all():
        return {"predicted_ms": "sum of the prices"}
    return {"additive_ms": "plain sum of the parts", "predicted_ms": "with the remainder"}


def latency_check(networks: pd.DataFrame) -> go.Figure:
    """Measured against predicted latency of the networks of a check, with and without the fitted remainder.

    Args:
        networks: columns ``label``, ``measured_ms``, ``predicted_ms`` and ``additive_ms`` (the plain sum of the parts;
            nothing where latencies are sums of prices).
    """
    figure = empty_figure(height=400)
    looks = {"additive_ms": (palette.category(5), "circle-open"), "predicted_ms": (palette.category(0), "circle")}
    named = predictions(networks)
    top = 1.08 * max(networks[column].max() for column in ("measured_ms", *named))
    line = {"color": palette.MUTED, "width": 1, "dash": "dot"}
    figure.add_trace(go.Scatter(x=[0, top], y=[0, top], mode="lines", line=line, name="equal", hoverinfo="skip"))
    for column, name in named.items():
        colour, symbol = looks[column]
        shown = networks[networks[column].notna()]
        if shown.empty:
            continue
        figure.add_trace(
            go.Scatter(
                x=shown[column],
                y=shown["measured_ms"],
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 8},
                name=name,
                text=shown["label"].map(escaped),
                hovertemplate="<b>%{text}</b><br>predicted %{x:.3~g} ms<br>measured %{y:.3~g} ms",
            )
        )
    figure.update_xaxes(title_text="predicted, ms", range=[0, top])
    figure.update_yaxes(title_text="measured, ms", range=[0, top])
    return figure
