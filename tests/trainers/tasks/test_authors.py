"""The bundled task: rows that are where they should be, whatever the data of other tasks is, and can be learnt."""

from __future__ import annotations

from collections import Counter
from importlib import resources

import pyarrow.parquet as pq
import pytest

from tests.trainers.tasks.toy_tasks import FAST, source, write
from tests.trainers.teachers import make_tokenizer
from trainers.errors import TrainingInputError
from trainers.tasks.catalogue import find_task
from trainers.tasks.features import encode_texts
from trainers.tasks.judging import Lengths
from trainers.tasks.slices import TrainSlices, read_slices
from trainers.tasks.sources import TRAIN, TaskSource

AUTHORS = find_task("authors")
SPLITS = (TRAIN, "validation")


@pytest.fixture(scope="module")
def rows():
    return {split: TaskSource().read(AUTHORS, split) for split in SPLITS}


@pytest.fixture(scope="module")
def passages():
    """Of each author, in reading order."""
    table = pq.read_table(str(resources.files("trainers") / "corpora" / "novels-train.parquet"))
    found: dict[str, list[str]] = {}
    for row in table.to_pylist():
        found.setdefault(row["author"], []).append(row["text"])
    return found


def test_the_labels_are_the_authors_of_the_bundled_novels(passages):
    assert set(AUTHORS.labels) == set(passages)
    assert len(AUTHORS.labels) == AUTHORS.num_outputs == 16


def test_classes_are_balanced_and_any_slice_is_a_mix(rows):
    for split, count in zip(SPLITS, (160, 32), strict=True):
        assert set(Counter(rows[split]["label"]).values()) == {count}
        assert rows[split]["label"][:16] == rows[split]["label"][-16:] == list(range(16))
        assert len(set(rows[split]["text"])) == len(rows[split]["text"]), "no paragraph comes twice"


def test_every_row_is_of_its_author_and_its_part_of_the_book(rows, passages):
    """Nothing of the last two passages is trained on, and nothing of the one before them is used."""
    for split, part in ((TRAIN, slice(None, -3)), ("validation", slice(-2, None))):
        paragraphs = {
            author: {one for passage in found[part] for one in passage.split("\n\n")}
            for author, found in passages.items()
        }
        for text, label in zip(rows[split]["text"], rows[split]["label"], strict=True):
            assert text in paragraphs[AUTHORS.labels[label]]
            assert 30 <= len(text.split()) <= 200
    assert not set(rows[TRAIN]["text"]) & set(rows["validation"]["text"])


@pytest.mark.parametrize("data", ["hub", "/nowhere", "dataset:nyu-mll/glue"])
def test_the_rows_are_there_whatever_the_data_is(data, rows):
    some = TaskSource(data)
    some.check(AUTHORS)
    assert [some.has(AUTHORS, split) for split in (*SPLITS, "test")] == [True, True, False]
    assert some.read(AUTHORS, TRAIN) == rows[TRAIN]
    assert some.fingerprint(AUTHORS) == TaskSource().fingerprint(AUTHORS)


def test_what_others_name_so_is_not_taken_for_it(tmp_path):
    write(tmp_path, "authors/train", text=["w1"], label=[0])
    assert len(source(tmp_path).read(AUTHORS, TRAIN)["label"]) == 2560
    with pytest.raises(
        TrainingInputError, match=r"^finetuning.train_data.authors: mine: found a folder for a task whose"
    ):
        TaskSource("/nowhere", {"authors": "mine"}, "finetuning.data").check(AUTHORS)
    with pytest.raises(TrainingInputError, match=r"^--train-data authors=mine: found a folder for a task whose"):
        TaskSource("/nowhere", {"authors": "mine"}, "--data").check(AUTHORS)
    with pytest.raises(TrainingInputError, match=r"task 'authors': found the split 'test', expected train and valid"):
        TaskSource().read(AUTHORS, "test")


def test_candidates_are_judged_on_every_author(rows):
    """The slices of a search: with the defaults, the last 1 % of the rows has all authors in it."""
    tokenizer = make_tokenizer()
    training, held_out = read_slices(AUTHORS, TaskSource(), tokenizer, Lengths(16, FAST.answers), TrainSlices())
    assert len(training) == 256
    assert held_out.examples == 25
    assert set(held_out.columns["label"]) == set(range(16))
    assert len(encode_texts(rows["validation"], AUTHORS, tokenizer, 16)) == 512
