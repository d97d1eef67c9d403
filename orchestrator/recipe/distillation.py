"""The recipe's section ``distillation``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from orchestrator.recipe.section import (
    BatchSize,
    Count,
    LayerPadding,
    LayerScale,
    LearningRate,
    TrainingSettings,
    Weight,
    raise_problems,
)


class DistillationSettings(TrainingSettings):
    """Training of the winners (and of their baselines) on the teacher's outputs."""

    steps: Count = Field(200, description="optimiser steps of each student")
    batch_size: BatchSize = Field(64, description="sequences a step, all workers together")
    learning_rate: LearningRate = Field(1e-3, description="peak learning rate")
    objective: Literal["auto", "masked_lm", "hidden_states", "layer_states"] = Field(
        "auto",
        description="what students learn: masked tokens with a head of their own (NAS-BERT, equation 2); the teacher's "
        "hidden states; or its embeddings, hidden states and attention scores layer by layer (EfficientBERT, "
        "TinyBERT), which takes as many heads as the teacher has; auto: masked_lm where the teacher has a masked-LM "
        "head, hidden_states elsewhere",
    )
    layer_padding: LayerPadding = Field(
        "counted",
        description="what padding counts for in layer_states: padded positions as much as text, but for the scores of "
        "padded keys (as EfficientBERT's code has it), or nothing at all",
    )
    layer_scale: LayerScale = Field(
        "raw",
        description="what layer_states measures its errors in: squares, nearly all of which are attention scores' (as "
        "EfficientBERT's code has it), or shares of the variance of what the teacher says there, so that all weigh "
        "alike",
    )
    kl_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="lambda of masked_lm: (1 - lambda) masked-LM loss + lambda divergence from the teacher's "
        "predictions; 0 is pre-training without a teacher",
    )
    kl_positions: Literal["masked", "all"] = Field(
        "masked", description="where masked_lm compares predictions: at masked tokens, or at all (slower by far)"
    )
    temperature: float = Field(
        1.0, gt=0, le=1000, description="of the softmax over the predictions that masked_lm compares"
    )
    mask_probability: float = Field(0.15, gt=0, lt=1, description="share of the tokens that masked_lm hides")
    hidden_weight: Weight | None = Field(
        None, description="weight of the last hidden state's error; null: 1.0 with hidden_states, 0 elsewhere"
    )
    intermediate_weight: Weight | None = Field(
        None,
        description="weight of the hidden states' errors at block boundaries; null: 0.3 with hidden_states, 0 "
        "elsewhere",
    )
    embedding_weight: Weight | None = Field(
        None,
        description="weight of 1 - cosine similarity of sentence embeddings; null: 1.0 with hidden_states, 0 elsewhere",
    )
    train_embeddings: bool | None = Field(
        None,
        description="whether the students' token embeddings learn too; null: not with hidden_states, unless from "
        "scratch",
    )
    initialisation: Literal["inherited", "extracted", "scratch"] = Field(
        "inherited", description="where students start: the supernet's weights, the teacher's, or random ones"
    )
    importance: Literal["variance", "taylor", "random"] = Field(
        "variance",
        description="which heads and neurons of the teacher students and baselines that are extracted keep: those "
        "that add most variance to the hidden states, those that the teacher's loss on masked text depends on most, "
        "or any, to compare with",
    )
    uniform_baseline: bool = Field(
        True,
        description="whether each winner is compared with a uniform BERT of equal size and training; it has the "
        "teacher's embeddings, and says in `matched_on` of the table `models` in what it is as large as the winner",
    )
    uniform_shape: Literal["feed_forward", "layers"] = Field(
        "feed_forward",
        description="how the uniform BERT gets its size: all layers with narrower feed-forwards, or fewer layers",
    )

    @model_validator(mode="after")
    def _check_objective(self) -> DistillationSettings:
        problems = []
        weights = (self.hidden_weight, self.intermediate_weight, self.embedding_weight)
        if self.objective in ("auto", "hidden_states") and weights == (0, 0, 0):
            message = (
                f"found 0 for all three weights, expected at least one above 0 where objective is {self.objective}"
            )
            problems.append(("hidden_weight", message))
        if self.initialisation == "scratch" and self.train_embeddings is False:
            message = "found false, expected null or true: with initialisation scratch embeddings start at random"
            problems.append(("train_embeddings", message))
        raise_problems(problems)
        return self

    @property
    def embeddings_learn(self) -> bool | None:
        """``train_embeddings`` as far as the recipe alone decides it; ``None`` where the objective does."""
        return True if self.initialisation == "scratch" else self.train_embeddings
