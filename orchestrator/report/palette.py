"""The report's colours: told apart by colour-blind readers, each with a partner for dark screens.

Figures are drawn in the light colours. The page's script exchanges every colour of :data:`DARK` for its partner when
the reader prefers a dark page, so figures need to be stored once only.
"""

from __future__ import annotations

from collections.abc import Sequence

INK = "#22262b"
MUTED = "#626b75"
GRID = "#e6e3dc"
PAPER = "#fffefb"
"""What markers are outlined with, so that overlapping ones stay apart."""

HALO = f"0 0 2px {PAPER}, 0 0 4px {PAPER}"
"""A shadow that keeps a text readable on top of markers."""

ACCENT = "#c8501e"
"""Winners, on the whole page."""

CATEGORIES = ("#0b6fb3", "#0a8f6c", "#a8568f", "#b98300", "#4aa3d8", "#7a7f87")
"""Strategies, budgets, blocks: Okabe and Ito's hues but the accent's, darkened until they read as lines on paper."""

SEQUENCE = ("#86c79b", "#48b0a6", "#2a88a8", "#2b5f97", "#33336f")
"""Ordered things, from little to much: lightness falls evenly, so that it reads without hue as well."""

DARK = {
    INK: "#e8e6e1",
    MUTED: "#a1a7ae",
    GRID: "#33373c",
    PAPER: "#1b1d20",
    HALO: "0 0 2px #1b1d20, 0 0 4px #1b1d20",
    ACCENT: "#ff8a57",
    "#0b6fb3": "#5cb0ee",
    "#0a8f6c": "#2fc79b",
    "#a8568f": "#e196c6",
    "#b98300": "#edb93f",
    "#4aa3d8": "#9bd4f7",
    "#7a7f87": "#b4bac2",
    "#86c79b": "#5268bb",
    "#48b0a6": "#3f87bd",
    "#2a88a8": "#43aab3",
    "#2b5f97": "#7fd0b0",
    "#33336f": "#e3f3b0",
}
"""Each light colour's partner on a dark page."""


def category(index: int) -> str:
    """The colour of the ``index``-th category, from 0; after the last one the colours begin again."""
    return CATEGORIES[index % len(CATEGORIES)]


def colour_scale() -> list[tuple[float, str]]:
    """:data:`SEQUENCE` as a plotly colour scale."""
    return [(index / (len(SEQUENCE) - 1), colour) for index, colour in enumerate(SEQUENCE)]


def steps(count: int) -> Sequence[str]:
    """Colours for ``count`` ordered steps: spread over :data:`SEQUENCE`, neighbours sharing one if there are too many.

    Mixed colours would have no partner in :data:`DARK`, so none are mixed.
    """
    if count <= 1:
        return [SEQUENCE[len(SEQUENCE) // 2]] * count
    if count > len(SEQUENCE):
        return [SEQUENCE[index * len(SEQUENCE) // count] for index in range(count)]
    return [SEQUENCE[round(index * (len(SEQUENCE) - 1) / (count - 1))] for index in range(count)]
