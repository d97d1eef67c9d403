"""The recipe's section ``tables.latency``."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, model_validator

from orchestrator.recipe.section import (
    BatchSize,
    Count,
    CountOrNone,
    Later,
    Section,
    SequenceLength,
    raise_problems,
)

FEWEST_FOR_A_FIT = 4
FEWEST_FOR_A_CHECK = 2


def check_device(value: Any) -> str:
    """Validate a device's name; whether it is there is another question.

    Raises:
        ValueError: it is no device's name; the message says what was expected.
    """
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", value):
        raise ValueError(f"found {value!r}, expected auto, cpu, cuda or cuda:<number>")
    return value


Device = Annotated[str, PlainValidator(check_device)]


class LatencySettings(Section):
    """How latency is measured on this device, or which table made on another device says it."""

    table: str | None = Field(
        None,
        min_length=1,
        description="a table made by netsuke latency build on the target device (.json or .parquet), instead of "
        "measuring here; relative to the recipe's folder",
    )
    batch_size: BatchSize = Field(8, description="sequences in a batch")
    sequence_length: SequenceLength = Field(64, description="tokens of a sequence")
    device: Device = Field("auto", description="auto (a GPU if the driver sees one), cpu, cuda, or cuda:<number>")
    threads: int = Field(1, ge=1, le=1024, description="processor threads of a measured forward pass")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="number format of a measured forward pass; bfloat16 is autocast from float32 weights"
    )
    method: Literal["chain", "alone"] = Field(
        "chain",
        description="how an operation is timed: as one of several layers with weights of their own, as within a "
        "network (chain), or one layer again and again, out of the cache (alone)",
    )
    warm_up: CountOrNone = Field(3, description="forward passes before the clock starts")
    repeats: Count = Field(20, description="timed forward passes behind each median")
    fit_architectures: CountOrNone = Field(
        16,
        description="random architectures, from small to large, that are measured whole, to fit the remainder that the "
        "sum of the parts leaves out; 0: no remainder, otherwise 4 or more. Of spaces whose networks are not sums of "
        "parts, see marginal_architectures",
    )
    check_architectures: CountOrNone = Field(
        0,
        description="other random architectures that are measured whole, to compare with the table's prediction; 0: "
        "none, otherwise 2 or more",
    )
    marginal_architectures: Annotated[CountOrNone, Later()] = Field(
        200,
        description="architectures, regular and random ones, that are measured whole where latency is no sum of parts "
        "but of marginal prices (the space components): so many are the prices fitted to, at least four for each; 0: "
        "nothing is measured, and no latency predicted",
    )
    marginal_repeats: Annotated[Count, Later()] = Field(
        8,
        description="timed forward passes behind the median of each of these; more networks tell more than more "
        "repeats do",
    )

    @model_validator(mode="after")
    def _enough_architectures(self) -> LatencySettings:
        fewest = {"fit_architectures": FEWEST_FOR_A_FIT, "check_architectures": FEWEST_FOR_A_CHECK}
        found = {key: getattr(self, key) for key in fewest}
        raise_problems(
            (key, f"found {value}, expected 0 or at least {fewest[key]}")
            for key, value in found.items()
            if 0 < value < fewest[key]
        )
        return self
