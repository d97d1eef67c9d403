"""The recipe's section ``distillation``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from orchestrator.recipe.section import BatchSize, Count, LearningRate, TrainingSettings, Weight, raise_problems


class DistillationSettings(TrainingSettings):
    """Training of the winners (and of their baselines) on the teacher's outputs."""

    steps: Count = Field(200, description="optimiser steps of each student")
    batch_size: BatchSize = Field(64, description="sequences a step, all workers together")
    learning_rate: LearningRate = Field(1e-3, description="peak learning rate")
    hidden_weight: Weight = Field(1.0, description="weight of the last hidden state's error")
    intermediate_weight: Weight = Field(0.3, description="weight of the hidden states' errors at block boundaries")
    embedding_weight: Weight = Field(1.0, description="weight of 1 - cosine similarity of sentence embeddings")
    logits_weight: Weight = Field(1.0, description="weight of the logits' error, where the teacher has an MLM head")
    mask_probability: float = Field(
        0.15, gt=0, lt=1, description="share of the input tokens that are masked, where the teacher has an MLM head"
    )
    temperature: float = Field(1.0, gt=0, le=1000, description="of the softmax over the logits")
    train_embeddings: bool = Field(False, description="whether the students' token embeddings learn too")
    initialisation: Literal["inherited", "extracted", "scratch"] = Field(
        "inherited", description="where students start: the supernet's weights, the teacher's, or random ones"
    )
    uniform_baseline: bool = Field(
        True, description="whether each winner is compared with a uniform BERT of equal size and training"
    )
    uniform_shape: Literal["feed_forward", "layers"] = Field(
        "feed_forward",
        description="how the uniform BERT gets its size: all layers with narrower feed-forwards, or fewer layers",
    )

    @model_validator(mode="after")
    def _check_some_loss(self) -> DistillationSettings:
        if not any((self.hidden_weight, self.intermediate_weight, self.embedding_weight, self.logits_weight)):
            raise_problems([("hidden_weight", "found 0 for all four weights, expected at least one above 0")])
        return self
