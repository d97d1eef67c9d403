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
    """Exact match and F1 as SQuAD's own scripts compute them (1.1, and 2.0 without tuning a threshold).

    Args:
        predicted: an answer to each question, empty for "has no answer".
        gold: the right answers to each; none where the question has no answer. The best one counts.

    Returns:
        ``exact_match`` and ``f1``, means over all questions; where some have no answer, also the means over those that
        have one (``f1_answerable``) and over those that have none (``f1_unanswerable``).
    """
    exact, overlap = [], []
    for text, answers in zip(predicted, gold, strict=True):
        expected = [answer for answer in answers if normalised_answer(answer)] or [""]
        exact.append(max(float(normalised_answer(text) == normalised_answer(answer)) for answer in expected))
        overlap.append(max(_answer_f1(text, answer) for answer in expected))
    scores = {"exact_match": float(np.mean(exact)), "f1": float(np.mean(overlap))}
    has_answer = np.array([bool(answers) for answers in gold])
    if not has_answer.all() and has_answer.any():
        scores["f1_answerable"] = float(np.mean(np.array(overlap)[has_answer]))
        scores["f1_unanswerable"] = float(np.mean(np.array(overlap)[~has_answer]))
    return scores


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


def average(headlines: Mapping[str, float]) -> float:
    """The plain mean of the tasks' headline metrics: GLUE's and the paper's AVG.

    Args:
        headlines: of each task. NAS-BERT's eight are those of GLUE without WNLI, with MNLI's matched accuracy.
    """
    return float(np.mean(list(headlines.values()))) if headlines else math.nan
