from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.corpora import make_documents
from tests.trainers.teachers import make_tokenizer
from trainers.corpus import CorpusSource, hold_out, pack
from trainers.errors import TrainingInputError

TOKENIZER = make_tokenizer()
PAD, CLS, SEP = 0, 2, 3
WORDS = st.integers(0, 93).map(lambda number: f"w{number}")
DOCUMENTS = st.lists(st.lists(WORDS, max_size=25).map(" ".join), min_size=1, max_size=6)


def ids_of(document):
    return TOKENIZER(document, add_special_tokens=False)["input_ids"]


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.integers(3, 12))
def test_every_token_is_packed_exactly_once_in_order(documents, sequence_length):
    expected = [ids for ids in map(ids_of, documents) if ids]
    if sum(map(len, expected)) < sequence_length - 2:
        with pytest.raises(TrainingInputError):
            list(pack(documents, TOKENIZER, sequence_length))
        return
    portions = list(pack(documents, TOKENIZER, sequence_length))
    assert len(portions) == len(expected), "a portion is a document: no sequence spans two"
    for ids, (tokens_ST, lengths_S) in zip(expected, portions, strict=True):
        assert tokens_ST.dtype == lengths_S.dtype == np.int32
        assert tokens_ST.shape == (len(lengths_S), sequence_length)
        packed = []
        for row, length in zip(tokens_ST.tolist(), lengths_S.tolist(), strict=True):
            assert row[0] == CLS
            assert row[length - 1] == SEP
            assert row[length:] == [PAD] * (sequence_length - length)
            packed += row[1 : length - 1]
        assert packed == ids
        assert (lengths_S[:-1] == sequence_length).all(), "only the last row of a document is padded"
        assert 3 <= lengths_S[-1] <= sequence_length


def test_lines_are_joined_and_blank_ones_do_not_count():
    ((tokens_ST, lengths_S),) = pack(["w1 w2\n\n  \nw3\n"], TOKENIZER, 5)
    assert tokens_ST.tolist() == [[CLS, *ids_of("w1 w2 w3"), SEP]]
    assert lengths_S.tolist() == [5]


def test_documents_of_more_lines_than_are_tokenised_at_once():
    lines = [f"w{number % 94}" for number in range(5000)]
    ((tokens_ST, lengths_S),) = pack(["\n".join(lines)], TOKENIZER, 102)
    assert tokens_ST[:, 1:-1].flatten().tolist() == ids_of(" ".join(lines))
    assert (lengths_S == 102).all()


@pytest.mark.parametrize("max_tokens", [10, 19, 20, 21, 399, 400, 1000])
def test_max_tokens_is_kept_to_the_token(max_tokens):
    documents = make_documents(count=20, words=20)
    whole = [token for document in documents for token in ids_of(document)]
    rows = list(pack(documents, TOKENIZER, 12, max_tokens))
    packed = [
        token
        for tokens_ST, lengths_S in rows
        for row, length in zip(tokens_ST.tolist(), lengths_S.tolist(), strict=True)
        for token in row[1 : length - 1]
    ]
    assert packed == whole[:max_tokens]


def test_documents_beyond_max_tokens_are_not_read():
    def documents():
        yield "w1 " * 50
        raise AssertionError("read too far")

    assert sum(int(lengths_S.sum()) for _, lengths_S in pack(documents(), TOKENIZER, 12, 50)) == 50 + 2 * 5


@pytest.mark.parametrize("documents", [[], [""], ["\n \n", "  "]])
def test_an_empty_corpus(documents):
    with pytest.raises(TrainingInputError) as raised:
        list(pack(documents, TOKENIZER, 12, key="corpus.validation_source"))
    assert str(raised.value) == (
        "corpus.validation_source: the corpus is empty; expected at least one document with text"
    )


def test_a_corpus_shorter_than_one_sequence():
    with pytest.raises(TrainingInputError) as raised:
        list(pack(["w1 w2", "w3"], TOKENIZER, 12))
    assert str(raised.value) == (
        "corpus.sequence_length: found 12, but all of corpus.source has only 3 tokens; give more text or a shorter "
        "sequence_length"
    )
    assert len(list(pack(["w1 w2", "w3"], TOKENIZER, 5))) == 2


def rows_of(portions):
    return [
        (tuple(row), int(length))
        for tokens_ST, lengths_S in portions
        for row, length in zip(tokens_ST.tolist(), lengths_S.tolist(), strict=True)
    ]


@settings(max_examples=30, deadline=None)
@given(fraction=st.floats(0.1, 0.9), seed=st.integers(0, 1000))
def test_held_out_rows_and_the_others_are_all_rows_and_share_none(fraction, seed):
    documents = [f"w{first} w{second} w{first}" for first in range(10) for second in range(5)]
    everything = rows_of(pack(documents, TOKENIZER, 5))
    held_out = []
    kept = rows_of(hold_out(pack(documents, TOKENIZER, 5), fraction, seed, held_out))
    held = rows_of(held_out)
    assert len(set(everything)) == len(everything) == 50
    assert sorted(kept + held) == sorted(everything)
    assert not set(kept) & set(held)
    again = []
    assert rows_of(hold_out(pack(documents, TOKENIZER, 5), fraction, seed, again)) == kept
    assert rows_of(again) == held


def test_the_fraction_is_held_out():
    documents = make_documents(count=400, words=20)
    held_out = []
    kept = rows_of(hold_out(pack(documents, TOKENIZER, 12), 0.2, 3, held_out))
    assert len(kept) + len(rows_of(held_out)) == 800
    assert len(rows_of(held_out)) == pytest.approx(160, abs=40)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_too_little_to_hold_out(fraction):
    with pytest.raises(TrainingInputError) as raised:
        list(hold_out(pack(["w1 w2 w3"], TOKENIZER, 5), fraction, 0, []))
    assert str(raised.value) == (
        f"corpus.validation_fraction: found {fraction}, but the corpus has only 1 sequences, too few to hold some out; "
        f"give more text or a validation_source"
    )


def test_real_wikipedia_with_the_real_tokenizer(netsuke_data, real_teacher):
    source = CorpusSource(str(netsuke_data / "wikipedia-en-2015-sample"), split="validation")
    documents = list(islice(source.documents(), 20))
    tokenizer = real_teacher.tokenizer
    packed = []
    for tokens_ST, lengths_S in pack(documents, tokenizer, 128):
        rows = zip(tokens_ST.tolist(), lengths_S.tolist(), strict=True)
        packed.append([token for row, length in rows for token in row[1 : length - 1]])
    assert sum(map(len, packed)) > 1000
    for document, ids in zip(documents, packed, strict=True):
        assert ids == tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
