"""Trained supernets on disk: weights as safetensors, mapped into memory and shared by all processes of a node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from spaces.space import SearchSpace
from spaces.supernet import Supernet


def load_supernet(space: SearchSpace[Any], weights: Path) -> Supernet[Any]:
    """Make the supernet of a space with trained weights, in evaluation mode.

    The weights are not copied: they are views of the memory-mapped file, which several processes on one machine share.

    Args:
        space: the space it was trained for.
        weights: the safetensors file.
    """
    with torch.device("meta"):
        supernet = space.supernet()
    supernet.load_state_dict(load_file(weights), assign=True)
    return supernet.eval().requires_grad_(False)
