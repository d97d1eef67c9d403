"""A run whose search adds up block losses: it depends on them, and asks what is proven to be best."""

from __future__ import annotations

import json

import pytest

from orchestrator.errors import UserError
from orchestrator.pipeline import plan_recipe
from orchestrator.recipe import load_recipe

EXACT = "search.strategies=" + json.dumps([{"name": "exact", "evaluations": 8}])

BLOCKS = "tables.block_architectures=40"


def test_block_losses_have_to_be_measured(place, tmp_path):
    recipe = load_recipe(str(place / "microscopic.yaml"), [EXACT, "tables.block_architectures=0"])
    with pytest.raises(UserError, match=r"'exact' adds up block losses, but tables\.block_architectures is 0"):
        plan_recipe(recipe, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_lowest_sums_of_each_budget_are_scored_whole(finished, tmp_path):
    run = finished.copy(tmp_path / "run")
    run.start(EXACT, BLOCKS, "search.callbacks=[{name: json}]")
    (experiment,) = run.folder.glob("search/*/tune/exact-1")
    told = [json.loads(file.read_text()) for file in experiment.glob("*/result.json")]
    assert max(result["evaluated"] for result in told) == 8
    again = tuple(name for name, status in run.last_attempt().items() if status != "skipped")
    assert again[:2] == ("block_losses", "search")
    evaluations = run.table("evaluations")
    asked = evaluations[evaluations["strategy"] == "exact"]
    assert len(asked) == 8
    losses = run.table("block_losses")
    sums = {
        network: sum(
            float(losses[(losses["block"] == number) & (losses["architecture"] == text)]["loss"].iloc[0])
            for number, text in enumerate(network.split("|")[1:])
        )
        for network in asked["architecture"]
    }
    # Two budgets take turns, each with ever higher sums.
    in_order = [sums[network] for network in asked.sort_values("proposal")["architecture"]]
    assert in_order[0::2] == sorted(in_order[0::2])
    assert in_order[1::2] == sorted(in_order[1::2])
    run.start("budgets.0.encoder_parameters=60%", EXACT, BLOCKS)
    assert run.last_attempt()["block_losses"] == "skipped"
