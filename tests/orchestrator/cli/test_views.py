"""What people read of a plan and of a finished run."""

from __future__ import annotations

import dataclasses

import pytest

from orchestrator.cli.plan_view import print_plan
from orchestrator.cli.summary import describe_size, describe_winner, print_summary
from orchestrator.plan import Plan, PlannedStage
from orchestrator.summary import BudgetSummary, ModelSummary, RunSummary

TEACHER = ModelSummary("teacher", 22_565_376, 10_646_784, size_bytes=90_261_504, measured_latency_ms=8.0, speed_up=1.0)
WINNER = ModelSummary(
    "half",
    17_000_000,
    5_323_392,
    architecture="E384|384:M-F|384:M-F1",
    arch_id="0123456789ab",
    size_bytes=68_000_000,
    loss=0.123,
    cosine_similarity=0.9132,
    measured_latency_ms=4.0,
    speed_up=2.0,
    path="runs/quickstart/models/half",
)
UNIFORM = dataclasses.replace(WINNER, label="half-uniform", cosine_similarity=0.88, loss=None)
BUDGET = BudgetSummary("half", 5_323_392, None, WINNER, UNIFORM)
SUMMARY = RunSummary("quickstart", "runs/quickstart", TEACHER, (BUDGET,), "runs/quickstart/report.html", 301.0)


def squeezed(text: str) -> str:
    return " ".join(text.replace("\u00a0", " ").split())


def test_the_summary_has_winner_baseline_places_and_a_sentence(capsys):
    print_summary(SUMMARY)
    out = squeezed(capsys.readouterr().out)
    assert "half (≤ 5.32 M) half 5.32 M 50.0 % 0.123 0.9132 68.0 MB 4.00 ms 2.00×" in out
    assert "half-uniform (uniform) 5.32 M 50.0 % – 0.8800" in out
    assert "half: E384|384:M-F|384:M-F1 17.0 M weights, embeddings included, no output embeddings model: runs/" in out
    assert "report: runs/quickstart/report.html" in out
    assert "This took 5 min 01 s." in out


def test_places_below_the_current_folder_are_told_from_there(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    print_summary(dataclasses.replace(SUMMARY, report=str(tmp_path / "runs" / "report.html")))
    assert "report: runs/report.html" in squeezed(capsys.readouterr().out)
    print_summary(dataclasses.replace(SUMMARY, report=str(tmp_path.parent / "report.html")))
    assert f"report: {tmp_path.parent}/report.html" in capsys.readouterr().out.replace("\n", "")


def test_the_summary_ends_with_what_finalists_and_rank_fidelity_came_to(capsys):
    print_summary(dataclasses.replace(SUMMARY, remarks=("The search's loss ranks [well].",)))
    assert "The search's loss ranks [well]. This took" in squeezed(capsys.readouterr().out)


def test_the_sentence_says_how_much_smaller_faster_and_how_faithful():
    assert squeezed(describe_winner(BUDGET, TEACHER)) == (
        "The student for 'half' has 50.0 % of the teacher's encoder weights (5.32 M of 10.6 M), "
        "is 2.00 times as fast (4.00 ms against 8.00 ms a batch) and keeps a cosine similarity of 0.9132 to it on "
        "held-out text, a uniform model of equal size 0.8800."
    )


def test_the_sentence_leaves_out_what_was_not_measured_and_does_not_boast():
    slow = dataclasses.replace(WINNER, speed_up=0.9, cosine_similarity=None)
    sentence = describe_winner(dataclasses.replace(BUDGET, winner=slow), TEACHER)
    assert "no faster" in sentence
    assert "cosine" not in sentence


def test_where_masked_tokens_are_predicted_the_summary_says_how_well(capsys):
    heads = [
        dataclasses.replace(model, masked_lm_loss=loss, masked_lm_accuracy=right, tied_embeddings=True)
        for model, loss, right in ((TEACHER, 1.5, 0.65), (WINNER, 2.25, 0.5), (UNIFORM, 3.0, 0.4))
    ]
    budget = dataclasses.replace(BUDGET, winner=heads[1], uniform=heads[2])
    print_summary(dataclasses.replace(SUMMARY, teacher=heads[0], budgets=(budget,)))
    out = squeezed(capsys.readouterr().out)
    assert "half (≤ 5.32 M) half 5.32 M 50.0 % 0.123 0.9132 2.25 50.0 % 68.0 MB 4.00 ms 2.00×" in out
    assert (
        "predicts 50.0 % of masked tokens right at a loss of 2.25 (the teacher 65.0 % at 1.50, a uniform model of "
        "equal size 40.0 % at 3.00) and keeps a cosine" in out
    )
    print_summary(SUMMARY)
    assert "masked" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tied", "words"),
    [
        (True, "input and output embeddings tied"),
        (False, "input and output embeddings untied"),
        (None, "no output embeddings"),
    ],
)
def test_sizes_name_the_vocabulary_and_what_tokens_are_predicted_by(tied, words):
    winner = dataclasses.replace(WINNER, vocabulary_size=30_522, tied_embeddings=tied)
    expected = f"17.0 M weights, embeddings included, vocabulary of 30,522, {words}"
    assert squeezed(describe_size(winner)) == expected


def test_a_baseline_that_is_larger_in_all_is_not_passed_over():
    uniform = dataclasses.replace(UNIFORM, parameters=34_000_000)
    sentence = squeezed(describe_winner(dataclasses.replace(BUDGET, uniform=uniform), TEACHER))
    assert sentence.endswith(
        "The uniform model has the teacher's embeddings: as many weights behind them, 34.0 M against 17.0 M in all."
    )


def test_a_student_that_two_budgets_share_is_told_once(capsys):
    winner = dataclasses.replace(WINNER, label="also", same_as="half")
    uniform = dataclasses.replace(UNIFORM, label="also-uniform", same_as="half-uniform")
    also = dataclasses.replace(BUDGET, name="also", winner=winner, uniform=uniform)
    print_summary(dataclasses.replace(SUMMARY, budgets=(BUDGET, also)))
    out = squeezed(capsys.readouterr().out)
    assert "also (≤ 5.32 M) also (same as half) 5.32 M" in out
    assert "also-uniform (same as half-uniform) 5.32 M" in out
    assert "The student for 'also' is that for 'half': both budgets chose the same architecture, which was " in out


def test_a_budget_that_the_one_shot_training_chose_for_is_told_so(capsys):
    found = dataclasses.replace(BUDGET, name="most", max_encoder_parameters=None, choose="oneshot", winners_place=7)
    print_summary(dataclasses.replace(SUMMARY, budgets=(found, BUDGET)))
    out = squeezed(capsys.readouterr().out)
    assert "most (one-shot)" in out
    assert "0.8800. It is what the one-shot training found, place 7 by loss of those within the budget." in out
    assert out.count("one-shot training") == 1


def test_a_plan_shows_every_stage_and_sums_what_is_to_do(capsys):
    stages = (
        PlannedStage("teacher", "skip", "copy", seconds=100.0, disk_bytes=10**9, reason="finished"),
        PlannedStage("supernet", "resume", "train 3 blocks", steps=50, tokens=102_400, seconds=60.0, disk_bytes=10**8),
        PlannedStage("search", "run", "score candidates", evaluations=400, seconds=30.0),
    )
    plan = Plan("quickstart", "runs/quickstart", stages, ("the cluster has 2 cores, all are used",))
    print_plan(plan)
    out = squeezed(capsys.readouterr().out)
    assert "1 teacher skip copy (finished)" in out
    assert "2 supernet go on train 3 blocks 50 102 k – 1 min 00 s 100 MB" in out
    assert "3 search run score candidates – – 400 30.0 s –" in out
    assert "To do, estimated: 1 min 30 s, 100 MB of disk." in out
    assert "Note: the cluster has 2 cores" in out
    assert plan.as_dict()["seconds"] == 90.0
    assert plan.as_dict()["disk_bytes"] == 10**8
    assert plan.as_dict()["stages"][1]["tokens"] == 102_400


def test_a_plan_of_a_finished_run_says_so(capsys):
    plan = Plan("quickstart", "runs/quickstart", (PlannedStage("teacher", "skip", "copy", seconds=100.0),))
    print_plan(plan)
    out = squeezed(capsys.readouterr().out)
    assert "Everything is done: nothing would be computed" in out
    assert "estimated" not in out
    assert plan.as_dict()["is_done"]


def test_a_plan_without_estimates_has_no_sum():
    plan = Plan("a", "runs/a", (PlannedStage("search", "run", "score"),))
    assert plan.seconds is None
    assert plan.disk_bytes is None


def test_numbers_stay_whole_in_a_narrow_log(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    print_summary(SUMMARY)
    assert "0.9132" in squeezed(capsys.readouterr().out)
