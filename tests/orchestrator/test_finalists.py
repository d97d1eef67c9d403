from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.finalists import Candidate, edits, finalists

OPERATIONS = ("M", "F", "F2", "S3", "S5")


def candidates(*texts: str, sizes: Sequence[int] = ()) -> list[Candidate]:
    return [Candidate(f"id{place}", text, sizes[place] if sizes else 100) for place, text in enumerate(texts)]


def texts(chosen: Sequence[Candidate]) -> list[str]:
    return [candidate.text for candidate in chosen]


TEXTS = st.lists(
    st.builds(
        lambda size, names: f"{size}:{'-'.join(names)}",
        st.sampled_from((64, 128)),
        st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=3,
).map(lambda blocks: "E64|" + "|".join(blocks))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("E64|128:M-F", "E64|128:M-F", 0),
        ("E64|128:M-F", "E64|192:M-F", 1),  # a width
        ("E64|128:M-F", "E64|128:S3-M-F", 1),  # one operation more, not three moved
        ("E64|128:M-F", "E32|128:F", 2),
        ("E64|128:M|128:F", "E64|128:M-F", 2),  # one border and one width less
    ],
)
def test_edits_count_words_of_the_text(first: str, second: str, expected: int) -> None:
    assert edits(first, second) == edits(second, first) == expected


@given(TEXTS, TEXTS, TEXTS)
def test_edits_are_a_distance(first: str, second: str, third: str) -> None:
    assert (edits(first, second) == 0) == (first == second)
    assert edits(first, third) <= edits(first, second) + edits(second, third)


def test_near_equals_of_the_best_are_passed_over() -> None:
    ranked = candidates("128:M-F-M-F", "128:M-F-M-S3", "128:M-F-M-S5", "64:S3-S3", "64:S5-S3")
    assert texts(finalists(ranked, 2, "distance", 3)) == ["128:M-F-M-F", "64:S3-S3"]
    assert texts(finalists(ranked, 2, "none", 3)) == ["128:M-F-M-F", "128:M-F-M-S3"]


def test_a_smaller_distance_will_do_where_there_are_too_few() -> None:
    ranked = candidates("64:M", "64:M-F", "64:M-F-S3", "64:M-F-S3-S5")
    assert texts(finalists(ranked, 3, "distance", 2)) == ["64:M", "64:M-F", "64:M-F-S3"]


def test_sizes_give_the_best_of_each_slice() -> None:
    ranked = candidates("a", "b", "c", "d", "e", sizes=[100, 95, 70, 60, 20])
    assert texts(finalists(ranked, 2, "size", 0)) == ["a", "c"]
    assert texts(finalists(ranked, 4, "size", 0)) == ["a", "b", "c", "d"]  # one slice is empty: the next best


def test_the_best_regular_transformer_takes_the_last_place() -> None:
    ranked = candidates("64:M", "64:F", "64:S3", "64:M-F", "64:F-M")
    chosen = finalists(ranked, 2, "none", 0, regular=["id4", "id3", "unknown"])
    assert texts(chosen) == ["64:M", "64:M-F"]
    assert texts(finalists(ranked, 2, "none", 0, regular=["id1"])) == ["64:M", "64:F"]
    assert texts(finalists(ranked, 1, "none", 0, regular=["id4"])) == ["64:M"]


@given(
    st.lists(TEXTS, min_size=1, max_size=12, unique=True),
    st.integers(1, 8),
    st.sampled_from(("distance", "size", "none")),
    st.integers(0, 5),
    st.lists(st.integers(0, 11), max_size=2),
    st.randoms(use_true_random=False),
)
def test_as_many_as_wanted_the_best_always_among_them(
    found: list[str], count: int, diversity: str, distance: int, regular: list[int], rng: random.Random
) -> None:
    sizes = [rng.randint(1, 100) for _ in found]
    ranked = candidates(*found, sizes=sizes)
    chosen = finalists(ranked, count, diversity, distance, [f"id{place}" for place in regular])
    assert len(chosen) == len(set(chosen)) == min(count, len(ranked))
    assert chosen[0] == ranked[0]
    assert chosen == [one for one in ranked if one in chosen]
