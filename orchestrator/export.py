"""Models as folders that others load: Hugging Face files, the code they need, sentence-transformers files, a card."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from orchestrator.errors import UserError
from orchestrator.phases import LAMBDAS, SUPERNET, weights_of_found
from orchestrator.recipe import Recipe
from orchestrator.results import open_results
from orchestrator.run_directory import RunDirectory
from spaces.architecture import Architecture
from spaces.huggingface import own_family
from trainers.students import has_masked_lm_head
from trainers.supernet_store import load_supernet
from trainers.teacher import TeacherSource, quieten_transformers

SENTENCE_TRANSFORMERS_FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
"""What makes a folder a sentence encoder; the pooling folders are named in ``modules.json``."""


def copy_sentence_files(source: Path, target: Path) -> bool:
    """Copy what sentence-transformers needs besides the model, if ``source`` is a sentence encoder.

    Returns:
        Whether it is one.
    """
    if not (source / "modules.json").is_file():
        return False
    for name in SENTENCE_TRANSFORMERS_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    for folder in source.glob("[0-9]_*"):
        if folder.is_dir():
            shutil.copytree(folder, target / folder.name, dirs_exist_ok=True)
    return True


def save_model(model: PreTrainedModel, teacher_folder: Path, folder: Path) -> None:
    """Write a model with the teacher's tokenizer.

    Models of the project's own families bring their code along, so that they load with ``trust_remote_code=True``
    where netsuke is not installed. If the teacher is a sentence encoder and the model has its width, so is the folder.

    Args:
        model: the encoder, with a masked-LM head or without.
        teacher_folder: the run's teacher.
        folder: made if absent.
    """
    quieten_transformers()
    family = own_family(model.config)
    if family is not None:
        family.send_code_along(model.config, folder)
    model.save_pretrained(folder)
    teacher = TeacherSource(str(teacher_folder))
    teacher.tokenizer().save_pretrained(str(folder))
    if model.config.hidden_size == teacher.shape().hidden_size:
        copy_sentence_files(teacher_folder, folder)


def write_model_card(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the model card of an exported folder.

    Args:
        folder: with a model in it.
        facts: ``name``, ``teacher``, ``architecture``, and the rows of a table of measurements under ``measured``.
    """
    is_sentence_encoder = (folder / "modules.json").is_file()
    lines = [
        "---",
        "library_name: " + ("sentence-transformers" if is_sentence_encoder else "transformers"),
        "tags: [netsuke, distillation, neural-architecture-search]",
        "---",
        "",
        f"# {facts['name']}",
        "",
        f"A student of `{facts['teacher']}`, found and distilled by netsuke.",
        "",
        f"Architecture: `{facts['architecture']}`",
        "",
    ]
    measured: Mapping[str, str] = facts.get("measured", {})
    if measured:
        lines += [
            "| measured | value |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in measured.items()),
        ]
        lines.append("")
    lines += ["## Load it", "", "```python", *_loading_lines(folder, is_sentence_encoder), "```", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _loading_lines(folder: Path, is_sentence_encoder: bool) -> list[str]:
    own = (folder / "modeling.py").is_file()
    comment = "  # or, where netsuke is installed: import spaces.huggingface" if own else ""
    trust = ", trust_remote_code=True" if own else ""
    lines = [
        "from transformers import AutoModel, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{folder.name}")',
        f'model = AutoModel.from_pretrained("{folder.name}"{trust}){comment}',
    ]
    if has_masked_lm_head(folder):
        lines += [
            "",
            "from transformers import AutoModelForMaskedLM",
            "",
            f'with_head = AutoModelForMaskedLM.from_pretrained("{folder.name}"{trust})',
        ]
    if is_sentence_encoder:
        lines += [
            "",
            "from sentence_transformers import SentenceTransformer",
            "",
            f'sentence_encoder = SentenceTransformer("{folder.name}"{trust})',
        ]
    return lines


def export_architecture(run_dir: Path, model: str, export_format: str, out: Path) -> Path:
    """Export a finished model, or any architecture with the weights it inherits from the run's supernet.

    Args:
        run_dir: a run folder.
        model: label of a finished model, an ``arch_id`` of the results, or an architecture's text.
        export_format: ``hf``.
        out: a new or empty folder.

    Raises:
        UserError: the format or the architecture is unknown, or the run has no supernet yet.
    """
    if export_format != "hf":
        raise UserError(f"--format: found '{export_format}', expected hf")
    folder = RunDirectory(run_dir)
    described = folder.read()
    if described is None:
        raise UserError(f"{run_dir}: found no run.json, expected the folder of a run")
    if model in _finished_models(folder):
        shutil.copytree(folder.model(model), out, dirs_exist_ok=True)
        return out
    if not folder.supernet_weights.is_file():
        raise UserError(f"{run_dir}: the run has no trained supernet yet; let `netsuke run` finish that stage first")
    from orchestrator.recipe import load_recipe
    from orchestrator.run_space import run_space

    recipe = load_recipe(str(folder.path / "recipe.yaml"), [])
    shape = TeacherSource(str(folder.teacher)).shape()
    space = run_space(recipe, shape, folder)
    architecture: Architecture = space.parse(_text_of(folder, model))
    weights = _own_weights(recipe, folder).get(str(architecture), folder.supernet_weights)
    try:
        supernet = load_supernet(space, weights)
    except RuntimeError as error:  # names or sizes of its weights are others
        raise UserError(
            f"{run_dir}: the supernet was trained for another space than recipe.yaml now names; let `netsuke run` "
            f"train it anew first, or export a finished model ({', '.join(_finished_models(folder)) or 'none yet'})"
        ) from error
    extracted = supernet.extract(architecture)
    assert isinstance(extracted, PreTrainedModel)
    out.mkdir(parents=True, exist_ok=True)
    save_model(extracted, folder.teacher, out)
    facts = {"name": out.name, "teacher": described["teacher"], "architecture": str(architecture)}
    note = {"training": "none: the weights are the supernet's, distil before use"}
    write_model_card(out, {**facts, "measured": note})
    return out


def _own_weights(recipe: Recipe, folder: RunDirectory) -> dict[str, Path]:
    """For the text of what another lambda of a one-shot search has come to, the weights that were trained with it."""
    records = {name: folder.stage_record(name) for name in (SUPERNET, LAMBDAS)}
    if not recipe.supernet.one_shot.sweep or None in records.values():
        return {}
    return weights_of_found({name: record.outputs for name, record in records.items() if record is not None}, folder)


def _finished_models(folder: RunDirectory) -> list[str]:
    """Labels of the models that were finished, sorted."""
    return sorted(path.parent.name for path in folder.models.glob("*/config.json"))


def _text_of(folder: RunDirectory, model: str) -> str:
    """The text of an architecture given by id, or the text itself."""
    if ":" in model or "|" in model:
        return model
    frame = open_results(folder.results).frame("evaluations")
    found = frame[(frame["arch_id"] == model) & (frame["scope"] == "network")]
    if found.empty:
        models = ", ".join(_finished_models(folder)) or "none yet"
        raise UserError(
            f"ARCH: found '{model}', expected a finished model ({models}), an arch_id of the evaluations, or an "
            f"architecture's text"
        )
    return str(found.iloc[0]["architecture"])
