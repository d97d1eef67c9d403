"""The parts a page is put together from: plain values that the template only has to lay out.

``kind`` tells the template which of its pieces lays a part out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import plotly.graph_objects as go


@dataclass(frozen=True)
class Plot:
    """One figure: its id on the page, what it shows in words (for who cannot see it), and perhaps a heading."""

    figure_id: str
    figure: go.Figure
    description: str
    heading: str = ""


@dataclass(frozen=True)
class Plots:
    """Figures side by side where there is room, with one caption."""

    plots: tuple[Plot, ...]
    caption: str = ""
    kind: ClassVar[str] = "plots"


@dataclass(frozen=True)
class Column:
    """One column of a table: numbers are set flush right, sentences keep a readable width."""

    name: str
    is_number: bool = False
    is_sentence: bool = False


@dataclass(frozen=True)
class Grid:
    """A table of texts, each row with one text for each column."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    kind: ClassVar[str] = "grid"


@dataclass(frozen=True)
class Cell:
    """One number of a comparison; ``exact`` is shown on hovering, ``is_best`` sets it off from its rivals."""

    text: str
    exact: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Rival:
    """One of the compared models: what it is, its architecture, and its folder within the run (empty: none)."""

    role: str
    architecture: str
    path: str = ""


@dataclass(frozen=True)
class Metric:
    """One row of a comparison: one cell for each rival, in their order; rows of one group follow each other."""

    group: str
    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Comparison:
    """Models of one budget side by side, perhaps with a sentence about what has to be known to compare them."""

    title: str
    limits: str
    rivals: tuple[Rival, ...]
    metrics: tuple[Metric, ...]
    remark: str = ""


@dataclass(frozen=True)
class Comparisons:
    """One comparison for each budget."""

    cards: tuple[Comparison, ...]
    kind: ClassVar[str] = "comparisons"


@dataclass(frozen=True)
class Note:
    """A paragraph, usually about what is not there yet."""

    text: str
    kind: ClassVar[str] = "note"


@dataclass(frozen=True)
class Facts:
    """Names and values, such as versions."""

    facts: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Fold:
    """Long preformatted text that is folded away at first."""

    summary: str
    text: str
    kind: ClassVar[str] = "fold"


Part = Plots | Grid | Comparisons | Note | Facts | Fold


@dataclass(frozen=True)
class Section:
    """One section of the page: the id it can be linked (and cropped) by, its heading, a lead and its parts."""

    section_id: str
    title: str
    lead: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Tile:
    """One number of the headline, with what it is and what it is measured against."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True)
class Headline:
    """What was carved out of what: a sentence, the student and its numbers (none while there is no student)."""

    title: str
    sentence: str
    architecture: str = ""
    tiles: tuple[Tile, ...] = ()


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    run_id: str
    recipe: str
    headline: Headline
    sections: tuple[Section, ...]

    def plots(self) -> list[Plot]:
        """Every figure of the page, in order."""
        return [
            plot
            for section in self.sections
            for part in section.parts
            if isinstance(part, Plots)
            for plot in part.plots
        ]
