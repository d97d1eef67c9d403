"""What distributions over a space cost on the average, under the names of a search's objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.objectives import ENCODER_PARAMETERS, FLOPS
from spaces.sampled_space import SampledSpace

if TYPE_CHECKING:
    from spaces.sampling_distribution import ExpectedCost


def arithmetic_costs(space: SampledSpace[Any], sequence_length: int) -> dict[str, ExpectedCost]:
    """The costs that need no table: ``flops`` and ``encoder_parameters``.

    Args:
        space: of the distributions.
        sequence_length: tokens of the sequence whose FLOPs are counted.
    """
    return {
        FLOPS.name: space.expected_cost("flops", sequence_length),
        ENCODER_PARAMETERS.name: space.expected_cost("parameters", sequence_length),
    }
