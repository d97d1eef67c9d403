"""The report's figures of what became of the search's guesses: finalists, rank fidelity, task scores.

See :mod:`orchestrator.report.figures` for what holds for all figures.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from orchestrator.report import palette
from orchestrator.report.data import TEACHER, UNIFORM, WINNER
from orchestrator.report.figure_style import (
    COLOUR_BAR_MARGIN,
    empty_figure,
    escaped,
    flat_colour_bar,
    outline,
    value_axis,
)

_SYMBOLS = {WINNER: "star", UNIFORM: "diamond", TEACHER: "square"}
"""What each role is drawn as; its colour tells the budget."""


def finalists(rows: pd.DataFrame) -> go.Figure:
    """Places of a budget's finalists by the supernet's loss and after their trial, a line for each.

    Args:
        rows: the rows of ``selections`` of one budget that have a trial.
    """
    figure = empty_figure(height=120 + 34 * max(3, len(rows)))
    ordered = rows.sort_values("rank").reset_index(drop=True)
    for place, row in enumerate(ordered.to_dict("records"), start=1):
        colour = palette.ACCENT if row["chosen"] else palette.MUTED
        figure.add_trace(
            go.Scatter(
                x=["supernet’s loss", "after the trial"],
                y=[place, row["trial_rank"]],
                mode="lines+markers",
                line={"color": colour, "width": 3 if row["chosen"] else 1.5},
                marker={"color": colour, "size": 9},
                name="winner" if row["chosen"] else "finalist",
                showlegend=False,
                text=[escaped(row["architecture"])] * 2,
                hovertemplate="<b>%{text}</b><br>place %{y}",
            )
        )
    figure.update_xaxes(showgrid=False, range=[-0.25, 1.25])
    figure.update_yaxes(title_text="place", autorange="reversed", dtick=1, showgrid=False)
    return figure


def rank_fidelity(rows: pd.DataFrame, proxy: str, proxy_title: str, errors: pd.Series, error_title: str) -> go.Figure:
    """What a proxy said of the sample against what came of it, coloured by size.

    Args:
        rows: the architectures of the rank fidelity in ``selections``.
        proxy: column of the proxy.
        proxy_title: what it is.
        errors: of each row after its trial, less is better.
        error_title: what they are.
    """
    figure = empty_figure(height=380)
    shown = rows.assign(error=errors).dropna(subset=[proxy, "error"])
    figure.add_trace(
        go.Scatter(
            x=shown[proxy],
            y=shown["error"],
            mode="markers",
            marker={
                "color": shown["encoder_parameters"],
                "coloraxis": "coloraxis",
                "size": 11,
                "line": outline(),
            },
            showlegend=False,
            text=shown["architecture"].map(escaped),
            hovertemplate=(
                "<b>%{text}</b><br>proxy %{x:.4f}<br>after distillation %{y:.4f}"
                "<br>%{marker.color:.3s} encoder parameters<extra></extra>"
            ),
        )
    )
    value_axis(figure, shown["error"], error_title)
    figure.update_xaxes(title_text=proxy_title)
    figure.update_layout(
        margin_b=COLOUR_BAR_MARGIN,
        coloraxis={
            "colorscale": palette.colour_scale(),
            "colorbar": flat_colour_bar("encoder parameters", "~s"),
        },
    )
    return figure


def task_scores(scores: pd.DataFrame) -> go.Figure:
    """Headline score of every model on every task, with the spread over seeds as error bars.

    Args:
        scores: columns ``task``, ``name`` (of the model), ``role``, ``budget``, ``mean``, ``spread`` (NaN: one seed).
    """
    tasks = list(dict.fromkeys(scores["task"]))
    budgets = [budget for budget in dict.fromkeys(scores["budget"]) if budget]
    figure = empty_figure(height=130 + 40 * max(2, len(tasks)))
    for name, part in scores.groupby("name", sort=False):
        budget, symbol = part["budget"].iloc[0], _SYMBOLS.get(str(part["role"].iloc[0]), "circle")
        colour = palette.category(budgets.index(budget)) if budget else palette.INK
        figure.add_trace(
            go.Scatter(
                x=part["mean"],
                y=part["task"].map(escaped),
                error_x={"type": "data", "array": part["spread"].fillna(0.0), "thickness": 1.2, "width": 4},
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 10, "line": outline()},
                name=escaped(name),
                hovertemplate="%{y}<br>%{x:.4f}",
            )
        )
    figure.update_xaxes(title_text="score")
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=tasks[::-1])
    return figure
