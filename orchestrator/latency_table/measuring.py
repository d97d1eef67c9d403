"""Timing the parts of a space, and whole networks in turn with them.

Shape legend: B batch, T tokens, H hidden size.

An operation that is called again and again finds its weights and its input in the innermost cache, which it never does
within a network. So each operation is timed as a chain of layers with weights of their own, and the chains of all parts
take turns with each other and with the whole networks: whatever the machine does meanwhile hits all of them alike, and
everybody finds the caches as somebody else left them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cluster.latency import MINIMUM_REPEAT_MILLISECONDS, LatencyMeasurement, Repeats, repeat_in_turn
from orchestrator.latency_table.conditions import LatencyConditions
from spaces.architecture import Architecture
from spaces.space import Part, SearchSpace

EMBEDDINGS_KIND, PROJECTION_KIND = "embeddings", "projection"
GROUP_BYTES = 1 << 30
"""Weights of the whole networks that are held, and take turns, at the same time."""
_BYTES_PER_WEIGHT = 4

OnRound = Callable[[int, int], None]
"""Called after each round of turns with the rounds done and the rounds there are."""


def measure_part(
    space: SearchSpace[Any], part: Part, conditions: LatencyConditions, vocab_size: int
) -> LatencyMeasurement:
    """Time one part of a space on the device, with random weights and inputs."""
    measured, _ = measure_parts_and_networks(space, [part], [], conditions, vocab_size)
    return measured[part]


def measure_parts_and_networks(
    space: SearchSpace[Any],
    parts: Sequence[Part],
    architectures: Sequence[Architecture],
    conditions: LatencyConditions,
    vocab_size: int,
    on_round: OnRound = lambda done, total: None,
) -> tuple[dict[Part, LatencyMeasurement], list[LatencyMeasurement]]:
    """Time parts and whole networks in turn.

    Networks that do not fit into :data:`GROUP_BYTES` together are timed in groups; the parts take their turns in each.

    Args:
        space: builds parts and networks.
        parts: those to time; may be none.
        architectures: of the whole networks to time; may be none.
        conditions: of every measurement.
        vocab_size: token ids are drawn below it.
        on_round: follows the work.

    Returns:
        One measurement for each part, and one for each architecture, in order.
    """
    runs = [_part_run(space, part, conditions, vocab_size) for part in parts]
    part_repeats: list[Repeats | None] = [None] * len(parts)
    networks: dict[int, LatencyMeasurement] = {}
    groups = _groups(space, architectures) or [[]]
    total = len(groups) * conditions.repeats
    for number, group in enumerate(groups):
        before = number * conditions.repeats
        group_runs = [_network_run(space, architectures[index], conditions, vocab_size) for index in group]
        if not runs and not group_runs:
            break
        with conditions.forward_passes():
            repeated = repeat_in_turn(
                runs + group_runs,
                warm_up=conditions.warm_up,
                repeats=conditions.repeats,
                threads=conditions.threads,
                device=conditions.device,
                compute_bound=True,
                minimum_repeat_ms=0.0 if conditions.method == "chain" else MINIMUM_REPEAT_MILLISECONDS,
                on_round=lambda done, before=before: on_round(before + done, total),  # type: ignore[misc]
            )
        for index, repeats in enumerate(repeated[: len(runs)]):
            earlier = part_repeats[index]
            part_repeats[index] = repeats if earlier is None else earlier + repeats
        for index, repeats in zip(group, repeated[len(runs) :], strict=True):
            networks[index] = repeats.summary()
    layers = [_layers(part, conditions) for part in parts]
    measured = {
        part: repeats.summary().divided_by(count)
        for part, repeats, count in zip(parts, part_repeats, layers, strict=True)
        if repeats is not None
    }
    return measured, [networks[index] for index in range(len(architectures))]


def _layers(part: Part, conditions: LatencyConditions) -> int:
    """How many layers of a part are timed together; a network has only one of its embeddings."""
    return 1 if part.kind == EMBEDDINGS_KIND else conditions.chain_layers


def _part_run(
    space: SearchSpace[Any], part: Part, conditions: LatencyConditions, vocab_size: int
) -> Callable[[], object]:
    """A function that runs the layers of a part's chain once."""
    layers = [space.build_part(part).to(conditions.device) for _ in range(_layers(part, conditions))]
    mask_BT = conditions.mask()
    if part.kind == EMBEDDINGS_KIND:
        inputs = conditions.token_ids(vocab_size)
    else:
        inputs = conditions.hidden(part.input_size or part.size)
    if part.kind == PROJECTION_KIND:  # another width comes out: each one gets the same input

        def run_each() -> None:
            for layer in layers:
                layer(inputs, mask_BT)

        return run_each

    def run_chain() -> None:
        state = inputs
        for layer in layers:
            state = layer(state, mask_BT)

    return run_chain


def _network_run(
    space: SearchSpace[Any], architecture: Architecture, conditions: LatencyConditions, vocab_size: int
) -> Callable[[], object]:
    """A function that runs a whole network once, with random weights."""
    model = space.build(architecture).eval().to(conditions.device)
    input_ids_BT, mask_BT = conditions.token_ids(vocab_size), conditions.mask().long()
    return lambda: model(input_ids=input_ids_BT, attention_mask=mask_BT)


def _groups(space: SearchSpace[Any], architectures: Sequence[Architecture]) -> list[list[int]]:
    """The numbers of those architectures whose networks are held in memory together."""
    weights = sum(space.cost(architecture).parameters for architecture in architectures)
    count = -(-weights * _BYTES_PER_WEIGHT // GROUP_BYTES)
    return [group for first in range(count) if (group := list(range(first, len(architectures), count)))]
