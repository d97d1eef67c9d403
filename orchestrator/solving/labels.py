"""Partial networks as rows of columns (labels), and how neighbouring parts are joined.

Shape legend: N labels, D measures, P places of a part, W widths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.errors import RunError
from orchestrator.solving.chain import Measure, Potentials
from orchestrator.solving.pairs import Counter, Keep, Numbers, matching_pairs, within
from orchestrator.solving.tables import Floats, Integers, Place

LABEL_LIMIT = 8_000_000
"""The largest number of partial networks that are held at once."""


@dataclass(frozen=True)
class Labels:
    """Partial networks over neighbouring places.

    Attributes:
        begin: number of the first place.
        end: number of the last place.
        values_DN: what each measure adds up to.
        first_N: number of the width at the first place.
        last_N: number of the width at the last place.
        rows_PN: the row at each place.
    """

    begin: int
    end: int
    values_DN: Floats
    first_N: Integers
    last_N: Integers
    rows_PN: Integers

    def __len__(self) -> int:
        return len(self.first_N)

    def select(self, chosen: Integers) -> Labels:
        """Some of the labels."""
        return Labels(
            self.begin,
            self.end,
            self.values_DN[:, chosen],
            self.first_N[chosen],
            self.last_N[chosen],
            self.rows_PN[:, chosen],
        )

    def plus(self, added_D: Floats) -> Labels:
        """The same labels with something added to each measure."""
        return Labels(self.begin, self.end, self.values_DN + added_D[:, None], self.first_N, self.last_N, self.rows_PN)


def one_place(measures: Sequence[Measure], places: Sequence[Place], number: int) -> Labels:
    """A label for each choice of a place."""
    states = places[number].states()
    values = np.stack([measure.values_PN[number] for measure in measures])
    return Labels(number, number, values, states, states, np.arange(len(states))[None])


def meeting(
    left: Labels, right: Labels, measures: Sequence[Measure], known: Sequence[Potentials], keep: Keep
) -> Iterator[tuple[Labels, Labels, Numbers, Numbers]]:
    """Pairs of neighbouring parts whose measures, with what at least goes before and after, are kept.

    Args:
        left: parts that end right before the others begin.
        right: the others.
        measures: of the columns of ``values_DN``.
        known: the least of each measure before and after each width.
        keep: judges sums of measures over whole networks.

    Yields:
        Some of the left parts (with what lies between them and the right ones added to their values), some of the right
        parts, and the numbers of those that pair.
    """
    before_DN = np.stack([one.before_PW[left.begin][left.first_N] for one in known]).reshape(len(known), -1)
    after_DN = np.stack([one.after_PW[right.end][right.last_N] for one in known]).reshape(len(known), -1)
    links_DWW = np.stack([measure.links[left.end] for measure in measures])
    rights = [np.flatnonzero(right.first_N == state) for state in range(links_DWW.shape[2])]
    for state_left in range(links_DWW.shape[1]):
        chosen = np.flatnonzero(left.last_N == state_left)
        if not len(chosen):
            continue
        some = left.select(chosen)
        for state_right, others in enumerate(rights):
            if not len(others):
                continue
            first = some.plus(links_DWW[:, state_left, state_right])
            second = right.select(others)
            first_DN = first.values_DN + before_DN[:, chosen]
            second_DN = second.values_DN + after_DN[:, others]
            for one, other in matching_pairs(list(first_DN), list(second_DN), keep):
                if len(one):
                    yield first, second, one, other


def join(
    left: Labels,
    right: Labels,
    measures: Sequence[Measure],
    known: Sequence[Potentials],
    bounds_D: Sequence[float],
    counter: Counter | None = None,
) -> Labels:
    """The parts made of two neighbouring parts that can still be completed within the bounds.

    Raises:
        RunError: there are more than :data:`LABEL_LIMIT`, or the counter has had enough.
    """
    found = []
    count = 0
    for first, second, one, other in meeting(left, right, measures, known, within(bounds_D, counter)):
        count += len(one)
        if count > LABEL_LIMIT:
            raise RunError(
                f"more than {LABEL_LIMIT:,} partial networks (LABEL_LIMIT) cannot be told apart by their bounds "
                f"(many choices with almost equal losses and costs?); tighten the limits or leave out choices"
            )
        found.append(
            Labels(
                left.begin,
                right.end,
                first.values_DN[:, one] + second.values_DN[:, other],
                first.first_N[one],
                second.last_N[other],
                np.concatenate([first.rows_PN[:, one], second.rows_PN[:, other]]),
            )
        )
    if not found:
        nothing = np.zeros(0, dtype=np.int64)
        places = right.end - left.begin + 1
        empty = np.zeros((places, 0), dtype=np.int64)
        return Labels(left.begin, right.end, np.zeros((len(measures), 0)), nothing, nothing, empty)
    return Labels(
        left.begin,
        right.end,
        np.concatenate([one.values_DN for one in found], axis=1),
        np.concatenate([one.first_N for one in found]),
        np.concatenate([one.last_N for one in found]),
        np.concatenate([one.rows_PN for one in found], axis=1),
    )
