"""A run folder with the recipe it belongs to, as tests handle it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from orchestrator.pipeline import run_recipe
from orchestrator.progress import Progress
from orchestrator.recipe import load_recipe
from orchestrator.results import open_results
from orchestrator.summary import RunSummary


@dataclass(frozen=True)
class Run:
    """A run folder and the recipe it belongs to."""

    recipe: Path
    folder: Path

    def start(self, *changes: str) -> RunSummary:
        """Run, or go on, in this process."""
        return run_recipe(load_recipe(str(self.recipe), changes), self.folder, Progress("silent"))

    def table(self, name: str) -> pd.DataFrame:
        return open_results(self.folder / "results").frame(name)

    def last_attempt(self) -> dict[str, str]:
        """What became of each stage when the run was last started."""
        rows = self.table("runs")
        rows = rows[rows["attempt"] == rows["attempt"].max()]
        return dict(zip(rows["stage"], rows["status"], strict=True))

    def copy(self, folder: Path) -> Run:
        """The same run in another folder, to go on with there."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(".lock*"))
        return Run(self.recipe, folder)


@dataclass(frozen=True)
class FinishedRun(Run):
    """A run that has come to its end in one go."""

    summary: RunSummary
