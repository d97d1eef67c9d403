"""The latency stage: measured here or read from a file, recorded, and known by the device it names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from orchestrator.errors import UserError
from orchestrator.latency_table.files import write_tables
from orchestrator.recipe.latency import LatencySettings
from orchestrator.recipe.signatures import signature
from orchestrator.stages import latency
from orchestrator.stages.latency import LatencyStage, measuring_device
from tests.orchestrator.latency_table.stage_runs import make_plan, rows, run


@pytest.fixture
def plan_of(place, tmp_path):
    return lambda *changes: make_plan(place, tmp_path / "run", *changes)


def test_parts_networks_and_terms_are_recorded(plan_of):
    plan = plan_of("tables.latency.check_architectures=3")
    table, detail = run(plan)
    found = rows(plan, "latency")
    assert found["kind"].value_counts().to_dict() == {
        "operation": 8,
        "projection": len(plan.space.parts()) - 9,
        "embeddings": 1,
        "fit": 4,
        "check": 3,
    }
    networks = found[found["kind"].isin(["fit", "check"])]
    for _, row in networks.iterrows():
        network = plan.space.parse(row["architecture"])
        assert row["predicted_ms"] == pytest.approx(table.predict_ms(plan.space, network))
        assert row["additive_ms"] == pytest.approx(table.predict_ms(plan.space, network, remainder=False))
    assert networks["arch_id"].is_unique
    terms = rows(plan, "latency_terms")
    assert terms["term"].tolist() == [term.name for term in table.remainder.terms] or terms["term"].tolist() == ["none"]
    assert set(terms["architectures"]) == {4}
    assert "check: MAPE" in detail


def test_a_table_of_another_device_is_read_instead_of_measured(plan_of, tmp_path, monkeypatch):
    measured = plan_of()
    table, _ = run(measured)
    elsewhere = replace(table, origin=replace(table.origin, device_name="a far device"))
    file = tmp_path / "far.json"
    write_tables(file, [elsewhere])
    monkeypatch.setattr(latency, "build_table", None)
    plan = plan_of(f"tables.latency.table={file}")
    assert "a far device" in LatencyStage().planned(plan).work
    found, detail = run(plan)
    assert found.entries == table.entries
    assert "a far device" in detail
    assert "a far device" in set(rows(plan, "latency")["device"])
    before = LatencyStage().depends_on(plan)
    write_tables(file, [replace(elsewhere, remainder=replace(table.remainder, architectures=9))])
    assert LatencyStage().depends_on(plan) != before


def test_the_table_of_a_file_is_checked_before_the_run(plan_of, tmp_path):
    file = tmp_path / "far.json"
    with pytest.raises(UserError, match=r"^tables.latency.table: .*no such file"):
        LatencyStage().check(plan_of(f"tables.latency.table={file}"))
    table, _ = run(plan_of())
    write_tables(file, [table])
    with pytest.raises(UserError, match=r"^tables.latency.table: .*expected one for 3 × 16"):
        LatencyStage().check(plan_of(f"tables.latency.table={file}", "tables.latency.batch_size=3"))
    with pytest.raises(UserError, match=r"^tables.latency.table: .*of another space: no entry for operation S5"):
        LatencyStage().check(plan_of(f"tables.latency.table={file}", "space.options.operations=[M,F,F2,S3,S5]"))


def test_the_signature_names_the_device_that_is_measured_on(plan_of, monkeypatch):
    on_cpu = LatencyStage().depends_on(plan_of())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(latency, "_device_name", lambda settings: measuring_device(settings.device))
    assert "cuda" in LatencyStage().depends_on(plan_of())
    assert "cuda:1" in LatencyStage().depends_on(plan_of("tables.latency.device=cuda:1"))
    assert "cpu" in LatencyStage().depends_on(plan_of("tables.latency.device=cpu"))
    assert "cuda" not in on_cpu


def test_tables_that_were_measured_before_there_were_prices_stay_as_they_are(plan_of):
    plan = plan_of()
    settings = plan.recipe.tables.latency
    older = {key: value for key, value in settings.model_dump().items() if not key.startswith("marginal_")}
    assert len(older) == len(LatencySettings.model_fields) - 2
    assert signature(settings) == signature(older)
    assert len(LatencyStage().depends_on(plan)) == 5


@pytest.mark.parametrize(("name", "gpus", "device"), [("auto", 0, "cpu"), ("auto", 1, "cuda"), ("cuda:1", 2, "cuda:1")])
def test_devices_that_are_there(monkeypatch, name, gpus, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert measuring_device(name) == device


@pytest.mark.parametrize(("name", "gpus"), [("cuda", 0), ("cuda:1", 1)])
def test_devices_that_are_not_there_are_named(monkeypatch, name, gpus):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(UserError, match=f"tables.latency.device: found {name}, but this process sees"):
        measuring_device(name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("tables.latency.device=gpu", "found 'gpu', expected auto, cpu, cuda or cuda:<number>"),
        ("tables.latency.fit_architectures=3", "found 3, expected 0 or at least 4"),
        ("tables.latency.check_architectures=1", "found 1, expected 0 or at least 2"),
        ("tables.latency.precision=float16", "precision"),
    ],
)
def test_mistakes_in_the_recipe(plan_of, change, said):
    with pytest.raises(UserError, match=said):
        plan_of(change)
