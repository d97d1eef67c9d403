"""Trains and shrinks the microscopic supernet in a run folder, in this process or as a program that can be killed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

from cluster.connect import ClusterInfo, connect
from orchestrator.progress import Progress
from orchestrator.recipe import load_recipe
from orchestrator.results import ResultsWriter
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.base import RunContext, RunPlan
from orchestrator.stages.corpus import CorpusStage
from orchestrator.stages.supernet import SupernetStage
from orchestrator.stages.teacher import TeacherStage
from spaces.registry import load_space
from tests.orchestrator.pipeline.microscopic_run import shape_of_teacher

CHANGES = (
    "supernet.steps=60",
    "supernet.checkpoint_every=3",
    "supernet.report_every=5",
    "supernet.shrinking={steps_per_epoch: 4, warm_epochs: 1, bins: 3, sample: 40, keep: 5, batch_size: 4, "
    "latency_from: flops}",
)
"""Rounds every four steps, checkpoints every three: a kill loses rounds whose rows were recorded already."""


def train_shrunk(recipe: Path, folder: Path, cluster: ClusterInfo, stream: TextIO) -> None:
    """Do all stages up to the supernet, or what is left of them.

    Args:
        recipe: the microscopic one.
        folder: of the run.
        cluster: the Ray to train on.
        stream: gets the progress, a line each.
    """
    loaded = load_recipe(str(recipe), CHANGES)
    space = load_space(loaded.space.name, loaded.space.options, shape_of_teacher())
    plan = RunPlan(loaded, RunDirectory(folder), shape_of_teacher(), space)
    outputs: dict[str, dict[str, Any]] = {}
    with ResultsWriter(plan.folder.results, "run-1") as results:
        context = RunContext(plan, results, cluster, "f" * 16, outputs)
        for stage in (TeacherStage(), CorpusStage(), SupernetStage()):
            with Progress("lines", stream, interval=0).stage(stage.name) as progress:
                done = stage.run(context, progress)
            outputs[stage.name] = {**done.outputs, "signature": "f" * 16}


if __name__ == "__main__":
    with connect("local", num_cpus=2) as cluster:
        train_shrunk(Path(sys.argv[1]), Path(sys.argv[2]), cluster, sys.stdout)
