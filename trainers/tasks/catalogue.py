"""Tasks as values: GLUE, SQuAD, tags on the words of any data set, and one whose rows come with netsuke.

Nothing here reads data or needs PyTorch, so a recipe can be checked with it.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Literal

from trainers.errors import TrainingInputError

Kind = Literal["classification", "regression", "tagging", "answering"]

TAGS_PREFIX = "tags:"
MNLI = "mnli"


@dataclass(frozen=True)
class DevSplit:
    """A split that scores are reported on.

    Attributes:
        name: as in the data set.
        suffix: behind the metrics' names, where a task has two such splits.
        required: whether the task cannot be judged without it.
    """

    name: str
    suffix: str = ""
    required: bool = True


@dataclass(frozen=True)
class Task:
    """A downstream task.

    Attributes:
        name: as a person calls it.
        kind: what is predicted: a class or a number a sequence, a tag a word, or a span.
        folder: of its Parquet files within a data folder.
        hub: name and configuration (or "") of the data set on the Hugging Face hub.
        columns: of the inputs: one or two texts; words and tags; or question and context.
        labels: names of the classes in the order of their ids; empty for numbers, spans, and tags before the training
            split was seen.
        metrics: names, the headline first: what stands for the task in an average (NAS-BERT's convention, table 2).
        dev_splits: where scores are reported; the first decides which epoch is best.
        unanswerable: whether questions may have no answer.
        bundled: whether the rows come with netsuke, wherever the data of other tasks is.
    """

    name: str
    kind: Kind
    folder: str
    hub: tuple[str, str]
    columns: tuple[str, ...]
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    dev_splits: tuple[DevSplit, ...] = (DevSplit("validation"),)
    unanswerable: bool = False
    bundled: bool = False

    @property
    def headline(self) -> str:
        """The metric that stands for the task in an average."""
        return self.metrics[0]

    @property
    def num_outputs(self) -> int:
        """Numbers that a head predicts: classes, 1 for a number, 2 (start and end) for a span."""
        return {"regression": 1, "answering": 2}.get(self.kind, len(self.labels))

    def with_labels(self, labels: tuple[str, ...]) -> Task:
        """The same task once its labels are known; tags of whole entities are judged by entity first."""
        if self.kind != "tagging":
            return replace(self, labels=labels)
        by_entity = any(label.startswith(("B-", "I-")) for label in labels)
        return replace(self, labels=labels, metrics=("f1", "accuracy") if by_entity else ("accuracy",))


def _glue(name: str, columns: str, labels: str, metrics: str = "accuracy", **changes: object) -> Task:
    kind: Kind = "classification" if labels else "regression"
    names = tuple(labels.split())
    task = Task(name, kind, f"glue/{name}", ("nyu-mll/glue", name), tuple(columns.split()), names)
    return replace(task, metrics=tuple(metrics.split()), **changes)  # type: ignore[arg-type]


def _tags(name: str, folder: str, column: str, hub: tuple[str, str], dev: str = "validation") -> Task:
    dev_splits = (DevSplit(dev),)
    return Task(name, "tagging", folder, hub, ("tokens", column), (), ("f1", "accuracy"), dev_splits)


_ANSWERS = ("question", "context")
_NOVELISTS = (
    "Wilkie Collins",
    "Anthony Trollope",
    "Mary Elizabeth Braddon",
    "Elizabeth Gaskell",
    "George Eliot",
    "Edward Bulwer-Lytton",
    "Mary Augusta Ward",
    "Marie Corelli",
    "William Morris",
    "Arthur Conan Doyle",
    "Frances Hodgson Burnett",
    "George Gissing",
    "G. K. Chesterton",
    "Arnold Bennett",
    "Florence L. Barclay",
    "Virginia Woolf",
)
_TASKS = (
    _glue("cola", "sentence", "unacceptable acceptable", "matthews"),
    _glue("sst2", "sentence", "negative positive"),
    _glue("mrpc", "sentence1 sentence2", "not_equivalent equivalent", "accuracy f1"),
    _glue("qqp", "question1 question2", "not_duplicate duplicate", "accuracy f1"),
    _glue("stsb", "sentence1 sentence2", "", "spearman pearson"),
    _glue(
        MNLI,
        "premise hypothesis",
        "entailment neutral contradiction",
        dev_splits=(DevSplit("validation_matched"), DevSplit("validation_mismatched", "_mismatched", False)),
    ),
    _glue("qnli", "question sentence", "entailment not_entailment"),
    _glue("rte", "sentence1 sentence2", "entailment not_entailment"),
    _glue("wnli", "sentence1 sentence2", "not_entailment entailment"),
    Task("squad_v1", "answering", "squad_v1", ("rajpurkar/squad", ""), _ANSWERS, (), ("f1", "exact_match")),
    Task(
        "squad_v2",
        "answering",
        "squad_v2",
        ("rajpurkar/squad_v2", ""),
        _ANSWERS,
        (),
        ("f1", "exact_match"),
        unanswerable=True,
    ),
    _tags("conll2000", "conll2000", "chunk_tags", ("eriktks/conll2000", ""), dev="test"),
    _tags("wnut17", "wnut17", "ner_tags", ("leondz/wnut_17", "wnut_17")),
    _tags("ewt", "ud-english-ewt", "upos", ("universal-dependencies/universal_dependencies", "en_ewt")),
    Task("authors", "classification", "", ("", ""), ("text",), _NOVELISTS, bundled=True),
)
TASKS: dict[str, Task] = {task.name: task for task in _TASKS}
GLUE = ("cola", "sst2", "mrpc", "qqp", "stsb", MNLI, "qnli", "rte", "wnli")
STARTS_AT_MNLI = ("rte", "mrpc", "stsb")
"""The tasks that may start from the model tuned on MNLI (NAS-BERT, section 4.1)."""
_ALIASES = {
    "sst-2": "sst2",
    "sts-b": "stsb",
    "mnli-m": MNLI,
    "squad": "squad_v1",
    "squad1": "squad_v1",
    "squad2": "squad_v2",
    "ud-english-ewt": "ewt",
    "wnut_17": "wnut17",
}


def find_task(name: str, key: str = "tasks") -> Task:
    """The task called ``name``; ``tags:<folder>:<column>`` names tags on the column ``tokens`` of any data set.

    Args:
        name: upper or lower case.
        key: what the person wrote it for, for the error message.

    Raises:
        TrainingInputError: there is no such task.
    """
    if name.startswith(TAGS_PREFIX):
        folder, _, column = name.removeprefix(TAGS_PREFIX).rpartition(":")
        if not folder or not column:
            raise TrainingInputError(f"{key}: found '{name}', expected tags:<folder>:<column>, as tags:wnut17:ner_tags")
        return _tags(name, folder, column, (folder, ""))
    normal = name.strip().lower()
    normal = _ALIASES.get(normal, normal)
    if normal not in TASKS:
        near = difflib.get_close_matches(normal, [*TASKS, *_ALIASES], n=1, cutoff=0.5)
        hint = f"; did you mean '{_ALIASES.get(near[0], near[0])}'?" if near else ""
        raise TrainingInputError(
            f"{key}: found '{name}', expected one of {', '.join(TASKS)}, or tags:<folder>:<column>{hint}"
        )
    return TASKS[normal]
