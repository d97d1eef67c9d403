"""The recipe's section ``tables``."""

from __future__ import annotations

from pydantic import Field

from orchestrator.recipe.section import BatchSize, Count, CountOrNone, Section, SequenceLength


class LatencySettings(Section):
    """How latency is measured on this device."""

    batch_size: BatchSize = Field(8, description="sequences in a batch")
    sequence_length: SequenceLength = Field(64, description="tokens of a sequence")
    threads: int = Field(1, ge=1, le=1024, description="processor threads of a measured forward pass")
    warm_up: CountOrNone = Field(3, description="forward passes before the clock starts")
    repeats: Count = Field(20, description="timed forward passes behind each median")
    check_architectures: CountOrNone = Field(
        0, description="random architectures that are measured whole, to compare with the table's prediction"
    )


class TablesSettings(Section):
    """What is measured for each block and operation before the search."""

    block_architectures: CountOrNone = Field(
        64, description="architectures of each block whose loss goes into the block table"
    )
    block_batches: Count = Field(2, description="validation batches behind each block loss")
    latency: LatencySettings = Field(default_factory=LatencySettings, description="the latency table")
