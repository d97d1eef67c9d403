"""The architectures of one block as numbers: their order, the place of each, and tables with a row for each.

The order is by hidden size, then depth, then operations, the last of them changing fastest; sizes and operations come
in the order of the options. Nothing here holds modules, so 97,650 architectures are no burden.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from spaces.nas_bert.architecture import BlockArchitecture
from spaces.nas_bert.options import NasBertOptions
from spaces.space import SamplingLaw


def sequences_of(options: NasBertOptions) -> int:
    """Sequences of 1 to ``layers_per_block`` operations: the block architectures of one hidden size."""
    choices = len(options.operations)
    sequences: int = sum(choices**depth for depth in range(1, options.layers_per_block + 1))
    return sequences


def enumerate_blocks(options: NasBertOptions) -> Iterator[BlockArchitecture]:
    """Yield every block architecture once, in order."""
    for hidden_size in options.hidden_sizes:
        for depth in range(1, options.layers_per_block + 1):
            for operations in product(options.operations, repeat=depth):
                yield BlockArchitecture(hidden_size, operations)


def block_at(index: int, options: NasBertOptions) -> BlockArchitecture:
    """The block architecture at a place of the order.

    Raises:
        IndexError: there is no such place.
    """
    choices, sequences = len(options.operations), sequences_of(options)
    if not 0 <= index < sequences * len(options.hidden_sizes):
        raise IndexError(f"block architecture {index}, expected 0 to {sequences * len(options.hidden_sizes) - 1}")
    size, rest = divmod(index, sequences)
    depth = 1
    while rest >= choices**depth:
        rest -= choices**depth
        depth += 1
    operations = tuple(options.operations[rest // choices**position % choices] for position in reversed(range(depth)))
    return BlockArchitecture(options.hidden_sizes[size], operations)


def block_index(block: BlockArchitecture, options: NasBertOptions) -> int:
    """The place of a block architecture of the space."""
    choices, depth = len(options.operations), len(block.operations)
    place = 0
    for operation in block.operations:
        place = place * choices + options.operations.index(operation)
    shallower = sum(choices**k for k in range(1, depth))
    return options.hidden_sizes.index(block.hidden_size) * sequences_of(options) + shallower + place


def operation_counts(options: NasBertOptions) -> NDArray[np.int64]:
    """How often each operation occurs in each sequence of one hidden size, ``[sequences, operations]``, in order."""
    one_more = np.eye(len(options.operations), dtype=np.int64)
    depths = [one_more]
    for _ in range(1, options.layers_per_block):
        longer = depths[-1][:, None, :] + one_more[None, :, :]
        depths.append(longer.reshape(-1, len(options.operations)))
    return np.concatenate(depths)


def sample_block(rng: random.Random, options: NasBertOptions, law: SamplingLaw) -> BlockArchitecture:
    """Draw a block architecture by a law.

    Raises:
        ValueError: there is no such law.
    """
    if law == "architectures":
        return block_at(rng.randrange(sequences_of(options) * len(options.hidden_sizes)), options)
    if law != "operations":
        raise ValueError(f"law of sampling {law!r}, expected 'architectures' or 'operations'")
    hidden_size = rng.choice(options.hidden_sizes)
    while True:
        layers = rng.choices((None, *options.operations), k=options.layers_per_block)
        operations = tuple(operation for operation in layers if operation is not None)
        if operations:
            return BlockArchitecture(hidden_size, operations)
