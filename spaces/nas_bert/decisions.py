"""NAS-BERT architectures as named categorical choices, which samplers such as Optuna's are asked.

Choices are the embedding size, then for every block its hidden size, its depth, and the operation of every present
layer. Hidden sizes that offer the same operations share the choice of a layer; where attention with fewer heads makes
some offer more than others, each such group of sizes has a choice of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial

from spaces.nas_bert.architecture import BlockArchitecture, NasBertArchitecture
from spaces.nas_bert.options import NasBertOptions
from spaces.space import Decision


def decisions(options: NasBertOptions) -> list[Decision]:
    """All choices, in an order in which conditions only look back."""
    listed = [Decision("embedding_size", tuple(map(str, options.embedding_sizes)))]
    depths = tuple(str(depth) for depth in range(1, options.layers_per_block + 1))
    groups = _groups(options)
    for number in range(1, options.num_blocks + 1):
        listed.append(Decision(f"block_{number}_hidden_size", tuple(map(str, options.hidden_sizes))))
        listed.append(Decision(f"block_{number}_depth", depths))
        for layer in range(1, options.layers_per_block + 1):
            for operations, sizes in groups.items():
                always = layer == 1 and len(groups) == 1
                asked = None if always else partial(_is_asked, number, layer, tuple(map(str, sizes)))
                listed.append(Decision(_layer_name(number, layer, sizes[0], options), operations, asked))
    return listed


def from_decisions(chosen: Mapping[str, str], options: NasBertOptions) -> NasBertArchitecture:
    """The architecture of a complete set of choices."""
    blocks = []
    for number in range(1, options.num_blocks + 1):
        depth, size = int(chosen[f"block_{number}_depth"]), int(chosen[f"block_{number}_hidden_size"])
        names = (_layer_name(number, layer, size, options) for layer in range(1, depth + 1))
        blocks.append(BlockArchitecture(size, tuple(chosen[name] for name in names)))
    return NasBertArchitecture(int(chosen["embedding_size"]), tuple(blocks))


def to_decisions(architecture: NasBertArchitecture, options: NasBertOptions) -> dict[str, str]:
    """The choices that lead to an architecture."""
    chosen = {"embedding_size": str(architecture.embedding_size)}
    for number, block in enumerate(architecture.blocks, start=1):
        chosen[f"block_{number}_hidden_size"] = str(block.hidden_size)
        chosen[f"block_{number}_depth"] = str(len(block.operations))
        for layer, operation in enumerate(block.operations, start=1):
            chosen[_layer_name(number, layer, block.hidden_size, options)] = operation
    return chosen


@lru_cache(maxsize=64)
def _groups(options: NasBertOptions) -> dict[tuple[str, ...], list[int]]:
    """The hidden sizes that offer the same operations, by these."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for size in options.hidden_sizes:
        groups.setdefault(options.operations_at(size), []).append(size)
    return groups


@lru_cache(maxsize=4096)
def _layer_name(number: int, layer: int, size: int, options: NasBertOptions) -> str:
    groups = _groups(options)
    name = f"block_{number}_layer_{layer}"
    if len(groups) == 1:
        return name
    return "_".join([name, "at", *map(str, groups[options.operations_at(size)])])


def _is_asked(number: int, layer: int, sizes: tuple[str, ...], chosen: Mapping[str, str]) -> bool:
    return int(chosen[f"block_{number}_depth"]) >= layer and chosen[f"block_{number}_hidden_size"] in sizes
