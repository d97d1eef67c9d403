"""What exported models take along of the project's code."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from spaces import model_parts, travelling_code
from spaces.huggingface import OWN_FAMILIES
from spaces.travelling_code import travelling_files

NAMES = [family.config_class.model_type for family in OWN_FAMILIES]


@pytest.fixture(params=OWN_FAMILIES, ids=NAMES)
def exported(request, tmp_path):
    """A family's code in a folder, and the configuration that names it."""

    class Config:
        auto_map = None

    request.param.send_code_along(Config, tmp_path / "new" / "export")
    return tmp_path / "new" / "export", Config.auto_map


def test_files_import_each_other_and_no_more_of_the_project(exported):
    folder, auto_map = exported
    names = {file.stem for file in folder.iterdir()}
    for file in folder.iterdir():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1
                assert node.module in names if node.level else node.module.split(".")[0] not in ("spaces", "trainers")
            if isinstance(node, ast.Import):
                assert not {name.name.split(".")[0] for name in node.names} & {"spaces", "trainers", "orchestrator"}
    for entry in auto_map.values():
        file, class_name = entry.split(".")
        assert f"class {class_name}(" in (folder / f"{file}.py").read_text()


def test_shared_parts_are_the_very_code_that_runs_here(exported):
    """But for the lines that import."""
    folder, _ = exported
    shared = {file.name: file for file in Path(inspect.getfile(model_parts)).parent.glob("[!_]*.py")}
    taken = [file for file in folder.iterdir() if file.name in shared]
    assert len(taken) >= 4, "attention, the room for heads, and the heads"
    assert all(file.read_text() == shared[file.name].read_text() for file in taken)


def test_every_class_is_loaded_by_name(exported):
    _, auto_map = exported
    assert set(auto_map) == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForMaskedLM",
        "AutoModelForSequenceClassification",
        "AutoModelForTokenClassification",
        "AutoModelForQuestionAnswering",
    }


def test_files_that_cannot_travel_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(travelling_code, "_SHARED_FOLDER", tmp_path / "shared")
    (tmp_path / "shared").mkdir()
    model, helper, twin = tmp_path / "model.py", tmp_path / "helper.py", tmp_path / "shared" / "helper.py"
    model.write_text("import torch\nfrom .helper import one\nfrom spaces.model_parts.other import two\n")
    helper.write_text("one = 1\n")
    (tmp_path / "shared" / "other.py").write_text("two = 2\n")
    assert travelling_files([model]) == {
        "helper.py": "one = 1\n",
        "model.py": "import torch\nfrom .helper import one\nfrom .other import two\n",
        "other.py": "two = 2\n",
    }
    for line in (
        "from spaces.errors import SpaceError",
        "import trainers.teacher",
        "from ..options import Options",
        "from .. import errors",
    ):
        helper.write_text(f"def late():\n    {line}\n")
        with pytest.raises(ValueError, match=r"helper\.py: travels with exported models, but has"):
            travelling_files([model])
    helper.write_text("one = 1\n")
    (tmp_path / "shared" / "other.py").write_text("from .helper import one\n")
    twin.write_text("one = 3\n")
    with pytest.raises(ValueError, match="rename one of them"):
        travelling_files([model])
