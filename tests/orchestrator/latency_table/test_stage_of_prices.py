"""The latency stage of a space whose latency is a sum of prices, and who is warned of what it made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from orchestrator.errors import UserError
from orchestrator.evaluation.tune import TuneEvaluation
from orchestrator.latency_table import LatencyTable
from orchestrator.latency_table.files import write_tables
from orchestrator.limits import check_latency, searches_by_latency
from orchestrator.progress import Progress
from orchestrator.results import ResultsWriter
from orchestrator.stages import latency
from orchestrator.stages.base import RunContext
from orchestrator.stages.latency import LatencyStage
from orchestrator.stages.search import SearchStage
from tests.orchestrator.latency_table.stage_runs import COMPONENTS, make_plan, rows, run

FEW = "tables.latency.marginal_architectures=48"
LIMITED = ("budgets=[{name: fast, latency_ms: 5}]", "search.objectives=[loss, latency_ms]")


@pytest.fixture
def plan_of(place, tmp_path):
    return lambda *changes: make_plan(place, tmp_path / "run", *COMPONENTS, FEW, *changes)


def with_spearman(table: LatencyTable, spearman: float) -> LatencyTable:
    marginals = table.marginals
    return replace(table, marginals=replace(marginals, held_out=replace(marginals.held_out, spearman=spearman)))


def test_networks_prices_and_what_one_more_costs_are_recorded(plan_of):
    plan = plan_of("tables.latency.check_architectures=3")
    table, detail = run(plan)
    marginals = table.marginals
    found = rows(plan, "latency")
    assert found["kind"].value_counts().to_dict() == {"fit": 48, "check": 3}
    assert found["arch_id"].is_unique
    assert found["additive_ms"].isna().all()
    assert set(found["repeats"]) == {1}
    for _, row in found.iterrows():
        assert row["predicted_ms"] == pytest.approx(table.predict_ms(plan.space, plan.space.parse(row["architecture"])))
    terms = rows(plan, "latency_terms").set_index("term")
    prices = terms[terms["value"].notna()]
    assert prices["value"].to_dict() == {term.name: term.value for term in marginals.terms}
    assert list(prices.index) == [*plan.space.latency_terms(), "network"]
    costs = terms[terms["horizontal_ms"].notna()]
    assert list(costs.index) == [f"one more {cost.name}" for cost in marginals.costs]
    assert costs.loc["one more head", "vertical_ms"] == marginals.costs[0].vertical_ms
    assert set(terms["architectures"]) == {48}
    for name in ("median_error", "r_squared", "spearman", "kendall_tau"):
        assert set(terms[name]) == {getattr(marginals.held_out, name)}
    assert set(terms["error_out_of_sample"]) == {marginals.held_out.mape}
    assert f"Spearman {marginals.held_out.spearman:.3f}" in detail
    assert "R² " in detail
    assert "MAPE " in detail
    assert "; check: R²" in detail


def test_a_recipe_that_says_nothing_measures_as_many_as_prices_need(place, tmp_path):
    plan = make_plan(place, tmp_path / "run", "space.name=components", "space.options={feed_forward_slices: 4}")
    LatencyStage().check(plan)
    planned = LatencyStage().planned(plan)
    assert planned.work.startswith("measure 200 whole networks, to fit 12 prices to, batch 2 × 16 tokens on ")
    assert planned.work.endswith(", 8 repeats")
    assert planned.seconds > 0


def test_too_few_networks_for_the_prices_are_refused_before_the_run(plan_of):
    with pytest.raises(UserError) as error:
        LatencyStage().check(plan_of("tables.latency.marginal_architectures=47"))
    assert str(error.value) == (
        "tables.latency.marginal_architectures: found 47, expected 48 or more to fit the 12 prices of the space "
        "'components' to; set it to 48 or, as by default, to 200, or to 0 to predict no latency"
    )


def test_nothing_is_measured_where_nobody_wants_prices(plan_of):
    plan = plan_of("tables.latency.marginal_architectures=0")
    assert LatencyStage().planned(plan).work.startswith("measure nothing: tables.latency.marginal_architectures is 0")
    table, detail = run(plan)
    assert not table.predicts
    assert "no latency is predicted" in detail


def test_budgets_and_objectives_may_hang_on_latency_where_there_are_prices(plan_of, place, tmp_path):
    plan = plan_of(*LIMITED)
    check_latency(plan.recipe, plan.space)
    assert searches_by_latency(plan.recipe)
    assert not searches_by_latency(plan_of().recipe)
    assert searches_by_latency(plan_of(LIMITED[0]).recipe)
    assert searches_by_latency(plan_of(LIMITED[1]).recipe)
    for change, key in zip(LIMITED, ("budgets.fast.latency_ms", "search.objectives.1"), strict=True):
        without = plan_of(change, "tables.latency.marginal_architectures=0")
        with pytest.raises(UserError, match=rf"^{key}: found .*marginal_architectures is 0, so that none is pred"):
            check_latency(without.recipe, without.space)


def test_a_table_of_another_device_is_read_and_must_be_of_this_space(plan_of, place, tmp_path, monkeypatch):
    table, _ = run(plan_of())
    file = tmp_path / "far.json"
    write_tables(file, [replace(table, origin=replace(table.origin, device_name="a far device"))])
    monkeypatch.setattr(latency, "build_table", None)
    plan = plan_of(f"tables.latency.table={file}")
    planned = LatencyStage().planned(plan).work
    assert planned.startswith(f"read 12 prices from {file}, measured with batch 2 × 16 tokens on a far device")
    found, detail = run(plan)
    assert found.marginals == table.marginals
    assert detail.startswith("12 prices on a far device; fitted to 48 networks")
    with pytest.raises(UserError, match=r"^tables.latency.table: .*: feed-forward slices 4 there, here 8; build it"):
        LatencyStage().check(plan_of(f"tables.latency.table={file}", "space.options={}"))
    with pytest.raises(UserError, match=r"^tables.latency.table: .*of another space: no entry for embeddings at"):
        LatencyStage().check(make_plan(place, tmp_path / "run", f"tables.latency.table={file}"))


def test_the_signature_names_the_prices(plan_of):
    assert LatencyStage().depends_on(plan_of())[-1] == list(plan_of().space.latency_terms())


def test_prices_that_order_networks_badly_are_told_of_loudly(plan_of, tmp_path, capsys):
    table, _ = run(plan_of())
    file = tmp_path / "poor.json"
    write_tables(file, [with_spearman(table, 0.4321)])
    _, detail = run(plan_of(f"tables.latency.table={file}"), "lines")
    assert detail.endswith("NOT RELIABLE: it orders networks badly")
    assert "WARNING" in (shown := "".join(capsys.readouterr()))
    assert "0.43" in shown


@pytest.mark.parametrize(
    ("changes", "spearman", "warned"), [(LIMITED, 0.4321, True), (LIMITED, 0.97, False), ((), 0.4321, False)]
)
def test_a_search_by_latency_repeats_the_warning(plan_of, monkeypatch, capsys, changes, spearman, warned):
    """No candidate is scored here: what is asked is what stands above the search."""
    monkeypatch.setattr(TuneEvaluation, "run", lambda *_: None)
    plan = plan_of(*changes)
    table = with_spearman(run(plan)[0], spearman)
    outputs = {"latency": {"latency_table": table.to_json()}, "supernet": {"signature": "s"}}
    with ResultsWriter(plan.folder.results, "run-1") as results:
        context = RunContext(plan, results, cast(Any, None), "signature", outputs)
        with Progress("lines").stage("search") as progress:
            SearchStage().run(context, progress)
    assert ("WARNING: predicted latencies are not to be trusted" in "".join(capsys.readouterr())) == warned
