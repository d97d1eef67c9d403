"""Candidates an hour that are scored by a short training of each: with one actor and two, in company and alone.

``python -m tests.benchmarks.bench_candidates [--steps 20] [--trials 3] [--json]``

Candidates are random networks of one slice of EfficientBERT's space (``efficient_slice.py``), distilled layer by layer
from all-MiniLM-L6-v2 on the bundled novels for ``--steps`` steps and judged by the error of their last state, through
Ray Tune as searches do it, four candidates a trial, one thread an actor. They are distilled four at a time, which
share the teacher's passes (``company``), by one actor and by two; and one after the other, by one. The first trial of
each actor belongs to its start-up; the clock runs from the begin of its second one until the last actor has finished.
The supernet that candidates inherit from is not trained: a training step takes the same time. Ends with exit code 1
where two actors score fewer than 1.6 times as many candidates as one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from safetensors.torch import save_file

from cluster.connect import connect
from orchestrator.evaluation.evaluator import Score
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.training_evaluator import TrainingEvaluatorFactory
from orchestrator.evaluation.tune import TuneEvaluation
from orchestrator.objectives import LOSS, CheapObjectives
from orchestrator.strategies.random_search import RandomSearch
from tests.benchmarks.bench_search import Timing, log_call, timing
from tests.benchmarks.efficient_slice import BATCH_SIZE, OPTIONS, EfficientSlice
from tests.benchmarks.environment import as_text, describe
from trainers.candidate_training import CandidateSettings

COMPANY = 4
"""Candidates of a trial, and those that are distilled together."""
TARGET = 1.6
"""Candidates an hour of two actors, divided by those of one."""


@dataclass(frozen=True)
class LoggingFactory:
    """Makes evaluators that log their calls; without what actors could share, as each has a core of its own.

    Attributes:
        factory: of the evaluator proper.
        log: gets a line for each call.
    """

    factory: TrainingEvaluatorFactory
    log: Path

    def __call__(self) -> LoggingEvaluator:
        """The evaluator of this process."""
        return LoggingEvaluator(self.factory(), self.log)


class LoggingEvaluator:
    """An evaluator that logs its calls."""

    def __init__(self, evaluator: Any, log: Path) -> None:
        self._evaluator, self._log = evaluator, log

    def score(self, architectures: Sequence[Any], fidelity: int) -> list[Score]:
        """Score, and write a line."""
        begin = time.time()
        scores: list[Score] = self._evaluator.score(architectures, fidelity)
        assert all(score.status == "ok" for score in scores), scores
        log_call(self._log, begin, len(scores))
        return scores


def make_factory(given: EfficientSlice, folder: Path, steps: int, company: int) -> TrainingEvaluatorFactory:
    """The factory of evaluators that train in a company of some size."""
    weights = folder / "start.safetensors"
    if not weights.is_file():
        torch.manual_seed(0)
        supernet = given.space.supernet()
        save_file({name: tensor.contiguous() for name, tensor in supernet.state_dict().items()}, weights)
    return TrainingEvaluatorFactory(
        teacher_folder=given.teacher,
        corpus_folder=given.corpus,
        validation_folder=given.validation,
        weights=weights,
        space_name="efficient_bert",
        space_options=OPTIONS,
        settings=CandidateSettings(steps, BATCH_SIZE, company=company, precision="float32"),
        batches=1,
        batch_size=BATCH_SIZE,
        threads=1,
    )


def time_actors(
    given: EfficientSlice, factory: TrainingEvaluatorFactory, log: Path, actors: int, trials: int
) -> Timing:
    """Score ``trials`` trials an actor, and one more of each for its start-up."""
    started = time.time()
    strategy = RandomSearch(given.space, [LOSS], [], 0)
    budget = actors * (trials + 1) * COMPANY
    loop = SearchLoop(strategy, CheapObjectives(given.space), budget, batch_size=COMPANY, window=2 * actors)
    TuneEvaluation(LoggingFactory(factory, log), actors=actors).run(loop)
    return timing(log, started, skipped=1, processes=actors)


def measure(steps: int, trials: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """All measurements, ready for JSON."""
    machine = describe()
    tell(as_text(machine))
    ways = {"1 actor": (1, COMPANY), "2 actors": (2, COMPANY), "1 actor, one by one": (1, 1)}
    rates: dict[str, float] = {}
    found: dict[str, Any] = {}
    with connect("local", num_cpus=2, num_gpus=0), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = EfficientSlice(folder, 0)
        given.prepare_text()
        for way, (actors, company) in ways.items():
            load = os.getloadavg()[0]
            factory = make_factory(given, folder, steps, company)
            measured = time_actors(given, factory, folder / f"{actors}-{company}.log", actors, trials)
            rates[way] = 3600 * measured.rate
            found[way] = {**asdict(measured), "load_before": load}
            tell(
                f"{way:20} {rates[way]:8,.0f} candidates an hour, mean concurrency {measured.concurrency:.2f}; "
                f"{measured.start_seconds:.0f} s before the first one, load {load:.1f}"
            )
    return {
        "environment": machine,
        "steps": steps,
        "ways": found,
        "2 actors / 1 actor": rates["2 actors"] / rates["1 actor"],
        "in company / one by one": rates["1 actor"] / rates["1 actor, one by one"],
        "target": TARGET,
    }


def main() -> int:
    """Parse the command line, print, and say whether the target was reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="optimiser steps of a candidate (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=3, help="trials an actor that count (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()

    def tell(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    result = measure(arguments.steps, arguments.trials, tell)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print(
            f"2 actors / 1 actor: {result['2 actors / 1 actor']:.2f} (target at least {TARGET}); in company of "
            f"{COMPANY} / one by one: {result['in company / one by one']:.2f}"
        )
    return 0 if result["2 actors / 1 actor"] >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
