"""Slices of a training split (item 28 of EfficientBERT's list)."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainers.tasks.toy_tasks import source, write_answers, write_sentiment
from tests.trainers.teachers import make_tokenizer
from trainers.errors import TrainingInputError
from trainers.tasks.answers import AnswerSettings
from trainers.tasks.catalogue import find_task
from trainers.tasks.judging import Lengths
from trainers.tasks.slices import TrainSlices, read_slices

MNLI_ROWS = 392_702
LENGTHS = Lengths(24, AnswerSettings(24, 4, 3))


@pytest.mark.parametrize(
    ("slices", "trained", "judged"),
    [(TrainSlices(), 39_270, 3_927), (TrainSlices(0.1, 0.01), 39_270, 3_927), (TrainSlices(0.9, 0.1), 353_431, 39_270)],
)
def test_the_papers_slices_of_mnli(slices, trained, judged):
    first, last = slices.rows(MNLI_ROWS)
    assert (len(first), len(last)) == (trained, judged)
    assert (first.start, last.stop) == (0, MNLI_ROWS)
    assert first.stop <= last.start


@given(
    count=st.integers(1, 10**6),
    hundredths=st.tuples(st.integers(1, 100), st.integers(1, 100)).filter(lambda pair: sum(pair) <= 100),
)
def test_slices_are_exact_and_disjoint(count, hundredths):
    """Exact: 29 % of 100 rows are 29, although 0.29 * 100 is less in floating point."""
    first_share, last_share = hundredths
    trained, judged = first_share * count // 100, last_share * count // 100
    slices = TrainSlices(first_share / 100, last_share / 100)
    if not trained or not judged:
        with pytest.raises(TrainingInputError, match="expected at least one each"):
            slices.rows(count)
        return
    first, last = slices.rows(count)
    assert (len(first), len(last)) == (trained, judged)
    assert not set(first[-1:]) & set(last[:1])
    assert first.stop <= last.start


def test_shares_that_overlap_are_refused():
    with pytest.raises(TrainingInputError, match=r"found 0.6 and 0.5, expected shares that are together at most 1"):
        TrainSlices(0.6, 0.5).rows(100)


def test_the_rows_are_those_of_the_training_split(tmp_path):
    write_sentiment(tmp_path, train=50)
    task = find_task("sst2")
    training, held_out = read_slices(task, source(tmp_path), make_tokenizer(), LENGTHS, TrainSlices(0.3, 0.1))
    rows = pq.read_table(tmp_path / "glue/sst2/train.parquet").to_pydict()
    assert training.labels == rows["label"][:15]
    assert held_out.encoded.labels == held_out.columns["label"] == rows["label"][45:]
    assert held_out.columns["sentence"] == rows["sentence"][45:]
    assert list(training.input_ids[3]) == make_tokenizer()(rows["sentence"][3])["input_ids"]


def test_only_texts_with_a_class_or_a_number_have_slices(tmp_path):
    write_answers(tmp_path)
    with pytest.raises(TrainingInputError, match="task 'squad_v1': candidates are tuned on texts"):
        read_slices(find_task("squad_v1"), source(tmp_path), make_tokenizer(), LENGTHS, TrainSlices())
