"""Whole runs without any download: the teacher is pre-trained, students predict masked tokens with their own heads."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertForMaskedLM

from orchestrator.recipe.budgets import parse_size
from spaces.huggingface import NasBertForMaskedLM, NasBertModel
from tests.orchestrator.pipeline.microscopic_run import RECIPE, write_recipe, write_text
from tests.orchestrator.pipeline.runs import Run
from tests.orchestrator.without_ray import without_ray
from tests.spaces.elsewhere import run_elsewhere
from trainers.teacher import TeacherSource

PRETRAINING = {
    "num_layers": 4,
    "hidden_size": 32,
    "num_heads": 2,
    "max_positions": 24,
    "vocabulary_size": 300,
    "steps": 12,
    "batch_size": 8,
    "checkpoint_every": 6,
    "report_every": 4,
    "precision": "float32",
    "scaling": {"cpus_per_worker": 1},
}
SHORT = {
    "budgets": [RECIPE["budgets"][0], RECIPE["budgets"][0] | {"name": "again"}],
    "search": RECIPE["search"]
    | {"strategies": [{"name": "random", "evaluations": 6}], "rank_by": "masked_lm", "objectives": ["loss"]},
    "supernet": RECIPE["supernet"] | {"steps": 4, "checkpoint_every": 4, "report_every": 4},
}
"""What the teacher has no part in is kept small."""

SENTENCE = "pito teku fo re bamema"

MARKER = "loaded elsewhere:"
LOAD_ELSEWHERE = """
import sys
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
folder, sentence = sys.argv[1:]
batch = AutoTokenizer.from_pretrained(folder)(sentence, return_tensors="pt")
kinds = (AutoModel, AutoModelForMaskedLM)
encoder, whole = (kind.from_pretrained(folder, trust_remote_code=True).eval() for kind in kinds)
total = whole(**batch).logits.abs().sum().item()
print("\\n" + "loaded elsewhere:", type(encoder).__name__, type(whole).__name__, total)
"""


def start_run(folder: Path, teacher: dict, **changes) -> Run:
    write_text(folder)
    recipe = write_recipe(folder, teacher=teacher, **{**SHORT, **changes})
    run = Run(recipe, folder / "run")
    run.start()
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory, local_ray) -> Run:
    folder = tmp_path_factory.mktemp("own_teacher")
    with without_ray():
        return start_run(folder, {"source": "pretrain", "pretraining": PRETRAINING})


def test_the_teacher_is_an_ordinary_bert_that_has_learned_something(run):
    model = AutoModelForMaskedLM.from_pretrained(run.folder / "teacher")
    assert isinstance(model, BertForMaskedLM)
    assert (model.config.num_hidden_layers, model.config.vocab_size) == (4, 300)
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "teacher")
    assert tokenizer.unk_token_id not in tokenizer(SENTENCE)["input_ids"]
    training = run.table("training")
    teacher = training[training["stage"] == "teacher"]
    assert list(teacher["step"]) == [4, 8, 12]
    assert set(teacher["subject"]) == {"teacher"}
    assert teacher["loss"].iloc[-1] < math.log(300)
    assert not list((run.folder / "training").glob("*"))


def test_whole_networks_are_ranked_by_what_they_predict(run):
    evaluations = run.table("evaluations")
    assert (evaluations["status"] == "ok").all()
    assert evaluations[["loss", "masked_lm_loss"]].gt(0).all(axis=None)
    teacher = TeacherSource(str(run.folder / "teacher")).shape()
    [budget] = RECIPE["budgets"][:1]
    limit = parse_size(budget["encoder_parameters"]).resolve(teacher.encoder_parameters)
    fitting = evaluations[evaluations["encoder_parameters"] <= limit]
    selected = run.table("selections").query("chosen and budget == 'most'")
    best = fitting.sort_values(["masked_lm_loss", "arch_id"])["architecture"].iloc[0]
    assert list(selected["architecture"]) == [best]


def test_students_predict(run):
    training = run.table("training")
    students = training[training["stage"] == "distillation"]
    assert set(students["subject"]) == {"most", "most-uniform"}
    assert students["masked_lm_loss"].notna().all()
    expected = 0.5 * students["masked_lm_loss"] + 0.5 * students["kl_divergence"]
    assert list(students["loss"]) == pytest.approx(list(expected), rel=1e-6)
    assert students["relative_mse"].isna().all()
    models = run.table("models").set_index("model")
    assert sorted(models.index) == ["again", "again-uniform", "most", "most-uniform", "teacher"]
    assert (models["masked_lm_loss"] > 0).all()
    for row in models.itertuples():
        assert row.perplexity == pytest.approx(math.exp(row.masked_lm_loss))
        assert 0 <= row.masked_lm_accuracy <= 1
    assert set(models["vocabulary_size"]) == {300}
    assert set(models["tied_embeddings"]) == {True}
    assert "of masked tokens right at a loss of" in (run.folder / "report.html").read_text(encoding="utf-8")
    assert "perplexity" in (run.folder / "models" / "most" / "README.md").read_text()


def test_what_two_budgets_chose_is_distilled_and_measured_once_and_both_have_it(run):
    models = run.table("models").set_index("model")
    assert models["same_as"].dropna().to_dict() == {"again": "most", "again-uniform": "most-uniform"}
    measured = [name for name in models.columns if name not in ("recorded_at", "budget", "same_as", "path")]
    for copy, original in models["same_as"].dropna().items():
        assert models.loc[copy, measured].equals(models.loc[original, measured])
        assert models.loc[copy, "path"] == f"models/{copy}"
        weights = [(run.folder / "models" / label / "model.safetensors").read_bytes() for label in (copy, original)]
        assert weights[0] == weights[1]
        assert f"# {copy}\n" in (run.folder / "models" / copy / "README.md").read_text()
        assert not (run.folder / "students" / copy).exists()
    latency = run.table("latency")
    assert set(latency[latency["kind"] == "model"]["operation"]) == {"teacher", "most", "most-uniform"}
    report = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "the winner is that of “most” and the uniform is that of “most-uniform”" in report


@pytest.mark.parametrize(("label", "own"), [("most", True), ("most-uniform", False)])
def test_finished_models_load_with_and_without_their_heads(run, label, own):
    folder = run.folder / "models" / label
    whole, report = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert isinstance(whole, NasBertForMaskedLM if own else BertForMaskedLM)
    assert not any(report.values())
    encoder = AutoModel.from_pretrained(folder, **({} if own else {"add_pooling_layer": False}))
    assert isinstance(encoder, NasBertModel) == own
    batch = AutoTokenizer.from_pretrained(folder)(SENTENCE, return_tensors="pt")
    with torch.inference_mode():
        states_BTD = encoder.eval()(**batch).last_hidden_state
        assert torch.equal(whole.eval().base_model(**batch).last_hidden_state, states_BTD)
        assert whole(**batch).logits.shape == (*batch["input_ids"].shape, 300)
    before = AutoModelForMaskedLM.from_pretrained(run.folder / "students" / label)
    changed = [not torch.equal(a, b) for a, b in zip(before.parameters(), whole.parameters(), strict=True)]
    assert sum(changed) > 0.9 * len(changed), "everything learns, the embeddings too"


@pytest.mark.slow
def test_an_export_loads_where_netsuke_is_not_installed(run, netsuke, tmp_path):
    out = tmp_path / "out"
    answer = netsuke("export", run.folder, "most", "--out", out)
    assert answer.code == 0, answer.err
    printed = run_elsewhere(LOAD_ELSEWHERE, tmp_path, out, SENTENCE)
    (line,) = [line for line in printed.splitlines() if line.startswith(MARKER)]  # Hugging Face may print, too
    encoder, whole, total = line.removeprefix(MARKER).split()
    assert (encoder, whole) == ("NasBertModel", "NasBertForMaskedLM")
    model = AutoModelForMaskedLM.from_pretrained(out).eval()
    batch = AutoTokenizer.from_pretrained(out)(SENTENCE, return_tensors="pt")
    with torch.inference_mode():
        assert float(total) == pytest.approx(model(**batch).logits.abs().sum().item(), rel=1e-5)


def test_a_second_start_has_nothing_to_do_and_another_text_starts_anew(run, netsuke, tmp_path):
    copy = run.copy(tmp_path / "again")
    plan = netsuke("run", copy.recipe, "--run-dir", copy.folder, "--dry-run", "--json")
    assert {stage["action"] for stage in plan.json["stages"]} == {"skip"}
    for change in ("seed=4", "corpus.sequence_length=12", "teacher.pretraining.steps=13"):
        plan = netsuke("run", copy.recipe, "--run-dir", copy.folder, "--dry-run", "--json", "--set", change)
        assert plan.json["stages"][0]["action"] == "run", change


@pytest.mark.slow
def test_with_bert_s_own_vocabulary(netsuke_data, local_ray, tmp_path):
    """On real text: what is learned in a minute is little, but every part has to work at that size."""
    wikitext = next((netsuke_data / "wikitext-2-raw").glob("validation*"))
    pretraining = {name: value for name, value in PRETRAINING.items() if name != "vocabulary_size"}
    vocabulary = str(netsuke_data / "vocab" / "bert-base-uncased" / "vocab.txt")
    run = start_run(
        tmp_path,
        {"pretraining": pretraining | {"vocabulary": vocabulary, "steps": 60, "learning_rate": 3e-3}},
        corpus={"source": str(wikitext), "sequence_length": 16, "max_tokens": 20_000, "validation_fraction": 0.1},
    )
    models = run.table("models").set_index("model")
    assert models.loc["teacher", "masked_lm_loss"] < math.log(30_522) - 1
    assert AutoModelForMaskedLM.from_pretrained(run.folder / "models" / "most").config.vocab_size == 30_522
