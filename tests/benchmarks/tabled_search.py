"""What benchmarks of strategies share: tables that are scored once and kept, and the strategies that search them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.evaluation.evaluator import Measurement
from orchestrator.evaluation.supernet_evaluator import SupernetEvaluatorFactory
from orchestrator.objectives import CheapFunction, CheapObjectives, Objective
from orchestrator.results.hypervolume import hypervolume, hypervolume_curve
from orchestrator.strategies.registry import create_strategy
from spaces.registry import load_space
from spaces.space import SearchSpace
from trainers.teacher import TeacherSource

PROCESSES = 2

Report = Callable[[str], None]

STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "regularised_evolution": ("regularised_evolution", {}),
    "nsga2": ("nsga2", {}),
    "hat_evolution": ("hat_evolution", {"population": 50, "parents": 20, "mutations": 25, "crossovers": 25}),
    "binned_evolution": ("binned_evolution", {}),
    "predictor_guided": ("predictor_guided", {}),
    "lanas, greedy": ("lanas", {}),
    "lanas, uct": ("lanas", {"mode": "uct"}),
    "optuna, tpe": ("optuna", {"sampler": "tpe"}),
}
"""The built-in strategies by the names they are reported under, with the options that differ from the defaults."""

Values = tuple[float, ...]
Ask = Callable[[], Any]
Tell = Callable[[Any, Values], None]

_held: dict[str, Any] = {}


@dataclass(frozen=True)
class Problem:
    """What is searched: a space, and the objectives of everything in it.

    Attributes:
        space: its architectures are the table's keys.
        objectives: all minimised.
        values: of each architecture, in the order of the objectives.
        functions: cheap objectives that the space does not compute by itself.
    """

    space: SearchSpace[Any]
    objectives: Sequence[Objective]
    values: Mapping[Any, Values]
    functions: Mapping[str, CheapFunction] = field(default_factory=dict)

    @cached_property
    def table(self) -> NDArray[np.float64]:
        """All values [architectures, objectives]."""
        return np.array([*self.values.values()])

    @cached_property
    def worst(self) -> tuple[float, float]:
        """Of two objectives, the corner from which hypervolumes are measured."""
        first, second = self.table.max(axis=0).tolist()
        return first, second

    @cached_property
    def best(self) -> float:
        """Of two objectives, the hypervolume of the true front."""
        return hypervolume(self.table, self.worst)

    def curve(self, found: Sequence[Values], evaluations: int) -> list[float]:
        """Of two objectives, the hypervolume after each evaluation as a share of the true front's.

        Where less than that was evaluated, the last value stands for the rest.
        """
        shares = [float(volume) / self.best for volume in hypervolume_curve(found, self.worst)]
        return shares + shares[-1:] * (evaluations - len(shares))


def searched(problem: Problem, evaluations: int, ask: Ask, tell: Tell) -> list[Values]:
    """What is evaluated, in order; what was asked before is answered, but not counted."""
    found: dict[Any, Values] = {}
    for _ in range(50 * evaluations):
        if len(found) == evaluations:
            break
        handle, architecture = ask()
        values = problem.values[architecture]
        tell(handle, values)
        found.setdefault(architecture, values)
    return [*found.values()]


def with_strategy(problem: Problem, name: str, seed: int, evaluations: int, **more: Any) -> list[Values]:
    """Search with one of :data:`STRATEGIES`, one candidate at a time.

    Args:
        problem: to search.
        name: of the strategy.
        seed: of the search.
        evaluations: its budget.
        **more: options beside those that the strategy is listed with.
    """
    registered, options = STRATEGIES[name]
    cheap = CheapObjectives(problem.space, problem.functions)
    names = [one.name for one in problem.objectives]
    strategy = create_strategy(
        registered, problem.space, problem.objectives, [], seed, cheap=cheap, options={**options, **more}
    )

    def ask() -> Any:
        (architecture,) = strategy.ask(1)
        return architecture, architecture

    def tell(architecture: Any, values: Values) -> None:
        strategy.tell([Measurement(architecture, dict(zip(names, values, strict=True)))])

    return searched(problem, evaluations, ask, tell)


# --- tables ----------------------------------------------------------------------------------------------------------


def score_table(
    file: Path, texts: Sequence[str], factory: SupernetEvaluatorFactory, tell: Report, chunk: int = 100
) -> dict[str, float]:
    """The loss of networks on the first batch of an evaluator, from a Parquet file where it is there.

    Args:
        file: where losses are kept.
        texts: networks of the factory's space; in the order in which they are scored.
        factory: makes the evaluator of each process.
        tell: gets a line now and then.
        chunk: networks that are scored together.
    """
    if file.is_file():
        table = pq.read_table(file).to_pydict()
        if set(table["architecture"]) == set(texts):
            return dict(zip(table["architecture"], table["loss"], strict=True))
    chunks = [texts[start : start + chunk] for start in range(0, len(texts), chunk)]
    losses: list[float] = []
    started = time.perf_counter()
    with ProcessPoolExecutor(PROCESSES, initializer=_hold_evaluator, initargs=(factory,)) as pool:
        for found in pool.map(_score, chunks):
            losses += found
            if len(losses) % 1000 < chunk or len(losses) == len(texts):
                tell(f"scored {len(losses):,} of {len(texts):,} networks in {time.perf_counter() - started:.0f} s")
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"architecture": texts, "loss": losses}), file)
    return dict(zip(texts, losses, strict=True))


def _hold_evaluator(factory: SupernetEvaluatorFactory) -> None:
    """Make this process' evaluator."""
    shape = TeacherSource(str(factory.teacher_folder)).shape()
    _held["space"] = load_space(factory.space_name, factory.space_options, shape)
    _held["evaluator"] = factory()


def _score(texts: Sequence[str]) -> list[float]:
    scores = _held["evaluator"].score([_held["space"].parse(text) for text in texts], 1)
    return [float(score.loss) for score in scores]


# --- processes -------------------------------------------------------------------------------------------------------


def in_processes(function: Callable[..., Any], what: Any, tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """Call a function in :data:`PROCESSES` processes.

    Args:
        function: of a module, called with ``what`` and a task's values.
        what: every process holds it once.
        tasks: dear ones last leave a process waiting longest.

    Yields:
        Each task with what came of it, in their order.
    """
    with ProcessPoolExecutor(PROCESSES, initializer=_hold, initargs=(function, what)) as pool:
        yield from zip(tasks, pool.map(_call, tasks), strict=True)


def _hold(function: Callable[..., Any], what: Any) -> None:
    _held["function"], _held["what"] = function, what


def _call(task: tuple[Any, ...]) -> Any:
    return _held["function"](_held["what"], *task)
