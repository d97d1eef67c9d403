"""Last hidden states of many whole networks of a supernet, what they have in common computed once.

Shape legend: B batch, T tokens, D hidden size of the teacher.

A network is a sequence of steps: the embedding, then for each block its entry, its layers, and leaving it. Networks
that begin with the same steps share the states after them, across the borders of blocks. Sorted by their steps, they
come in the order of a walk through a tree: those of one shape follow each other, and each costs what it does not share
with the one before. That is worth most where candidates are relatives, as the children of an evolution are. Each state
is bit for bit the one of running the network alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from spaces.supernet import BlockwiseSupernet, Supernet
from trainers.prefix_evaluation import Steps, common_length, sort_paths

_EMBED, _RUN, _LEAVE = "embed", "run", "leave"


def last_states(
    supernet: Supernet[Any], networks: Sequence[Any], input_ids_BT: Tensor, mask_BT: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """Run networks on one batch.

    Args:
        supernet: in evaluation mode. Only one of blocks can share steps; another runs its networks one by one.
        networks: architectures of its space, in any order; repeats cost nothing.
        input_ids_BT: int64 token ids, on the supernet's device.
        mask_BT: 1 for valid tokens.

    Yields:
        The place in ``networks`` and the network's last state, ``hidden_BTD``, to be left as it is. The caller sets
        inference mode and precision for as long as it iterates.
    """
    if not isinstance(supernet, BlockwiseSupernet):
        for place, network in enumerate(networks):
            yield place, supernet(network, input_ids_BT, mask_BT)
        return
    places: dict[Steps, list[int]] = {}
    for place, network in enumerate(networks):
        places.setdefault(network_steps(supernet, network), []).append(place)
    paths = sort_paths(list(places))
    visible_BT = mask_BT.to(torch.bool)
    kept: dict[int, Tensor] = {}  # by the number of steps behind a state
    for path, (begin, keep) in zip(paths, _plan(paths), strict=True):
        state = kept[begin] if begin else input_ids_BT
        kept = {depth: kept[depth] for depth in keep if depth <= begin}
        for depth, step in enumerate(path[begin:], start=begin + 1):
            state = _run(supernet, step, state, visible_BT)
            if depth in keep:
                kept[depth] = state
        for place in places[path]:
            yield place, state


def network_steps(supernet: BlockwiseSupernet[Any], network: Any) -> Steps:
    """The steps of a whole network; those of two networks are equal where the supernet computes the same."""
    embedding_size, blocks = supernet.split(network)
    steps: list[Hashable] = [(_EMBED, embedding_size)]
    for index, block in enumerate(blocks):
        own = supernet.block_steps(block)
        steps += [(_RUN, index, position, key) for position, key in enumerate(own)]
        steps.append((_LEAVE, index, own[0]))
    return tuple(steps)


def _run(supernet: BlockwiseSupernet[Any], step: Any, state: Tensor, visible_BT: Tensor) -> Tensor:
    kind, *where = step
    if kind == _EMBED:
        return supernet.embed(where[0], state)
    if kind == _LEAVE:
        return supernet.leave(where[0], where[1], state)
    index, position, key = where
    return supernet.run_step(index, position, key, state, visible_BT)


def _plan(paths: Sequence[Steps]) -> list[tuple[int, set[int]]]:
    """For each path, in the order of the walk: how many steps it takes over, and which states later paths begin at.

    A later path begins where it left the path before it. The states on the way there that nobody begins at are let go,
    so that a walk over strangers holds no more than one network running alone does.
    """
    begins = [0, *(common_length(before, path) for before, path in pairwise(paths))]
    planned: list[tuple[int, set[int]]] = []
    keep: set[int] = set()
    for place in range(len(paths) - 1, -1, -1):
        # What this path leaves for later ones; what those need beyond its own beginning, they get from itself.
        planned.append((begins[place], keep))
        keep = {depth for depth in keep if depth < begins[place]} | ({begins[place]} - {0})
    return planned[::-1]
