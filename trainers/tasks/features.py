"""Texts and tagged words as token ids and labels; spans are in :mod:`trainers.tasks.answers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from trainers.errors import TrainingInputError
from trainers.tasks.batching import NO_LABEL, Encoded, random_subset
from trainers.tasks.catalogue import Task
from trainers.tasks.sources import TRAIN, Columns, TaskSource

LARGEST_SIMILARITY = 5.0
"""STS-B's scores go from 0 to 5."""
OUTSIDE = "O"


def complete_task(task: Task, source: TaskSource) -> Task:
    """The task with its labels; those of tags are what its training split has, sorted.

    Raises:
        TrainingInputError: the training split cannot be read.
    """
    if task.kind != "tagging" or task.labels:
        return task
    tags = source.read(task, TRAIN)[task.columns[1]]
    return task.with_labels(tuple(sorted({tag for sentence in tags for tag in sentence})))


def select_rows(columns: Columns, rows: Sequence[int]) -> Columns:
    """Some rows of a split."""
    return {name: [values[row] for row in rows] for name, values in columns.items()}


def limited(columns: Columns, wanted: int | None) -> Columns:
    """At most ``wanted`` rows of a split, the same for every model and seed."""
    count = len(next(iter(columns.values())))
    return columns if wanted is None or wanted >= count else select_rows(columns, random_subset(count, wanted))


def encode_texts(columns: Columns, task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """One or two texts each, with a class or a number.

    Args:
        columns: of a split.
        task: a classification or regression.
        tokenizer: the model's.
        max_length: tokens that are kept, special ones included.

    Raises:
        TrainingInputError: a label is none of the task's.
    """
    labels = [_checked_label(label, task, row) for row, label in enumerate(columns["label"])]
    texts = [columns[name] for name in task.columns]
    encoded: Any = tokenizer(*texts, truncation=True, max_length=max_length, padding=False, verbose=False)
    return Encoded(encoded["input_ids"], encoded.get("token_type_ids"), labels, _padding(tokenizer))


def _checked_label(label: Any, task: Task, row: int) -> int | float:
    if task.kind == "regression":
        if isinstance(label, (int, float)) and 0 <= label <= LARGEST_SIMILARITY:
            return float(label)
        expected = f"a number from 0 to {LARGEST_SIMILARITY:g}"
    else:
        if isinstance(label, int) and 0 <= label < len(task.labels):
            return label
        expected = ", ".join(f"{number} ({name})" for number, name in enumerate(task.labels))
    raise TrainingInputError(f"task '{task.name}': row {row} has the label {label!r}, expected {expected}")


def encode_words(columns: Columns, task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Words with a tag each; the tag belongs to a word's first token, the others have none.

    Args:
        columns: of a split.
        task: tagging, with its labels.
        tokenizer: the model's, a fast one.
        max_length: tokens that are kept, special ones included.

    Raises:
        TrainingInputError: a tag is none of the task's, or a sentence has more or fewer tags than words.
    """
    words, tags = (columns[name] for name in task.columns)
    number_of = {label: number for number, label in enumerate(task.labels)}
    for row, (some_words, some_tags) in enumerate(zip(words, tags, strict=True)):
        if len(some_words) != len(some_tags):
            raise TrainingInputError(
                f"task '{task.name}': row {row} has {len(some_words)} words and {len(some_tags)} tags; expected a tag "
                f"for each word"
            )
        unknown = next((tag for tag in some_tags if tag not in number_of), None)
        if unknown is not None:
            raise TrainingInputError(
                f"task '{task.name}': row {row} has the tag {unknown!r}, which the training split has not; expected "
                f"one of {', '.join(task.labels)}"
            )
    encoded: Any = tokenizer(
        words, is_split_into_words=True, truncation=True, max_length=max_length, padding=False, verbose=False
    )
    labels = []
    for row in range(len(words)):
        before = None
        numbers = []
        for word in encoded.word_ids(row):
            numbers.append(NO_LABEL if word is None or word == before else number_of[tags[row][word]])
            before = word
        labels.append(numbers)
    return Encoded(encoded["input_ids"], encoded.get("token_type_ids"), labels, _padding(tokenizer))


def tags_of_words(
    columns: Columns,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    predicted: Sequence[Sequence[int]],
) -> list[list[str]]:
    """Predicted classes of tokens as tags of words.

    Args:
        columns: of a split.
        task: tagging, with its labels.
        tokenizer: as in :func:`encode_words`.
        max_length: as there.
        predicted: a class for every token of every sentence.

    Returns:
        A tag for every word; words that were cut off, or have no tokens, are outside of everything.
    """
    words = columns[task.columns[0]]
    encoded: Any = tokenizer(
        words, is_split_into_words=True, truncation=True, max_length=max_length, padding=False, verbose=False
    )
    tags = []
    for row, some_words in enumerate(words):
        found = [OUTSIDE] * len(some_words)
        seen: set[int] = set()
        for position, word in enumerate(encoded.word_ids(row)):
            if word is not None and word not in seen:
                seen.add(word)
                found[word] = task.labels[predicted[row][position]]
        tags.append(found)
    return tags


def _padding(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.pad_token_id is None:
        raise TrainingInputError("the model's tokenizer has no pad_token; expected the tokenizer of an encoder")
    return int(tokenizer.pad_token_id)
