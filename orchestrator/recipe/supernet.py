"""The recipe's section ``supernet``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestrator.recipe.oneshot import OneShotSettings
from orchestrator.recipe.section import (
    BatchSize,
    Count,
    CountOrNone,
    Later,
    LayerPadding,
    LayerScale,
    Section,
    TrainingSettings,
    raise_problems,
)

Architectures = Literal["largest", "sampled"]
"""Whose turn a step of a warm-up is: the plain network that uses all weights, or one that the space draws."""


class ShrinkingSettings(Section):
    """Progressive shrinking: at the end of an epoch the worst architectures of each size bin of each block die."""

    steps_per_epoch: Count = Field(100, description="optimiser steps of an epoch, between two rounds")
    warm_epochs: CountOrNone = Field(3, description="epochs before the first that ends with a round")
    bins: int = Field(10, ge=1, le=1_000, description="size bins of each block, of equal width in parameters")
    latency_rule: Literal["two_sided", "upper", "none"] = Field(
        "two_sided",
        description="what is removed for good before training: architectures whose latency lies outside their size "
        "bin's share of the largest architecture's (`two_sided`, the paper's), or above it (`upper`), or nothing",
    )
    latency_from: Literal["table", "flops"] = Field(
        "table", description="whether those latencies are the latency table's, so that it is measured first, or FLOPs"
    )
    evaluate: Literal["sample", "all"] = Field(
        "sample", description="whether a round evaluates a sample of each bin, as in the paper, or all that live in it"
    )
    sample: int = Field(
        2000, ge=2, le=1_000_000, description="architectures a bin that a round evaluates at most; E in the paper"
    )
    remove: Literal["half_sampled", "half_bin"] = Field(
        "half_sampled",
        description="what a round removes from a bin: as many as half a sample (the paper's R = E / 2), or half of the "
        "bin, which takes `evaluate: all`",
    )
    keep: Count = Field(10, description="architectures that each bin of each block keeps; m in the paper")
    by: Literal["architectures", "operations"] = Field(
        "architectures",
        description="what is judged: each architecture by its own loss, or each operation at each layer by the mean "
        "loss of the architectures that have it there (the paper's ablation PS-op)",
    )
    operation_share: float = Field(
        0.3, gt=0, lt=1, description="share of a bin that a round by operations removes at least"
    )
    validation_batches: Count = Field(5, description="validation batches behind each loss")
    batch_size: BatchSize = Field(32, description="sequences in a validation batch")
    stop_when_done: bool = Field(
        True,
        description="whether training ends, before its `steps`, once no bin has more than it keeps; the learning rate "
        "then falls to zero by the last round, which is known beforehand (by operations: the latest it can be)",
    )

    @model_validator(mode="after")
    def _check_rules(self) -> ShrinkingSettings:
        problems = []
        if self.remove == "half_bin" and self.evaluate == "sample":
            found = "found half_bin, expected half_sampled where evaluate is sample: the worse half of a bin is only "
            problems.append(("remove", found + "known when all of it is evaluated (evaluate: all)"))
        if self.remove == "half_bin" and self.by == "operations":
            found = "found half_bin, expected half_sampled where by is operations: those remove operation_share"
            problems.append(("remove", found))
        raise_problems(problems)
        return self


class SupernetSettings(TrainingSettings):
    """Training of the weight-sharing network."""

    init: Literal["teacher", "paper"] = Field(
        "teacher",
        description="where the weights start: at the teacher's own, or at random as in the papers (NAS-BERT's blocks "
        "with the teacher's embeddings)",
    )
    paths_per_step: int = Field(
        2,
        ge=1,
        le=10_000,
        description="architectures trained for each block and pass of the teacher (components: drawn by each worker "
        "for a step, and sharing its text)",
    )
    shared_layers: int = Field(
        0,
        ge=0,
        le=1_000,
        description="first layers that the paths of a step have in common, with the hidden size, so that they are "
        "computed once for all; each path by itself is drawn as without. 0: the paths are independent",
    )
    sampling: Literal["architectures", "operations"] = Field(
        "architectures",
        description="the law by which they are drawn among those alive: all architectures alike, or hidden size and "
        "then every layer (identity included) alike, which draws shallower ones more often",
    )
    shrinking: ShrinkingSettings | None = Field(
        None, description="progressive shrinking of the architectures; null: all of them are trained to the end"
    )
    mask_probability: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the tokens that are hidden from teacher and supernet alike; the paper trains on masked "
        "text, with 0.15",
    )
    teacher_cache: Literal["off", "float32", "bfloat16", "float16"] = Field(
        "off",
        description="number format in which the teacher's states of the training text are kept on disk during the "
        "training, to be read where the text is seen again; netsuke run --dry-run tells the size",
    )

    architectures: Annotated[Architectures, Later()] = Field(
        "largest",
        description="whose turn a step is where supernet and teacher are compared layer by layer (efficient_bert): "
        "always the plain network that uses all weights, or one that the space draws; elsewhere leave it as it is",
    )
    layer_padding: Annotated[LayerPadding, Later()] = Field(
        "counted",
        description="what padding counts for in that comparison, as in distillation.layer_padding; elsewhere leave it "
        "as it is",
    )
    layer_scale: Annotated[LayerScale, Later()] = Field(
        "raw",
        description="what its errors are measured in, as in distillation.layer_scale; elsewhere leave it as it is",
    )
    inherit: Annotated[str | None, Later()] = Field(
        None,
        min_length=1,
        description="folder (relative to the recipe file) of a run of the same space and teacher in other sizes, whose "
        "trained supernet this one is cut out of before its training, blocks repeated where it has more "
        "(efficient_bert: 6 blocks of 540 give 6 or 12 of 360); null: it starts as init says",
    )

    oneshot: Annotated[OneShotSettings | None, Later()] = Field(
        None,
        description="how supernet and sampling distribution learn together, where the space has one (components); "
        "null: as its defaults say, elsewhere leave it as it is",
    )

    @property
    def one_shot(self) -> OneShotSettings:
        """What is said of a one-shot search; where nothing is said, the defaults."""
        return self.oneshot or OneShotSettings()

    @model_validator(mode="after")
    def _check_rounds(self) -> SupernetSettings:
        shrinking = self.shrinking
        if self.inherit is not None and self.init == "paper":
            found = "found paper, expected nothing where inherit is set: the weights are those of that run's supernet"
            raise_problems([("init", found)])
        if self.mask_probability and self.teacher_cache != "off":
            found = f"found {self.teacher_cache}, expected off where mask_probability is above 0"
            raise_problems([("teacher_cache", f"{found}: other tokens are masked each time the text is seen")])
        if shrinking is not None:
            needed = (shrinking.warm_epochs + 1) * shrinking.steps_per_epoch
            if self.steps < needed:
                found = (
                    f"found {self.steps}, expected at least {needed} for one round of shrinking: warm_epochs + 1 "
                    f"epochs of shrinking.steps_per_epoch, which is {shrinking.steps_per_epoch}"
                )
                raise_problems([("steps", found)])
        return self
