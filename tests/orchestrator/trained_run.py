"""A run folder as it is once the supernet is trained, made within a second: its supernet is random."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from cluster.latency import LatencyMeasurement
from orchestrator.latency_table import LatencyTable
from orchestrator.recipe import load_recipe
from orchestrator.results import ResultsWriter
from orchestrator.run_directory import RunDirectory, StageRecord
from spaces.registry import load_space
from tests.orchestrator.pipeline.microscopic_run import shape_of_teacher
from tests.spaces.microscopic import shaken
from tests.trainers.corpora import make_corpus
from trainers.shrinking import save_alive


def make_trained_run(place: Path, folder: Path, seed: int = 1, alive_every: int | None = None) -> RunDirectory:
    """A run of the microscopic recipe up to its stages supernet and latency.

    Args:
        place: the folder with the recipe and the teacher.
        folder: made by this.
        seed: of the supernet's weights.
        alive_every: let one architecture of so many survive shrinking; ``None``: nothing was shrunk.
    """
    recipe = load_recipe(str(place / "microscopic.yaml"))
    run = RunDirectory(folder)
    described = run.open(recipe)
    shutil.copytree(place / "teacher", run.teacher)
    make_corpus(run.validation)
    space = load_space(recipe.space.name, recipe.space.options, shape_of_teacher())
    torch.manual_seed(seed)
    run.supernet_weights.parent.mkdir()
    save_file(shaken(space.supernet(), seed).state_dict(), run.supernet_weights)
    if alive_every is not None:
        alive = np.arange(space.block_cardinality()) % alive_every == 0
        save_alive([alive, ~alive], run.supernet_weights.with_name("alive.npz"))
    run.write_stage_record("supernet", StageRecord(f"supernet-{seed}", "trained", 1.0))
    table = LatencyTable({part: LatencyMeasurement(0.5, 0.4, 0.6, 3, 1) for part in space.parts()})
    run.write_stage_record("latency", StageRecord("latency", "measured", 1.0, {"latency_table": table.to_json()}))
    with ResultsWriter(run.results, described["run_id"]):
        pass
    return run
