"""The random start of stand-alone models, as BERT has it.

This file travels with exported models, so it imports nothing of the project.
"""

from __future__ import annotations

from torch import nn


def initialise(module: nn.Module) -> None:
    """Random start of every linear map and embedding below ``module``: N(0, 0.02), no bias."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
