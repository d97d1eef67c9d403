"""One whole run: what its tables, folders and summary hold, and that a second start has nothing to do."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from spaces import huggingface as _registered  # noqa: F401 - AutoModel has to know the project's models
from spaces.registry import load_space
from tests.orchestrator.pipeline.microscopic_run import (
    EVALUATIONS,
    MODELS,
    RECIPE,
    REPORT_EVERY,
    SEQUENCE_LENGTH,
    STAGES,
    SUPERNET_STEPS,
    VOCABULARY,
    WINNERS,
    shape_of_teacher,
)
from tests.spaces.microscopic import parameters_of

TEACHER_PARAMETERS = shape_of_teacher().encoder_parameters
LIMITS = {"most": int(0.6 * TEACHER_PARAMETERS), "some": int(0.25 * TEACHER_PARAMETERS)}
TABLES = ("runs", "training", "evaluations", "block_losses", "signals", "latency", "selections", "models")


@pytest.fixture(scope="module")
def space():
    return load_space("nas_bert", RECIPE["space"]["options"], shape_of_teacher())


def is_finite(values) -> bool:
    return bool(len(values)) and all(math.isfinite(value) for value in values)


def test_every_stage_is_logged_as_started_and_finished(finished):
    runs = finished.table("runs")
    expected = [(name, status) for name in STAGES for status in ("started", "finished")]
    assert list(zip(runs["stage"], runs["status"], strict=True)) == expected
    assert set(runs["attempt"]) == {1}
    assert set(runs["recipe"]) == {"microscopic"}


def test_training_has_a_row_for_every_interval_of_every_block_and_student(finished):
    training = finished.table("training")
    supernet = training[training["stage"] == "supernet"]
    steps = list(range(REPORT_EVERY, SUPERNET_STEPS + 1, REPORT_EVERY))
    assert sorted(zip(supernet["block"], supernet["step"], strict=True)) == [(b, s) for b in (0, 1) for s in steps]
    students = training[training["stage"] == "distillation"]
    assert sorted(zip(students["subject"], students["step"], strict=True)) == [(m, s) for m in MODELS for s in (3, 6)]
    for column in ("loss", "relative_mse", "learning_rate", "tokens_per_second"):
        assert is_finite(training[column]), column


def test_every_strategy_has_its_evaluations(finished, space):
    evaluations = finished.table("evaluations")
    networks = evaluations[evaluations["scope"] == "network"]
    assert networks.groupby("strategy").size().to_dict() == EVALUATIONS
    for strategy, rows in networks.groupby("strategy"):
        assert sorted(rows["proposal"]) == list(range(EVALUATIONS[strategy]))
        assert rows["arch_id"].is_unique
    assert set(networks["status"]) == {"ok"}
    assert is_finite(networks["loss"])
    assert (networks["encoder_parameters"] <= LIMITS["most"]).all()
    for row in networks.itertuples():
        architecture = space.parse(row.architecture)
        cost = space.cost(architecture, SEQUENCE_LENGTH)
        assert (row.arch_id, row.parameters, row.flops) == (architecture.arch_id, cost.parameters, cost.flops)


def test_every_block_has_its_sampled_architectures_scored_by_the_same_supernet(finished):
    blocks = finished.table("block_losses")
    assert blocks.groupby("block").size().to_dict() == {0: 5, 1: 5}
    for column in ("loss", "relative_loss", "latency_ms"):
        assert is_finite(blocks[column]), column
    signatures = [finished.table(name)["supernet_signature"] for name in ("evaluations", "block_losses", "signals")]
    assert len({signature for column in signatures for signature in column}) == 1


def test_every_block_and_hidden_size_has_its_signal(finished):
    signals = finished.table("signals")
    assert sorted(zip(signals["block"], signals["hidden_size"], strict=True)) == [
        (b, h) for b in (0, 1) for h in (16, 32)
    ]
    assert is_finite(signals["signal"])


def test_every_part_and_every_model_is_timed(finished, space):
    latency = finished.table("latency")
    models = latency[latency["kind"] == "model"]
    assert sorted(models["operation"]) == sorted(("teacher", *MODELS))
    parts = latency[latency["kind"].isin({part.kind for part in space.parts()})]
    assert len(parts) == len(space.parts())
    assert (latency["median_ms"] > 0).all()


def test_each_budget_has_one_winner_that_keeps_it_and_is_its_best(finished):
    selections, evaluations = finished.table("selections"), finished.table("evaluations")
    networks = evaluations[evaluations["scope"] == "network"]
    for budget in WINNERS:
        rows = selections[selections["budget"] == budget]
        assert (rows["encoder_parameters"] <= LIMITS[budget]).all()
        assert list(rows["rank"]) == list(range(1, len(rows) + 1))
        (loss,) = rows[rows["chosen"]]["loss"]
        assert loss == networks[networks["encoder_parameters"] <= LIMITS[budget]]["loss"].min()


def test_models_are_measured_and_as_large_as_their_budgets_allow(finished):
    models = finished.table("models").set_index("model")
    assert sorted(models.index) == sorted(("teacher", *MODELS))
    assert models.loc["teacher", "cosine_similarity"] == pytest.approx(1.0, abs=1e-5)
    assert models.loc["teacher", "encoder_parameters"] == TEACHER_PARAMETERS
    for budget in WINNERS:
        winner, uniform = models.loc[budget], models.loc[f"{budget}-uniform"]
        assert winner["encoder_parameters"] <= LIMITS[budget]
        assert uniform["encoder_parameters"] == pytest.approx(winner["encoder_parameters"], rel=0.005)
        assert (winner["role"], uniform["role"]) == ("winner", "uniform")
    assert set(models["vocabulary_size"]) == {VOCABULARY}
    assert models["tied_embeddings"].isna().all(), "nothing here predicts tokens"
    for column in ("cosine_similarity", "relative_mse", "measured_latency_ms", "speed_up"):
        assert is_finite(models[column]), column
    assert is_finite(models.loc[list(MODELS), "initial_cosine_similarity"])
    assert is_finite(models.loc[list(WINNERS), "predicted_latency_ms"])


@pytest.mark.parametrize("label", MODELS)
def test_finished_models_load_with_their_tokenizer(finished, label):
    folder = finished.folder / "models" / label
    model, loading = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert {key for key in loading["missing_keys"] if "pooler" not in key} == set()
    batch = AutoTokenizer.from_pretrained(folder)(["pito teku fo", "re"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden_BTD = model.eval()(**batch).last_hidden_state
    assert hidden_BTD.shape == (2, batch["input_ids"].shape[1], 32)
    assert bool(hidden_BTD.isfinite().all())
    row = finished.table("models").set_index("model").loc[label]
    assert row["path"] == f"models/{label}"
    pooler = getattr(model, "pooler", None)
    assert row["parameters"] == parameters_of(model) - (parameters_of(pooler) if pooler else 0)
    assert "netsuke" in (folder / "README.md").read_text()


def test_summary_and_report(finished):
    answer = json.loads(json.dumps(finished.summary.as_dict()))
    assert [budget["name"] for budget in answer["budgets"]] == list(WINNERS)
    for budget in answer["budgets"]:
        assert budget["winner"]["encoder_parameters"] <= budget["max_encoder_parameters"] == LIMITS[budget["name"]]
        assert Path(budget["winner"]["path"]).is_dir()
        assert budget["uniform"]["label"] == f"{budget['name']}-uniform"
    report = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert answer["report"] == str(finished.folder / "report.html")
    assert all(label in report for label in WINNERS)


def test_nothing_is_left_behind(finished):
    assert not list((finished.folder / "training").glob("*"))
    assert not list(finished.folder.rglob("*.tmp"))
    assert not (finished.folder / ".lock-holder.json").exists()
    ours = [path.name for path in Path(tempfile.gettempdir()).glob("netsuke-*") if path.stat().st_uid == 0]
    recent = [name for name in ours if (Path(tempfile.gettempdir()) / name).stat().st_mtime > _began(finished)]
    assert recent == []


def _began(finished) -> float:
    return finished.table("runs")["recorded_at"].min().timestamp()


def test_a_second_start_skips_everything_and_changes_no_table(finished, netsuke, tmp_path):
    copy = finished.copy(tmp_path / "again")
    before = {name: copy.table(name) for name in TABLES}
    plan = netsuke("run", copy.recipe, "--run-dir", copy.folder, "--dry-run", "--json")
    assert [(stage["name"], stage["action"]) for stage in plan.json["stages"]] == [(name, "skip") for name in STAGES]
    answer = netsuke("run", copy.recipe, "--run-dir", copy.folder, "--json")
    assert answer.code == 0
    assert answer.err == ""
    assert answer.json["budgets"] == [
        json.loads(json.dumps(budget).replace(str(finished.folder), str(copy.folder)))
        for budget in finished.summary.as_dict()["budgets"]
    ]
    assert copy.last_attempt() == dict.fromkeys(STAGES, "skipped")
    for name in TABLES:
        rows = copy.table(name)
        if name == "runs":
            rows = rows[rows["attempt"] == 1].reset_index(drop=True)
        assert rows.equals(before[name]), name
