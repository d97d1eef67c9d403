"""The latency stage of the microscopic recipe, run by itself in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from orchestrator.latency_table import LatencyTable
from orchestrator.progress import Progress
from orchestrator.recipe import load_recipe
from orchestrator.results import ResultsWriter, open_results
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.base import RunContext, RunPlan
from orchestrator.stages.latency import LatencyStage
from orchestrator.stages.teacher import teacher_source
from spaces.registry import load_space

COMPONENTS = ("space.name=components", "space.options={feed_forward_slices: 4}", "tables.latency.marginal_repeats=1")
"""Changes of the recipe to a space whose latency is a sum of prices."""


def make_plan(place: Path, folder: Path, *changes: str) -> RunPlan:
    recipe = load_recipe(str(place / "microscopic.yaml"), changes)
    shape = teacher_source(recipe).shape()
    space = load_space(recipe.space.name, recipe.space.options, shape)
    return RunPlan(recipe, RunDirectory(folder), shape, space)


def run(plan: RunPlan, mode: str = "silent") -> tuple[LatencyTable, str]:
    """The table, and what the stage says it did."""
    stage = LatencyStage()
    stage.check(plan)
    with ResultsWriter(plan.folder.results, "run-1") as results:
        context = RunContext(plan, results, cast(Any, None), "signature", {})
        with Progress(cast(Any, mode)).stage("latency") as progress:
            result = stage.run(context, progress)
    return LatencyTable.from_json(result.outputs["latency_table"]), result.detail


def rows(plan: RunPlan, table: str) -> Any:
    return open_results(plan.folder.results).frame(table)
