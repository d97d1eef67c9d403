"""Under which conditions latencies are measured: batch, device, threads, number format.

Shape legend: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

LatencyPrecision = Literal["float32", "bfloat16"]
LatencyMethod = Literal["chain", "alone"]

CHAIN_LAYERS = 4
"""Layers with weights of their own in the chain that an operation is measured in."""


@dataclass(frozen=True)
class LatencyConditions:
    """How latencies are measured.

    Attributes:
        batch_size: sequences of a batch.
        sequence_length: tokens of a sequence, all valid.
        threads: of the forward pass, on the CPU.
        warm_up: forward passes before the clock starts.
        repeats: timed forward passes.
        device: as PyTorch names it: ``cpu``, ``cuda`` or ``cuda:1``.
        precision: number format of the matrix products; weights stay float32, ``bfloat16`` is autocast.
        method: ``chain`` times an operation as one of several layers with weights of their own, as it runs inside a
            network; ``alone`` calls one layer again and again, with its weights in the cache.
    """

    batch_size: int
    sequence_length: int
    threads: int
    warm_up: int
    repeats: int
    device: str = "cpu"
    precision: LatencyPrecision = "float32"
    method: LatencyMethod = "chain"

    @property
    def chain_layers(self) -> int:
        """How many layers of an operation are measured in one go."""
        return CHAIN_LAYERS if self.method == "chain" else 1

    def token_ids(self, vocab_size: int) -> torch.Tensor:
        """Random token ids of the batch, the same every time."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch_size, self.sequence_length)
        return torch.randint(vocab_size, shape, generator=generator).to(self.device)

    def hidden(self, size: int) -> torch.Tensor:
        """Random hidden states of a width, ``hidden_BTH``, the same every time."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn((self.batch_size, self.sequence_length, size), generator=generator).to(self.device)

    def mask(self) -> torch.Tensor:
        """A bool mask of the batch, all tokens valid."""
        return torch.ones((self.batch_size, self.sequence_length), dtype=torch.bool, device=self.device)

    @contextmanager
    def forward_passes(self) -> Iterator[None]:
        """The context in which forward passes are timed: no gradients, and the conditions' number format."""
        enabled = self.precision == "bfloat16"
        device_type = torch.device(self.device).type
        with torch.inference_mode(), torch.autocast(device_type, torch.bfloat16, enabled=enabled):
            yield
