"""LaNAS and the others at an equal budget, on one slice of EfficientBERT's space that was scored exhaustively.

``python -m tests.benchmarks.bench_efficient_slice FOLDER [--steps 240] [--seeds 10] [--evaluations 200] [--json]``

The slice (``efficient_slice.py``) has 5,831 networks: expressions and linear ids of three blocks, within a window of
parameters. Their supernet is warmed up by all-MiniLM-L6-v2 on the bundled novels for ``--steps`` steps, a drawn network
each, and scores all of them on validation text, in two processes, once: text, weights and losses stay in FOLDER. Then
every strategy searches the table with every seed, in two processes, one candidate at a time: for the loss alone, and
for loss and parameters. Of the first the best loss so far is told, as what it misses the slice's lowest by, in standard
deviations of all losses, and its rank among them; of the second the hypervolume, as a share of the true front's,
measured from the worst corner. Ends with exit code 1 unless the better mode of LaNAS beats random sampling in both.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from orchestrator.objectives import LOSS, PARAMETERS
from orchestrator.results.pareto import non_dominated
from tests.benchmarks.efficient_slice import EfficientSlice
from tests.benchmarks.environment import as_text, describe
from tests.benchmarks.tabled_search import STRATEGIES, Problem, Report, Values, in_processes, with_strategy

Curves = Mapping[str, Sequence[Sequence[float]]]
"""For every strategy, for each seed, a value after each evaluation."""

LANAS = ("lanas, greedy", "lanas, uct")
CHANCE = "random"


def problems_of(given: EfficientSlice, losses: Mapping[Any, float]) -> dict[str, Problem]:
    """The search for the loss alone, and that for loss and parameters."""
    one = {network: (loss,) for network, loss in losses.items()}
    both = {network: (loss, float(given.space.cost(network).parameters)) for network, loss in losses.items()}
    return {
        "regret": Problem(given.space, (LOSS,), one),
        "hypervolume": Problem(given.space, (LOSS, PARAMETERS), both),
    }


def regrets(problem: Problem, found: Sequence[Values], evaluations: int) -> list[float]:
    """What the best so far misses the lowest loss by, after each evaluation, in standard deviations of all losses."""
    best = np.minimum.accumulate([loss for (loss,) in found])
    missed = ((best - problem.table.min()) / problem.table.std()).tolist()
    return [*missed, *missed[-1:] * (evaluations - len(missed))]


def rank(problem: Problem, regret: float) -> int:
    """The place of a regret among those of all networks, from 1 for the lowest loss."""
    all_regrets = np.sort(regrets_of_all(problem))
    return int(np.searchsorted(all_regrets, regret - 1e-9)) + 1


def regrets_of_all(problem: Problem) -> NDArray[np.float64]:
    """What every network misses the lowest loss by, in standard deviations."""
    losses = problem.table[:, 0]
    missed: NDArray[np.float64] = (losses - losses.min()) / losses.std()
    return missed


def _search(problems: Mapping[str, Problem], kind: str, name: str, seed: int, evaluations: int) -> Any:
    """The curve of one search, and seconds."""
    started = time.perf_counter()
    problem = problems[kind]
    found = with_strategy(problem, name, seed, evaluations)
    curve = problem.curve(found, evaluations) if kind == "hypervolume" else regrets(problem, found, evaluations)
    return curve, time.perf_counter() - started


def compare(problems: Mapping[str, Problem], seeds: int, evaluations: int, tell: Report) -> dict[str, Curves]:
    """The curves of all searches."""
    compared: dict[str, Curves] = {}
    marks = [evaluations // 4, evaluations // 2, evaluations]
    for kind in problems:
        tell(f"{kind} after {', '.join(map(str, marks))} evaluations:")
        tasks = [(kind, name, seed, evaluations) for name in STRATEGIES for seed in range(seeds)]
        curves: dict[str, list[list[float]]] = {name: [] for name in STRATEGIES}
        seconds = 0.0
        for (_, name, _, _), (curve, spent) in in_processes(_search, problems, tasks):
            curves[name].append(curve)
            seconds += spent
            if len(curves[name]) < seeds:
                continue
            means = [f"{statistics.mean(one[mark - 1] for one in curves[name]):.4f}" for mark in marks]
            ends = [one[-1] for one in curves[name]]
            error = statistics.stdev(ends) / math.sqrt(seeds) if seeds > 1 else 0.0
            line = f"{name:24} {'  '.join(means)} (standard error {error:.4f}), {seconds / seeds:.1f} s a search"
            if kind == "regret":
                ranks = [rank(problems[kind], end) for end in ends]
                line += f", rank {statistics.mean(ranks):.1f} of {len(problems[kind].values):,} at the end"
            tell(line)
            seconds = 0.0
        compared[kind] = curves
    return compared


def missed(compared: Mapping[str, Curves]) -> list[str]:
    """In what LaNAS does not beat chance at the end."""
    ends = {
        kind: {name: statistics.mean(curve[-1] for curve in found) for name, found in curves.items()}
        for kind, curves in compared.items()
    }
    regret, volume = ends["regret"], ends["hypervolume"]
    targets = {
        "regret": min(regret[mode] for mode in LANAS) < regret[CHANCE],
        "hypervolume": max(volume[mode] for mode in LANAS) > volume[CHANCE],
    }
    return [kind for kind, reached in targets.items() if not reached]


def main() -> int:
    """Parse the command line, train, score, search, print, and say whether the target was reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where text, weights and losses are kept")
    parser.add_argument("--steps", type=int, default=240, help="of the supernet's training (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()

    def tell(line: str) -> None:
        print(line, flush=True, file=sys.stderr if arguments.json else sys.stdout)

    machine = describe()
    tell(as_text(machine))
    given = EfficientSlice(arguments.folder, arguments.steps)
    losses = given.losses(tell)
    problems = problems_of(given, losses)
    table = problems["hypervolume"].table
    tell(
        f"{len(losses):,} networks, losses {table[:, 0].min():.4f} to {table[:, 0].max():.4f}, mean "
        f"{table[:, 0].mean():.4f}, standard deviation {table[:, 0].std():.4f}; correlation with parameters "
        f"{np.corrcoef(table.T)[0, 1]:.2f}; {non_dominated(table).sum()} on the true front"
    )
    compared = compare(problems, arguments.seeds, arguments.evaluations, tell)
    if arguments.json:
        print(json.dumps({"environment": machine, "networks": len(losses), "curves": compared}, indent=2))
    return 1 if missed(compared) else 0


if __name__ == "__main__":
    sys.exit(main())
