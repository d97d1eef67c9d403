"""``netsuke evaluate`` as a person calls it."""

from __future__ import annotations

import pytest

from orchestrator.results import open_results
from tests.trainers.tasks.toy_tasks import save_bert, save_nas_bert, write, write_sentiment

QUICK = ("--epochs", 2, "--learning-rate", "5e-3", "--batch-size", 16, "--pooling", "mean", "--processes", 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Toy data and two models; tests leave them as they are."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_sentiment(folder / "data", 64, 16)
    save_bert(folder / "mine")
    save_nas_bert(folder / "other")
    return folder


@pytest.fixture
def evaluate(netsuke, place, tmp_path):
    def call(*arguments, tasks="sst2", data=None, output=tmp_path / "out"):
        options = ("--tasks", tasks, "--data", data or place / "data", "--output", output, *QUICK)
        return netsuke("evaluate", *arguments, *options)

    return call


def test_a_table_of_scores(evaluate, place):
    answer = evaluate(place / "mine", place / "other", "--seeds", "1,2")
    assert answer.code == 0, answer.err
    lines = [line.split() for line in answer.out.splitlines() if line.strip()]
    assert "mean ± standard deviation of 2 seeds" in answer.out
    assert lines[1] == ["model", "sst2", "average"]
    assert {line[0] for line in lines[-2:]} == {"mine", "other"}
    assert "4/4 fine-tunings" in answer.err


def test_json_and_going_on(evaluate, place, tmp_path):
    first = evaluate(place / "mine", "--seeds", "1", "--json").json
    rows = open_results(tmp_path / "out" / "results").table("task_scores").to_pylist()
    again = evaluate(place / "mine", "--seeds", "1,2", "--json").json
    after = open_results(tmp_path / "out" / "results").table("task_scores").to_pylist()
    assert after[: len(rows)] == rows, "the first seed's work was not repeated"
    assert {row["seed"] for row in after} == {1, 2}
    one, both = first["models"][0], again["models"][0]
    assert one["tasks"]["sst2"]["seeds"], both["tasks"]["sst2"]["seeds"] == (1, 2)
    assert one["average"]["mean"] == rows[0]["value"]
    assert first["starts"] == {}


def test_a_teacher_is_tuned_and_imitated(evaluate, place, tmp_path):
    answer = evaluate(place / "other", place / "mine", "--teacher", place / "mine", "--json")
    assert answer.code == 0, answer.err
    assert [one["model"] for one in answer.json["models"]] == ["teacher", "other"]
    assert answer.json["models"][1]["teacher"] == "teacher"
    assert not (tmp_path / "out" / "models").exists(), "tuned models served and went"


def test_tuned_models_are_kept_on_demand_and_judged_again(evaluate, place, tmp_path):
    first = evaluate(place / "mine", "--save-models", "--json").json
    tuned = tmp_path / "out" / "models" / "mine" / "sst2" / "seed-1"
    assert (tuned / "model.safetensors").is_file()
    judged = evaluate(tuned, "--no-train", "--json", output=tmp_path / "judged").json
    assert judged["models"][0]["tasks"]["sst2"]["mean"] == first["models"][0]["tasks"]["sst2"]["mean"]


def test_the_bundled_task_needs_no_data(evaluate, place):
    limits = ("--max-train-examples", 32, "--max-eval-examples", 32, "--max-length", 16)
    answer = evaluate(place / "mine", *limits, "--json", tasks="authors", data="/nowhere")
    assert answer.code == 0, answer.err
    score = answer.json["models"][0]["tasks"]["authors"]["mean"]
    assert 0 <= score * 32 == pytest.approx(round(score * 32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere"], "MODEL: '/nowhere' is not a folder"),
        (["{mine}", "--no-train"], "found no head for the task 'sst2'"),
        (["package:not-there"], "MODEL: the package 'not-there' is not installed"),
        (["{broken}"], "model '{broken}': its tokenizer cannot be loaded"),
        (["{mine}", "--teacher", "{broken}"], "model '{broken}': its configuration cannot be read"),
        (["{mine}", "{mine}"], "MODEL_DIR: found two models called 'mine'"),
        (["{mine}", "--seeds", "one"], "--seeds: found 'one', expected whole numbers"),
        (["{mine}", "--train-data", "sst2"], "--train-data: found 'sst2', expected TASK=FOLDER"),
        (["{mine}", "--teacher", "/nowhere"], "--teacher: '/nowhere' is not a folder"),
    ],
)
def test_mistakes(evaluate, place, arguments, message):
    (place / "broken").mkdir(exist_ok=True)
    (place / "broken" / "config.json").write_text("{no JSON")
    names = {"mine": place / "mine", "broken": place / "broken"}
    answer = evaluate(*(argument.format(**names) for argument in arguments))
    assert answer.code == 2
    assert message.format(**names) in answer.err
    assert "Traceback" not in answer.err


def test_unknown_tasks_and_missing_data(evaluate, place, tmp_path):
    answer = evaluate(place / "mine", tasks="sst3")
    assert (answer.code, "did you mean 'sst2'?" in answer.error) == (2, True)
    answer = evaluate(place / "mine", tasks="rte")
    assert answer.code == 2
    assert "task 'rte'" in answer.error
    assert "has no Parquet files" in answer.error
    write(tmp_path / "some", "glue/rte/validation", sentence1=["w1"], sentence2=["w2"], label=[0])
    answer = evaluate(place / "mine", tasks="rte", data=tmp_path / "some")
    assert answer.error.endswith("name a folder with training rows for it: --train-data rte=FOLDER")
    write(tmp_path / "some", "glue/rte/train", sentence1=["w1"], sentence2=["w2"], label=[0])
    answer = evaluate(place / "mine", "--start-from", "mnli", tasks="rte", data=tmp_path / "some")
    assert (answer.code, "task 'mnli'" in answer.error) == (2, True), "MNLI is needed, and looked for before all else"
    answer = evaluate(place / "mine", data=tmp_path / "absent")
    assert answer.error.startswith("--data: ")
