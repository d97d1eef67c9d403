"""What Ray Tune costs a search: 2,000 candidates through two actors against the same forwards in two plain processes.

``python -m tests.benchmarks.bench_search [--rounds 5] [--json]``

A candidate is one forward pass of NAS-BERT's supernet (5 to 8 ms on one core). Both ways are measured in turn, several
times and in changing order, because other work on the machine disturbs them; what counts is the median of the ratios of
neighbours. Start-up (processes, imports, building the supernet) is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from cluster.connect import connect
from orchestrator.evaluation.evaluator import Score
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.tune import TuneEvaluation
from orchestrator.objectives import LOSS, CheapObjectives
from orchestrator.strategies.random_search import RandomSearch
from spaces.encoder_shape import EncoderShape
from spaces.nas_bert.architecture import NasBertArchitecture
from spaces.nas_bert.space import NasBertSpace
from tests.benchmarks.environment import as_text, describe

CANDIDATES = 2_000
BATCH = 100
PROCESSES = 2
ROUNDS = 5
TARGET = 1.10
TEACHER = EncoderShape(num_layers=6, hidden_size=384, num_heads=12, intermediate_size=1536, vocab_size=1000)


@dataclass(frozen=True)
class ForwardEvaluatorFactory:
    """Makes a :class:`ForwardEvaluator`; ``log`` gets a line for each call: process id, begin, end, candidates."""

    log: Path

    def __call__(self) -> ForwardEvaluator:
        return ForwardEvaluator(self.log)


class ForwardEvaluator:
    """One forward pass of the supernet for each candidate."""

    def __init__(self, log: Path) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self._log = log
        self._supernet = make_space().supernet().eval()
        self._input_ids_BT = torch.randint(1, TEACHER.vocab_size, (1, 32))
        self._mask_BT = torch.ones_like(self._input_ids_BT)
        self._forward(make_candidates(1)[0])

    def score(self, architectures: Sequence[NasBertArchitecture], fidelity: int) -> list[Score]:
        begin = time.time()
        scores = [Score("ok", self._forward(architecture), 0.0) for architecture in architectures]
        with self._log.open("a") as file:
            file.write(json.dumps([os.getpid(), begin, time.time(), len(scores)]) + "\n")
        return scores

    def _forward(self, architecture: NasBertArchitecture) -> float:
        with torch.inference_mode():
            return float(self._supernet(architecture, self._input_ids_BT, self._mask_BT).square().mean())


def make_space() -> NasBertSpace:
    return NasBertSpace.from_options({"preset": "small"}, TEACHER)


def make_strategy() -> RandomSearch:
    return RandomSearch(make_space(), [LOSS], [], 0)


def make_candidates(count: int) -> list[Any]:
    """The candidates that both ways score: what random search with seed 0 asks."""
    return list(make_strategy().ask(count))


def time_tune(log: Path) -> tuple[float, float]:
    """Seconds a candidate and process, and seconds of start-up.

    One batch a process more than counted is scored: the first one of each process belongs to its start-up. The clock of
    each process runs from the begin of its second one until the last process has finished, so pauses between trials and
    the idle end are counted.
    """
    started = time.time()
    strategy = make_strategy()
    budget = CANDIDATES + PROCESSES * BATCH
    loop = SearchLoop(strategy, CheapObjectives(strategy.space), budget, batch_size=BATCH, window=2 * PROCESSES)
    TuneEvaluation(ForwardEvaluatorFactory(log), actors=PROCESSES).run(loop)
    begins: dict[int, list[float]] = {}
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    for pid, begin, _, _ in calls:
        begins.setdefault(pid, []).append(begin)
    assert len(begins) == PROCESSES, f"{len(begins)} actors worked, expected {PROCESSES}"
    last_end = max(end for _, _, end, _ in calls)
    busy = sum(last_end - sorted(times)[1] for times in begins.values())
    return busy / CANDIDATES, min(min(times) for times in begins.values()) - started


def _plain_loop(part: int, log: Path, barrier: Any) -> None:
    evaluator = ForwardEvaluator(log)
    architectures = make_candidates(CANDIDATES)[part::PROCESSES]
    barrier.wait()
    evaluator.score(architectures, 1)


def time_plain(log: Path) -> tuple[float, float]:
    """Seconds a candidate and process, and seconds of start-up."""
    started = time.time()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES)
    processes = [context.Process(target=_plain_loop, args=(part, log, barrier)) for part in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    first = min(begin for _, begin, _, _ in calls)
    busy = max(end for _, _, end, _ in calls) - first
    return busy * PROCESSES / CANDIDATES, first - started


def measure(rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """All measurements, ready for JSON."""
    machine = describe()
    tell(as_text(machine))
    found: list[dict[str, float]] = []
    with connect("local", num_cpus=PROCESSES, num_gpus=0), tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            ways = {"tune": time_tune, "plain": time_plain}
            order = list(ways) if number % 2 == 0 else list(ways)[::-1]
            taken = {name: ways[name](Path(folder) / f"{name}-{number}.jsonl") for name in order}
            (tune, tune_start), (plain, plain_start) = taken["tune"], taken["plain"]
            found.append(
                {
                    "tune_ms": 1e3 * tune,
                    "tune_start_seconds": tune_start,
                    "plain_ms": 1e3 * plain,
                    "plain_start_seconds": plain_start,
                    "ratio": tune / plain,
                }
            )
            tell(
                f"round {number + 1}: Tune {1e3 * tune:.2f} ms a candidate (start-up {tune_start:.1f} s), "
                f"plain {1e3 * plain:.2f} ms (start-up {plain_start:.1f} s), ratio {tune / plain:.3f}"
            )
    ratio = statistics.median(one["ratio"] for one in found)
    return {"environment": machine, "candidates": CANDIDATES, "rounds": found, "ratio": ratio, "target": TARGET}


def main() -> int:
    """Parse the command line, print, and say whether the target was reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="times of each way (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()

    def tell(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    result = measure(arguments.rounds, tell)
    if arguments.json:
        print(json.dumps(result, indent=2))
    ratios = [one["ratio"] for one in result["rounds"]]
    tell(
        f"search overhead: {CANDIDATES} candidates, {BATCH} a trial, {PROCESSES} actors: "
        f"Tune / plain loop = {result['ratio']:.3f} (median of {len(ratios)}, {min(ratios):.3f} to {max(ratios):.3f}; "
        f"target at most {TARGET:.2f})"
    )
    return 0 if result["ratio"] <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
