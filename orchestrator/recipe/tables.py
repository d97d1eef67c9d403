"""The recipe's section ``tables``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from orchestrator.recipe.latency import LatencySettings
from orchestrator.recipe.section import Count, CountOrNone, Section

MOST_ARCHITECTURES = 1_000_000_000


def check_selection(value: Any) -> int | Literal["all", "alive"]:
    """Validate which architectures of a block are meant.

    Raises:
        ValueError: neither a number nor one of the words; the message says what was expected.
    """
    if value in ("all", "alive"):
        return "all" if value == "all" else "alive"
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_ARCHITECTURES:
        return value
    raise ValueError(f"found {value!r}, expected all, alive, or a whole number of architectures, 0 for none")


Selection = Annotated[int | Literal["all", "alive"], PlainValidator(check_selection)]


class TablesSettings(Section):
    """What is measured for each block and operation before the search."""

    block_architectures: Selection = Field(
        64,
        description="architectures of each block whose loss goes into the block table: all, alive (those that "
        "shrinking left; all where nothing was shrunk), or how many are drawn at random",
    )
    block_batches: Count = Field(2, description="validation batches behind each block loss")
    block_output: Literal["full", "factored"] = Field(
        "full",
        description="how the end of a path is compared with the teacher's state: in its full width, or factored, in "
        "the directions the block's last linear map can reach, plus a constant. Faster where hidden sizes are small; "
        "losses agree to about 1e-6 instead of bit for bit",
    )
    signal_architectures: CountOrNone = Field(
        32,
        description="architectures of each block and hidden size whose losses are compared with their noise; 0: none",
    )
    signal_batches: int = Field(4, ge=2, le=1_000_000, description="validation batches that tell the noise")
    latency: LatencySettings = Field(default_factory=LatencySettings, description="the latency table")
