"""Question answering: sliding windows over contexts, and the best span of all windows.

Shape legend: W windows, T tokens of a window, C scores of a token.

A context that is longer than a window is cut into overlapping windows. A window that does not hold the whole answer is
taught to point at its first token, which is also how a question says that it has no answer (SQuAD 2.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from trainers.errors import TrainingInputError
from trainers.tasks.batching import Encoded
from trainers.tasks.features import limited, select_rows
from trainers.tasks.sources import Columns

LONGEST_QUESTION = 64
"""Tokens of a question that are kept, as in BERT's SQuAD."""
NO_TOKEN = (-1, -1)
Answerability = Literal["layer", "span"]
"""How a question is found to have no answer: by a binary layer on the first token, trained together with the spans
(RoBERTa, and NAS-BERT's SQuAD 2.0), or by a span at the first token that scores higher than all others (BERT)."""
Offsets = list[tuple[int, int]]


@dataclass(frozen=True)
class AnswerSettings:
    """How contexts are cut and answers are chosen.

    Attributes:
        max_length: tokens of a window, question included.
        stride: tokens by which neighbouring windows overlap.
        max_answer_tokens: longest answer.
        answerability: of tasks whose questions may have no answer.
    """

    max_length: int = 384
    stride: int = 128
    max_answer_tokens: int = 30
    answerability: Answerability = "layer"


@dataclass(frozen=True)
class Windows:
    """Encoded windows and where they come from.

    Attributes:
        encoded: the windows; a label is the first and last token of the answer, (0, 0) where the window has none.
        question_of: for each window, the row of its question.
        offsets: for each window, where each token lies in the context (characters from, to); ``NO_TOKEN`` for tokens
            that are not the context's.
    """

    encoded: Encoded
    question_of: list[int]
    offsets: list[Offsets]


def training_rows(columns: Columns, wanted: int | None) -> Columns:
    """The rows that can teach: those whose answer's place is certain, at most ``wanted`` of them."""
    unique = columns.get("answer_start_unique")
    if unique is not None:
        columns = select_rows(columns, [row for row, certain in enumerate(unique) if certain])
    return limited(columns, wanted)


def encode_windows(columns: Columns, tokenizer: PreTrainedTokenizerBase, settings: AnswerSettings) -> Windows:
    """Cut questions with their contexts into windows.

    Args:
        columns: ``question``, ``context`` and ``answers``, a mapping of ``text`` and ``answer_start`` (lists, empty
            where there is no answer).
        tokenizer: the model's, a fast one.
        settings: lengths.

    Raises:
        TrainingInputError: windows are too short, or an answer is not where it should be.
    """
    max_length = settings.max_length
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    longest_question = min(LONGEST_QUESTION, room // 2)
    if room - longest_question <= settings.stride:
        raise TrainingInputError(
            f"answer stride: found {settings.stride}, expected less than {room - longest_question}, the tokens of a "
            f"window of {max_length} beside its question; lower the stride or raise the length"
        )
    questions = [_shortened(question.lstrip(), tokenizer, longest_question) for question in columns["question"]]
    encoded: Any = tokenizer(
        questions,
        list(columns["context"]),
        truncation="only_second",
        max_length=max_length,
        stride=settings.stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding=False,
        verbose=False,
    )
    question_of = [int(row) for row in encoded["overflow_to_sample_mapping"]]
    offsets: list[Offsets] = []
    labels = []
    for window, row in enumerate(question_of):
        is_context = [part == 1 for part in encoded.sequence_ids(window)]
        places = [
            (int(place[0]), int(place[1])) if inside else NO_TOKEN
            for place, inside in zip(encoded["offset_mapping"][window], is_context, strict=True)
        ]
        offsets.append(places)
        labels.append(_answer_tokens(places, columns["answers"][row], columns["context"][row], row))
    pad = tokenizer.pad_token_id
    assert pad is not None
    return Windows(Encoded(encoded["input_ids"], encoded.get("token_type_ids"), labels, int(pad)), question_of, offsets)


def _shortened(question: str, tokenizer: PreTrainedTokenizerBase, longest: int) -> str:
    if len(question) <= longest:  # no token is shorter than a character
        return question
    encoded: Any = tokenizer(
        question, add_special_tokens=False, return_offsets_mapping=True, truncation=True, max_length=longest
    )
    places = encoded["offset_mapping"]
    return question[: places[-1][1]] if places else question


def _answer_tokens(places: Offsets, answers: Any, context: str, row: int) -> tuple[int, int]:
    """The first and last token of the first answer; (0, 0) where the window does not hold all of it."""
    if not answers["text"]:
        return 0, 0
    text, start = answers["text"][0], int(answers["answer_start"][0])
    end = start + len(text)
    if context[start:end] != text:
        raise TrainingInputError(
            f"answers: row {row} has the answer {text!r} at {start}, where its context has {context[start:end]!r}; "
            f"correct answer_start"
        )
    touching = [position for position, (first, last) in enumerate(places) if first < end and last > start]
    if not touching:
        return 0, 0
    first, last = touching[0], touching[-1]
    inside = places[first][0] <= start and places[last][1] >= end
    return (first, last) if inside else (0, 0)


@dataclass(frozen=True)
class Span:
    """A found answer.

    Attributes:
        text: as it stands in the context; empty where there is none.
        score: of having an answer, from 0 upwards it has one: the binary layer's logit or, without that layer, the
            score of the span's start and end minus that of the first token's.
        best: the span of highest score, also where ``text`` is empty.
    """

    text: str
    score: float
    best: str


def best_spans(
    windows: Windows,
    logits: Sequence[NDArray[np.float32]],
    contexts: Sequence[str],
    settings: AnswerSettings,
    unanswerable: bool,
) -> list[Span]:
    """The best answer to each question over all its windows.

    Args:
        windows: of all questions.
        logits: for each window ``[T, 2]``, scores of starts and ends; ``[T, 3]`` with that of there being an answer,
            of which a question's highest counts.
        contexts: of each question.
        settings: the longest answer.
        unanswerable: whether no answer is an answer.
    """
    best: list[tuple[float, str]] = [(-np.inf, "")] * len(contexts)
    nothing = [np.inf] * len(contexts)
    answerable = [-np.inf] * len(contexts)
    for window, row in enumerate(windows.question_of):
        scores_TC = logits[window]
        nothing[row] = min(nothing[row], float(scores_TC[0, 0] + scores_TC[0, 1]))
        if scores_TC.shape[-1] > 2:
            answerable[row] = max(answerable[row], float(scores_TC[0, 2]))
        score, first, last = best_span_of_window(scores_TC, windows.offsets[window], settings.max_answer_tokens)
        if score > best[row][0]:
            places = windows.offsets[window]
            best[row] = score, contexts[row][places[first][0] : places[last][1]]
    spans = []
    for (score, text), none, by_layer in zip(best, nothing, answerable, strict=True):
        found = score - none if by_layer == -np.inf else by_layer
        spans.append(Span("" if unanswerable and found < 0 else text, found, text))
    return spans


def best_span_of_window(scores_T2: NDArray[np.float32], places: Offsets, longest: int) -> tuple[float, int, int]:
    """The span of highest summed score: score, first and last token; all spans are tried.

    Args:
        scores_T2: of starts and ends.
        places: as in :class:`Windows`; spans lie in the context.
        longest: tokens of a span.
    """
    is_context = np.array([place != NO_TOKEN for place in places])
    starts_T = np.where(is_context, scores_T2[:, 0].astype(np.float64), -np.inf)
    ends_T = np.where(is_context, scores_T2[:, 1].astype(np.float64), -np.inf)
    best = (-np.inf, 0, 0)
    for distance in range(min(longest, len(places))):
        sums = starts_T[: len(places) - distance] + ends_T[distance:]
        first = int(np.argmax(sums))
        if sums[first] > best[0]:
            best = (float(sums[first]), first, first + distance)
    return best
