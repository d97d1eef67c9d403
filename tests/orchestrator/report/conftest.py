"""One synthetic run for all tests of the report: read by many, written by none."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.report.data import RunData, load
from tests.orchestrator.report.synthetic_run import write_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "run", candidates=140)


@pytest.fixture(scope="session")
def finished(finished_run: Path) -> RunData:
    return load(finished_run)
