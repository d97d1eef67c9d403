"""The recipe's section ``supernet``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.recipe.section import TrainingSettings


class SupernetSettings(TrainingSettings):
    """Training of the weight-sharing network."""

    init: Literal["teacher", "paper"] = Field(
        "teacher", description="where the weights start: at the teacher's own, or at random as in the paper"
    )
    paths_per_step: int = Field(
        2, ge=1, le=10_000, description="architectures trained for each block and pass of the teacher"
    )
