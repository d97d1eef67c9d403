"""The losses that a search was told, and a rough model of them.

Shape legend: S architectures.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces.architecture import Architecture
from spaces.space import SearchSpace

MODELLED = 2000
"""Losses that a model is fitted to, the newest ones; a fit to so many takes a fraction of a second."""

LEAST = 10
"""Losses below which there is no model."""

LossModel = Callable[[Sequence[Architecture]], Tensor]
"""Predicts losses_S in double precision."""


class ToldLosses:
    """Losses by architecture, in the order in which they were told.

    Args:
        space: encodes the architectures.
    """

    def __init__(self, space: SearchSpace[Any]) -> None:
        self._space = space
        self._losses: dict[Architecture, float | None] = {}
        self._codes: dict[Architecture, NDArray[np.float64]] = {}

    def add(self, architecture: Architecture, loss: float | None) -> None:
        """Take in one loss; ``None``: the evaluation failed."""
        self._losses[architecture] = loss

    def __contains__(self, architecture: object) -> bool:
        return architecture in self._losses

    def of(self, architecture: Architecture) -> float | None:
        """The loss of one that was told; ``None`` if its evaluation failed."""
        return self._losses[architecture]

    def values(self) -> list[float | None]:
        """All of them, in their order."""
        return list(self._losses.values())

    def model(self, without: Collection[Architecture]) -> LossModel | None:
        """A ridge regression of the losses on the space's encoding; ``None`` while there are too few.

        Args:
            without: architectures whose losses it is not to know.
        """
        left_out = set(without)
        known = [(one, loss) for one, loss in self._losses.items() if loss is not None and one not in left_out]
        if len(known) < LEAST:
            return None
        from sklearn.linear_model import Ridge

        architectures, losses = zip(*known[-MODELLED:], strict=True)
        ridge = Ridge(alpha=1.0).fit(self._encode(architectures), np.array(losses))
        return lambda asked: torch.from_numpy(np.asarray(ridge.predict(self._encode(asked)), dtype=np.float64))

    def _encode(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        for one in architectures:
            if one in self._losses and one not in self._codes:
                self._codes[one] = self._space.encode(one)
        codes = (self._codes[one] if one in self._codes else self._space.encode(one) for one in architectures)
        return np.stack(list(codes))
