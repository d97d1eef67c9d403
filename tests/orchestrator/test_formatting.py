"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import formatting as f


@given(st.floats(1e-12, 1e12), st.integers(1, 6), st.sampled_from([1, -1]))
def test_significant_digits_keep_the_value(size: float, digits: int, sign: int) -> None:
    text = f.significant(sign * size, digits)
    assert float(text.replace(",", "")) == pytest.approx(sign * size, rel=0.5000001 * 10 ** (1 - digits))


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.051234, 3, "0.0512"), (3.14159, 3, "3.14"), (9.996, 3, "10.0"), (128.4, 3, "128"), (0.0, 3, "0")],
)
def test_significant_digits(value: float, digits: int, text: str) -> None:
    assert f.significant(value, digits) == text


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (f.count(812), "812"),
        (f.count(9_999), "9,999"),
        (f.count(5_321_987), "5.32 M"),
        (f.count(999_960), "1.00 M"),
        (f.file_size(42_600_000), "42.6 MB"),
        (f.file_size(12), "12 B"),
        (f.milliseconds(3.14159), "3.14 ms"),
        (f.seconds(0.4204), "0.420 s"),
        (f.seconds(59.7), "1 min 00 s"),
        (f.seconds(245), "4 min 05 s"),
        (f.seconds(7_380), "2 h 03 min"),
        (f.percent(0.4981), "49.8 %"),
        (f.times(1.94), "1.94×"),
        (f.similarity(0.91324), "0.9132"),
        (f.signed_similarity(0.0312), "+0.0312"),
        (f.signed_similarity(-0.004), "−0.0040"),
        (f.plural(1, "student"), "1 student"),
        (f.plural(3, "batch", "batches"), "3 batches"),
    ],
)
def test_units(shown: str, text: str) -> None:
    assert shown.replace(f.NBSP, " ") == text


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
@pytest.mark.parametrize(
    "show",
    [
        f.significant,
        f.count,
        f.file_size,
        f.milliseconds,
        f.seconds,
        f.percent,
        f.times,
        f.similarity,
        f.signed_similarity,
    ],
)
def test_what_was_not_measured_is_a_dash(show, value) -> None:
    assert show(value) == f.NOTHING


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("encoder_parameters", 5_320_000, "encoder parameters 5.32 M"),
        ("flops", 812, "FLOPs 812"),
        ("latency_ms", 3.5, "latency 3.50 ms"),
    ],
)
def test_costs_have_names_and_units_of_people(name, value, words):
    assert f"{f.resource_name(name)} {f.resource(name, value)}".replace(f.NBSP, " ") == words


@given(st.floats(1e-6, 1e15), st.integers(1, 6))
def test_what_is_rounded_up_is_little_more_and_never_less(value, digits):
    found = f.rounded_up(value, digits)
    assert value * (1 - 1e-8) <= found <= value * (1 + 10.0 ** (1 - digits)) + 1e-12
    assert f.rounded_up(4.5, 3) == 4.5
