"""A small sweep over the microscopic run's supernet, once from beginning to end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

import orchestrator.results
from orchestrator.progress import Progress
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.running import check_sweep, run_sweep
from orchestrator.sweep.summary import SweepSummary

SWEEP = """
recipe: {recipe}
strategies:
- {{name: random}}
- {{name: nsga2, label: genetic, options: {{population: 4}}}}
seeds: {seeds}
evaluations: [10]
set: {{search.keep_experiment: true}}
"""


@dataclass(frozen=True)
class Swept:
    """A sweep's file and folder, and the run whose supernet it searches."""

    file: Path
    folder: Path
    reuse: Path

    def start(self) -> SweepSummary:
        """Sweep, or go on, in this process."""
        checked = check_sweep(load_sweep(str(self.file)), self.folder)
        return run_sweep(checked, Progress("silent"), self.reuse)

    def rows(self, table: str = "evaluations") -> pd.DataFrame:
        return orchestrator.results.open(self.folder).frame(table)

    def asked(self) -> dict[str, list[tuple[str, float]]]:
        """What each member asked, in its order, with the losses."""
        rows = self.rows().sort_values("proposal")
        return {
            str(member): list(zip(part["arch_id"], part["loss"], strict=True))
            for member, part in rows.groupby("member")
        }


@pytest.fixture(scope="session")
def make_sweep(place, finished, tmp_path_factory):
    """Write the sweep with some seeds into a folder of its own."""

    def make(seeds: list[int]) -> Swept:
        folder = tmp_path_factory.mktemp("sweep")
        file = folder / "small.yaml"
        file.write_text(SWEEP.format(recipe=place / "microscopic.yaml", seeds=seeds))
        return Swept(file, folder / "swept", finished.folder)

    return make


@pytest.fixture(scope="session")
def swept(make_sweep) -> tuple[Swept, SweepSummary]:
    """A sweep that was left alone; tests leave it as it is."""
    sweep = make_sweep([1, 2])
    return sweep, sweep.start()
