"""What Ray Tune costs a search: the same forwards through two actors, in two plain processes, and in a trial each.

``python -m tests.benchmarks.bench_search [--candidates 20000] [--rounds 3] [--json]``

A candidate is one forward pass of NAS-BERT's supernet (about 5 ms on one core), a trial as many of them as
``search.candidates_per_trial: auto`` says. *Search* and *plain loops* score the same candidates, in turn, several times
and in changing order, because other work on the machine disturbs them; what counts is the median of the ratios of
neighbours. Start-up (processes, imports, building the supernet) is printed beside it. *A trial each* is what a user of
Ray Tune writes first: a class of trials with ``reuse_actors=True``, one candidate a trial; it scores the first few
hundred. The mean concurrency of the search says how many of its two actors were at work, from the time both were there
until the last one ended, pauses between trials and waits for results included.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from ray import tune

from cluster.connect import connect
from cluster.environment import variables
from orchestrator.evaluation.evaluator import Score
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.trial_size import candidates_per_trial
from orchestrator.evaluation.tune import TuneEvaluation
from orchestrator.objectives import LOSS, CheapObjectives
from orchestrator.strategies.random_search import RandomSearch
from spaces.encoder_shape import EncoderShape
from spaces.nas_bert.architecture import NasBertArchitecture
from spaces.nas_bert.space import NasBertSpace
from tests.benchmarks.environment import as_text, describe

CANDIDATES = 20_000
PROCESSES = 2
TOKENS = 32
LAYERS_PER_BLOCK = 2
"""Of three blocks: on one core of the machine behind RESULTS.md a candidate then takes 5 ms."""
ROUNDS = 3
TRIALS = 300
TARGETS = {"search / plain loops": 0.95, "search / a trial each": 5.0, "mean concurrency": 1.9}
TEACHER = EncoderShape(num_layers=6, hidden_size=384, num_heads=12, intermediate_size=1536, vocab_size=1000)


@dataclass(frozen=True)
class ForwardEvaluatorFactory:
    """Makes a :class:`ForwardEvaluator`; ``log`` gets a line for each call."""

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
        self._input_ids_BT = torch.randint(1, TEACHER.vocab_size, (1, TOKENS))
        self._mask_BT = torch.ones_like(self._input_ids_BT)
        self._forward(make_candidates(1)[0])

    def score(self, architectures: Sequence[NasBertArchitecture], fidelity: int) -> list[Score]:
        begin = time.time()
        scores = [Score("ok", self._forward(architecture), 0.0) for architecture in architectures]
        log_call(self._log, begin, len(scores))
        return scores

    def _forward(self, architecture: NasBertArchitecture) -> float:
        with torch.inference_mode():
            return float(self._supernet(architecture, self._input_ids_BT, self._mask_BT).square().mean())


def log_call(log: Path, begin: float, candidates: int) -> None:
    """Write a line of a call that ends now: process id, begin, end, candidates."""
    with log.open("a") as file:
        file.write(json.dumps([os.getpid(), begin, time.time(), candidates]) + "\n")


def make_space() -> NasBertSpace:
    return NasBertSpace.from_options({"preset": "small", "layers_per_block": LAYERS_PER_BLOCK}, TEACHER)


def make_strategy() -> RandomSearch:
    return RandomSearch(make_space(), [LOSS], [], 0)


def make_candidates(count: int) -> list[Any]:
    """The candidates that both ways score: what random search with seed 0 asks."""
    return list(make_strategy().ask(count))


@dataclass(frozen=True)
class Timing:
    """How long a way of scoring took.

    Attributes:
        rate: candidates a second, of all processes together.
        start_seconds: until the first candidate.
        concurrency: processes at work, on average.
    """

    rate: float
    start_seconds: float
    concurrency: float


def timing(log: Path, started: float, skipped: int, processes: int = PROCESSES) -> Timing:
    """What the calls in a log say.

    Args:
        log: a line for each call of an evaluator, as :func:`log_call` writes them.
        started: when the way began.
        skipped: calls of each process that belong to its start-up.
        processes: that worked.
    """
    calls: dict[int, list[tuple[float, float, int]]] = {}
    for pid, begin, end, count in map(json.loads, log.read_text().splitlines()):
        calls.setdefault(pid, []).append((begin, end, count))
    assert len(calls) == processes, f"{len(calls)} processes worked, expected {processes}"
    counted = [sorted(own)[skipped:] for own in calls.values()]
    last = max(end for own in counted for _, end, _ in own)
    available = sum(last - own[0][0] for own in counted)
    busy = sum(end - begin for own in counted for begin, end, _ in own)
    scored = sum(count for own in counted for _, _, count in own)
    first = min(begin for own in calls.values() for begin, _, _ in own)
    return Timing(processes * scored / available, first - started, processes * busy / available)


def time_search(log: Path, candidates: int) -> Timing:
    """Through the search's own adapter to Tune.

    One batch a process more than counted is scored: the first one of each process belongs to its start-up. The clock of
    each process runs from the begin of its second one until the last process has finished, so pauses between trials and
    the idle end are counted.
    """
    started = time.time()
    strategy = make_strategy()
    window = 2 * PROCESSES
    batch = candidates_per_trial(strategy.space, 1, TOKENS, candidates, window, 1.0)
    budget = candidates + PROCESSES * batch
    loop = SearchLoop(strategy, CheapObjectives(strategy.space), budget, batch_size=batch, window=window)
    TuneEvaluation(ForwardEvaluatorFactory(log), actors=PROCESSES).run(loop)
    return timing(log, started, skipped=1)


class OneCandidate(tune.Trainable):  # type: ignore[misc]
    """A trial that scores one candidate, in an actor that is reused."""

    def setup(self, config: dict[str, Any]) -> None:
        """Build the evaluator; with ``reuse_actors`` this happens once an actor."""
        self._evaluator = ForwardEvaluator(Path(config["log"]))
        self._space = make_space()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next candidate."""
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Score the candidate."""
        (score,) = self._evaluator.score([self._space.parse(self.config["architecture"])], 1)
        return {"loss": score.loss, "done": True}


def time_a_trial_each(log: Path, storage: Path) -> Timing:
    """Through Tune as its users know it: a trial for each candidate."""
    started = time.time()
    texts = [str(architecture) for architecture in make_candidates(TRIALS)]
    tuner = tune.Tuner(
        tune.with_resources(OneCandidate, {"cpu": 1}),
        param_space={"log": str(log), "architecture": tune.grid_search(texts)},
        tune_config=tune.TuneConfig(max_concurrent_trials=PROCESSES, reuse_actors=True),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(storage),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    with variables({"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}):
        tuner.fit()
    begins = sorted(begin for _, begin, _, _ in map(json.loads, log.read_text().splitlines()))
    later = begins[len(begins) // 5 :]
    return Timing((len(later) - 1) / (later[-1] - later[0]), begins[0] - started, math.nan)


def _plain_loop(part: int, log: Path, candidates: int, barrier: Any) -> None:
    evaluator = ForwardEvaluator(log)
    architectures = make_candidates(candidates)[part::PROCESSES]
    barrier.wait()
    evaluator.score(architectures, 1)


def time_plain(log: Path, candidates: int) -> Timing:
    """In two processes that know nothing of Ray."""
    started = time.time()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES)
    arguments = [(part, log, candidates, barrier) for part in range(PROCESSES)]
    processes = [context.Process(target=_plain_loop, args=one) for one in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return timing(log, started, skipped=0)


def measure(candidates: int, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """All measurements, ready for JSON."""
    machine = describe()
    tell(as_text(machine))
    found: list[dict[str, Timing]] = []
    with connect("local", num_cpus=PROCESSES, num_gpus=0), tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for number in range(rounds):
            ways: dict[str, Callable[[Path, int], Timing]] = {"search": time_search, "plain loops": time_plain}
            order = list(ways) if number % 2 == 0 else list(ways)[::-1]
            taken = {name: ways[name](place / f"{name}-{number}.jsonl", candidates) for name in order}
            taken["a trial each"] = time_a_trial_each(place / f"trials-{number}.jsonl", place / f"trials-{number}")
            found.append(taken)
            for name, one in taken.items():
                tell(f"round {number + 1}: {name:12} {one.rate:8.1f} candidates/s, start-up {one.start_seconds:.1f} s")
    results = {
        "search / plain loops": [one["search"].rate / one["plain loops"].rate for one in found],
        "search / a trial each": [one["search"].rate / one["a trial each"].rate for one in found],
        "mean concurrency": [one["search"].concurrency for one in found],
    }
    timings = [{name: asdict(one) for name, one in taken.items()} for taken in found]
    return {"environment": machine, "candidates": candidates, "rounds": timings, "results": results, "targets": TARGETS}


def main() -> int:
    """Parse the command line, print, and say whether the targets were reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--candidates", type=int, default=CANDIDATES, help="of each way (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="times of each way (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()

    def tell(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    result = measure(arguments.candidates, arguments.rounds, tell)
    if arguments.json:
        print(json.dumps(result, indent=2))
    medians = {name: statistics.median(values) for name, values in result["results"].items()}
    for name, values in result["results"].items():
        tell(
            f"{name} = {medians[name]:.3f} (median of {len(values)}, {min(values):.3f} to {max(values):.3f}; target at "
            f"least {TARGETS[name]:.2f})"
        )
    return 0 if all(medians[name] >= target for name, target in TARGETS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
