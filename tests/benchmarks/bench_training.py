"""What Ray Train costs a training: supernet tokens a second on one Ray worker against the same loop without Ray.

``python -m tests.benchmarks.bench_training [--steps 40] [--rounds 3] [--threads 2] [--json]``

Teacher, text, space and training are the quickstart's. Both ways run the same task (``trainers.blockwise``) in a
process of its own with the same number of threads, in turn and in changing order, because other work on the machine
disturbs them; what counts is the median of the ratios of neighbours. The speed is that from the first row of the
training table to the last, on the clock of the training process. What comes before (processes, imports, loading,
starting the supernet at the teacher) and after (the last checkpoint, the end of the processes) is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cluster.connect import connect
from orchestrator.recipe import Recipe, load_recipe
from orchestrator.stages.teacher import teacher_source
from orchestrator.stages.text import training_source
from orchestrator.stages.training import optimiser_settings
from tests.benchmarks.environment import as_text, describe
from trainers.blockwise import BlockwiseFactory, BlockwiseSettings
from trainers.corpus import pack, save_corpus
from trainers.ray_train import Intervals, Scaling, train_on_ray
from trainers.task import Row, run_locally

REPORT_EVERY = 10
TARGET = 0.95


@dataclass(frozen=True)
class Speed:
    """One training.

    Attributes:
        tokens_per_second: from the first row to the last.
        before_seconds: from the call to the first step.
        after_seconds: from the last step to the end of the call.
    """

    tokens_per_second: float
    before_seconds: float
    after_seconds: float


class Watch:
    """Collects the rows of one training, which starts now."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._first_row_at: float | None = None
        self._intervals: dict[int, Row] = {}

    def see(self, rows: list[Row]) -> None:
        """Take new rows; those of one step differ in their blocks only."""
        if self._first_row_at is None:
            self._first_row_at = time.monotonic()
        self._intervals |= {row["step"]: row for row in rows}

    def speed(self) -> Speed:
        """The speed of the training, which has just ended."""
        assert self._first_row_at is not None
        total = time.monotonic() - self._started
        before, tokens, seconds = 0, [], []
        for _, row in sorted(self._intervals.items()):
            tokens.append(row["tokens"] - before)
            seconds.append(tokens[-1] / row["tokens_per_second"])
            before = row["tokens"]
        first_row = self._first_row_at - self._started
        return Speed(sum(tokens[1:]) / sum(seconds[1:]), first_row - seconds[0], total - first_row - sum(seconds[1:]))


def prepare(recipe: Recipe, folder: Path) -> BlockwiseFactory:
    """Save the recipe's teacher and packed text, as a run's first stages do; returns what makes the training task."""
    teacher = teacher_source(recipe).load()
    teacher.save(folder / "teacher")
    text = training_source(recipe).documents()
    save_corpus(folder / "corpus", pack(text, teacher.tokenizer, recipe.corpus.sequence_length))
    settings = recipe.supernet
    return BlockwiseFactory(
        teacher_folder=folder / "teacher",
        corpus_folder=folder / "corpus",
        space_name=recipe.space.name,
        space_options=recipe.space.options,
        settings=BlockwiseSettings(
            init=settings.init,
            batch_size=settings.batch_size,
            paths_per_step=settings.paths_per_step,
            seed=recipe.seed,
            precision=settings.precision,
            optimiser=optimiser_settings(settings),
        ),
    )


def train_with_ray(factory: BlockwiseFactory, storage: Path, threads: int) -> Speed:
    """Start a local Ray and train on one Ray Train worker, with a checkpoint at the end."""
    steps = factory.settings.optimiser.total_steps
    watch = Watch()
    with connect("local", num_cpus=threads, num_gpus=0) as cluster:
        train_on_ray(
            factory,
            name="benchmark",
            storage=storage,
            scaling=Scaling(workers=1, cpus_per_worker=threads),
            intervals=Intervals(checkpoint_every=steps, report_every=REPORT_EVERY),
            cluster=cluster,
            on_rows=watch.see,
            on_progress=lambda steps_done: None,
        )
    return watch.speed()


def train_plainly(factory: BlockwiseFactory, threads: int) -> Speed:
    """Train with the plain loop in a process of its own, while no Ray is running."""
    watch = Watch()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        watch = process.submit(_plain_loop, factory, threads, watch).result()
    return watch.speed()


def _plain_loop(factory: BlockwiseFactory, threads: int, watch: Watch) -> Watch:
    torch.set_num_threads(threads)
    run_locally(factory(0, 1, torch.device("cpu")), REPORT_EVERY, lambda steps_done, rows: watch.see(rows))
    return watch


def measure(steps: int, rounds: int, threads: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """All measurements, ready for JSON."""
    machine = describe()
    tell(as_text(machine))
    recipe = load_recipe("quickstart", [f"supernet.steps={steps}"])
    found: dict[str, list[Speed]] = {"ray": [], "plain": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        factory = prepare(recipe, folder)
        for number in range(rounds):
            order = ("ray", "plain") if number % 2 == 0 else ("plain", "ray")
            for way in order:
                if way == "ray":
                    speed = train_with_ray(factory, folder / f"round-{number}", threads)
                else:
                    speed = train_plainly(factory, threads)
                found[way].append(speed)
            ray, plain = found["ray"][-1], found["plain"][-1]
            tell(f"round {number + 1}: {_as_text('Ray Train', ray)}; {_as_text('plain', plain)}")
    ratios = [
        ray.tokens_per_second / plain.tokens_per_second for ray, plain in zip(found["ray"], found["plain"], strict=True)
    ]
    return {
        "environment": machine,
        "steps": steps,
        "threads": threads,
        **{way: [asdict(speed) for speed in speeds] for way, speeds in found.items()},
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "target": TARGET,
    }


def _as_text(way: str, speed: Speed) -> str:
    return (
        f"{way} {speed.tokens_per_second:,.0f} tokens/s "
        f"(before the first step {speed.before_seconds:.1f} s, after the last {speed.after_seconds:.1f} s)"
    )


def main() -> int:
    """Parse the command line, print, and say whether the target was reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help="optimiser steps of each training (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each way (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="processor threads of a training (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()
    if arguments.steps < 2 * REPORT_EVERY:
        parser.error(f"--steps: found {arguments.steps}, expected at least {2 * REPORT_EVERY}: two rows")

    def tell(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    result = measure(arguments.steps, arguments.rounds, arguments.threads, tell)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        ratios = result["ratios"]
        print(
            f"training throughput: {arguments.steps} steps, {arguments.threads} threads: Ray Train / plain loop = "
            f"{result['ratio']:.3f} (median of {len(ratios)}, {min(ratios):.3f} to {max(ratios):.3f}; "
            f"target at least {TARGET:.2f})"
        )
    return 0 if result["ratio"] >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
