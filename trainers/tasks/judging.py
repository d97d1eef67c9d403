"""What a model predicts on whole splits, and how good that is.

Shape legend: B batch, T tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainers.precision import Precision, autocast
from trainers.tasks.answers import AnswerSettings, Windows, best_spans, encode_windows, training_rows
from trainers.tasks.batching import Encoded, batches_by_length
from trainers.tasks.catalogue import DevSplit, Task
from trainers.tasks.features import encode_texts, encode_words, limited, tags_of_words
from trainers.tasks.metrics import SCORES, Values, answer_scores, best_answer_scores, tag_scores
from trainers.tasks.models import label_order, task_logits
from trainers.tasks.sources import TRAIN, Columns, TaskSource

_EVALUATION_TOKENS = 4096
"""Tokens of an evaluation batch: memory stays small whatever the lengths."""


@dataclass(frozen=True)
class Lengths:
    """How much of a text a model sees.

    Attributes:
        max_length: tokens of sentences.
        answers: windows of question answering.
    """

    max_length: int
    answers: AnswerSettings


@dataclass(frozen=True)
class DevSet:
    """A split to judge on.

    Attributes:
        split: which.
        columns: its rows.
        encoded: the same as tokens.
        windows: of question answering; ``None`` elsewhere.
    """

    split: DevSplit
    columns: Columns
    encoded: Encoded
    windows: Windows | None

    @property
    def examples(self) -> int:
        """Rows."""
        return len(next(iter(self.columns.values())))


def read_training_set(
    task: Task, source: TaskSource, tokenizer: PreTrainedTokenizerBase, lengths: Lengths, most: int | None
) -> Encoded:
    """The training split as tokens.

    Args:
        task: with its labels.
        source: where it is.
        tokenizer: the model's.
        lengths: of sentences and windows.
        most: examples at most; the same ones for every model and seed.

    Raises:
        TrainingInputError: it cannot be read, or its labels are not the task's.
    """
    columns = source.read(task, TRAIN)
    if task.kind == "answering":
        return encode_windows(training_rows(columns, most), tokenizer, lengths.answers).encoded
    encode = encode_words if task.kind == "tagging" else encode_texts
    return encode(limited(columns, most), task, tokenizer, lengths.max_length)


def read_dev_sets(
    task: Task, source: TaskSource, tokenizer: PreTrainedTokenizerBase, lengths: Lengths, most: int | None
) -> list[DevSet]:
    """The dev splits as tokens; optional ones that a folder has not are left out."""
    sets = []
    for split in task.dev_splits:
        if not split.required and not source.has(task, split.name):
            continue
        columns = limited(source.read(task, split.name), most)
        windows = None
        if task.kind == "answering":
            windows = encode_windows(columns, tokenizer, lengths.answers)
            encoded = windows.encoded
        elif task.kind == "tagging":
            encoded = encode_words(columns, task, tokenizer, lengths.max_length)
        else:
            encoded = encode_texts(columns, task, tokenizer, lengths.max_length)
        sets.append(DevSet(split, columns, encoded, windows))
    return sets


@torch.inference_mode()
def predict(
    model: PreTrainedModel, task: Task, encoded: Encoded, precision: Precision = "float32"
) -> list[NDArray[np.float32]]:
    """A model's logits for every example, in the examples' order, without padding.

    Args:
        model: in evaluation mode, on its device; its outputs are put into the order of the task's labels.
        task: with its labels.
        encoded: examples.
        precision: number format.

    Returns:
        For each example ``[C]``, or ``[T, C]`` for tags and spans.
    """
    device = next(model.parameters()).device
    lengths = encoded.lengths
    order = label_order(model.config, task)
    found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(encoded)
    for rows in evaluation_batches(encoded):
        with autocast(precision, device):
            logits = task_logits(model, task, encoded.inputs(rows.tolist(), device))
        if task.kind != "answering":
            logits = logits[..., order]
        for row, values in zip(rows.tolist(), logits.cpu().numpy(), strict=True):
            found[row] = values[: lengths[row]] if task.kind in ("tagging", "answering") else values
    return found


def evaluation_batches(encoded: Encoded) -> Iterator[NDArray[np.int64]]:
    """The rows of examples in batches of similar length, each of about as many tokens as are run at once."""
    lengths = encoded.lengths
    return batches_by_length(lengths, max(1, _EVALUATION_TOKENS // max(1, int(np.percentile(lengths, 95)))))


def sequence_scores(task: Task, values: NDArray[np.float32], labels: Values) -> dict[str, float]:
    """The metrics of a classification or regression over a whole split.

    Args:
        task: which.
        values: what was predicted of each example, ``[rows, C]``.
        labels: of each, a class or a number.
    """
    predicted = values[:, 0] if task.kind == "regression" else values.argmax(-1)
    return {name: SCORES[name](predicted, np.asarray(labels)) for name in task.metrics}


def score(
    task: Task,
    dev_set: DevSet,
    logits: Sequence[NDArray[np.float32]],
    tokenizer: PreTrainedTokenizerBase,
    lengths: Lengths,
) -> dict[str, float]:
    """The metrics of predictions over a whole split, by name, the task's headline among them."""
    if task.kind == "answering":
        assert dev_set.windows is not None
        contexts, answers = dev_set.columns["context"], dev_set.columns["answers"]
        spans = best_spans(dev_set.windows, logits, contexts, lengths.answers, task.unanswerable)
        gold = [answer["text"] for answer in answers]
        scores = answer_scores([span.text for span in spans], gold)
        if task.unanswerable:
            scores |= best_answer_scores([span.best for span in spans], [span.score for span in spans], gold)
        return scores
    if task.kind == "tagging":
        classes = [values.argmax(-1).tolist() for values in logits]
        tags = tags_of_words(dev_set.columns, task, tokenizer, lengths.max_length, classes)
        scores = tag_scores(tags, dev_set.columns[task.columns[1]])
        return scores if task.headline == "f1" else {"accuracy": scores["accuracy"]}
    return sequence_scores(task, np.stack(logits), dev_set.encoded.labels)


def judge(
    model: PreTrainedModel,
    task: Task,
    dev_set: DevSet,
    tokenizer: PreTrainedTokenizerBase,
    lengths: Lengths,
    precision: Precision = "float32",
) -> dict[str, float]:
    """A model's metrics on a split; leaves the model in the mode it was in."""
    was_training = model.training
    model.eval()
    logits = predict(model, task, dev_set.encoded, precision)
    model.train(was_training)
    return score(task, dev_set, logits, tokenizer, lengths)
