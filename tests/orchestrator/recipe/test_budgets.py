from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.recipe.budgets import Size, parse_latency_ms, parse_size

PERCENTS = st.decimals(min_value="0.001", max_value=100, places=3)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("50%", Size(percent=Decimal(50))),
        ("12.5 %", Size(percent=Decimal("12.5"))),
        ("5M", Size(count=5_000_000)),
        ("1.5k", Size(count=1_500)),
        ("500K", Size(count=500_000)),
        ("0.5m", Size(count=500_000)),
        ("1G", Size(count=10**9)),
        ("0.11B", Size(count=110_000_000)),
        (5_000_000, Size(count=5_000_000)),
        (5e6, Size(count=5_000_000)),
        ("5e6", Size(count=5_000_000)),
        (1, Size(count=1)),
        (Size(count=7), Size(count=7)),
    ],
)
def test_sizes_are_read_as_people_write_them(written, expected):
    assert parse_size(written) == expected


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("0%", "above 0%"),
        ("100.1%", "at most 100%"),
        ("-5%", "'-5%'"),
        ("1.2345k", "whole number"),
        (0, "at least 1"),
        (-3, "-3"),
        (0.5, "did you mean 50%?"),
        ("half", "'half'"),
        ("5 MB", "'5 MB'"),
        ("", "''"),
        ("nan", "'nan'"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ("9e99", "10^15"),
        (True, "true"),
        ([5], "a list"),
        (None, "nothing"),
    ],
)
def test_a_wrong_size_names_what_was_found(written, names):
    with pytest.raises(ValueError) as caught:
        parse_size(written)
    message = str(caught.value)
    assert message.startswith("found ")
    assert names in message
    assert "expected" in message
    assert "\n" not in message


@given(st.one_of(st.integers(1, 10**15).map(lambda n: Size(count=n)), PERCENTS.map(lambda p: parse_size(f"{p}%"))))
def test_every_size_is_read_back_from_its_canonical_form(size):
    assert parse_size(size.as_value()) == size
    assert parse_size(str(size)) == size


@given(PERCENTS, st.integers(1, 10**10))
def test_a_share_is_the_largest_number_that_does_not_exceed_it(percent, teacher):
    limit = parse_size(f"{percent}%").resolve(teacher)
    assert limit * 100 <= percent * teacher < (limit + 1) * 100


@given(st.integers(1, 999_999), st.sampled_from([("k", 10**3), ("M", 10**6), ("G", 10**9)]))
def test_units_multiply(number, unit):
    assert parse_size(f"{number}{unit[0]}").resolve(1) == number * unit[1]


def test_a_size_is_either_a_share_or_a_number():
    with pytest.raises(ValueError, match="either"):
        Size()
    with pytest.raises(ValueError, match="either"):
        Size(percent=Decimal(1), count=1)


@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [("4ms", 4.0), ("4 ms", 4.0), (4, 4.0), (0.25, 0.25), ("0.5s", 500.0), ("800us", 0.8), ("800µs", 0.8), ("4", 4.0)],
)
def test_latencies_are_read_as_people_write_them(written, milliseconds):
    assert parse_latency_ms(written) == milliseconds


@pytest.mark.parametrize("written", ["0ms", 0, -1, "4 minutes", "fast", "", True, None, [4], "1e50s", float("nan")])
def test_a_wrong_latency_names_what_was_found(written):
    with pytest.raises(ValueError, match=r"^found .*, expected milliseconds above 0"):
        parse_latency_ms(written)


@given(st.floats(min_value=1e-3, max_value=1e8))
def test_latency_round_trip(milliseconds):
    assert parse_latency_ms(parse_latency_ms(milliseconds)) == milliseconds
