"""The latency table of a device: what every part of a space costs, and what a whole architecture should.

Shape legend: B batch, T tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from cluster.latency import LatencyMeasurement, measure
from spaces.architecture import Architecture
from spaces.space import Part, SearchSpace


@dataclass(frozen=True)
class LatencyConditions:
    """How latencies are measured.

    Attributes:
        batch_size: sequences of a batch.
        sequence_length: tokens of a sequence, all valid.
        threads: of the forward pass.
        warm_up: forward passes before the clock starts.
        repeats: timed forward passes.
        device: ``cpu`` or ``cuda``.
    """

    batch_size: int
    sequence_length: int
    threads: int
    warm_up: int
    repeats: int
    device: str = "cpu"

    def token_ids(self, vocab_size: int) -> torch.Tensor:
        """Random token ids of the batch, the same every time."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch_size, self.sequence_length)
        return torch.randint(vocab_size, shape, generator=generator).to(self.device)

    def mask(self) -> torch.Tensor:
        """A bool mask of the batch, all tokens valid."""
        return torch.ones((self.batch_size, self.sequence_length), dtype=torch.bool, device=self.device)

    def measure(self, run: Callable[[], object]) -> LatencyMeasurement:
        """Time one forward pass."""
        with torch.inference_mode():
            return measure(run, warm_up=self.warm_up, repeats=self.repeats, threads=self.threads, device=self.device)


@dataclass(frozen=True)
class LatencyTable:
    """Additive latency: an architecture costs the sum of its parts (NAS-BERT, section 3.3).

    Attributes:
        entries: what each part of the space was measured at.
    """

    entries: Mapping[Part, LatencyMeasurement]

    def predict_ms(self, space: SearchSpace[Any], architecture: Architecture) -> float:
        """Milliseconds of one batch of the table's shape."""
        return sum(self.entries[part].median_ms for part in space.parts_of(architecture))

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values that :meth:`from_json` reads back."""
        return [{"part": asdict(part), "latency": asdict(latency)} for part, latency in self.entries.items()]

    @classmethod
    def from_json(cls, rows: Sequence[Mapping[str, Any]]) -> LatencyTable:
        """Read what :meth:`to_json` gave."""
        return cls({Part(**row["part"]): LatencyMeasurement(**row["latency"]) for row in rows})


def measure_part(
    space: SearchSpace[Any], part: Part, conditions: LatencyConditions, vocab_size: int
) -> LatencyMeasurement:
    """Time one part of a space on the device, with random weights and inputs."""
    module: nn.Module = space.build_part(part).to(conditions.device)
    mask_BT = conditions.mask()
    if part.kind == "embeddings":
        inputs = conditions.token_ids(vocab_size)
    else:
        generator = torch.Generator().manual_seed(0)
        shape = (conditions.batch_size, conditions.sequence_length, part.input_size or part.size)
        inputs = torch.randn(shape, generator=generator).to(conditions.device)
    return conditions.measure(lambda: module(inputs, mask_BT))
