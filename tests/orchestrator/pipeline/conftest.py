"""A whole run of EfficientBERT's space in three phases: candidates trained, trained, and scored by a supernet."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluster.connect import ClusterInfo
from tests.orchestrator.pipeline.efficient_bert_run import EFFICIENT_BERT, PHASES
from tests.orchestrator.pipeline.runs import FinishedRun, Run
from tests.orchestrator.without_ray import without_ray


@pytest.fixture(scope="session")
def in_phases(place: Path, local_ray: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The run, from its start to its end in one go, without Ray; tests that go on with it work on a copy."""
    recipe = place / "efficient.yaml"
    recipe.write_text(yaml.safe_dump(EFFICIENT_BERT | {"phases": PHASES}, sort_keys=False), encoding="utf-8")
    run = Run(recipe, tmp_path_factory.mktemp("phases") / "run")
    with without_ray():
        return FinishedRun(run.recipe, run.folder, run.start())
