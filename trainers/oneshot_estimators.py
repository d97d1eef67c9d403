"""Learning a distribution from what the architectures that were drawn from it have lost (paper notes, section 6).

Shape legend: S paths.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spaces.sampling_distribution import SamplingDistribution


@dataclass(frozen=True)
class DrawnPath:
    """An architecture that was drawn and run.

    Attributes:
        architecture: which.
        advantage: its loss less the mean loss of the others of its step.
        log_probability: of its being drawn when it was.
    """

    architecture: Any
    advantage: float
    log_probability: float


@torch.no_grad()
def compared_paths(
    distribution: SamplingDistribution[Any],
    architectures: Sequence[Any],
    losses_S: Tensor,
    log_probabilities: Sequence[float] | None = None,
) -> list[DrawnPath]:
    """The paths of a step, each with the others' mean as its baseline, which does not depend on what it is itself.

    Args:
        distribution: they were drawn from.
        architectures: two or more.
        losses_S: theirs.
        log_probabilities: of each when it was drawn, where the distribution has learned since; by default they are
            what it says now.
    """
    count = len(architectures)
    advantages = (losses_S.double() - losses_S.double().mean()) * count / (count - 1)
    if log_probabilities is None:
        log_probabilities = distribution.log_probability(architectures).tolist()
    rows = zip(architectures, advantages.tolist(), log_probabilities, strict=True)
    return [DrawnPath(*row) for row in rows]


def score_loss(
    distribution: SamplingDistribution[Any], paths: Sequence[DrawnPath], weight_limits: tuple[float, float]
) -> Tensor:
    """A scalar whose gradient estimates that of the expected loss: the mean of ``weight * advantage * log p``.

    For paths that were drawn just now all weights are 1, and it is the score function with a leave-one-out baseline,
    which has no bias. Older ones count by how much likelier they have become; as far as their weights are within the
    limits, that has none either, but for what the supernet has learned in between.

    Args:
        distribution: as it is now.
        paths: drawn from it, now or earlier.
        weight_limits: where weights are cut off.
    """
    found_S = distribution.log_probability([path.architecture for path in paths])
    before_S, advantages_S = (
        torch.tensor([getattr(path, name) for path in paths], dtype=torch.float64, device=found_S.device)
        for name in ("log_probability", "advantage")
    )
    weights_S = (found_S.detach() - before_S).exp().clamp(*weight_limits)
    return (weights_S * advantages_S * found_S).mean()


class PathMemory:
    """The paths of the last steps.

    Args:
        steps: how many of them.
    """

    def __init__(self, steps: int) -> None:
        self._steps: deque[list[DrawnPath]] = deque(maxlen=steps)

    def add(self, paths: list[DrawnPath]) -> None:
        """Take in the paths of a step; those of the oldest step may go."""
        self._steps.append(paths)

    @property
    def paths(self) -> list[DrawnPath]:
        """All of them, the oldest first."""
        return [path for paths in self._steps for path in paths]

    def state(self) -> list[list[dict[str, Any]]]:
        """All of them in plain values."""
        return [[{**vars(path), "architecture": str(path.architecture)} for path in paths] for paths in self._steps]

    def load_state(self, state: Sequence[Sequence[Mapping[str, Any]]], parse: Callable[[str], Any]) -> None:
        """Take over what :meth:`state` gave.

        Args:
            state: of a memory of as many steps.
            parse: reads an architecture's text.
        """
        self._steps.clear()
        for paths in state:
            self.add([DrawnPath(**{**path, "architecture": parse(path["architecture"])}) for path in paths])
