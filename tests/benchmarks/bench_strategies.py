"""Which strategy finds the front soonest: hypervolume after N evaluations on a table that was scored exhaustively.

``python -m tests.benchmarks.bench_strategies RUN [--seeds 10] [--evaluations 200] [--syne PYTHON] [--json]``

RUN is a run folder whose supernet is trained on ``nas_bert``. All networks of six layers (at most two a block, four
operations, the teacher's width: 8,000 with three blocks) are scored whole on validation text, in two processes, once:
the table stays in ``RUN/bench_strategies``. Their latencies are those of the run's latency table. Then every strategy
searches the table for loss and latency, with every seed, in this process. Beside the built-in ones there are a plain
Optuna study with its NSGA-II and, where ``--syne`` names a Python that has Syne Tune, Syne Tune's multi-objective
regularised evolution; what these two ask twice is answered without being counted, to their advantage. The hypervolume
is a share of the true front's, measured from the table's worst corner. Ends with exit code 1 where no built-in
strategy is as good as both of them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import optuna

from orchestrator.objectives import LATENCY, LOSS
from orchestrator.opened_run import OpenedRun, open_run
from orchestrator.results.pareto import non_dominated
from orchestrator.stages.evaluators import evaluator_factory
from spaces.registry import load_space
from spaces.space import SearchSpace
from tests.benchmarks.environment import as_text, describe
from tests.benchmarks.tabled_search import (
    STRATEGIES,
    Problem,
    Report,
    Values,
    score_table,
    searched,
    with_strategy,
)
from trainers.teacher import TeacherSource

OPERATIONS = ("M", "M6", "F2", "F1")
LAYERS_PER_BLOCK = 2
BATCHES, BATCH_SIZE = 1, 32
"""What networks are scored on."""
OWN_OPTIONS: dict[str, dict[str, Any]] = {"binned_evolution": {"by": LATENCY.name}}
"""Options of strategies that only this table asks for."""

OPTUNA, SYNE = "Optuna NSGA-II (rival)", "Syne Tune MO-REA (rival)"

# --- the table -------------------------------------------------------------------------------------------------------


def small_space(run: OpenedRun) -> SearchSpace[Any]:
    """The run's space, cut down to what can be scored exhaustively."""
    shape = TeacherSource(str(run.folder.teacher)).shape()
    changes = {
        "operations": list(OPERATIONS),
        "layers_per_block": LAYERS_PER_BLOCK,
        "hidden_sizes": [shape.hidden_size],
        "embedding_sizes": [shape.hidden_size],
    }
    return load_space(run.recipe.space.name, {**run.recipe.space.options, **changes}, shape)


def all_networks(space: Any) -> Iterator[Any]:
    """Every architecture of a block-wise space, neighbours with the same beginning: what they share is run once."""
    size = space.embedding_choices()[0]
    for chosen in product(space.enumerate_blocks(), repeat=space.num_blocks):
        yield space.assemble(size, chosen)


def make_problem(run: OpenedRun, tell: Report) -> Problem:
    """Score what is not scored yet, and predict latencies."""
    space = small_space(run)
    if run.latency is None:
        raise SystemExit(f"{run.folder.path}: found no latency table, expected a run past the stage 'latency'")
    factory = evaluator_factory(run.recipe, run.folder, BATCHES, BATCH_SIZE, 1)
    file = run.folder.path / "bench_strategies" / f"losses-{run.supernet_signature}.parquet"
    losses = score_table(file, [str(network) for network in all_networks(space)], factory, tell)
    networks = [space.parse(text) for text in losses]
    values = {one: (losses[str(one)], run.latency.predict_ms(space, one)) for one in networks}
    return Problem(space, (LOSS, LATENCY), values, {LATENCY.name: lambda one: values[one][1]})


# --- those who search ------------------------------------------------------------------------------------------------


def with_optuna(problem: Problem, seed: int, evaluations: int) -> list[Values]:
    """A plain study with Optuna's NSGA-II, as its users would write it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=optuna.samplers.NSGAIISampler(seed=seed))

    def ask() -> Any:
        trial, chosen = study.ask(), {}
        for decision in problem.space.decisions():
            if decision.is_active(chosen):
                chosen[decision.name] = trial.suggest_categorical(decision.name, decision.choices)
        return trial, problem.space.from_decisions(chosen)

    return searched(problem, evaluations, ask, lambda trial, values: study.tell(trial, values))


def with_syne(problem: Problem, seed: int, evaluations: int, python: str) -> list[Values]:
    """Syne Tune's searcher in a process of its own Python."""
    decisions = [one for one in problem.space.decisions() if len(one.choices) > 1]
    fixed = {one.name: one.choices[0] for one in problem.space.decisions() if len(one.choices) == 1}
    with _syne_process(python) as exchange:
        exchange({"seed": seed, "decisions": {one.name: one.choices for one in decisions}})

        def ask() -> Any:
            config = exchange({"ask": True})
            chosen: dict[str, str] = {}
            for decision in problem.space.decisions():
                if decision.is_active(chosen):
                    chosen[decision.name] = {**fixed, **config["config"]}[decision.name]
            return config, problem.space.from_decisions(chosen)

        return searched(problem, evaluations, ask, lambda config, values: exchange({**config, "values": values}))


@contextmanager
def _syne_process(python: str) -> Iterator[Callable[[Mapping[str, Any]], Any]]:
    script = Path(__file__).with_name("syne_tune_searcher.py")
    process = subprocess.Popen([python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def exchange(message: Mapping[str, Any]) -> Any:
        stdin.write(json.dumps(message) + "\n")
        stdin.flush()
        return json.loads(stdout.readline())

    try:
        yield exchange
    finally:
        stdin.close()
        process.wait(timeout=30)


# --- the comparison --------------------------------------------------------------------------------------------------


def _built_in(problem: Problem, name: str, seed: int, evaluations: int) -> list[Values]:
    return with_strategy(problem, name, seed, evaluations, **OWN_OPTIONS.get(name, {}))


def compare(problem: Problem, seeds: int, evaluations: int, syne: str, tell: Report) -> dict[str, list[list[float]]]:
    """For every searcher its curve of each seed."""
    ways: dict[str, Callable[[int], list[Values]]] = {
        name: partial(_built_in, problem, name, evaluations=evaluations) for name in STRATEGIES
    }
    ways[OPTUNA] = lambda seed: with_optuna(problem, seed, evaluations)
    if syne:
        ways[SYNE] = lambda seed: with_syne(problem, seed, evaluations, syne)
    curves = {}
    for name, way in ways.items():
        started = time.perf_counter()
        curves[name] = [problem.curve(way(seed), evaluations) for seed in range(seeds)]
        ends = [curve[-1] for curve in curves[name]]
        half = [curve[evaluations // 2 - 1] for curve in curves[name]]
        error = statistics.stdev(ends) / math.sqrt(seeds) if seeds > 1 else 0.0
        tell(
            f"{name:26} {statistics.mean(half):.4f} after {evaluations // 2}, {statistics.mean(ends):.4f} after "
            f"{evaluations} (standard error {error:.4f}), {(time.perf_counter() - started) / seeds:.1f} s a search"
        )
    return curves


def main() -> int:
    """Parse the command line, score, search, print, and say whether the target was reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a run folder with a trained supernet and a latency table")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--syne", default="", metavar="PYTHON", help="a Python that has Syne Tune; default: without it")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()

    def tell(line: str) -> None:
        print(line, flush=True, file=sys.stderr if arguments.json else sys.stdout)

    machine = describe()
    tell(as_text(machine))
    problem = make_problem(open_run(arguments.run), tell)
    front = non_dominated(problem.table).sum()
    tell(f"{len(problem.values):,} networks, {front} of them on the true front; hypervolume as a share of its own:")
    curves = compare(problem, arguments.seeds, arguments.evaluations, arguments.syne, tell)
    means = {name: statistics.mean(curve[-1] for curve in found) for name, found in curves.items()}
    best = max(STRATEGIES, key=means.__getitem__)
    rivals = {name: mean for name, mean in means.items() if name not in STRATEGIES}
    tell(f"best built-in: {best} with {means[best]:.4f}; rivals: {rivals}")
    if arguments.json:
        print(json.dumps({"environment": machine, "networks": len(problem.values), "curves": curves}, indent=2))
    return 0 if means[best] >= max(rivals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
