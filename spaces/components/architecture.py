"""Architectures of components as values, and their text form.

A layer is written ``H1-4,7>8-12.Q1-2.M/F1-6.M``. In front of the slash stands attention: its heads 1 to 4 and 7 beside
each other, then 8 to 12 on what those have added (``>``); queries and keys keep the slices 1 and 2 of the head size
(``.Q``; without it attention is the mean of all tokens), and the LayerNorm behind it subtracts the mean (``.M``;
without it, it does not). Behind the slash stands the feed-forward with its slices. What is absent is left out:
``H1-12.Q1.M`` and ``F1-8.M`` are layers of attention or a feed-forward alone, ``0`` is a layer that has vanished.
Layers stand between ``|``, from the first to the last. Texts are read by :mod:`spaces.components.text`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spaces.architecture import Architecture
from spaces.components.sublayers import SublayerChoice

ATTENTION, FEED_FORWARD = "H", "F"
"""The letters that begin a sublayer's text."""
ABSENT = "0"
"""What is written where nothing is left."""


@dataclass(frozen=True)
class LayerChoice:
    """What one layer of the teacher is made of; either half may be absent, or both."""

    attention: SublayerChoice = SublayerChoice()  # noqa: RUF009 - frozen
    feed_forward: SublayerChoice = SublayerChoice()  # noqa: RUF009 - frozen

    def __str__(self) -> str:
        halves = (sublayer_text(ATTENTION, self.attention), sublayer_text(FEED_FORWARD, self.feed_forward))
        return "/".join(half for half in halves if half != ABSENT) or ABSENT

    @property
    def sublayers(self) -> tuple[SublayerChoice, SublayerChoice]:
        """Attention, then feed-forward."""
        return self.attention, self.feed_forward


@dataclass(frozen=True)
class ComponentsArchitecture(Architecture):
    """A whole encoder: what is left of each of the teacher's layers, from the first to the last."""

    layers: tuple[LayerChoice, ...]

    def __str__(self) -> str:
        return "|".join(map(str, self.layers))

    @classmethod
    def of_sublayers(cls, sublayers: Sequence[SublayerChoice]) -> ComponentsArchitecture:
        """The inverse of :attr:`sublayers`."""
        pairs = zip(sublayers[::2], sublayers[1::2], strict=True)
        return cls(tuple(LayerChoice(*pair) for pair in pairs))

    @property
    def sublayers(self) -> tuple[SublayerChoice, ...]:
        """Attention and feed-forward of every layer in turn, absent ones included."""
        return tuple(sublayer for layer in self.layers for sublayer in layer.sublayers)

    @property
    def is_empty(self) -> bool:
        """Whether all layers have vanished."""
        return all(sublayer.is_absent for sublayer in self.sublayers)


def sublayer_text(letter: str, choice: SublayerChoice) -> str:
    """The text of a sublayer, :data:`ABSENT` where nothing is left of it."""
    if choice.is_absent:
        return ABSENT
    parts = [letter + ">".join(map(_ranges, choice.stages))]
    if choice.query_key:
        parts.append(f"Q{_ranges(choice.query_key)}")
    if choice.mean:
        parts.append("M")
    return ".".join(parts)


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers from 0 as a person reads them, from 1: 0, 1, 2, 5 as ``1-3,6``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0] + 1) if len(run) == 1 else f"{run[0] + 1}-{run[-1] + 1}" for run in runs)
