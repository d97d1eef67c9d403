"""Slices of a task's training split: what candidates of a search are tuned on, and what they are judged on.

Nothing of a dev split is touched, so that no figure that is reported later was searched for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from transformers import PreTrainedTokenizerBase

from trainers.errors import TrainingInputError
from trainers.tasks.batching import Encoded
from trainers.tasks.catalogue import DevSplit, Task
from trainers.tasks.features import encode_texts, limited, select_rows
from trainers.tasks.judging import DevSet, Lengths
from trainers.tasks.sources import TRAIN, Columns, TaskSource


@dataclass(frozen=True)
class TrainSlices:
    """The first and the last rows of a training split, as shares of it.

    EfficientBERT tunes candidates on the first 10 % of MNLI's rows and judges them on the last 1 % (39,270 and 3,927 of
    392,702); its shared supernet on the first 90 % and the last 10 %.

    Attributes:
        training: share of the rows, from the first on, that are trained on.
        held_out: share of the rows, up to the last one, that are judged on.
    """

    training: float = 0.1
    held_out: float = 0.01

    def rows(self, count: int) -> tuple[range, range]:
        """The rows to train on and to judge on, both rounded down; no row is in both.

        Args:
            count: rows of the split.

        Raises:
            TrainingInputError: the shares overlap, or leave one of both without a row.
        """
        first, last = Fraction(str(self.training)), Fraction(str(self.held_out))
        if first + last > 1:
            raise TrainingInputError(
                f"training_share and held_out_share: found {self.training} and {self.held_out}, expected shares that "
                f"are together at most 1, so that no row is both learnt and judged; lower either"
            )
        trained, judged = math.floor(first * count), math.floor(last * count)
        if not trained or not judged:
            raise TrainingInputError(
                f"training_share and held_out_share: found {self.training} and {self.held_out}, which leave {trained} "
                f"and {judged} of {count} rows, expected at least one each; raise them"
            )
        return range(trained), range(count - judged, count)


def read_slices(
    task: Task, source: TaskSource, tokenizer: PreTrainedTokenizerBase, lengths: Lengths, slices: TrainSlices
) -> tuple[Encoded, DevSet]:
    """The two slices of a task's training split as tokens.

    Args:
        task: a classification or regression.
        source: where it is.
        tokenizer: the model's.
        lengths: of sentences.
        slices: which rows.

    Raises:
        TrainingInputError: it is another kind of task, cannot be read, or its labels are not the task's.
    """
    columns, trained, judged = _sliced(task, source, slices)
    training = encode_texts(select_rows(columns, trained), task, tokenizer, lengths.max_length)
    return training, _held_out(columns, judged, task, tokenizer, lengths)


def read_training_slice(
    task: Task,
    source: TaskSource,
    tokenizer: PreTrainedTokenizerBase,
    lengths: Lengths,
    slices: TrainSlices,
    most: int | None = None,
) -> Encoded:
    """What is trained on alone, as :func:`read_slices` reads it; ``most`` rows of it, the same for every seed."""
    columns, trained, _ = _sliced(task, source, slices)
    return encode_texts(limited(select_rows(columns, trained), most), task, tokenizer, lengths.max_length)


def read_held_out(
    task: Task, source: TaskSource, tokenizer: PreTrainedTokenizerBase, lengths: Lengths, slices: TrainSlices
) -> DevSet:
    """What is judged on alone, as :func:`read_slices` reads it."""
    columns, _, judged = _sliced(task, source, slices)
    return _held_out(columns, judged, task, tokenizer, lengths)


def _sliced(task: Task, source: TaskSource, slices: TrainSlices) -> tuple[Columns, range, range]:
    """The training split, the rows that are trained on, and those that are judged on."""
    if task.kind not in ("classification", "regression"):
        raise TrainingInputError(
            f"task '{task.name}': candidates are tuned on texts with a class or a number, not on {task.kind}; name one "
            f"such as sst2 or mnli"
        )
    columns = source.read(task, TRAIN)
    return columns, *slices.rows(len(columns[task.columns[0]]))


def _held_out(
    columns: Columns, rows: range, task: Task, tokenizer: PreTrainedTokenizerBase, lengths: Lengths
) -> DevSet:
    held_out = select_rows(columns, rows)
    encoded = encode_texts(held_out, task, tokenizer, lengths.max_length)
    return DevSet(DevSplit(TRAIN), held_out, encoded, None)
