"""Windows over contexts, and spans back to text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.teachers import make_tokenizer
from trainers.errors import TrainingInputError
from trainers.tasks.answers import (
    NO_TOKEN,
    AnswerSettings,
    best_span_of_window,
    best_spans,
    encode_windows,
    training_rows,
)

TOKENIZER = make_tokenizer()
SMALL = AnswerSettings(max_length=16, stride=4, max_answer_tokens=5)


def question(context, answer, start, asked="w0 w1"):
    answers = {"text": [answer], "answer_start": [start]} if answer else {"text": [], "answer_start": []}
    return {"question": [asked], "context": [context], "answers": [answers]}


def one_hot(windows, spans):
    """Logits that point at a first and last token in each window."""
    logits = []
    for ids, (first, last) in zip(windows.encoded.input_ids, spans, strict=True):
        scores_T2 = np.zeros((len(ids), 2), dtype=np.float32)
        scores_T2[first, 0] = scores_T2[last, 1] = 5.0
        logits.append(scores_T2)
    return logits


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.integers(2, 93).map("w{}".format), min_size=1, max_size=40),
    data=st.data(),
    blank=st.sampled_from([" ", "  ", " . "]),
)
def test_labels_lead_back_to_the_answer(words, data, blank):
    """Whatever the context and wherever the answer: a model that points at the labels finds the text."""
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(len(words) - 1, first + 2)))
    context = blank.join(words)
    start = sum(len(word) + len(blank) for word in words[:first])
    answer = blank.join(words[first : last + 1])
    windows = encode_windows(question(context, answer, start), TOKENIZER, AnswerSettings(16, 6, 8))
    labels = windows.encoded.labels
    holding = [label for label in labels if label != (0, 0)]
    assert holding, "windows overlap by more than the answer is long, so one of them holds it whole"
    logits = one_hot(windows, labels)
    assert best_spans(windows, logits, [context], AnswerSettings(16, 6, 8), False)[0].text == answer


@settings(max_examples=40, deadline=None)
@given(words=st.lists(st.integers(2, 93).map("w{}".format), min_size=1, max_size=60))
def test_windows_cover_every_token_and_offsets_name_its_text(words):
    context = " ".join(words)
    windows = encode_windows(question(context, "", 0), TOKENIZER, SMALL)
    covered = set()
    for ids, places in zip(windows.encoded.input_ids, windows.offsets, strict=True):
        assert len(ids) == len(places) <= SMALL.max_length
        for token, (start, end) in zip(ids, places, strict=True):
            if (start, end) != NO_TOKEN:
                assert TOKENIZER.convert_ids_to_tokens(token) == context[start:end]
                covered.add((start, end))
    assert len(covered) == len(words)


def test_an_answer_cut_by_a_window_is_not_taught_there():
    words = [f"w{number}" for number in range(10, 40)]
    context = " ".join(words)
    answer = " ".join(words[12:16])
    windows = encode_windows(question(context, answer, context.index(answer)), TOKENIZER, AnswerSettings(16, 6, 5))
    for places, label in zip(windows.offsets, windows.encoded.labels, strict=True):
        held = [context[a:b] for a, b in places if (a, b) != NO_TOKEN]
        if label == (0, 0):
            assert not set(words[12:16]) <= set(held)
        else:
            assert context[places[label[0]][0] : places[label[1]][1]] == answer


@settings(max_examples=60, deadline=None)
@given(data=st.data(), length=st.integers(2, 12), longest=st.integers(1, 6))
def test_the_best_span_is_that_of_all_spans(data, length, longest):
    numbers = st.floats(-5, 5, width=32)
    scores_T2 = np.array(data.draw(st.lists(st.tuples(numbers, numbers), min_size=length, max_size=length)), np.float32)
    places = [(row, row + 1) if data.draw(st.booleans()) else NO_TOKEN for row in range(length)]
    score, first, last = best_span_of_window(scores_T2, places, longest)
    every = [
        float(np.float64(scores_T2[start, 0]) + np.float64(scores_T2[end, 1]))
        for start in range(length)
        for end in range(start, min(length, start + longest))
        if places[start] != NO_TOKEN and places[end] != NO_TOKEN
    ]
    assert score == (max(every) if every else -np.inf)
    if every:
        assert first <= last < first + longest


def test_no_answer_wins_where_it_scores_higher_than_every_span():
    context = "w5 w6 w7"
    windows = encode_windows(question(context, "", 0), TOKENIZER, SMALL)
    nothing = one_hot(windows, [(0, 0)])
    first = next(row for row, place in enumerate(windows.offsets[0]) if place != NO_TOKEN)
    something = one_hot(windows, [(first, first + 1)])
    assert best_spans(windows, nothing, [context], SMALL, True)[0].text == ""
    assert best_spans(windows, something, [context], SMALL, True)[0].text == "w5 w6"
    assert best_spans(windows, nothing, [context], SMALL, False)[0].text != "", "SQuAD 1.1 always has an answer"


def test_the_layer_alone_decides_whether_there_is_an_answer():
    """Its highest score over the windows of a question, whatever the spans at the first token score."""
    context = " ".join(f"w{number}" for number in range(10, 30))
    windows = encode_windows(question(context, "", 0), TOKENIZER, SMALL)
    assert len(windows.encoded) > 1
    place = next(row for row, place in enumerate(windows.offsets[0]) if place != NO_TOKEN)
    spans = one_hot(windows, [(place, place)] + [(0, 0)] * (len(windows.encoded) - 1))
    for scores, text in (((-2.0, 0.5), "w10"), ((-2.0, -0.5), "")):
        layer = [scores[0]] * (len(spans) - 1) + [scores[1]]
        logits = [
            np.concatenate([scores_T2, np.full((len(scores_T2), 1), score, np.float32)], axis=1)
            for scores_T2, score in zip(spans, layer, strict=True)
        ]
        [found] = best_spans(windows, logits, [context], SMALL, True)
        assert (found.text, found.score, found.best) == (text, scores[1], "w10")


def test_questions_that_are_too_long_are_shortened():
    asked = " ".join(["w3"] * 200)
    windows = encode_windows(question("w5 w6", "w6", 3, asked), TOKENIZER, SMALL)
    assert all(len(ids) <= 16 for ids in windows.encoded.input_ids)
    assert any(label != (0, 0) for label in windows.encoded.labels)


def test_an_answer_that_is_not_in_its_place():
    with pytest.raises(TrainingInputError, match=r"row 0 has the answer 'w6' at 1, where its context has '5 '"):
        encode_windows(question("w5 w6", "w6", 1), TOKENIZER, SMALL)


def test_a_stride_that_leaves_no_room():
    with pytest.raises(TrainingInputError, match="answer stride: found 12, expected less than"):
        encode_windows(question("w5 w6", "w6", 3), TOKENIZER, AnswerSettings(16, 12))


def test_only_certain_places_teach():
    columns = {"question": ["a", "b", "c"], "answer_start_unique": [True, False, True]}
    assert training_rows(columns, None)["question"] == ["a", "c"]
    assert len(training_rows(columns, 1)["question"]) == 1
    assert training_rows({"question": ["a"]}, None) == {"question": ["a"]}
