"""Which candidates of a budget are worth a trial: good by the search's loss, and not all alike.

The loss of an untuned supernet is a rough guess, and neighbours share its errors: ten near-equal architectures would be
one guess tried ten times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SMALLEST_SHARE = 0.5
"""The slices of sizes reach from this share of the largest candidate's size to all of it."""


@dataclass(frozen=True)
class Candidate:
    """An architecture that a search has scored.

    Attributes:
        arch_id: short hash of the architecture.
        text: its canonical text.
        size: weights behind the embeddings.
    """

    arch_id: str
    text: str
    size: int


def finalists(
    ranked: Sequence[Candidate], count: int, diversity: str, least_distance: int, regular: Sequence[str] = ()
) -> list[Candidate]:
    """Choose who is tried.

    Args:
        ranked: all candidates of a budget, the best first.
        count: how many are wanted; fewer come back only if there are no more candidates.
        diversity: ``distance``, ``size`` or ``none``, as the recipe's key ``selection.diversity`` explains.
        least_distance: edits between any two finalists, for ``distance``; halved as often as it takes to find enough.
        regular: ids of the regular Transformers that the search started at; the best of them is a finalist, in the
            place of the last if it is not among them.

    Returns:
        The finalists in the order of ``ranked``, the first of ``ranked`` always among them.
    """
    choose = {"distance": _far_apart(least_distance), "size": _of_all_sizes, "none": _best}[diversity]
    chosen = choose(ranked, count)
    for candidate in ranked:
        if len(chosen) >= count:
            break
        if candidate not in chosen:
            chosen.append(candidate)
    known = set(regular)
    best_regular = next((candidate for candidate in ranked if candidate.arch_id in known), None)
    if best_regular is not None and best_regular not in chosen and count > 1:
        places = {candidate.arch_id: place for place, candidate in enumerate(ranked)}
        chosen = sorted(chosen, key=lambda candidate: places[candidate.arch_id])[: count - 1]
        chosen.append(best_regular)
    return [candidate for candidate in ranked if candidate in chosen]


def _best(ranked: Sequence[Candidate], count: int) -> list[Candidate]:
    return list(ranked[:count])


def _far_apart(least_distance: int) -> Callable[[Sequence[Candidate], int], list[Candidate]]:
    def choose(ranked: Sequence[Candidate], count: int) -> list[Candidate]:
        chosen: list[Candidate] = []
        distance = least_distance
        while distance > 0 and len(chosen) < min(count, len(ranked)):
            for candidate in ranked:
                if len(chosen) < count and all(edits(candidate.text, one.text) >= distance for one in chosen):
                    chosen.append(candidate)
            distance //= 2
        return chosen

    return choose


def _of_all_sizes(ranked: Sequence[Candidate], count: int) -> list[Candidate]:
    """The best overall, then the best of each slice of sizes that has none yet."""
    largest = max((candidate.size for candidate in ranked), default=0)
    chosen: dict[int, Candidate] = {}
    for candidate in ranked:
        share = candidate.size / largest if largest else 1.0
        place = int((share - SMALLEST_SHARE) / (1 - SMALLEST_SHARE) * count)
        if place >= 0:
            chosen.setdefault(min(place, count - 1), candidate)
    first = [ranked[0]] if ranked and ranked[0] not in chosen.values() else []
    return [*first, *chosen.values()][:count]


def edits(first: str, second: str) -> int:
    """The least number of words to change, add or remove that makes one architecture's text the other's.

    A word is an operation, a width or an embedding size; ends of blocks count as words as well.
    """
    words, others = _words(first), _words(second)
    row = list(range(len(others) + 1))
    for place, word in enumerate(words, start=1):
        diagonal, row[0] = row[0], place
        for column, other in enumerate(others, start=1):
            kept = diagonal + (word != other)
            diagonal, row[column] = row[column], min(kept, row[column] + 1, row[column - 1] + 1)
    return row[-1]


def _words(text: str) -> list[str]:
    return re.findall(r"\||[^|:\s-]+", text)
