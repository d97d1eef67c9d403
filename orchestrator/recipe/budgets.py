"""How people write limits: sizes such as ``50%``, ``5M`` or ``1.5k``, and latencies such as ``4ms``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_NUMBER = r"(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?)"
_PERCENT = re.compile(rf"{_NUMBER}\s*%")
_COUNT = re.compile(rf"{_NUMBER}\s*(?P<unit>[kKmMgGbB]?)")
_LATENCY = re.compile(rf"{_NUMBER}\s*(?P<unit>us|µs|ms|s)?")
_COUNT_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_MILLISECONDS = {"us": Decimal("0.001"), "µs": Decimal("0.001"), "ms": Decimal(1), "s": Decimal(1000)}
_LARGEST_COUNT = 10**15
_LONGEST_MILLISECONDS = 10**9

SIZE_FORMS = "a share of the teacher's encoder such as 50%, or a number of weights such as 5M, 500k or 5000000"
FLOPS_FORMS = "a number of operations such as 800M, 2.3G or 800000000"
LATENCY_FORMS = "milliseconds above 0, such as 4, 4ms or 0.5s"


@dataclass(frozen=True)
class Size:
    """A limit on weights: either a share of the teacher's encoder, or a number.

    Attributes:
        percent: share of the teacher's encoder, above 0 and at most 100; ``None`` when ``count`` is given.
        count: number of weights, at least 1; ``None`` when ``percent`` is given.
    """

    percent: Decimal | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if (self.percent is None) == (self.count is None):
            raise ValueError("a size is either a share or a number")

    def resolve(self, teacher_encoder_parameters: int) -> int:
        """The limit as a number of weights, rounded down so that a share is never exceeded."""
        if self.count is not None:
            return self.count
        assert self.percent is not None
        return int(self.percent * teacher_encoder_parameters / 100)

    def as_value(self) -> int | str:
        """The canonical form for YAML and JSON: ``'12.5%'`` or ``5000000``; :func:`parse_size` reads it back."""
        if self.count is not None:
            return self.count
        assert self.percent is not None
        return f"{_plain(self.percent)}%"

    def __str__(self) -> str:
        return str(self.as_value())


def parse_size(value: Any) -> Size:
    """Read a size as people write it.

    Args:
        value: a :class:`Size`, a whole number, or text: ``50%``, ``5M``, ``1.5k``, ``5000000`` (units k, M, G; B = G).

    Raises:
        ValueError: anything else; the message says what was found and what was expected.
    """
    if isinstance(value, Size):
        return value
    text = _as_text(value, SIZE_FORMS)
    if match := _PERCENT.fullmatch(text):
        percent = Decimal(match["number"])
        if not 0 < percent <= 100:
            raise ValueError(f"found {text}, expected a share above 0% and at most 100%")
        return Size(percent=percent.normalize())
    match = _COUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"found {value!r}, expected {SIZE_FORMS}")
    count = Decimal(match["number"]) * _COUNT_UNITS[match["unit"].lower()]
    if 0 < count < 1:
        raise ValueError(f"found {text}, expected {SIZE_FORMS}; did you mean {_plain(count * 100)}%?")
    if not 1 <= count <= _LARGEST_COUNT or count != count.to_integral_value():
        raise ValueError(f"found {text}, expected a whole number of weights, at least 1 and at most 10^15")
    return Size(count=int(count))


def parse_flops(value: Any) -> int:
    """Read a number of floating-point operations as people write it.

    Args:
        value: a whole number, or text with an optional unit: ``800M``, ``2.3G``.

    Raises:
        ValueError: anything else, a share among it; the message says what was found and what was expected.
    """
    try:
        count = parse_size(value).count
    except ValueError:
        count = None
    if count is None:
        raise ValueError(f"found {_shown(value)}, expected {FLOPS_FORMS}")
    return count


def parse_latency_ms(value: Any) -> float:
    """Read a latency as people write it, in milliseconds.

    Args:
        value: a number (milliseconds), or text with an optional unit: ``4``, ``4ms``, ``0.5s``, ``800us``.

    Raises:
        ValueError: anything else; the message says what was found and what was expected.
    """
    text = _as_text(value, LATENCY_FORMS)
    match = _LATENCY.fullmatch(text)
    if match is None:
        raise ValueError(f"found {value!r}, expected {LATENCY_FORMS}")
    milliseconds = Decimal(match["number"]) * _MILLISECONDS[match["unit"] or "ms"]
    if not 0 < milliseconds <= _LONGEST_MILLISECONDS:
        raise ValueError(f"found {text}, expected {LATENCY_FORMS}")
    return float(milliseconds)


def _as_text(value: Any, expected: str) -> str:
    """Numbers and text as text; anything else is not a limit."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"found {_shown(value)}, expected {expected}")
    return str(value).strip()


def _shown(value: Any) -> str:
    """A value as a message names it."""
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return str(value)
    names = {dict: "a section", list: "a list", type(None): "nothing"}
    return str(value).lower() if isinstance(value, bool) else names.get(type(value), type(value).__name__)


def _plain(number: Decimal) -> str:
    """A decimal without exponent or trailing zeros: ``50``, ``12.5``."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
