"""The page of a sweep: which strategy finds how much of the front how soon, over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from orchestrator import formatting as f
from orchestrator.recipe.yaml_text import dump
from orchestrator.report import palette
from orchestrator.report.figure_style import empty_figure, escaped
from orchestrator.report.views import Column, Fold, Grid, Headline, Note, Page, Part, Plot, Plots, Section
from orchestrator.report.writer import write_page
from orchestrator.sweep.settings import Sweep

if TYPE_CHECKING:
    from orchestrator.sweep.summary import GroupSummary, Measured

Curves = NDArray[np.float64]
"""Hypervolumes [seeds, points] of the members of a group."""

POINTS = 200
"""Points of a curve against seconds."""


def write_sweep_page(
    sweep: Sweep,
    target: Path,
    measured: Sequence[Measured],
    groups: Sequence[GroupSummary],
    box: Mapping[str, tuple[float, float]],
) -> None:
    """Write the page of a sweep.

    Args:
        sweep: its settings.
        target: the page's path.
        measured: its members.
        groups: means over seeds.
        box: the best and the worst value of each objective.

    Raises:
        RunError: the page could not be written.
    """
    corners = ", ".join(f"{name} from {best:.4g} to {worst:.4g}" for name, (best, worst) in box.items())
    sentence = (
        f"{f.plural(len(measured), 'search', 'searches')} over {f.plural(len(sweep.seeds), 'seed')}. Hypervolume is "
        f"the share of the box that a search's candidates dominate; the box reaches from the best to the worst value "
        f"that any of them has seen: {corners}."
    )
    sections = [_table(groups), *_curves(measured)]
    settings = Fold("sweep.yaml", dump(sweep.model_dump(mode="json")))
    sections.append(Section("settings", "The sweep", sweep.description, (settings,)))
    title = f"{sweep.name}: netsuke sweep"
    write_page(Page(title, sweep.name, "", Headline(sweep.name, sentence), tuple(sections)), target)


def curve_figure(curves: Mapping[str, tuple[NDArray[np.float64], Curves]], title: str) -> go.Figure:
    """Mean hypervolumes as lines, with a band of one standard deviation over seeds to either side.

    Args:
        curves: for each strategy where its curves have points, [points], and the curves themselves.
        title: of the horizontal axis.
    """
    figure = empty_figure(height=380)
    for index, (strategy, (places, values)) in enumerate(curves.items()):
        mean, colour = values.mean(axis=0), palette.category(index)
        if len(values) > 1:
            spread = values.std(axis=0, ddof=1)
            figure.add_trace(_band(places, mean - spread, np.minimum(mean + spread, 1.0), colour, strategy))
        figure.add_trace(
            go.Scatter(
                x=places,
                y=mean,
                mode="lines",
                line={"color": colour, "width": 2, "shape": "hv"},
                name=escaped(strategy),
                legendgroup=escaped(strategy),
                hovertemplate="%{x:.4~g}<br>hypervolume %{y:.4f}",
            )
        )
    figure.update_xaxes(title_text=title, rangemode="tozero")
    figure.update_yaxes(title_text="hypervolume")
    return figure


def against_evaluations(members: Sequence[Measured]) -> tuple[NDArray[np.float64], Curves]:
    """The curves of one group, as far as all of them reach; one that ended early stays where it was."""
    length = max(len(one.curve) for one in members)
    curves = [np.concatenate([one.curve, np.repeat(one.curve[-1:], length - len(one.curve))]) for one in members]
    return np.arange(1, length + 1, dtype=np.float64), np.stack(curves)


def against_seconds(members: Sequence[Measured]) -> tuple[NDArray[np.float64], Curves]:
    """The curves of one group at equal times; what is not finished yet counts as 0, an end as its last value."""
    places = np.linspace(0.0, max(float(one.seconds[-1]) for one in members), POINTS)
    curves = []
    for one in members:
        index = np.searchsorted(one.seconds, places, side="right")
        curves.append(np.concatenate([[0.0], one.curve])[index])
    return places, np.stack(curves)


def _band(
    places: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], colour: str, strategy: str
) -> go.Scatter:
    return go.Scatter(
        x=np.concatenate([places, places[::-1]]),
        y=np.concatenate([high, np.maximum(low, 0.0)[::-1]]),
        mode="lines",
        line={"width": 0, "color": colour},
        fill="toself",
        fillcolor=colour,
        opacity=0.15,
        hoverinfo="skip",
        showlegend=False,
        legendgroup=escaped(strategy),
    )


def _table(groups: Sequence[GroupSummary]) -> Section:
    numbers = ("evaluations", "seeds", "best loss", "hypervolume", "seconds", "on actors")
    columns = [Column(name) for name in ("space", "budget", "strategy")]
    columns += [Column(name, is_number=True) for name in numbers]
    rows = tuple(
        (
            one.space,
            one.budget,
            one.strategy,
            f.count(one.evaluations),
            str(one.seeds),
            with_spread(one.best_loss, one.best_loss_spread),
            with_spread(one.hypervolume, one.hypervolume_spread),
            f.seconds(one.seconds),
            f.seconds(one.evaluation_seconds),
        )
        for one in groups
    )
    lead = (
        "Means over seeds ± one standard deviation. Seconds are what a search took here, with scores that others had "
        "had measured for nothing; on actors is the time behind all its scores, whoever had them measured."
    )
    return Section("table", "The searches", lead, (Grid(tuple(columns), rows),))


def with_spread(value: float | None, spread: float | None) -> str:
    """A mean with its standard deviation, where there is one."""
    if value is None:
        return "none"
    return f"{value:.4f}" if spread is None else f"{value:.4f} ± {spread:.4f}"


def _curves(measured: Sequence[Measured]) -> list[Section]:
    """A section for each space and budget, with the curves of the members that may have most evaluations."""
    most = max(one.finished.member.evaluations for one in measured)
    places: dict[tuple[str, str], dict[str, list[Measured]]] = {}
    for one in measured:
        space, strategy, budget, evaluations = one.finished.member.group
        if evaluations == most and len(one.curve):
            places.setdefault((space, budget), {}).setdefault(strategy, []).append(one)
    sections = []
    for number, ((space, budget), strategies) in enumerate(places.items()):
        title = f"{space}, budget {budget}" if budget else space
        parts: tuple[Part, ...] = (Plots(_plots(number, title, strategies)),)
        lead = "Lines are means over seeds, bands one standard deviation to either side. Higher and sooner is better."
        sections.append(Section(f"curves-{number}", title, lead, parts))
    return sections or [Section("curves", "Curves", "", (Note("No search has scored a candidate."),))]


def _plots(number: int, title: str, strategies: Mapping[str, list[Measured]]) -> tuple[Plot, ...]:
    axes: tuple[tuple[str, str, Callable[[Sequence[Measured]], tuple[NDArray[np.float64], Curves]]], ...] = (
        ("evaluations", "evaluations", against_evaluations),
        ("seconds", "seconds on the actors", against_seconds),
    )
    plots = []
    for name, axis, curves_of in axes:
        figure = curve_figure({strategy: curves_of(members) for strategy, members in strategies.items()}, axis)
        description = f"hypervolume against {axis} of {', '.join(strategies)} in {title}"
        plots.append(Plot(f"{name}-{number}", figure, description, f"against {axis}"))
    return tuple(plots)
