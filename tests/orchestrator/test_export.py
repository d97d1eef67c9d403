"""Exports of a finished run: what they hold, where they load, and what they answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from spaces import huggingface as _registered  # noqa: F401 - AutoModel has to know the project's models
from spaces.registry import load_space
from tests.orchestrator.pipeline.microscopic_run import RECIPE, shape_of_teacher
from tests.spaces.elsewhere import run_elsewhere
from trainers.supernet_store import load_supernet

SENTENCES = ["pito teku fo re bamema", "sa ra", "tofo kuka fute bise dulipa pito pito"]

LOAD_ELSEWHERE = """
import sys
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer
folder, out, *sentences = sys.argv[1:]
batch = AutoTokenizer.from_pretrained(folder)(sentences, padding=True, return_tensors="pt")
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
with torch.inference_mode():
    save_file({"hidden": model(**batch).last_hidden_state.contiguous()}, out)
"""


def encode(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The last hidden state of the sentences, ``hidden_BTD``, and their mask."""
    batch = AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state, batch["attention_mask"]


@pytest.fixture
def export(netsuke, finished, tmp_path):
    """Export an architecture of the finished run; the folder."""

    def call(architecture: str) -> Path:
        answer = netsuke("export", finished.folder, architecture, "--out", tmp_path / "out", "--json")
        assert answer.code == 0, answer.err
        assert answer.json == {"model": architecture, "format": "hf", "path": str(tmp_path / "out")}
        return tmp_path / "out"

    return call


@pytest.fixture(scope="module")
def candidate(finished):
    """An evaluated architecture that won nothing."""
    rows = finished.table("evaluations")
    winners = set(finished.table("models")["arch_id"].dropna())
    rows = rows[(rows["scope"] == "network") & ~rows["arch_id"].isin(winners)]
    return rows.iloc[0]


def test_a_finished_model_is_exported_as_it_is(finished, export):
    out = export("most")
    hidden_BTD, _ = encode(out)
    assert torch.equal(hidden_BTD, encode(finished.folder / "models" / "most")[0])
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "modeling.py"} <= {
        path.name for path in out.iterdir()
    }


@pytest.mark.parametrize("column", ["arch_id", "architecture"])
def test_any_architecture_is_exported_with_the_supernets_weights(finished, export, candidate, column):
    out = export(candidate[column])
    model = AutoModel.from_pretrained(out).eval()
    assert model.config.architecture == candidate["architecture"]
    space = load_space("nas_bert", RECIPE["space"]["options"], shape_of_teacher())
    supernet = load_supernet(space, finished.folder / "supernet" / "supernet.safetensors")
    batch = AutoTokenizer.from_pretrained(out)(SENTENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        path_BTD = supernet(space.parse(candidate["architecture"]), batch["input_ids"], batch["attention_mask"])
    hidden_BTD, mask_BT = encode(out)
    torch.testing.assert_close(hidden_BTD[mask_BT.bool()], path_BTD[mask_BT.bool()], rtol=1e-4, atol=1e-5)
    assert "distil before use" in (out / "README.md").read_text()


def test_an_architecture_that_nobody_evaluated_is_exported_too(export):
    assert AutoModel.from_pretrained(export("E32|32:S3|16:M-M-F2-S3")).config.architecture == "E32|32:S3|16:M-M-F2-S3"


def test_loads_where_netsuke_is_not_installed(export, tmp_path):
    """By the code that travels with the model; the checkout and the editable install are out of sight."""
    out = export("most")
    run_elsewhere(LOAD_ELSEWHERE, tmp_path, out, tmp_path / "h", *SENTENCES)
    torch.testing.assert_close(load_file(tmp_path / "h")["hidden"], encode(out)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("label", ["most", "most-uniform"])
def test_a_student_of_a_sentence_encoder_is_one(export, label):
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="install the extra 'quickstart'")
    out = export(label)
    vectors_BD = sentence_transformers.SentenceTransformer(str(out), device="cpu").encode(SENTENCES)
    hidden_BTD, mask_BT = encode(out)
    mask_BT1 = mask_BT.unsqueeze(-1)
    means_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
    torch.testing.assert_close(torch.tensor(vectors_BD), means_BD, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("gigantic", "ARCH: found 'gigantic', expected a finished model (most, most-uniform, some, some-uniform), an "),
        ("../teacher", "ARCH: found '../teacher', expected a finished model ("),
        ("", "ARCH: found '', expected a finished model ("),
        ("E32|32:X|16:M", "architecture 'E32|32:X|16:M', column 8: expected an operation such as M, F, F2 or S3"),
        ("E32|48:M|16:M", "architecture 'E32|48:M|16:M' is not in the space: block 1: hidden size 48 is not one of"),
    ],
)
def test_an_unknown_architecture(netsuke, finished, tmp_path, architecture, message):
    answer = netsuke("export", finished.folder, architecture, "--out", tmp_path / "out")
    assert answer.code == 2
    assert answer.error.startswith(message)
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_supernet(netsuke, finished, tmp_path):
    copy = finished.copy(tmp_path / "run")
    (copy.folder / "supernet" / "supernet.safetensors").unlink()
    answer = netsuke("export", copy.folder, "E32|32:M|32:M", "--out", tmp_path / "out")
    assert answer.code == 2
    assert "has no trained supernet yet; let `netsuke run` finish that stage first" in answer.error
    assert netsuke("export", copy.folder, "most", "--out", tmp_path / "out").code == 0


def test_a_recipe_that_has_moved_on_since_the_supernet_was_trained(netsuke, finished, tmp_path):
    """The resolved recipe is written when a run begins; the supernet of its space may not be there yet."""
    copy = finished.copy(tmp_path / "run")
    recipe = (copy.folder / "recipe.yaml").read_text()
    (copy.folder / "recipe.yaml").write_text(recipe.replace("layers_per_block: 4", "layers_per_block: 2"))
    answer = netsuke("export", copy.folder, "E32|32:M|32:M", "--out", tmp_path / "out")
    assert answer.code == 2
    assert "the supernet was trained for another space than recipe.yaml now names" in answer.error


def test_a_supernet_that_is_damaged(netsuke, finished, tmp_path):
    copy = finished.copy(tmp_path / "run")
    weights = copy.folder / "supernet" / "supernet.safetensors"
    save_file({"other": torch.zeros(1)}, weights)
    assert netsuke("export", copy.folder, "E32|32:M|32:M", "--out", tmp_path / "out").code == 2


def test_config_is_plain_json(export):
    export_folder = export("some")
    config = json.loads((export_folder / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration.NasBertConfig",
        "AutoModel": "modeling.NasBertModel",
        "AutoModelForMaskedLM": "masked_lm.NasBertForMaskedLM",
        "AutoModelForSequenceClassification": "task_models.NasBertForSequenceClassification",
        "AutoModelForTokenClassification": "task_models.NasBertForTokenClassification",
        "AutoModelForQuestionAnswering": "task_models.NasBertForQuestionAnswering",
    }
    assert all((export_folder / f"{value.split('.')[0]}.py").is_file() for value in config["auto_map"].values())
