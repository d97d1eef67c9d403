"""Whether block losses see anything: their spread within a hidden size against their noise.

Blocks of one hidden size differ in their operations alone, so that is where a ranking has to be more than noise. What
matters there is the noise of *differences*: a batch that is hard is hard for all, so its common effect is taken off
first.

Shape legend: A architectures of one block and hidden size, N validation batches (splits of them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WEAK_SIGNAL = 2.0
"""Below it, two architectures that a spread apart are ordered by chance about as often as not by merit."""

REMEDIES = "more supernet steps, another supernet.init or more validation data (tables.block_batches) would help"


@dataclass(frozen=True)
class SizeSignal:
    """What the losses of one hidden size of one block say.

    Attributes:
        hidden_size: of the architectures.
        architectures: how many were compared.
        batches: validation batches behind each loss whose noise this is.
        spread: standard deviation of the architectures' losses.
        noise: standard deviation of one architecture's loss against the others, were it measured anew; ``None`` where
            nothing could be compared.
        kendall_tau: rank correlation of two independent measurements.
        explained_by_size: share of the variance of the block's losses that lies between its hidden sizes.
    """

    hidden_size: int
    architectures: int
    batches: int
    spread: float
    noise: float | None
    kendall_tau: float | None
    explained_by_size: float | None

    @property
    def signal(self) -> float | None:
        """Spread / noise; infinite without any noise, ``None`` where it is not known or there is no spread."""
        if self.noise is None:
            return None
        if self.noise == 0.0:
            return None if self.spread == 0.0 else float("inf")
        return self.spread / self.noise

    @property
    def is_weak(self) -> bool:
        """Whether the ranking within the hidden size is mostly noise."""
        return self.signal is not None and self.signal < WEAK_SIGNAL

    def columns(self) -> dict[str, Any]:
        """The measured columns of the table ``signals``."""
        return {
            "hidden_size": self.hidden_size,
            "architectures": self.architectures,
            "batches": self.batches,
            "spread": self.spread,
            "noise": self.noise,
            "signal": self.signal,
            "kendall_tau": self.kendall_tau,
            "explained_by_size": self.explained_by_size,
        }


def signal_of_batches(losses_by_size: Mapping[int, NDArray[np.float64]], batches: int) -> list[SizeSignal]:
    """Noise from other validation batches.

    With the loss of architecture a on batch n, l(a, n) = common(n) + own(a) + rest(a, n): the variance of the rest is
    that of one batch, and a mean over ``batches`` has that divided by ``batches``.

    Args:
        losses_by_size: for each hidden size of a block, losses ``[A, N]``.
        batches: how many are behind each loss whose noise is asked for.
    """
    means = {size: losses_AN.mean(1) for size, losses_AN in losses_by_size.items()}
    explained = explained_by_group(list(means.values()))
    found = []
    for size, losses_AN in losses_by_size.items():
        count, splits = losses_AN.shape
        noise = tau = None
        if count > 1 and splits > 1:
            own_AN = losses_AN - losses_AN.mean(0)
            rest_AN = own_AN - own_AN.mean(1, keepdims=True)
            variance = float(np.square(rest_AN).sum()) / ((count - 1) * (splits - 1))
            noise = float(np.sqrt(variance / batches))
            tau = rank_correlation(losses_AN[:, 0::2].mean(1), losses_AN[:, 1::2].mean(1))
        found.append(SizeSignal(size, count, batches, _deviation(means[size]), noise, tau, explained))
    return found


def signal_of_seeds(
    first: Mapping[int, NDArray[np.float64]], second: Mapping[int, NDArray[np.float64]], batches: int
) -> list[SizeSignal]:
    """Noise from another seed: what two supernets disagree about, apart from a common difference.

    The disagreement of two runs has the noise of both, so one run's noise is its deviation divided by the root of 2.

    Args:
        first: for each hidden size of a block, losses ``[A]``.
        second: of the same architectures in the same order, by the other run.
        batches: validation batches behind each loss.
    """
    explained = explained_by_group(list(first.values()))
    found = []
    for size, own_A in first.items():
        other_A = second[size]
        noise = tau = None
        if len(own_A) > 1:
            noise = _deviation(own_A - other_A) / float(np.sqrt(2.0))
            tau = rank_correlation(own_A, other_A)
        spread = float(np.sqrt((_deviation(own_A) ** 2 + _deviation(other_A) ** 2) / 2))
        found.append(SizeSignal(size, len(own_A), batches, spread, noise, tau, explained))
    return found


def explained_by_group(groups: Sequence[NDArray[np.float64]]) -> float | None:
    """Share of all values' variance that lies between the groups' means; ``None`` if nothing varies."""
    values = np.concatenate([np.zeros(0), *groups])
    if len(values) == 0 or float(values.var()) == 0.0:
        return None
    between = sum(len(group) * (float(group.mean()) - float(values.mean())) ** 2 for group in groups)
    return float(between / (len(values) * float(values.var())))


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Kendall's tau (b); ``None`` where one of them is constant."""
    from scipy.stats import kendalltau

    tau = float(kendalltau(first, second).statistic)
    return tau if np.isfinite(tau) else None


def warnings_about(signals: Mapping[int, Sequence[SizeSignal]]) -> list[str]:
    """One plain sentence for each block whose ranking within some hidden size is mostly noise."""
    lines = []
    for block, of_sizes in sorted(signals.items()):
        weak = [one for one in of_sizes if one.is_weak]
        if weak:
            sizes = ", ".join(f"{one.hidden_size} (signal {one.signal:.1f})" for one in weak)
            lines.append(f"block {block}: the ranking within hidden size {sizes} is mostly noise; {REMEDIES}")
    return lines


def _deviation(values_A: NDArray[np.float64]) -> float:
    return float(values_A.std(ddof=1)) if len(values_A) > 1 else 0.0
