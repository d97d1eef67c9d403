"""Finalists and the rank fidelity in a whole run: architectures are distilled shortly before they are believed."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from orchestrator.errors import UserError
from orchestrator.recipe import load_recipe
from orchestrator.recipe.selection import RANK_FIDELITY
from orchestrator.stages import trials
from tests.orchestrator.pipeline.microscopic_run import WINNERS

pytestmark = pytest.mark.timeout(900)

FINALISTS = ("selection.finalists=3", "selection.trial_steps=4", "selection.group=2")
SAMPLE = ("rank_fidelity.architectures=8", "rank_fidelity.steps=3", "rank_fidelity.group=4")


def candidates(run) -> pd.DataFrame:
    rows = run.table("selections")
    return rows[rows["budget"] != RANK_FIDELITY]


@pytest.mark.slow
def test_finalists_are_tried_together_and_the_most_faithful_wins(finished, tmp_path, monkeypatch):
    run = finished.copy(tmp_path / "run")
    train, groups = trials.train, []

    def stop_at_the_second_group(context, name, *arguments, **options):
        groups.append(name)
        if len(groups) == 2:
            raise KeyboardInterrupt
        return train(context, name, *arguments, **options)

    monkeypatch.setattr(trials, "train", stop_at_the_second_group)
    with pytest.raises(KeyboardInterrupt):
        run.start(*FINALISTS, "distillation.uniform_baseline=false")
    summary = run.start(*FINALISTS, "distillation.uniform_baseline=false")
    assert groups[2] == groups[1] != groups[0], "what was judged before the interruption was distilled again"
    assert not list((run.folder / "training").glob("selection-*")), "trials leave nothing behind"

    rows = candidates(run)
    for budget in WINNERS:
        own = rows[rows["budget"] == budget].sort_values("rank")
        tried = own[own["trial_rank"].notna()].sort_values("trial_rank")
        assert list(tried["trial_rank"]) == [1, 2, 3]
        assert tried["trial_relative_mse"].is_monotonic_increasing
        assert set(tried["trial_steps"]) == {4}
        assert set(tried["trial_measure"]) == {"relative_mse"}
        assert own["rank"].iloc[0] == 1
        assert pd.notna(own["trial_rank"].iloc[0]), "the candidate of lowest loss is always tried"
        assert list(own[own["chosen"]]["arch_id"]) == [tried["arch_id"].iloc[0]]
    chosen = rows[rows["chosen"]].set_index("budget")
    assert {budget.name: budget.winner.arch_id for budget in summary.budgets} == dict(chosen["arch_id"])
    assert all(budget.finalists == 3 for budget in summary.budgets)
    assert any("3 finalists were distilled for 4 steps" in remark for remark in summary.remarks)
    training = run.table("training")
    assert set(training[training["stage"] == "selection"]["subject"]) == set(
        rows[rows["trial_rank"].notna()]["arch_id"]
    )
    assert 'id="finalists"' in (run.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_rank_fidelity_compares_every_proxy_with_what_became_of_a_sample(finished, tmp_path):
    run = finished.copy(tmp_path / "run")
    summary = run.start(*SAMPLE)
    assert [name for name, status in run.last_attempt().items() if status != "skipped"] == [RANK_FIDELITY, "report"]
    rows = run.table("selections")
    rows = rows[rows["budget"] == RANK_FIDELITY]
    sample, proxies = rows[rows["proxy"].isna()], rows[rows["proxy"].notna()].set_index("proxy")
    assert len(sample) == sample["arch_id"].nunique() == 8
    assert sorted(sample["trial_rank"]) == sorted(sample["rank"]) == list(range(1, 9))
    assert sample["encoder_parameters"].is_monotonic_increasing
    assert not sample["chosen"].any()
    assert set(proxies.index) == {"loss", "block_loss_sum", "relative_block_loss_sum", "encoder_parameters"}
    by_hand = sample[["loss", "trial_relative_mse"]].astype(float).corr(method="kendall").iloc[0, 1]
    assert proxies.loc["loss", "tau"] == pytest.approx(by_hand)
    size = sample[["encoder_parameters", "trial_relative_mse"]].astype(float).corr(method="kendall").iloc[0, 1]
    of_size = proxies["tau_size"].dropna().tolist()
    assert of_size == pytest.approx([-size] * len(of_size))
    assert of_size
    assert (proxies["tau_low"] <= proxies["tau"]).all()
    assert proxies.loc["block_loss_sum", "networks"] >= 8
    assert {row["proxy"] for row in summary.rank_fidelity} == set(proxies.index)
    json.dumps(summary.as_dict(), allow_nan=False)
    assert len(candidates(run)) == len(candidates(finished)), "budgets are what they were"


def test_without_trials_the_candidate_of_lowest_loss_wins(finished):
    rows = candidates(finished)
    assert set(rows[rows["chosen"]]["rank"]) == {1}
    assert rows["trial_rank"].isna().all()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("selection.finalists=3", "selection.trial_steps: found 0, expected at least 1 where finalists is 3"),
        ("selection.trial_steps=3", "selection.trial_steps: found 3, expected 0 where finalists is 1"),
        ("rank_fidelity.architectures=5", "rank_fidelity.architectures: found 5, expected 0 or at least 8"),
        (
            'budgets=[{"name":"rank_fidelity","latency_ms":4}]',
            "budgets.0.name: found 'rank_fidelity', which names the rows",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_named(finished, change, line):
    with pytest.raises(UserError, match=line.replace("[", r"\[")):
        load_recipe(str(finished.recipe), [change])
