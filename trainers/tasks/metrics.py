"""Scores of whole data sets as GLUE and SQuAD define them; nothing is ever averaged over batches.

All values are shares: 0.843, not 84.3. Matthews and the correlations lie between -1 and 1.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any] | Sequence[Any]


def accuracy(predicted: Values, gold: Values) -> float:
    """Share of the examples that are right."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(np.asarray(gold), np.asarray(predicted)))


def f1(predicted: Values, gold: Values) -> float:
    """F1 of class 1 against class 0, as GLUE scores MRPC and QQP; 0 where class 1 is never right."""
    from sklearn.metrics import f1_score

    return float(f1_score(np.asarray(gold), np.asarray(predicted), zero_division=0.0))


def matthews(predicted: Values, gold: Values) -> float:
    """Matthews' correlation, as GLUE scores CoLA; 0 where a model says the same of every sentence."""
    from sklearn.metrics import matthews_corrcoef

    if len(np.unique(np.asarray(predicted))) < 2 or len(np.unique(np.asarray(gold))) < 2:
        return 0.0
    return float(matthews_corrcoef(np.asarray(gold), np.asarray(predicted)))


def pearson(predicted: Values, gold: Values) -> float:
    """Pearson's correlation; 0 where one side is constant."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, predicted, gold)


def spearman(predicted: Values, gold: Values) -> float:
    """Spearman's rank correlation; 0 where one side is constant."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, predicted, gold)


def _correlation(measure: Callable[..., Any], predicted: Values, gold: Values) -> float:
    one, other = np.asarray(predicted, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    value = float(measure(one, other).statistic)
    return value if math.isfinite(value) else 0.0


SCORES: Mapping[str, Callable[[Values, Values], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
"""Metrics of one prediction an example, by name."""

THRESHOLD = "_threshold"
"""How the names of metrics end that are no share but the logit from which a question is answered."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)


def normalised_answer(text: str) -> str:
    """SQuAD's normal form: lower case, without punctuation, articles and superfluous blanks."""
    kept = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def _answer_f1(predicted: str, gold: str) -> float:
    found, expected = normalised_answer(predicted).split(), normalised_answer(gold).split()
    if not found or not expected:  # no answer is right if there is none, and wrong otherwise
        return float(found == expected)
    common = sum((Counter(found) & Counter(expected)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(found), common / len(expected)
    return 2 * precision * recall / (precision + recall)


def answer_scores(predicted: Sequence[str], gold: Sequence[Sequence[str]]) -> dict[str, float]:
    """Exact match and F1 as SQuAD's own scripts compute them (1.1, and 2.0 at the threshold that predictions have).

    Args:
        predicted: an answer to each question, empty for "has no answer".
        gold: the right answers to each; none where the question has no answer. The best one counts.

    Returns:
        ``exact_match`` and ``f1``, means over all questions; where some have no answer, also the means over those that
        have one (``..._answerable``) and over those that have none (``..._unanswerable``).
    """
    exact, overlap = _scores_of_questions(predicted, gold)
    scores = {"exact_match": float(exact.mean()), "f1": float(overlap.mean())}
    has_answer = np.array([bool(answers) for answers in gold])
    if not has_answer.all() and has_answer.any():
        for name, values in (("exact_match", exact), ("f1", overlap)):
            scores[f"{name}_answerable"] = float(values[has_answer].mean())
            scores[f"{name}_unanswerable"] = float(values[~has_answer].mean())
    return scores


def best_answer_scores(
    spans: Sequence[str], scores: Sequence[float], gold: Sequence[Sequence[str]]
) -> dict[str, float]:
    """What the best threshold would have given, as SQuAD 2.0's own script reports beside the rest.

    The threshold is chosen on the very answers that are judged: an upper bound, not a score to compare models by.

    Args:
        spans: the best span of each question.
        scores: of each question having an answer: from the threshold upwards its span is the answer, below it none.
        gold: the right answers to each; none where the question has no answer.

    Returns:
        ``best_exact_match`` and ``best_f1`` with their thresholds, ``..._threshold``.
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    sorted_scores = np.asarray(scores, dtype=np.float64)[order]
    silent = np.array([float(not answers) for answers in gold])[order]
    # Answering the first so many questions; those of equal score are answered together or not at all.
    ends = np.append(np.flatnonzero(np.diff(sorted_scores)) + 1, len(order))
    counts = np.insert(ends, 0, 0)
    found = {}
    for name, values in zip(("exact_match", "f1"), _scores_of_questions(spans, gold), strict=True):
        gains = np.insert(np.cumsum(values[order] - silent), 0, 0.0)[counts]
        count = int(counts[int(np.argmax(gains))])
        found[f"best_{name}"] = float((silent.sum() + gains.max()) / len(order))
        found[f"best_{name}{THRESHOLD}"] = float(sorted_scores[count - 1] if count else sorted_scores[0] + 1.0)
    return found


def _scores_of_questions(
    predicted: Sequence[str], gold: Sequence[Sequence[str]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact match and F1 of each question."""
    exact, overlap = [], []
    for text, answers in zip(predicted, gold, strict=True):
        expected = [answer for answer in answers if normalised_answer(answer)] or [""]
        exact.append(max(float(normalised_answer(text) == normalised_answer(answer)) for answer in expected))
        overlap.append(max(_answer_f1(text, answer) for answer in expected))
    return np.array(exact), np.array(overlap)


Entity = tuple[str, int, int]
"""Type, first word, and the word behind the last."""


def entities(tags: Sequence[str]) -> Iterator[Entity]:
    """The entities of a sentence's BIO tags, as CoNLL's evaluation script reads them.

    ``I-X`` that follows neither ``B-X`` nor ``I-X`` begins an entity too, so the IO scheme is read as well.
    """
    kind, start = "", 0
    for position, tag in enumerate([*tags, "O"]):
        mark, _, found = tag.partition("-")
        if kind and (mark != "I" or found != kind):
            yield kind, start, position
            kind = ""
        if not kind and mark in ("B", "I"):
            kind, start = found, position


def tag_scores(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> dict[str, float]:
    """Accuracy over words, and F1 over whole entities (type and both borders right), over all sentences.

    Returns:
        ``accuracy``, ``f1``, ``precision`` and ``recall``; the last three are 0 where there are no entities.
    """
    right = words = correct = found = expected = 0
    for some_predicted, some_gold in zip(predicted, gold, strict=True):
        right += sum(one == other for one, other in zip(some_predicted, some_gold, strict=True))
        words += len(some_gold)
        ours, theirs = set(entities(some_predicted)), set(entities(some_gold))
        correct, found, expected = correct + len(ours & theirs), found + len(ours), expected + len(theirs)
    precision, recall = correct / max(1, found), correct / max(1, expected)
    both = 2 * precision * recall / (precision + recall) if correct else 0.0
    return {"accuracy": right / max(1, words), "f1": both, "precision": precision, "recall": recall}


GLUE_COLUMNS: Mapping[str, tuple[str, str, str]] = {
    "mnli-m": ("mnli", "validation_matched", "accuracy"),
    "mnli-mm": ("mnli", "validation_mismatched", "accuracy"),
    "qqp": ("qqp", "validation", "f1"),
    "qnli": ("qnli", "validation", "accuracy"),
    "sst2": ("sst2", "validation", "accuracy"),
    "cola": ("cola", "validation", "matthews"),
    "stsb": ("stsb", "validation", "spearman"),
    "mrpc": ("mrpc", "validation", "f1"),
    "rte": ("rte", "validation", "accuracy"),
}
"""The columns of published GLUE test tables: task, split and metric. WNLI is not among them."""


def glue_average(scores: Mapping[tuple[str, str, str], float]) -> float | None:
    """The mean over GLUE's nine columns: MNLI's two dev sets count as two, QQP and MRPC by F1.

    It is what EfficientBERT and TinyBERT print of the test server (MobileBERT-TINY's row gives 77.0 so), here on dev
    splits. The plain mean of headlines (:func:`average`) counts MNLI once and QQP and MRPC by accuracy.

    Args:
        scores: of one model and seed, by task, split and metric.

    Returns:
        ``None`` where a column is missing.
    """
    columns = [scores.get(place) for place in GLUE_COLUMNS.values()]
    known = [value for value in columns if value is not None]
    return float(np.mean(known)) if len(known) == len(columns) else None


def average(headlines: Mapping[str, float]) -> float:
    """The plain mean of the tasks' headline metrics: GLUE's and the paper's AVG.

    Args:
        headlines: of each task. NAS-BERT's eight are those of GLUE without WNLI, with MNLI's matched accuracy.
    """
    return float(np.mean(list(headlines.values()))) if headlines else math.nan
