"""Numbers as people read them: a few digits, a unit, and a word where there is nothing to show."""

from __future__ import annotations

import math

NOTHING = "–"
"""What stands in the place of a number that was not measured."""

NBSP = "\u00a0"
"""Keeps a number and its unit on one line."""

TYING = {
    True: "input and output embeddings tied",
    False: "input and output embeddings untied",
    None: "no output embeddings",
}
"""Words for what models predict tokens by: the table they look them up in, one of its own, or nothing."""

_COUNT_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTE_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_PLAIN_COUNT = 10_000


def _missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def significant(value: float | None, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits and no exponent, where its size allows: 0.0512, 3.14, 128."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if not -5 <= magnitude <= 8:
        return f"{value:.{digits - 1}e}"
    decimals = max(digits - 1 - magnitude, 0)
    text = f"{value:,.{decimals}f}"
    # 9.996 has one digit before the point but rounds to two: 10.00 would claim a digit too many.
    if decimals and math.floor(math.log10(abs(float(text.replace(",", ""))))) > magnitude:
        text = f"{value:,.{decimals - 1}f}"
    return text


def count(value: float | None) -> str:
    """A number of things: 812, 5.32 M, 1.10 G."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if abs(value) < _PLAIN_COUNT:
        return f"{value:,.0f}"
    return _scaled(value, _COUNT_UNITS)


def file_size(value: float | None) -> str:
    """Bytes in decimal units: 42.6 MB."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return _scaled(value, _BYTE_UNITS) if abs(value) >= 1e3 else f"{value:.0f}{NBSP}B"


def resource_name(name: str) -> str:
    """What people call a cost of the tables: FLOPs, latency."""
    return {"flops": "FLOPs", "latency_ms": "latency"}.get(name, name.replace("_", " "))


def resource(name: str, value: float | None) -> str:
    """An amount of a cost of the tables, with its unit: 5.32 M, 3.14 ms."""
    return milliseconds(value) if name == "latency_ms" else count(value)


def rounded_up(value: float, digits: int = 3) -> float:
    """The next number of so many significant digits that is not smaller: what a limit may safely be raised to."""
    if value <= 0 or not math.isfinite(value):
        return value
    step = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    # What has only so many digits already is itself, whatever floats make of the quotient.
    return round(math.ceil(value / step - 1e-11) * step, 12)


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    for factor, unit in units:
        # What rounds up to 1,000 of a unit belongs to the next larger one.
        if abs(value) >= factor * 0.9995:
            return f"{significant(value / factor)}{NBSP}{unit}"
    raise AssertionError(f"{value} is below the smallest unit")


def milliseconds(value: float | None, digits: int = 3) -> str:
    """A latency: 3.14 ms."""
    return NOTHING if _missing(value) else f"{significant(value, digits)}{NBSP}ms"


def seconds(value: float | None) -> str:
    """A duration: 0.42 s, 12.3 s, 4 min 05 s, 2 h 03 min."""
    if value is None or not math.isfinite(value):
        return NOTHING
    whole = round(value)
    if whole < 60:
        return f"{significant(value)}{NBSP}s"
    if whole < 3600:
        return f"{whole // 60}{NBSP}min {whole % 60:02d}{NBSP}s"
    return f"{whole // 3600}{NBSP}h {whole % 3600 // 60:02d}{NBSP}min"


def percent(share: float | None) -> str:
    """A share of one as a percentage: 49.8 %, 7.25 %."""
    return NOTHING if share is None or _missing(share) else f"{significant(100 * share)}{NBSP}%"


def times(value: float | None) -> str:
    """A factor: 1.94×."""
    return NOTHING if _missing(value) else f"{significant(value)}×"


def similarity(value: float | None) -> str:
    """A cosine similarity or a correlation, with four digits behind the point: 0.9132."""
    return NOTHING if _missing(value) else f"{value:.4f}"


def signed_similarity(value: float | None) -> str:
    """A difference of similarities, with its sign: +0.0312, −0.0040."""
    return NOTHING if _missing(value) else f"{value:+.4f}".replace("-", "−")


def plural(number: int, noun: str, plural_noun: str = "") -> str:
    """A counted noun: 1 student, 3 students, 12.5 k candidates."""
    return f"{count(number)} {noun if number == 1 else plural_noun or noun + 's'}"
