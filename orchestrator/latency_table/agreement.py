"""How well predicted latencies agree with measured ones: size of the errors, their sign, and the order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Agreement:
    """Predicted against measured latencies.

    Attributes:
        mape: mean absolute percentage error as a fraction: the mean of |predicted - measured| / measured.
        bias: mean of (predicted - measured) / measured; positive where the prediction is too slow.
        kendall_tau: tau-b of the two orders: 1 the same, 0 unrelated, -1 reversed; NaN where one side is constant.
        architectures: compared.
    """

    mape: float
    bias: float
    kendall_tau: float
    architectures: int


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
    return Agreement(float(np.mean(np.abs(errors))), float(np.mean(errors)), _kendall_tau(guess, truth), len(truth))


def _kendall_tau(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Kendall's tau-b over all pairs."""
    signs = [np.sign(values[:, None] - values[None, :]) for values in (first, second)]
    norms = float(np.sqrt(np.sum(signs[0] ** 2) * np.sum(signs[1] ** 2)))
    return float(np.sum(signs[0] * signs[1])) / norms if norms else float("nan")
