"""The recipe's sections ``selection`` and ``rank_fidelity``: what is distilled shortly before it is believed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestrator.recipe.section import Count, CountOrNone, HowItRuns, Section, raise_problems

FEWEST_RANKED = 8
"""Architectures below which a rank correlation says nothing."""

RANK_FIDELITY = "rank_fidelity"
"""What stands for a budget in the rows of the stage of that name; no budget may be called so."""

SettledMeasure = Literal["relative_mse", "cosine_similarity", "masked_lm_loss"]
Measure = Literal["auto", "relative_mse", "cosine_similarity", "masked_lm_loss"]
GroupSize = Annotated[int, Field(ge=1, le=1_000), HowItRuns()]
_GROUP = "students that are distilled together, so that they fit into memory"


class SelectionSettings(Section):
    """How the winner of each budget is chosen among the candidates of the search."""

    finalists: Count = Field(
        1,
        description="candidates of each budget that are distilled for trial_steps before the winner is chosen; "
        "1: the candidate of lowest supernet loss wins untried",
    )
    trial_steps: CountOrNone = Field(
        0, description="optimiser steps of each finalist, otherwise trained like the section distillation says"
    )
    measure: Measure = Field(
        "auto",
        description="what the best finalist is found by, on text that judges nothing else; auto: masked_lm_loss where "
        "students learn to predict tokens, relative_mse elsewhere",
    )
    diversity: Literal["distance", "size", "none"] = Field(
        "distance",
        description="which finalists: distance: the best that differ by least_distance; size: the best of each of as "
        "many slices of sizes, from half the largest on; none: the best, however alike",
    )
    least_distance: CountOrNone = Field(
        3, description="edits (operations, widths, embedding sizes) between any two finalists, where there are enough"
    )
    regular: bool = Field(
        True, description="whether the best of the regular Transformers that searches start at is always a finalist"
    )
    group: GroupSize = Field(8, description=_GROUP)

    @model_validator(mode="after")
    def _check_trials(self) -> SelectionSettings:
        if self.finalists > 1 and self.trial_steps == 0:
            found = f"found 0, expected at least 1 where finalists is {self.finalists}"
            raise_problems([("trial_steps", f"{found}; set the steps that each is distilled for")])
        if self.finalists == 1 and self.trial_steps > 0:
            found = f"found {self.trial_steps}, expected 0 where finalists is 1"
            raise_problems([("trial_steps", f"{found}; raise finalists, or leave this key out")])
        return self


class RankFidelitySettings(Section):
    """How well the search's losses rank architectures, by distilling a sample of all sizes."""

    architectures: CountOrNone = Field(
        0,
        description=f"architectures to distil, of sizes spread evenly; 0: none are, otherwise at least {FEWEST_RANKED}",
    )
    steps: Count = Field(
        100, description="optimiser steps of each, otherwise trained like the section distillation says"
    )
    measure: Measure = Field("auto", description="what the distilled are ranked by, as in the section selection")
    group: GroupSize = Field(8, description=_GROUP)

    @model_validator(mode="after")
    def _check_enough(self) -> RankFidelitySettings:
        if 0 < self.architectures < FEWEST_RANKED:
            found = f"found {self.architectures}, expected 0 or at least {FEWEST_RANKED}"
            raise_problems([("architectures", f"{found}: the order of fewer says nothing")])
        return self
