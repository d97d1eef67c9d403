"""What fits to whole networks have in common: what is held out, and how much a disturbed network counts.

Only numpy is needed here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FOLDS = 5
_HUBER = 1.345
"""Residuals beyond this many standard deviations count less: 95 % as efficient as least squares on normal noise."""


def folds_by_size(measured: NDArray[np.float64]) -> list[NDArray[np.bool_]]:
    """Masks of the networks that each fold holds out; every fold has networks of all sizes.

    Args:
        measured: milliseconds of each network, [networks].
    """
    count = min(FOLDS, len(measured))
    place = np.empty(len(measured), dtype=np.int64)
    place[np.argsort(measured, kind="stable")] = np.arange(len(measured))
    return [place % count == fold for fold in range(count)]


def huber_weights(residuals: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """How much each network counts in the next round of a robust fit; ``None`` where the fit is exact.

    Args:
        residuals: of the round before, [networks]; their sign does not matter.
    """
    sizes = np.abs(residuals)
    limit = _HUBER * 1.4826 * float(np.median(sizes))
    return None if limit <= 1e-12 else np.minimum(1.0, limit / np.maximum(sizes, 1e-300))
