"""Pictures of architectures of components: one row a layer, one cell for each thing that can be kept or dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go

from orchestrator.report import palette
from orchestrator.report.figure_style import empty_figure
from spaces.components.architecture import ComponentsArchitecture, LayerChoice
from spaces.components.options import ComponentsOptions
from spaces.components.sublayers import SublayerChoice, SublayerKind

WIDE = 40
"""Columns from which on a picture takes the whole width of the page."""

_DROPPED, _KEPT = 0, len(palette.SEQUENCE) + 1
"""Values of cells; those between are the stages that a component can stand in, the last for all that follow."""
_GROUPS = (("heads", "Q·K", "M"), ("feed-forward", "", "M"))
"""What the columns of each half are called: components, query-key slices (of attention alone), mean."""
_ROW, _MARGIN = 22, 34
"""Pixels of a layer, and of what stands above and below all of them."""


@dataclass
class _Row:
    """The cells of one layer as they are put together.

    Attributes:
        values: see :data:`_DROPPED`; ``None`` for what is left blank.
        texts: what is written in them.
        hovers: what is told when they are pointed at.
    """

    values: list[int | None] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    hovers: list[str] = field(default_factory=list)

    def add(self, value: int | None, hover: str = "", text: str = "") -> None:
        """One more cell."""
        self.values.append(value)
        self.hovers.append(hover)
        self.texts.append(text)


@dataclass(frozen=True)
class _Group:
    """Columns of one kind: what they are called, and the first and the last."""

    name: str
    first: int
    last: int

    @property
    def middle(self) -> float:
        return (self.first + self.last) / 2


def columns(options: ComponentsOptions) -> int:
    """How many columns a picture has, gaps included."""
    return _groups(options)[-1].last + 1


def picture(architecture: ComponentsArchitecture, options: ComponentsOptions) -> go.Figure:
    """What is kept of every layer, the first one at the top.

    Args:
        architecture: fits ``options``.
        options: of its space.
    """
    numbered = list(enumerate(architecture.layers, start=1))
    rows = [_row(number, layer, options) for number, layer in numbered]
    figure = empty_figure(height=2 * _MARGIN + _ROW * len(rows))
    gap = 2 if columns(options) < WIDE else 1
    figure.add_trace(
        go.Heatmap(
            y=[number for number, _ in numbered],
            z=[row.values for row in rows],
            text=[row.texts for row in rows],
            texttemplate="%{text}",
            textfont={"size": 9},
            customdata=[row.hovers for row in rows],
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            colorscale=_colours(),
            zmin=_DROPPED,
            zmax=_KEPT,
            showscale=False,
            xgap=gap,
            ygap=3,
        )
    )
    for group in _groups(options):
        _write(figure, group.name, group.middle, 1.0, yref="paper", yanchor="bottom")
    for number, layer in numbered:
        _name_what_is_gone(figure, number, layer, options)
    bare = {"showgrid": False, "showline": False, "ticks": ""}
    figure.update_xaxes(range=[-0.5, columns(options) - 0.5], showticklabels=False, fixedrange=True, **bare)
    figure.update_yaxes(title_text="layer", range=[len(rows) + 0.5, 0.5], dtick=1, fixedrange=True, **bare)
    figure.update_layout(margin={"l": 40, "r": 8, "t": _MARGIN, "b": 12}, showlegend=False)
    return figure


def _row(number: int, layer: LayerChoice, options: ComponentsOptions) -> _Row:
    row = _Row()
    for place, (kind, choice) in enumerate(zip(options.kinds, layer.sublayers, strict=True)):
        if place:
            row.add(None)
            row.add(None)
        _add_half(row, f"layer {number}", kind, choice)
    return row


def _add_half(row: _Row, layer: str, kind: SublayerKind, choice: SublayerChoice) -> None:
    """Components, slices and mean of one half of a layer; blank if it is gone."""
    stages = {one: place for place, stage in enumerate(choice.stages, start=1) for one in stage}
    for one in range(kind.components):
        hover, stage = f"{layer}, {kind.component} {one + 1}", stages.get(one)
        if choice.is_absent or stage is None:
            row.add(None if choice.is_absent else _DROPPED, f"{hover}: dropped")
            continue
        several = len(choice.stages) > 1
        where = f", stage {stage} of {len(choice.stages)}" if several else ""
        row.add(min(stage, _KEPT - 1), f"{hover}: kept{where}", str(stage) if several else "")
    bits = [(f"query-key slice {one + 1}", one in choice.query_key) for one in range(kind.query_key)]
    for group in filter(None, (bits, [("mean of the LayerNorm", choice.mean)])):
        row.add(None)
        for name, kept in group:
            value = None if choice.is_absent else _KEPT if kept else _DROPPED
            row.add(value, f"{layer}, {name}: {'kept' if kept else 'dropped'}")


def _groups(options: ComponentsOptions) -> list[_Group]:
    """The groups of columns, in the order in which :func:`_row` fills them."""
    found: list[_Group] = []
    for kind, names in zip(options.kinds, _GROUPS, strict=True):
        free = found[-1].last + 3 if found else 0
        for name, count in zip(names, (kind.components, kind.query_key, 1), strict=True):
            if count:
                found.append(_Group(name, free, free + count - 1))
                free += count + 1
    return found


def _name_what_is_gone(figure: go.Figure, number: int, layer: LayerChoice, options: ComponentsOptions) -> None:
    """Words where a half of a layer, or all of it, has left its cells blank."""
    groups = _groups(options)
    halves = (groups[:3], groups[3:])
    if all(choice.is_absent for choice in layer.sublayers):
        _write(figure, "the whole layer is gone", (groups[0].first + groups[-1].last) / 2, number)
        return
    for words, own, choice in zip(("no attention", "no feed-forward"), halves, layer.sublayers, strict=True):
        if choice.is_absent:
            _write(figure, words, (own[0].first + own[-1].last) / 2, number)


def _write(figure: go.Figure, text: str, column: float, row: float, **placing: str) -> None:
    font = {"color": palette.MUTED, "size": 11}
    figure.add_annotation(text=text, x=column, y=row, showarrow=False, font=font, **placing)


def _colours() -> Sequence[tuple[float, str]]:
    """A colour for each value of a cell, at the places where whole numbers lie."""
    shades = (palette.GRID, *palette.SEQUENCE, palette.MUTED)
    return [(value / _KEPT, shade) for value, shade in enumerate(shades)]
