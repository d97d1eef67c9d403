"""Which fine-tunings are due, in which order, and what is made of their scores."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from orchestrator.cli.evaluate import print_scores
from orchestrator.evaluation.actor_pool import run_here
from orchestrator.finetuning.estimate import count_rows, estimated_seconds
from orchestrator.finetuning.plan import TEACHER, Comparison, Contestant, planned_jobs
from orchestrator.finetuning.running import TASK_SCORES, jobs_to_do, remove_tuned_models, rows_of, run_comparison, waves
from orchestrator.finetuning.summary import MeanScore, summarise
from orchestrator.results import ResultsWriter, open_results
from tests.trainers.tasks.toy_tasks import FAST, save_bert, save_nas_bert, source, write, write_sentiment
from trainers.tasks.catalogue import GLUE, find_task
from trainers.tasks.metrics import GLUE_COLUMNS
from trainers.tasks.models import load_for_task

QUICK = replace(FAST, epochs=1, pooling="mean", distillation_weight=0.5)


@pytest.fixture
def place(tmp_path):
    """Toy data and two models."""
    data = write_sentiment(tmp_path / "data", 32, 16)
    pairs = {"premise": ["w1", "w2", "w3"] * 4, "hypothesis": ["w4"] * 12, "label": [0, 1, 2] * 4}
    for split in ("train", "validation_matched"):
        write(data, f"glue/mnli/{split}", **pairs)
    for split in ("train", "validation"):
        texts = {"sentence1": ["w1", "w2"] * 4, "sentence2": ["w3"] * 8}
        write(data, f"glue/rte/{split}", **texts, label=[0, 1] * 4)
        write(data, f"glue/stsb/{split}", **texts, label=[0.5, 5.0] * 4)
    save_bert(tmp_path / "big")
    save_nas_bert(tmp_path / "small")
    return tmp_path


def comparison(place, tasks="sst2", **changes: Any) -> Comparison:
    values = {
        "contestants": (Contestant("small", str(place / "small"), "winner", "half"),),
        "teacher": Contestant(TEACHER, str(place / "big"), TEACHER),
        "tasks": tuple(find_task(name) for name in tasks.split(",")),
        "seeds": (1, 2),
        "settings": QUICK,
        "source": source(place / "data"),
        "work": place / "work",
    }
    return Comparison(**(values | changes))


def test_a_teacher_may_be_tuned_by_settings_of_its_own(place):
    slower = replace(QUICK, epochs=QUICK.epochs + 1, distillation_weight=0.0)
    jobs = {job.contestant.label: job.job for job in planned_jobs(comparison(place, teacher_settings=slower))}
    assert jobs[TEACHER].settings == slower
    assert jobs["small"].settings.epochs == QUICK.epochs
    own = [job.signature for job in planned_jobs(comparison(place, teacher_settings=slower))]
    assert not set(own) & {job.signature for job in planned_jobs(comparison(place))}, "who has another teacher differs"


def run(some: Comparison, place, on_done: Callable[..., None] | None = None) -> int:
    with ResultsWriter(place / "results", "test") as writer:
        rows = open_results(place / "results").table(TASK_SCORES).to_pylist()
        return run_comparison(some, writer=writer, rows=rows, runner=run_here, on_done=on_done)


def table(place) -> list[dict[str, Any]]:
    return open_results(place / "results").table(TASK_SCORES).to_pylist()


def names(jobs):
    return [(job.contestant.label, job.task.name, job.seed) for job in jobs]


def test_the_teacher_comes_first_and_mnli_before_what_starts_there(place):
    jobs = planned_jobs(comparison(place, "rte,sst2", start_from_mnli=True, seeds=(1,)))
    groups = [set(names(group)) for group in waves(jobs)]
    assert groups == [
        {("teacher", "mnli", 1), ("teacher", "sst2", 1)},
        {("teacher", "rte", 1), ("small", "mnli", 1), ("small", "sst2", 1)},
        {("small", "rte", 1)},
    ]
    by_name = dict(zip(names(jobs), jobs, strict=True))
    last = by_name["small", "rte", 1]
    assert last.job.model == str(by_name["small", "mnli", 1].job.save_to)
    assert last.job.teacher == str(by_name["teacher", "rte", 1].job.save_to)
    assert last.job.save_to is None
    assert by_name["teacher", "rte", 1].job.teacher is None


@pytest.mark.parametrize("pooling", ["mean", "own"])
def test_mnli_is_tuned_once_and_its_encoder_is_where_others_start(place, pooling):
    """Three classes become two, or one number: heads start anew, encoders do not."""
    nobody = replace(QUICK, distillation_weight=0.0, pooling=pooling)
    models = (Contestant("small", str(place / "small")), Contestant("big", str(place / "big")))
    some = comparison(place, "rte,stsb", start_from_mnli=True, teacher=None, contestants=models, settings=nobody)
    seen = []
    run(some, place, lambda job, result, done, total: seen.append((job.contestant.label, job.task.name, job.seed)))
    assert sorted(seen) == sorted(
        (label, task, seed) for label in ("small", "big") for task in ("mnli", "rte", "stsb") for seed in (1, 2)
    )
    starts = {(row["task"], row["start"]) for row in table(place)}
    assert starts == {("mnli", None), ("rte", "mnli"), ("stsb", "mnli")}
    for model in models:
        on_mnli = str(some.folder(model, find_task("mnli"), 1))
        tuned = load_for_task(on_mnli, find_task("mnli"), keep_head=True)
        assert tuned.config.num_labels == 3
        for task, outputs in (("rte", 2), ("stsb", 1)):
            start = load_for_task(on_mnli, find_task(task), pooling=pooling)
            assert start.config.num_labels == outputs
            assert len(start.classifier.weight) == len(start.classifier.bias) == outputs
            for name, tensor in encoder_of(tuned).items():
                assert torch.equal(encoder_of(start)[name], tensor), name
    assert run(replace(some, start_from_mnli=False), place) == 8, "scores of another start are other scores"


def encoder_of(model):
    return getattr(model, model.base_model_prefix).state_dict()


def test_models_that_are_only_judged_start_nowhere(place):
    some = comparison(place, "rte", start_from_mnli=True, teacher=None, train=False)
    assert [(job.task.name, job.start) for job in planned_jobs(some)] == [("rte", "")] * 2


def test_what_nobody_needs_is_not_planned(place):
    some = comparison(place, "rte,sst2", teacher=None)
    assert names(planned_jobs(some)) == [("small", task, seed) for task in ("rte", "sst2") for seed in (1, 2)]
    assert all(job.job.save_to is None and job.job.teacher is None for job in planned_jobs(some))
    assert all(job.job.save_to is not None for job in planned_jobs(replace(some, save_models=True)))
    without_weight = replace(some, teacher=comparison(place).teacher, settings=replace(QUICK, distillation_weight=0.0))
    assert all(job.job.teacher is None for job in planned_jobs(without_weight))


def test_finished_work_is_not_done_again(place):
    some = comparison(place)
    seen = []
    assert run(some, place, lambda job, result, done, total: seen.append((job.name, done, total))) == 4
    assert [entry[1:] for entry in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    before = table(place)
    assert run(some, place) == 0
    assert table(place) == before
    assert {row["teacher"] for row in before if row["model"] == "small"} == {TEACHER}
    assert {row["teacher"] for row in before if row["model"] == TEACHER} == {None}
    assert {(row["model"], row["role"], row["budget"]) for row in before} == {
        ("teacher", "teacher", None),
        ("small", "winner", "half"),
    }
    assert all(row["headline"] and row["examples"] == 32 and row["dev_examples"] == 16 for row in before)


def test_a_new_seed_or_task_adds_only_its_own_jobs(place):
    run(comparison(place, seeds=(1,)), place)
    more = comparison(place, "sst2,rte", seeds=(1, 2))
    due = jobs_to_do(planned_jobs(more), table(place))
    assert ("small", "sst2", 1) not in names(due)
    assert len(due) == 6


@pytest.mark.parametrize("change", ["settings", "data", "weights"])
def test_other_settings_data_or_weights_make_other_jobs(place, change):
    some = comparison(place, seeds=(1,))
    before = {job.key for job in planned_jobs(some)}
    if change == "settings":
        some = replace(some, settings=replace(QUICK, learning_rate=1e-5))
    elif change == "data":
        write_sentiment(place / "data", 40, 16)
    else:
        save_bert(place / "big", seed=9)
    assert not before & {job.key for job in planned_jobs(some)}, "the students depend on their teacher, too"


def test_a_teacher_whose_model_is_gone_is_tuned_again_only_if_somebody_needs_it(place):
    some = comparison(place, seeds=(1,))
    run(some, place)
    shutil.rmtree(place / "work")
    assert jobs_to_do(planned_jobs(some), table(place)) == []
    rows = [row for row in table(place) if row["model"] == TEACHER]
    assert names(jobs_to_do(planned_jobs(some), rows)) == [("teacher", "sst2", 1), ("small", "sst2", 1)]


def test_a_teacher_that_was_tuned_before_is_only_judged(place):
    first = comparison(place, contestants=(), seeds=(1,), save_models=True)
    run(first, place)
    tuned = first.folder(first.teacher, first.tasks[0], 1)
    assert tuned.is_dir()
    some = comparison(place, teacher=Contestant(TEACHER, str(tuned), TEACHER), seeds=(1,), work=place / "other")
    jobs = planned_jobs(some)
    assert not jobs[0].job.train
    assert jobs[1].job.teacher == str(tuned)
    run(some, place)
    rows = [row for row in rows_of(some, table(place)) if row["model"] == TEACHER]
    assert [row["examples"] for row in rows] == [0]


def test_models_that_only_served_are_removed(place):
    some = comparison(place, seeds=(1,))
    run(some, place)
    assert (place / "work").is_dir()
    remove_tuned_models(replace(some, save_models=True))
    assert (place / "work").is_dir()
    remove_tuned_models(some)
    assert not (place / "work").exists()


def row(model, task, seed, value, metric="accuracy", headline=True, split="validation"):
    return {
        "model": model,
        "role": "model",
        "teacher": None,
        "task": task,
        "split": split,
        "metric": metric,
        "value": value,
        "headline": headline,
        "seed": seed,
    }


def test_means_and_spreads_over_seeds():
    rows = [
        *(row("a", "sst2", seed, value) for seed, value in ((1, 0.8), (2, 0.9))),
        *(row("a", "mrpc", seed, value) for seed, value in ((1, 0.6), (2, 0.6))),
        *(row("a", "mrpc", seed, value, "f1", False) for seed, value in ((1, 0.1), (2, 0.3))),
        row("a", "sst2", 7, 0.0),
        row("b", "sst2", 1, 0.5),
    ]
    first, second = summarise(rows, ["sst2", "mrpc"], [1, 2])
    assert (first.model, second.model) == ("a", "b")
    assert first.tasks["sst2"].mean == pytest.approx(0.85)
    assert first.tasks["sst2"].spread == pytest.approx(0.1 / 2**0.5)
    assert first.average is not None
    assert first.average.mean == pytest.approx((0.7 + 0.75) / 2)
    assert first.average.spread == pytest.approx(0.05 / 2**0.5), "the spread of the averages, not of the tasks"
    assert first.metrics["mrpc/validation/f1"].mean == pytest.approx(0.2)
    assert second.average is None, "a model that lacks scores has no average to compare"
    assert MeanScore(0.8125, 0.0123, 3).text() == "81.2 ± 1.2"
    assert MeanScore(0.8125, None, 1).text() == "81.2"


NINE = dict(zip(GLUE_COLUMNS.values(), (81.5, 81.6, 68.9, 89.5, 91.7, 46.7, 80.1, 87.9, 65.1), strict=True))
"""MobileBERT-TINY's row, by task, split and metric."""


def glue_rows(model, seed, left_out=None, more=0.0):
    return [
        row(model, task, seed, value / 100 + more, metric, metric == find_task(task).headline, split)
        for (task, split, metric), value in NINE.items()
        if (task, split) != left_out
    ]


def test_the_mean_of_glue_s_nine_columns_is_there_where_all_of_them_are(capsys):
    names = [name for name in GLUE if name != "wnli"]
    rows = [*glue_rows("all", 1), *glue_rows("all", 2, more=0.02), *glue_rows("some", 1)]
    rows += glue_rows("some", 2, left_out=("mnli", "validation_mismatched"))
    whole, lacking = found = summarise(rows, names, [1, 2])
    assert whole.glue is not None
    assert whole.glue.text() == "78.0 ± 1.4"
    assert lacking.glue is None
    assert whole.as_dict()["glue"]["mean"] == pytest.approx(0.78)
    (first,) = summarise(glue_rows("all", 1), names, [1])
    assert first.glue is not None
    assert first.glue.text() == "77.0"
    assert summarise(glue_rows("all", 1), [*names[:-1]], [1])[0].glue is None, "a task that only served does not count"
    print_scores(found, names, 2)
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    heading = next(line for line in table if line[:1] == ["model"])
    assert heading[-1] != "average"
    assert next(line for line in table if line[:1] == ["all"])[-3:] == ["78.0", "±", "1.4"]
    print_scores([lacking], names, 2)
    assert "columns" not in capsys.readouterr().out


def test_estimates_count_rows_without_reading_them(place):
    task, some = find_task("sst2"), source(place / "data")
    assert count_rows(task, some, QUICK) == (32, 16)
    limited = replace(QUICK, max_train_examples=8, max_eval_examples=4)
    assert count_rows(task, some, limited) == (8, 4)
    assert count_rows(task, source("hub"), QUICK) == (67_349, 872)
    assert count_rows(find_task("authors"), some, QUICK) == (2_560, 512)
    once = estimated_seconds(10_000, task, some, QUICK)
    assert estimated_seconds(20_000, task, some, QUICK) == pytest.approx(2 * once)
    assert estimated_seconds(10_000, task, some, replace(QUICK, epochs=3)) > 2 * once
