"""One place with recipe, teacher and text, one finished run of it, and the command as a person calls it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.connect import ClusterInfo
from tests.orchestrator.cli.conftest import netsuke as netsuke
from tests.orchestrator.pipeline.microscopic_run import write_recipe, write_teacher, write_text
from tests.orchestrator.pipeline.runs import FinishedRun, Run


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``microscopic.yaml``, ``teacher`` and ``text.txt``; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("microscopic")
    write_text(folder)
    write_teacher(folder / "teacher", sentence_encoder=True)
    write_recipe(folder)
    return folder


@pytest.fixture(scope="session")
def finished(place: Path, local_ray: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A whole run; tests that go on with it work on a copy."""
    folder = tmp_path_factory.mktemp("runs") / "microscopic"
    run = Run(place / "microscopic.yaml", folder)
    return FinishedRun(run.recipe, run.folder, run.start())
