"""Metrics against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.tasks.catalogue import GLUE, TASKS
from trainers.tasks.metrics import (
    GLUE_COLUMNS,
    SCORES,
    answer_scores,
    average,
    best_answer_scores,
    entities,
    glue_average,
    matthews,
    normalised_answer,
    pearson,
    spearman,
    tag_scores,
)

GOLD = [1, 1, 1, 0, 0, 0, 0, 1]
PREDICTED = [1, 1, 0, 0, 0, 1, 0, 0]
# true positives 2, false positives 1, false negatives 2, true negatives 3


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("accuracy", 5 / 8),
        ("f1", 2 * 2 / (2 * 2 + 1 + 2)),
        ("matthews", (2 * 3 - 1 * 2) / math.sqrt(3 * 4 * 4 * 5)),
    ],
)
def test_classes_by_hand(metric, value):
    assert SCORES[metric](PREDICTED, GOLD) == pytest.approx(value, abs=1e-12)


def test_a_mean_over_batches_would_be_another_number():
    """F1 and correlations of halves do not average to those of the whole; ours are the whole's."""
    halves = [(PREDICTED[:4], GOLD[:4]), (PREDICTED[4:], GOLD[4:])]
    for metric in ("f1", "matthews"):
        mean = sum(SCORES[metric](*half) for half in halves) / 2
        assert abs(mean - SCORES[metric](PREDICTED, GOLD)) > 0.05


def test_correlations_by_hand():
    one, other = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 10.0]
    # deviations -1.5 -0.5 0.5 1.5 and -3 -1 -2 6: covariance 13, variances 5 and 50
    assert pearson(one, other) == pytest.approx(13 / math.sqrt(5 * 50))
    # ranks 1 2 3 4 and 1 3 2 4: 1 - 6 * 2 / (4 * 15)
    assert spearman(one, other) == pytest.approx(0.8)
    assert spearman(one, [value**3 for value in one]) == pytest.approx(1.0)
    assert pearson(one, [value**3 for value in one]) < 0.97


def test_a_model_that_always_says_the_same():
    assert matthews([1, 1, 1], [0, 1, 1]) == 0
    assert SCORES["f1"]([0, 0], [1, 1]) == 0
    assert pearson([2.0, 2.0], [1.0, 3.0]) == 0
    assert spearman([1.0, 3.0], [2.0, 2.0]) == 0


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=30))
def test_matthews_is_the_correlation_of_the_two_columns(pairs):
    predicted, gold = zip(*pairs, strict=True)
    assert matthews(predicted, gold) == pytest.approx(pearson(predicted, gold), abs=1e-9)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Cat, sat!", "cat sat"),
        ("  an  apple a day ", "apple day"),
        ("U.S.", "us"),
        ("theory", "theory"),
        ("the", ""),
        ("Zürich's", "zürichs"),
    ],
)
def test_answers_are_compared_in_squads_normal_form(text, normal):
    assert normalised_answer(text) == normal


def test_the_best_of_several_answers_counts():
    scores = answer_scores(["the Eiffel tower in Paris"], [["Paris", "Eiffel Tower"]])
    assert scores["exact_match"] == 0
    # two of four words are right, none is missing: precision 1/2, recall 1
    assert scores["f1"] == pytest.approx(2 / 3)
    assert answer_scores(["Eiffel tower"], [["Paris", "the Eiffel Tower!"]]) == {"exact_match": 1.0, "f1": 1.0}


def test_repeated_words_count_as_often_as_in_both():
    # common: "new" once; precision 1/2, recall 1/3
    assert answer_scores(["new new"], [["new york city"]])["f1"] == pytest.approx(0.4)


def test_questions_without_an_answer():
    gold = [[], [], ["w1"], ["w1"]]
    scores = answer_scores(["", "w1", "", "w1"], gold)
    assert scores["exact_match"] == scores["f1"] == 0.5
    assert scores["f1_answerable"] == scores["f1_unanswerable"] == 0.5
    assert scores["exact_match_answerable"] == scores["exact_match_unanswerable"] == 0.5
    assert "f1_answerable" not in answer_scores(["w1"], [["w1"]])


@given(
    st.lists(
        st.tuples(st.sampled_from(["w1", "w1 w2", "w3"]), st.integers(-3, 3), st.sampled_from([[], ["w1"], ["w3 w4"]])),
        min_size=1,
        max_size=8,
    )
)
def test_the_best_threshold_is_that_of_all(questions):
    spans, scores, gold = zip(*questions, strict=True)

    def at(threshold):
        return answer_scores(
            [span if score >= threshold else "" for span, score in zip(spans, scores, strict=True)], gold
        )

    found = best_answer_scores(spans, scores, gold)
    for name in ("exact_match", "f1"):
        every = [at(threshold)[name] for threshold in (*scores, max(scores) + 1)]
        assert found[f"best_{name}"] == pytest.approx(max(every))
        assert at(found[f"best_{name}_threshold"])[name] == pytest.approx(max(every))


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O B-A I-A O", [("A", 1, 3)]),
        ("B-A B-A I-B", [("A", 0, 1), ("A", 1, 2), ("B", 2, 3)]),
        ("I-A I-A O I-A", [("A", 0, 2), ("A", 3, 4)]),
        ("O O", []),
        ("B-A I-A I-A", [("A", 0, 3)]),
    ],
)
def test_entities_are_read_as_conll_reads_them(tags, found):
    assert list(entities(tags.split())) == found


def test_tags_by_hand():
    gold = [["B-A", "I-A", "O", "B-B"], ["O", "B-A"]]
    predicted = [["B-A", "O", "O", "B-B"], ["O", "B-A"]]
    scores = tag_scores(predicted, gold)
    assert scores["accuracy"] == pytest.approx(5 / 6)
    # found A[0,1) wrong, B right, A right: 2 of 3; expected 3
    assert scores["precision"] == scores["recall"] == scores["f1"] == pytest.approx(2 / 3)


def test_sentences_count_by_their_entities_not_as_equals():
    gold = [["B-A"] * 9, ["B-B"]]
    predicted = [["B-A"] * 9, ["O"]]
    assert tag_scores(predicted, gold)["f1"] == pytest.approx(2 * 1.0 * 0.9 / 1.9)


TAGS = st.sampled_from(["O", "B-A", "I-A", "B-B", "I-B"])


@given(st.lists(st.lists(TAGS, min_size=1, max_size=8), min_size=1, max_size=5))
def test_perfect_tags(sentences):
    scores = tag_scores(sentences, sentences)
    assert scores["accuracy"] == 1
    some = any(tag != "O" for sentence in sentences for tag in sentence)
    assert scores["f1"] == (1.0 if some else 0.0)


def test_glues_average_has_nine_columns():
    """MNLI's two dev sets count as two columns: published rows come out as their papers print them."""
    columns = ("mnli-m", "mnli-mm", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte")
    assert tuple(GLUE_COLUMNS) == columns
    mobile_bert_tiny = dict(zip(columns, (81.5, 81.6, 68.9, 89.5, 91.7, 46.7, 80.1, 87.9, 65.1), strict=True))
    scores = {GLUE_COLUMNS[name]: value for name, value in mobile_bert_tiny.items()}
    others = {("mrpc", "validation", "accuracy"): 0.0, ("wnli", "validation", "accuracy"): 0.0}
    mean = glue_average(scores | others)
    assert mean is not None
    assert round(mean, 1) == 77.0
    for place in scores:
        assert glue_average({other: value for other, value in scores.items() if other != place}) is None
    bert_base = {"mnli": 84.6, "qqp": 71.2, "qnli": 90.5, "sst2": 93.5, "mrpc": 88.9, "rte": 66.4}
    assert round(average(bert_base), 1) == 82.5


def test_glues_columns_are_metrics_that_its_tasks_have():
    assert {task for task, _, _ in GLUE_COLUMNS.values()} == set(GLUE) - {"wnli"}
    for name, split, metric in GLUE_COLUMNS.values():
        assert metric in TASKS[name].metrics
        assert split in [dev.name for dev in TASKS[name].dev_splits]


def test_the_average_is_the_plain_mean_of_the_tasks():
    """NAS-BERT60 KD's row of table 2."""
    row = dict(zip(range(8), [84.1, 91.0, 91.3, 58.1, 92.1, 89.4, 79.2, 88.5], strict=True))
    assert round(average(row), 1) == 84.2
    assert np.isnan(average({}))
