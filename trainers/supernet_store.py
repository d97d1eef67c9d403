"""Trained supernets on disk: weights as safetensors, mapped into memory and shared by all processes of a node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from spaces.space import SearchSpace
from spaces.supernet import Supernet


def load_supernet(space: SearchSpace[Any], weights: Path) -> Supernet[Any]:
    """Make the supernet of a space with trained weights, in evaluation mode.

    The weights are not copied: they are views of the memory-mapped file, which several processes on one machine share.

    Args:
        space: the space it was trained for.
        weights: the safetensors file.
    """
    return supernet_with(space, load_weights(weights))


def load_weights(weights: Path) -> dict[str, Tensor]:
    """The weights of a supernet by name, as views of the memory-mapped safetensors file."""
    found: dict[str, Tensor] = load_file(weights)
    return found


def supernet_with(space: SearchSpace[Any], weights: Mapping[str, Tensor]) -> Supernet[Any]:
    """The supernet of a space around weights that are there already, in evaluation mode.

    Args:
        space: the space they were trained for.
        weights: by name; they become the supernet's own without being copied, and nothing writes into them.
    """
    with torch.device("meta"):
        supernet = space.supernet()
    supernet.load_state_dict(weights, assign=True)
    return supernet.eval().requires_grad_(False)
