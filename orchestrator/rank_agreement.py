"""How well a proxy ranks architectures: Kendall's tau with its uncertainty, and against what size alone tells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

RESAMPLES = 1_000
"""Bootstrap samples behind an interval."""

INTERVAL = 0.95
"""Share of the bootstrap samples within the interval."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class RankAgreement:
    """How a proxy's order agrees with the order of the results; ``None``: it cannot be told.

    Attributes:
        architectures: that both sides rank.
        tau: Kendall's tau-b: 1 the same order, 0 unrelated, -1 reversed.
        p_value: probability of a tau as far from 0 if the orders were unrelated.
        low: lower end of the 95 % bootstrap interval of tau.
        high: its upper end.
        tau_size: tau of size alone.
        beyond_size: partial tau of the proxy given the size: what it tells besides the size.
    """

    architectures: int
    tau: float | None
    p_value: float | None
    low: float | None
    high: float | None
    tau_size: float | None
    beyond_size: float | None


def rank_agreement(
    proxy: Sequence[float], errors: Sequence[float], sizes: Sequence[float], seed: int = 0
) -> RankAgreement:
    """Compare a proxy with the results.

    Args:
        proxy: less is better.
        errors: of the finished architectures, in the same order; less is better.
        sizes: their sizes; size alone would say that more is better.
        seed: of the bootstrap.
    """
    guess, truth, size = (np.asarray(values, dtype=np.float64) for values in (proxy, errors, sizes))
    value, probability = _kendall(guess, truth)
    low, high = _interval(guess, truth, seed)
    by_size, _ = _kendall(-size, truth)
    with_size, _ = _kendall(guess, -size)
    return RankAgreement(len(truth), value, probability, low, high, by_size, partial_tau(value, by_size, with_size))


def partial_tau(first_second: float | None, second_third: float | None, first_third: float | None) -> float | None:
    """Kendall's partial tau of the first two given the third; ``None`` where the third settles one of them."""
    if first_second is None or second_third is None or first_third is None:
        return None
    rest = (1 - second_third**2) * (1 - first_third**2)
    return None if rest <= 1e-12 else (first_second - second_third * first_third) / math.sqrt(rest)


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation; ``None`` where one side is constant or has fewer than three values."""
    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    return _finite(spearmanr(first, second).statistic)


def _kendall(first: Values, second: Values) -> tuple[float | None, float | None]:
    if len(first) < 2:
        return None, None
    found = kendalltau(first, second)
    return _finite(found.statistic), _finite(found.pvalue)


def _interval(guess: Values, truth: Values, seed: int) -> tuple[float | None, float | None]:
    """The percentile interval over architectures drawn with repeats."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES if len(truth) > 2 else 0):
        drawn = rng.integers(0, len(truth), len(truth))
        value = _tau(guess[drawn], truth[drawn])
        if value is not None:
            found.append(value)
    if not found:
        return None, None
    rest = (1 - INTERVAL) / 2
    low, high = np.quantile(found, [rest, 1 - rest])
    return float(low), float(high)


def _tau(first: Values, second: Values) -> float | None:
    """Tau-b by comparing all pairs: for few values much quicker than SciPy's, which also tests."""
    signs = [np.sign(values[:, None] - values[None, :]) for values in (first, second)]
    norm = math.sqrt(float(np.square(signs[0]).sum() * np.square(signs[1]).sum()))
    return float((signs[0] * signs[1]).sum()) / norm if norm else None


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def verdict(tau: float | None, low: float | None, tau_size: float | None, beyond_size: float | None) -> str:
    """What a proxy is worth, as the end of a sentence that begins with its name.

    Args:
        tau: of the proxy.
        low: lower end of its interval.
        tau_size: of size alone.
        beyond_size: the partial tau.
    """
    if tau is None:
        return "cannot be judged: all architectures came out alike"
    if low is None or low <= 0:
        return (
            "cannot be told from a random order; train the supernet longer, start it at the teacher, or score on more "
            "validation batches"
        )
    if tau_size is not None and (beyond_size is None or beyond_size < LITTLE):
        return (
            "tells hardly more than the size does: among architectures of like size, do not trust it, but try "
            "finalists (selection.finalists) or train the supernet longer"
        )
    if beyond_size is not None and beyond_size < MUCH:
        return "tells something besides the size, so that trying a few finalists is still worth it"
    return "also ranks architectures of like size, so that a search by it finds what it should"


LITTLE, MUCH = 0.2, 0.5
"""Partial taus below which a proxy sees hardly anything, and something, besides the size."""
