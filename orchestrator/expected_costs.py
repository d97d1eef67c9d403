"""What distributions over a space cost on the average, under the names of a search's objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.latency_table import LatencyTable
from orchestrator.objectives import ENCODER_PARAMETERS, FLOPS, LATENCY
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


def expected_costs(space: SampledSpace[Any], sequence_length: int, table: LatencyTable) -> dict[str, ExpectedCost]:
    """The arithmetic costs, and predicted latency where a table can say what distributions cost.

    Args:
        space: of the distributions.
        sequence_length: tokens of the sequence whose FLOPs are counted.
        table: of the space, or of one that it is narrowed from.
    """
    costs, latency = arithmetic_costs(space, sequence_length), table.expected_cost(space)
    return costs if latency is None else {**costs, LATENCY.name: latency}
