"""Where an evaluator computes."""

from __future__ import annotations

import torch


def ready_device(name: str, threads: int) -> torch.device:
    """A device, in a process that is set up for it.

    Args:
        name: as PyTorch calls it.
        threads: of a processor; 0 leaves PyTorch's setting.
    """
    if threads:
        torch.set_num_threads(threads)
    return torch.device(name)
