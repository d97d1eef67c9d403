"""The recipe's section ``supernet.oneshot``: a supernet trained together with what its paths are drawn from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from orchestrator.recipe.section import LearningRate, Section, Weight, raise_problems

OneShotCost = Literal["latency_ms", "flops", "parameters"]
"""What a one-shot search makes cheaper."""


class OneShotSettings(Section):
    """One-shot search: weights and the distribution that architectures are drawn from learn together."""

    start: str | None = Field(
        None,
        min_length=1,
        description="folder (relative to the recipe file) of an already distilled student that the supernet starts at "
        "while the teacher is imitated: a BERT as wide as the teacher, or an exported model of components, whose "
        "architecture space.options.within has to name; null: it starts at the teacher",
    )
    estimator: Literal["straight_through", "score_function", "importance_weighted"] = Field(
        "straight_through",
        description="how the distribution learns from losses: by gates on a drawn path (one pass tells of all genes, "
        "with a bias), by the losses of a step's paths against each other (no bias, more noise), or by those of the "
        "last steps too",
    )
    cost: OneShotCost = Field(
        "latency_ms",
        description="what is to become cheaper: the latency table's prediction, FLOPs of a sequence of "
        "corpus.sequence_length tokens, or weights behind the embeddings",
    )
    cost_weight: Weight = Field(
        1.0,
        description="lambda: what the expected cost, as a share of the largest architecture's, counts beside the loss; "
        "a sweep over it gives a Pareto front",
    )
    sweep: tuple[Weight, ...] = Field(
        (),
        strict=False,
        description="further lambdas, each of which gets a training of its own from the same start, as a trial of Ray "
        "Tune with the resources of one worker; what they come to makes a Pareto front, and is tried by the search",
    )
    warm_up_share: float = Field(
        0.1, ge=0, lt=1, description="share of the steps before the distribution begins to learn"
    )
    search_share: float = Field(
        0.6,
        gt=0,
        le=1,
        description="share of the steps in which it learns; in those that are left the architecture is frozen at its "
        "most likely one, and trained on. With none left the supernet stays a fair judge of others, for evolution",
    )
    ramp_share: float = Field(
        0.3, ge=0, le=1, description="share of the search in which lambda rises from 0 to cost_weight"
    )
    certainty: float = Field(
        0.95, ge=0.5, lt=1, description="how likely, to begin with, each gene is as in the largest architecture"
    )
    distribution_rate: LearningRate = Field(
        0.05, description="learning rate of the distribution's log-odds (Adam, constant)"
    )
    temperature: float = Field(
        1.0, gt=0, le=100, description="tau of the binary concrete at the search's beginning (straight_through)"
    )
    final_temperature: float = Field(0.2, gt=0, le=100, description="tau at its end (straight_through)")
    order: Literal["importance", "teacher"] = Field(
        "importance",
        description="how the teacher's heads, neurons, and channels of queries and keys are ordered before it is taken "
        "apart: the most important first, by a calibration text, so that slices differ in what they are worth, or as "
        "they are; its function is the same",
    )
    same_text: bool = Field(
        False,
        description="whether all of a worker's paths_per_step see all of its text, so that their losses compare, at "
        "the price of as many passes; otherwise each sees a share",
    )
    reuse: int = Field(
        4, ge=1, le=1_000, description="steps whose paths count, the newest among them (importance_weighted)"
    )
    least_weight: float = Field(
        0.2, ge=0, le=1, description="what the weights of reused paths are cut off at, from below (importance_weighted)"
    )
    greatest_weight: float = Field(5.0, ge=1, le=1e6, description="and from above")
    intermediate_weight: Weight = Field(
        0.0, description="on the errors of the states between the layers, beside that of the last state"
    )

    def phase_steps(self, steps: int) -> tuple[int, int]:
        """How many of the training's steps are warm-up, and how many are search; the rest is for the frozen one.

        Args:
            steps: of the whole training, 1 or more.
        """
        warm_up = min(round(self.warm_up_share * steps), steps - 1)
        return warm_up, min(steps - warm_up, max(1, round(self.search_share * steps)))

    @model_validator(mode="after")
    def _check_shares(self) -> OneShotSettings:
        problems = []
        if self.warm_up_share + self.search_share > 1:
            found = f"found {self.search_share}, expected at most 1 - warm_up_share, which is {self.warm_up_share}"
            problems.append(("search_share", found))
        if self.final_temperature > self.temperature:
            found = f"found {self.final_temperature}, expected at most temperature, which is {self.temperature}"
            problems.append(("final_temperature", found))
        values = (self.cost_weight, *self.sweep)
        problems += [
            (f"sweep.{place}", f"found {value:g} a second time, expected each lambda only once")
            for place, value in enumerate(self.sweep)
            if value in values[: place + 1]
        ]
        raise_problems(problems)
        return self
