"""What killing a search's driver costs: rows lost, rows twice, candidates scored again; and whether the end is equal.

``python -m tests.benchmarks.bench_resume [--kills 10] [--seed 0] [--strategy nsga2] [--json]``

A search on two Ray Tune actors writes its rows to Parquet as a run does (a row waits for at most 2 s, or for 999
others). Its process is killed with SIGKILL at a random moment of the five seconds after it has got its first scores,
and started again, as often as asked; the last start is left alone. The actors log what they have measured, the driver
what it has handed to the writer. After each kill: how many candidates had been measured that are not in the results,
where they were (with the actor and Ray, or waiting in the writer) and how long the oldest had waited in the writer.
Over all starts: rows that were recorded twice, and candidates that were scored although an earlier kill had left their
row. At the end rows and front are compared with those of an undisturbed search in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil

from cluster.connect import connect
from cluster.processes import end_processes
from orchestrator.evaluation.evaluator import EvaluatorFactory
from orchestrator.evaluation.local import evaluate_locally
from orchestrator.evaluation.recorded import evaluation_row, preload_recorded
from orchestrator.evaluation.search_loop import SearchLoop, SearchRecord
from orchestrator.evaluation.tune import TuneEvaluation
from orchestrator.results import open_results
from orchestrator.results.parts import read_parts
from orchestrator.results.schemas import TABLES
from orchestrator.results.writer import ResultsWriter
from tests.benchmarks.environment import as_text, describe
from tests.orchestrator.evaluation.toy_evaluation import ToyEvaluatorFactory, make_loop, read_log

KILLS = 10
CANDIDATES = 800
BATCH = 4
ACTORS = 2
SECONDS_A_BATCH = 0.3
LONGEST_LIFE_SECONDS = 5.0
FLUSH_SECONDS = 2.0
WRITING_SECONDS = 0.5
"""What writing the part may take once it is due."""

PATIENCE_SECONDS = 300.0
SUPERNET = "bench"
REPOSITORY = Path(__file__).resolve().parents[2]


class Place:
    """The files of one search."""

    def __init__(self, folder: Path) -> None:
        self.results = folder / "results"
        self.state = folder / "state.json"
        self.measured_log = folder / "measured.jsonl"
        self.handed_log = folder / "handed.jsonl"
        self.output = folder / "output.txt"

    def measured(self) -> list[tuple[str, float, float]]:
        """Every scoring of a candidate: its text, when it began and when it ended."""
        if not self.measured_log.exists():
            return []
        return [(text, begin, end) for _, begin, end, texts in read_log(self.measured_log) for text in texts]

    def handed(self) -> dict[str, float]:
        """When each candidate was handed to the writer, for the last time."""
        if not self.handed_log.exists():
            return {}
        lines = self.handed_log.read_text(encoding="utf-8").splitlines()
        return dict(map(json.loads, lines))

    def rows(self) -> list[dict[str, Any]]:
        """Every row of the results, also those that a later row of the same candidate replaces."""
        if not (self.results / "evaluations").is_dir():
            return []
        columns = ["proposal", "architecture", "fidelity", "status", "loss"]
        found: list[dict[str, Any]] = read_parts(
            self.results / "evaluations", TABLES["evaluations"], columns
        ).to_pylist()
        return found

    def front(self) -> list[tuple[str, float, int]]:
        """The front of loss and parameters."""
        front = open_results(self.results).front("evaluations", ["loss", "parameters"])
        return sorted((row["architecture"], row["loss"], row["parameters"]) for row in front.to_pylist())


def search(place: Place, strategy: str, run: Callable[[SearchLoop, EvaluatorFactory], None], seconds: float) -> None:
    """Begin the search, or go on with it, as the stage of a run does."""
    with (
        ResultsWriter(place.results, "bench", flush_seconds=FLUSH_SECONDS) as writer,
        place.handed_log.open("a") as file,
    ):

        def record(found: SearchRecord) -> None:
            file.write(json.dumps([str(found.architecture), time.time()]) + "\n")
            file.flush()
            writer.append("evaluations", **evaluation_row(found, loop.strategy.space, strategy, SUPERNET))

        loop = make_loop(
            record,
            strategy=strategy,
            budget=CANDIDATES,
            batch_size=BATCH,
            window=2 * ACTORS,
            state_file=place.state,
            before_save=writer.flush,
        )
        preload_recorded(loop, place.results, strategy, SUPERNET)
        loop.resume()
        run(loop, ToyEvaluatorFactory(seconds=seconds, log=place.measured_log))


def drive(folder: Path, strategy: str) -> None:
    """What is killed."""

    def on_actors(loop: SearchLoop, factory: EvaluatorFactory) -> None:
        with connect("local", num_cpus=ACTORS, num_gpus=0, object_store_bytes=128 * 1024**2):
            TuneEvaluation(factory, actors=ACTORS).run(loop)

    search(Place(folder), strategy, on_actors, SECONDS_A_BATCH)


class Driver:
    """A process that drives the search."""

    def __init__(self, folder: Path, strategy: str) -> None:
        self.place = Place(folder)
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.bench_resume",
            "--drive",
            str(folder),
            "--strategy",
            strategy,
        ]
        self._output = self.place.output.open("a")
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=self._output, stderr=self._output)

    def wait_for_scores(self, since: float) -> None:
        """Until it has got scores of its actors."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while max(self.place.handed().values(), default=0.0) < since:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise SystemExit(f"the driver scores nothing: {self.place.output.read_text()[-3000:]}")
            time.sleep(0.02)

    def kill(self) -> float:
        """End it, and what it leaves of its Ray; when it was killed."""
        if self.process.poll() is None:
            family = psutil.Process(self.process.pid).children(recursive=True)
            moment = time.time()
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
            end_processes(family, patience=0.0)
            self._output.close()
            return moment
        raise SystemExit("the search ended before it could be killed: ask for fewer kills")

    def finish(self) -> None:
        """Until the search has ended."""
        if self.process.wait() != 0:
            raise SystemExit(f"the last driver failed: {self.place.output.read_text()[-3000:]}")
        self._output.close()


def after_kill(place: Place, started_at: float, killed_at: float) -> dict[str, Any]:
    """What is there, and what is missing of that which a driver's actors had measured when it was killed."""
    recorded = {row["architecture"] for row in place.rows()}
    missing = {text for text, _, end in place.measured() if started_at <= end <= killed_at} - recorded
    handed = {text: when for text, when in place.handed().items() if when >= started_at}
    waited = [killed_at - handed[text] for text in missing if text in handed]
    return {
        "killed_at": killed_at,
        "rows": len(recorded),
        "not_handed_over": len(missing) - len(waited),
        "lost_by_the_writer": len(waited),
        "oldest_lost_seconds": max(waited, default=0.0),
        "lost_beyond_the_bound": sum(one > FLUSH_SECONDS + WRITING_SECONDS for one in waited),
        "recorded": sorted(recorded),
    }


def scored_again(place: Place, kills: list[dict[str, Any]]) -> int:
    """Candidates that actors began to score after a kill that had left their rows."""
    return len(
        {
            text
            for kill in kills
            for text, begin, _ in place.measured()
            if begin > kill["killed_at"] and text in set(kill["recorded"])
        }
    )


def measure(kills: int, seed: int, strategy: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """All measurements, ready for JSON."""
    machine = describe()
    tell(as_text(machine))
    rng = random.Random(seed)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as disturbed, tempfile.TemporaryDirectory() as undisturbed:
        place, reference = Place(Path(disturbed)), Place(Path(undisturbed))
        search(reference, strategy, evaluate_locally, 0.0)
        for number in range(kills):
            started_at = time.time()
            driver = Driver(Path(disturbed), strategy)
            driver.wait_for_scores(started_at)
            time.sleep(rng.uniform(0.0, LONGEST_LIFE_SECONDS))
            found.append(after_kill(place, started_at, driver.kill()))
            kill = found[-1]
            tell(
                f"kill {number + 1:2}: {kill['rows']:4} rows are there; of what had been measured, "
                f"{kill['not_handed_over']:2} were with the actors and {kill['lost_by_the_writer']:2} waited in the "
                f"writer, for {kill['oldest_lost_seconds']:.2f} s at most"
            )
        Driver(Path(disturbed), strategy).finish()
        rows, expected = ([tuple(row.values()) for row in one.rows()] for one in (place, reference))
        results = {
            "rows lost beyond the flush bound": sum(kill["lost_beyond_the_bound"] for kill in found),
            "rows recorded twice": len(rows) - len({row[1:3] for row in rows}),
            "recorded candidates scored again": scored_again(place, found),
            "rows that differ from those of an undisturbed search": len(set(rows) ^ set(expected)),
            "members of the front that differ": len(set(place.front()) ^ set(reference.front())),
        }
        measured = place.measured()
    repeated = len(measured) - len({text for text, *_ in measured})
    for kill in found:
        del kill["recorded"]
    return {
        "environment": machine,
        "strategy": strategy,
        "candidates": CANDIDATES,
        "kills": found,
        "evaluations_repeated": repeated,
        "results": results,
    }


def main() -> int:
    """Parse the command line, print, and say whether the targets were reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=KILLS, help="of the driver (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--strategy", default="nsga2", help="what searches (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive is not None:
        drive(arguments.drive, arguments.strategy)
        return 0

    def tell(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    result = measure(arguments.kills, arguments.seed, arguments.strategy, tell)
    if arguments.json:
        print(json.dumps(result, indent=2))
    tell(
        f"{result['strategy']}, {result['candidates']} candidates, {arguments.kills} kills: "
        f"{result['evaluations_repeated']} candidates whose scores no row had kept were scored again"
    )
    for name, value in result["results"].items():
        tell(f"{name} = {value} (target 0)")
    return 0 if not any(result["results"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
