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


def cardinality(options: NasBertOptions) -> int:
    """The number of block architectures."""
    return sum(_sequences(size, options) for size in options.hidden_sizes)


def enumerate_blocks(options: NasBertOptions) -> Iterator[BlockArchitecture]:
    """Yield every block architecture once, in order."""
    for hidden_size in options.hidden_sizes:
        for depth in range(1, options.layers_per_block + 1):
            for operations in product(options.operations_at(hidden_size), repeat=depth):
                yield BlockArchitecture(hidden_size, operations)


def block_at(index: int, options: NasBertOptions) -> BlockArchitecture:
    """The block architecture at a place of the order.

    Raises:
        IndexError: there is no such place.
    """
    rest = index
    for hidden_size in options.hidden_sizes if index >= 0 else ():
        operations = options.operations_at(hidden_size)
        for depth in range(1, options.layers_per_block + 1):
            if rest < len(operations) ** depth:
                digits = (rest // len(operations) ** position % len(operations) for position in reversed(range(depth)))
                return BlockArchitecture(hidden_size, tuple(operations[digit] for digit in digits))
            rest -= len(operations) ** depth
    raise IndexError(f"block architecture {index}, expected 0 to {cardinality(options) - 1}")


def block_index(block: BlockArchitecture, options: NasBertOptions) -> int:
    """The place of a block architecture of the space."""
    operations = options.operations_at(block.hidden_size)
    place = 0
    for operation in block.operations:
        place = place * len(operations) + operations.index(operation)
    narrower = options.hidden_sizes[: options.hidden_sizes.index(block.hidden_size)]
    shallower = sum(len(operations) ** depth for depth in range(1, len(block.operations)))
    return sum(_sequences(size, options) for size in narrower) + shallower + place


def operation_counts(hidden_size: int, options: NasBertOptions) -> NDArray[np.int64]:
    """How often each operation of one hidden size occurs in each of its sequences, ``[sequences, operations]``."""
    choices = len(options.operations_at(hidden_size))
    one_more = np.eye(choices, dtype=np.int64)
    depths = [one_more]
    for _ in range(1, options.layers_per_block):
        longer = depths[-1][:, None, :] + one_more[None, :, :]
        depths.append(longer.reshape(-1, choices))
    return np.concatenate(depths)


def sample_block(rng: random.Random, options: NasBertOptions, law: SamplingLaw) -> BlockArchitecture:
    """Draw a block architecture by a law.

    Raises:
        ValueError: there is no such law.
    """
    if law == "architectures":
        return block_at(rng.randrange(cardinality(options)), options)
    if law != "operations":
        raise ValueError(f"law of sampling {law!r}, expected 'architectures' or 'operations'")
    hidden_size = rng.choice(options.hidden_sizes)
    while True:
        layers = rng.choices((None, *options.operations_at(hidden_size)), k=options.layers_per_block)
        operations = tuple(operation for operation in layers if operation is not None)
        if operations:
            return BlockArchitecture(hidden_size, operations)


def _sequences(hidden_size: int, options: NasBertOptions) -> int:
    """Sequences of 1 to ``layers_per_block`` operations: the block architectures of one hidden size."""
    choices = len(options.operations_at(hidden_size))
    return sum(int(choices**depth) for depth in range(1, options.layers_per_block + 1))
