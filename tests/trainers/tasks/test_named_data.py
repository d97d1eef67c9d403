"""Task data as the library ``datasets`` names it: folders without a network, and what is said of mistakes."""

from __future__ import annotations

import json
import time

import pytest

from cluster.hub import ask_hub, look_up
from tests.trainers.tasks.toy_tasks import write
from tests.trainers.teachers import make_tokenizer
from trainers.errors import TrainingInputError
from trainers.tasks.answers import AnswerSettings
from trainers.tasks.catalogue import find_task
from trainers.tasks.judging import Lengths, read_training_set
from trainers.tasks.models import load_tokenizer
from trainers.tasks.sources import TaskSource

SST2, RTE = find_task("sst2"), find_task("rte")
CARD = """---
configs:
- config_name: sst2
  data_files:
  - {split: train, path: sst2/train.parquet}
  - {split: validation, path: sst2/validation.parquet}
- config_name: rte
  data_files:
  - {split: train, path: rte/train.parquet}
---
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    config = pytest.importorskip("datasets").config
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def glue(tmp_path):
    """A data set with two configurations, as a clone of one from the hub."""
    folder = tmp_path / "glue"
    for split in ("train", "validation"):
        write(folder, f"sst2/{split}", sentence=["w1", "w4"], label=[1, 0])
    write(folder, "rte/train", sentence1=["w1"], sentence2=["w2"], label=[1])
    (folder / "README.md").write_text(CARD)
    return folder


def csv(folder, **files):
    folder.mkdir()
    for split, text in files.items():
        (folder / f"{split}.csv").write_text(text)
    return TaskSource(f"dataset:{folder}")


def test_each_task_finds_its_configuration(glue):
    source = TaskSource(f"dataset:{glue}")
    source.check(SST2)
    assert source.read(SST2, "train") == {"sentence": ["w1", "w4"], "label": [1, 0]}
    assert source.read(RTE, "train")["sentence2"] == ["w2"]
    assert TaskSource(f"dataset:{glue}:sst2").read(SST2, "validation")["label"] == [1, 0]
    with pytest.raises(TrainingInputError, match=r"task 'rte': '.*glue' has no split 'validation', it has train"):
        source.check(RTE)
    with pytest.raises(TrainingInputError, match=r"has no split 'validation', it has train$"):
        source.read(RTE, "validation")


def test_a_plain_folder_of_csv_files(tmp_path):
    source = csv(tmp_path / "mine", train="sentence,label\nw1,1\nw4,0\n", validation="sentence,label\nw2,1\n")
    source.check(SST2)
    assert source.read(SST2, "train") == {"sentence": ["w1", "w4"], "label": [1, 0]}
    assert not source.has(SST2, "test")
    before = source.fingerprint(SST2)
    (tmp_path / "mine" / "train.csv").write_text("sentence,label\nw1,1\n")
    assert source.fingerprint(SST2) != before
    elsewhere = TaskSource(f"dataset:{tmp_path / 'mine'}", {"sst2": str(tmp_path / "other")})
    csv(tmp_path / "other", train="sentence,label\nw9,0\n")
    assert elsewhere.read(SST2, "train")["sentence"] == ["w9"]
    assert elsewhere.read(SST2, "validation")["sentence"] == ["w2"]


def test_tags_that_are_numbers_get_their_names(tmp_path):
    datasets = pytest.importorskip("datasets")
    names = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-x"])),
        }
    )
    rows = datasets.Dataset.from_dict({"tokens": [["w1", "w2"]], "ner_tags": [[1, 0]]}, features=names)
    (tmp_path / "tags").mkdir()
    for split in ("train", "validation"):
        rows.to_parquet(tmp_path / "tags" / f"{split}.parquet")
    found = TaskSource(f"dataset:{tmp_path / 'tags'}").read(find_task("wnut17"), "train")
    assert found["ner_tags"] == [["B-x", "O"]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "{glue}:cola",
            r"data: task 'sst2': the data set '.*glue' has no configuration 'cola', it has (sst2, rte|rte, sst2)",
        ),
        ("{glue}/nothing", r"data: task 'sst2': '.*nothing' is not a folder; expected one that datasets.load_dataset"),
        ("{glue}/../empty", r"the folder '.*empty' cannot be loaded: .*; expected what datasets.load_dataset reads"),
    ],
)
def test_folders_that_do_not_suit(glue, name, message):
    (glue.parent / "empty").mkdir()
    with pytest.raises(TrainingInputError, match=message) as caught:
        TaskSource("dataset:" + name.format(glue=glue)).check(SST2)
    assert "\n" not in str(caught.value)


def test_which_configuration_is_meant_has_to_be_said(glue):
    with pytest.raises(TrainingInputError, match=r"task 'cola': .* has the configurations .*; name one: dataset:"):
        TaskSource(f"dataset:{glue}").check(find_task("cola"))


def test_columns_and_labels_that_do_not_suit(tmp_path):
    source = csv(tmp_path / "a", train="text,label\nw1,1\n", validation="text,label\nw2,1\n")
    with pytest.raises(TrainingInputError, match=r"task 'sst2': '.*/a' has no column 'sentence'; it has text, label"):
        source.read(SST2, "train")
    source = csv(tmp_path / "b", train="sentence,label\nw1,7\n")
    with pytest.raises(TrainingInputError, match=r"row 0 has the label 7, expected 0 \(negative\), 1 \(positive\)"):
        read_training_set(SST2, source, make_tokenizer(), Lengths(16, AnswerSettings()), None)


def _forget() -> None:
    ask_hub.cache_clear()
    look_up.cache_clear()


def test_the_hub_is_given_up_soon_where_it_does_not_answer(monkeypatch):
    """Nothing listens on this port: the library alone asks six times, for twenty seconds and more."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    _forget()
    started = time.monotonic()
    source = TaskSource("dataset:nobody/nothing")
    source.check(SST2)  # names on the hub are looked up when they are read
    message = (
        r"^data: task 'sst2': the data set 'nobody/nothing' cannot be loaded: the hub cannot be reached and the cache"
    )
    with pytest.raises(TrainingInputError, match=message):
        source.read(SST2, "train")
    with pytest.raises(
        TrainingInputError, match=r"^model 'nobody/nothing': found no such folder, the hub cannot be rea"
    ):
        load_tokenizer("nobody/nothing")
    assert time.monotonic() - started < 15
    _forget()


def test_names_that_no_hub_can_have():
    with pytest.raises(TrainingInputError, match=r"the hub has no data set 'a b' \(or it is private\)"):
        TaskSource("dataset:a b").read(SST2, "train")


def test_rows_are_plain_values(tmp_path):
    """What signatures and workers are given survives JSON."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.jsonl").write_text(json.dumps({"sentence": "w1", "label": 1}) + "\n")
    found = TaskSource(f"dataset:{tmp_path / 'mine'}").read(SST2, "train")
    assert json.loads(json.dumps(found)) == found
