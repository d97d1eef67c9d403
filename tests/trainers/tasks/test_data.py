"""Rows from folders, labels, and batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainers.tasks.toy_tasks import source, write, write_sentiment, write_tags
from tests.trainers.teachers import make_tokenizer
from trainers.errors import TrainingInputError
from trainers.tasks.answers import AnswerSettings
from trainers.tasks.batching import NO_LABEL, Encoded, GroupedBatches, batches_by_length, random_subset
from trainers.tasks.catalogue import GLUE, TASKS, find_task
from trainers.tasks.features import complete_task, encode_texts, encode_words, tags_of_words
from trainers.tasks.judging import Lengths, read_dev_sets, read_training_set

TOKENIZER = make_tokenizer()


def test_the_paper_s_headline_metrics():
    headlines = {name: TASKS[name].headline for name in GLUE}
    assert headlines.pop("cola") == "matthews"
    assert headlines.pop("stsb") == "spearman"
    assert set(headlines.values()) == {"accuracy"}
    assert [TASKS[name].headline for name in ("squad_v1", "squad_v2", "wnut17")] == ["f1"] * 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sst", r"tasks: found 'sst', expected one of cola, .*; did you mean 'sst2'\?"),
        ("squad3", "did you mean 'squad"),
        ("tags:wnut17", "expected tags:<folder>:<column>"),
        ("nonsense", r"found 'nonsense', expected one of .*tags:<folder>:<column>$"),
    ],
)
def test_unknown_tasks(name, message):
    with pytest.raises(TrainingInputError, match=message):
        find_task(name)


def test_other_names():
    assert find_task("SST-2").name == "sst2"
    assert find_task("squad").name == "squad_v1"
    assert find_task("tags:wikigold:ner_tags").columns == ("tokens", "ner_tags")


def test_what_is_missing_is_named(tmp_path):
    task = find_task("sst2")
    with pytest.raises(TrainingInputError, match=r"data: '.*nowhere' is not a folder; expected a folder of Parquet"):
        source(tmp_path / "nowhere").check(task)
    with pytest.raises(TrainingInputError, match=r"task 'sst2': '.*glue/sst2' has no Parquet files"):
        source(tmp_path).check(task)
    write(tmp_path, "glue/sst2/validation", sentence=["w1"], label=[0])
    with pytest.raises(TrainingInputError, match=r"has no split 'train', it has validation; name a folder with train"):
        source(tmp_path).check(task)
    source(tmp_path).check(task, train=False)
    write(tmp_path, "glue/sst2/train", text=["w1"], label=[0])
    with pytest.raises(TrainingInputError, match=r"train.parquet' has no column 'sentence'; it has text, label"):
        source(tmp_path).check(task)
    (tmp_path / "glue/sst2/train.parquet").write_text("no Parquet")
    with pytest.raises(TrainingInputError, match="is not a readable Parquet file"):
        source(tmp_path).check(task)


def test_parts_of_a_split_are_joined_and_other_splits_are_not(tmp_path):
    task = find_task("mnli")
    rows = {"premise": ["w1"], "hypothesis": ["w2"], "label": [0]}
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation_matched", "training_notes"):
        write(tmp_path, f"glue/mnli/{name}", **rows)
    data = source(tmp_path)
    assert len(data.read(task, "train")["label"]) == 2
    assert data.has(task, "validation_matched")
    assert not data.has(task, "validation_mismatched")
    assert not data.has(task, "validation"), "validation_matched is another split"
    sets = read_dev_sets(task, data, TOKENIZER, Lengths(16, AnswerSettings()), None)
    assert [one.split.name for one in sets] == ["validation_matched"]


def test_training_rows_from_elsewhere(tmp_path):
    task = find_task("sst2")
    write(tmp_path, "glue/sst2/validation", sentence=["w1"], label=[0])
    write(tmp_path, "other/one", sentence=["w1", "w2"], label=[0, 1])
    write(tmp_path, "other/two", sentence=["w3"], label=[1])
    assert source(tmp_path, sst2="other").read(task, "train")["sentence"] == ["w1", "w2", "w3"]
    assert source(tmp_path, sst2="other/two").read(task, "train")["sentence"] == ["w3"]


def test_the_fingerprint_follows_the_data(tmp_path):
    data, task = source(write_sentiment(tmp_path / "one", 8, 8)), find_task("sst2")
    before = data.fingerprint(task)
    assert before == source(write_sentiment(tmp_path / "two", 8, 8)).fingerprint(task)
    write_sentiment(tmp_path / "one", 9, 8)
    assert data.fingerprint(task) != before


@pytest.mark.parametrize(
    ("task", "label", "message"),
    [
        ("sst2", 2, r"task 'sst2': row 1 has the label 2, expected 0 \(negative\), 1 \(positive\)"),
        ("sst2", -1, "row 1 has the label -1"),
        ("rte", None, "row 1 has the label None"),
        ("stsb", 5.5, "row 1 has the label 5.5, expected a number from 0 to 5"),
        ("stsb", float("nan"), "row 1 has the label nan"),
    ],
)
def test_labels_outside_the_task(task, label, message):
    found = find_task(task)
    columns = {name: ["w1", "w2"] for name in found.columns} | {"label": [1, label]}
    with pytest.raises(TrainingInputError, match=message):
        encode_texts(columns, found, TOKENIZER, 16)


def test_tags(tmp_path):
    data = source(write_tags(tmp_path))
    task = complete_task(find_task("wnut17"), data)
    assert task.labels == ("B-bad", "B-good", "O")
    assert task.headline == "f1"
    columns = {"tokens": [["w1", "xyz", "w9"], ["w4"] * 30], "ner_tags": [["B-good", "O", "O"], ["B-bad"] * 30]}
    encoded = encode_words(columns, task, TOKENIZER, 8)
    assert encoded.labels[0] == [NO_LABEL, 1, 2, 2, NO_LABEL]
    assert len(encoded.input_ids[1]) == 8
    predicted = [[max(label, 0) for label in labels] for labels in encoded.labels]
    tags = tags_of_words(columns, task, TOKENIZER, 8, predicted)
    assert tags[0] == ["B-good", "O", "O"]
    assert tags[1] == ["B-bad"] * 6 + ["O"] * 24, "words that were cut off have no entity"


def test_part_of_speech_is_judged_by_accuracy():
    assert find_task("ewt").with_labels(("ADJ", "NOUN")).metrics == ("accuracy",)


def test_bad_tags():
    task = find_task("wnut17").with_labels(("B-a", "O"))
    with pytest.raises(TrainingInputError, match="row 0 has 2 words and 1 tags"):
        encode_words({"tokens": [["w1", "w2"]], "ner_tags": [["O"]]}, task, TOKENIZER, 8)
    with pytest.raises(TrainingInputError, match="row 0 has the tag 'B-b', which the training split has not"):
        encode_words({"tokens": [["w1"]], "ner_tags": [["B-b"]]}, task, TOKENIZER, 8)


def test_a_word_of_several_tokens_is_tagged_at_its_first():
    task = find_task("wnut17").with_labels(("B-a", "O"))
    # "don't" is one word for the data and three tokens for BERT's tokenizer
    columns = {"tokens": [["don't", "w1"]], "ner_tags": [["B-a", "O"]]}
    encoded = encode_words(columns, task, TOKENIZER, 16)
    assert encoded.labels[0] == [NO_LABEL, 0, NO_LABEL, NO_LABEL, 1, NO_LABEL]


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=120),
    batch_size=st.integers(1, 9),
    epoch=st.integers(0, 2),
    workers=st.integers(1, 3),
)
def test_an_epoch_has_every_example_once(lengths, batch_size, epoch, workers):
    batches = GroupedBatches(np.array(lengths), batch_size, seed=3)
    seen = []
    for step in range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch):
        shares = [batches.rows(step, rank, workers).tolist() for rank in range(workers)]
        assert all(shares)
        seen += sorted({row for share in shares for row in share})
    assert sorted(seen) == list(range(len(lengths)))


def test_batches_depend_on_seed_and_step_alone():
    lengths = np.random.default_rng(0).integers(1, 50, 500)
    one, other = GroupedBatches(lengths, 8, 1), GroupedBatches(lengths, 8, 1)
    one.rows(3)
    assert one.rows(100).tolist() == other.rows(100).tolist()
    assert one.rows(100).tolist() != GroupedBatches(lengths, 8, 2).rows(100).tolist()


def test_batches_of_similar_length_have_little_padding():
    lengths = np.random.default_rng(0).integers(1, 100, 2000)

    def padding(batches):
        return sum(int(lengths[rows].max()) * len(rows) - int(lengths[rows].sum()) for rows in batches)

    grouped = GroupedBatches(lengths, 16, 1)
    ours = padding([grouped.rows(step) for step in range(grouped.per_epoch)])
    order = np.random.default_rng(1).permutation(2000)
    assert ours < 0.1 * padding([order[start : start + 16] for start in range(0, 2000, 16)])
    assert sorted(row for rows in batches_by_length(lengths, 7) for row in rows) == list(range(2000))


def test_a_batch_is_as_long_as_its_longest():
    encoded = Encoded([[2, 5, 3], [2, 3]], [[0, 0, 1], [0, 0]], [0, 1], pad_token_id=9)
    batch = encoded.inputs([1, 0])
    assert batch["input_ids"].tolist() == [[2, 3, 9], [2, 5, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 1]]
    assert "token_type_ids" not in Encoded([[2]], None, [0], 0).inputs([0])


def test_a_limit_takes_the_same_rows_every_time():
    assert random_subset(10, None) == random_subset(10, 20) == list(range(10))
    assert random_subset(100, 5) == random_subset(100, 5)
    assert len(set(random_subset(100, 5))) == 5
    assert random_subset(100, 5) != list(range(5))


@pytest.mark.parametrize("name", [*GLUE, "squad_v1", "squad_v2", "conll2000", "wnut17", "ewt"])
def test_the_public_data_sets_are_read(netsuke_data, name):
    """A few rows of each, by the real layout; SQuAD is taught by SQuADShifts."""
    task = find_task(name)
    train = {name: "squadshifts/reddit"} if task.kind == "answering" else {}
    data = source(netsuke_data, **train)
    data.check(task)
    task = complete_task(task, data)
    lengths = Lengths(32, AnswerSettings(64, 16))
    training = read_training_set(task, data, TOKENIZER, lengths, 20)
    dev_sets = read_dev_sets(task, data, TOKENIZER, lengths, 10)
    assert len(training) >= 20
    assert dev_sets[0].examples == 10
    assert len(dev_sets) == 1, "the shared copy has no mismatched MNLI"
    if task.kind == "answering":
        assert any(label != (0, 0) for label in training.labels)
