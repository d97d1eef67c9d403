"""Which number format forward passes run in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from cluster.device import supports_bfloat16

Precision = Literal["auto", "float32", "bfloat16"]


def resolve_precision(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """Decide ``auto``: bfloat16 where the hardware multiplies it fast, float32 elsewhere."""
    if precision == "auto":
        return "bfloat16" if supports_bfloat16(device.type) else "float32"
    return precision


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context for forward passes: bfloat16 autocast, or nothing for float32."""
    if resolve_precision(precision, device) == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
