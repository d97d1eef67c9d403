"""How well predicted latencies agree with measured ones: size of the errors, their sign, and the order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEWEST_RANKED = 3
"""With fewer, a rank correlation says nothing."""


@dataclass(frozen=True)
class Agreement:
    """Predicted against measured latencies.

    Attributes:
        mape: mean absolute percentage error as a fraction: the mean of |predicted - measured| / measured.
        bias: mean of (predicted - measured) / measured; positive where the prediction is too slow.
        kendall_tau: tau-b of the two orders: 1 the same, 0 unrelated, -1 reversed; NaN where one side is constant.
        architectures: compared.
        median_error: median of |predicted - measured| / measured.
        r_squared: the share of the variance of measured milliseconds that the prediction explains: 1 all of it, 0 no
            more than their mean does; NaN where they are all alike.
        spearman: Spearman's rank correlation; NaN where one side is constant, or with fewer than three.
    """

    mape: float
    bias: float
    kendall_tau: float
    architectures: int
    median_error: float
    r_squared: float
    spearman: float

    def to_json(self) -> dict[str, Any]:
        """Plain values that :meth:`from_json` reads back; what is not a number is ``None``."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Agreement:
        """Read what :meth:`to_json` gave."""
        read: dict[str, Any] = {name: math.nan if one is None else one for name, one in value.items()}
        return cls(**read)


def agreement(predicted: Sequence[float], measured: Sequence[float]) -> Agreement:
    """Compare predictions with measurements.

    Args:
        predicted: milliseconds.
        measured: milliseconds of the same architectures, positive.

    Raises:
        ValueError: the two have different lengths, or there are fewer than two.
    """
    if len(predicted) != len(measured) or len(measured) < 2:
        raise ValueError(
            f"{len(predicted)} predictions of {len(measured)} measurements, expected equally many, 2 or more"
        )
    guess, truth = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    errors = (guess - truth) / truth
    return Agreement(
        mape=float(np.mean(np.abs(errors))),
        bias=float(np.mean(errors)),
        kendall_tau=_kendall_tau(guess, truth),
        architectures=len(truth),
        median_error=float(np.median(np.abs(errors))),
        r_squared=_r_squared(guess, truth),
        spearman=_spearman(guess, truth),
    )


def _r_squared(guess: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """The coefficient of determination."""
    variation = float(np.sum((truth - np.mean(truth)) ** 2))
    return 1 - float(np.sum((truth - guess) ** 2)) / variation if variation else math.nan


def _kendall_tau(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Kendall's tau-b over all pairs."""
    signs = [np.sign(values[:, None] - values[None, :]) for values in (first, second)]
    norms = float(np.sqrt(np.sum(signs[0] ** 2) * np.sum(signs[1] ** 2)))
    return float(np.sum(signs[0] * signs[1])) / norms if norms else float("nan")


def _spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's rho: the correlation of ranks, those of equal values shared. By numpy alone, as tables are made."""
    if len(first) < _FEWEST_RANKED or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks
