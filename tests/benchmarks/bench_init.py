"""Where a supernet starts: ``supernet.init: teacher`` against ``paper`` at equal cost, on all-MiniLM and real text.

``python -m tests.benchmarks.bench_init [--steps 96] [--seeds 1,2] [--sample 24] [--threads 2] [--json]``

Both ways train the same supernet (all-MiniLM's three blocks of two layers, hidden sizes 128, 256 and 384) for the same
steps on the same batches along the same paths; only the weights they start from differ. After none, a quarter, half
and all of the steps a fixed sample of architectures of every block and hidden size is scored on held-out text. What is
told of each way: the relative error (mean squared error / variance of the teacher's states), the signal within a hidden
size (spread of the losses / their noise) against the noise of other validation batches and of other seeds, and how
well two seeds agree about the ranking (Kendall's tau). Seconds of the start and of the steps are printed beside it,
since equal steps are equal cost only if the starts cost little. Nothing of Ray is involved.

Ends with exit code 1 where ``teacher`` does not have the lower error at every hidden size once training is over.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.evaluation.block_choice import choose_for_signal
from orchestrator.loss_signal import SizeSignal, signal_of_batches, signal_of_seeds
from orchestrator.recipe import load_recipe
from orchestrator.stages.text import validation_source
from tests.benchmarks.bench_training import prepare
from tests.benchmarks.environment import as_text, describe
from trainers.blockwise import BlockwiseFactory, BlockwiseTraining
from trainers.corpus import PackedCorpus, pack, save_corpus
from trainers.prefix_evaluation import PrefixEvaluator
from trainers.validation import ValidationBatch, validation_batches

WAYS = ("paper", "teacher")
BATCHES, BATCH_SIZE = 8, 8
CHANGES = (
    "space.options.hidden_sizes=[128,256,384]",
    "supernet.shrinking=null",
    "supernet.learning_rate=3.0e-4",
)

Sample = Mapping[int, Mapping[int, Sequence[Any]]]
"""For each block, and each hidden size within it, the architectures that are scored."""
Losses = dict[int, dict[int, NDArray[np.float64]]]
"""For each block and hidden size, losses ``[architectures, validation batches]``."""


@dataclass(frozen=True)
class Prepared:
    """What all trainings have in common.

    Attributes:
        factory: makes the training of one way and seed, once its settings say which.
        validation: held-out text.
        sample: what is scored.
    """

    factory: BlockwiseFactory
    validation: PackedCorpus
    sample: Sample


@dataclass(frozen=True)
class Training:
    """One way with one seed.

    Attributes:
        start_seconds: of building the supernet and starting it.
        step_seconds: of one step, on average.
        losses: by the steps they were measured after.
        variances: of the teacher's states at each block's end, ``[blocks, validation batches]``.
    """

    start_seconds: float
    step_seconds: float
    losses: dict[int, Losses]
    variances: NDArray[np.float64]


def prepare_all(steps: int, sample: int, folder: Path) -> Prepared:
    """Teacher, text and what is to be scored."""
    recipe = load_recipe("nas_bert_minilm", [*CHANGES, f"supernet.steps={steps}"])
    factory = prepare(recipe, folder)
    held_out = validation_source(recipe)
    assert held_out is not None
    task = factory(0, 1, torch.device("cpu"))
    save_corpus(
        folder / "validation", pack(held_out.documents(), task.teacher.tokenizer, recipe.corpus.sequence_length)
    )
    return Prepared(factory, PackedCorpus(folder / "validation"), choose_for_signal(task.space, sample, 1, None))


def score(task: BlockwiseTraining, batches: Sequence[ValidationBatch], sample: Sample) -> Losses:
    """The losses of the sample with the weights of this moment."""
    task.supernet.eval()
    evaluator = PrefixEvaluator(task.supernet, batches)
    with torch.no_grad():
        found = {
            index: {size: evaluator.batch_losses(index, blocks) for size, blocks in of_sizes.items()}
            for index, of_sizes in sample.items()
        }
    task.supernet.train()
    return found


def train(prepared: Prepared, way: str, seed: int) -> Training:
    """Train one way with one seed; scored after none, a quarter, half and all of the steps."""
    settings = replace(prepared.factory.settings, init=way, seed=seed)
    started = time.perf_counter()
    task = replace(prepared.factory, settings=settings)(0, 1, torch.device("cpu"))
    start_seconds = time.perf_counter() - started
    batches = validation_batches(task.teacher, prepared.validation, task.supernet.num_blocks, BATCHES, BATCH_SIZE)
    measured_at = {0, task.total_steps // 4, task.total_steps // 2, task.total_steps}
    losses: dict[int, Losses] = {}
    seconds = 0.0
    for step in range(task.total_steps + 1):
        if step in measured_at:
            losses[step] = score(task, batches, prepared.sample)
        if step < task.total_steps:
            began = time.perf_counter()
            task.step(step)
            seconds += time.perf_counter() - began
    variances = np.array([[batch.variances[index + 1] for batch in batches] for index in prepared.sample])
    return Training(start_seconds, seconds / task.total_steps, losses, variances)


def relative_errors(training: Training, step: int) -> dict[int, float]:
    """For each hidden size the median relative error of its architectures, the mean over blocks."""
    found: dict[int, list[float]] = {}
    for index, of_sizes in training.losses[step].items():
        for size, losses_AN in of_sizes.items():
            relative_A = losses_AN.mean(1) / training.variances[index].mean()
            found.setdefault(size, []).append(float(np.median(relative_A)))
    return {size: statistics.fmean(values) for size, values in found.items()}


def signals(first: Training, second: Training | None, step: int) -> dict[int, dict[str, float | None]]:
    """For each hidden size the signal against other batches and another seed, the median over blocks."""
    found: dict[int, dict[str, list[float | None]]] = {}
    for index, of_sizes in first.losses[step].items():
        by_batches = signal_of_batches(of_sizes, BATCHES)
        by_seeds: Sequence[SizeSignal] = []
        if second is not None:
            means = [
                {size: losses_AN.mean(1) for size, losses_AN in one.losses[step][index].items()}
                for one in (first, second)
            ]
            by_seeds = signal_of_seeds(means[0], means[1], BATCHES)
        for one in by_batches:
            found.setdefault(one.hidden_size, {}).setdefault("of_batches", []).append(one.signal)
        for one in by_seeds:
            of_size = found[one.hidden_size]
            of_size.setdefault("of_seeds", []).append(one.signal)
            of_size.setdefault("tau_of_seeds", []).append(one.kendall_tau)
    return {size: {name: _median(values) for name, values in named.items()} for size, named in found.items()}


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def describe_way(trainings: Sequence[Training]) -> dict[str, Any]:
    """What is told of one way."""
    second = trainings[1] if len(trainings) > 1 else None
    return {
        "start_seconds": statistics.median(one.start_seconds for one in trainings),
        "step_seconds": statistics.median(one.step_seconds for one in trainings),
        "after": {
            step: {
                "relative_error": _mean_of_seeds([relative_errors(one, step) for one in trainings]),
                "signal": signals(trainings[0], second, step),
            }
            for step in trainings[0].losses
        },
    }


def _mean_of_seeds(found: Sequence[Mapping[int, float]]) -> dict[int, float]:
    return {size: statistics.fmean(one[size] for one in found) for size in found[0]}


def measure(arguments: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """All measurements, ready for JSON."""
    torch.set_num_threads(arguments.threads)
    machine = describe()
    tell(as_text(machine))
    found: dict[str, list[Training]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        prepared = prepare_all(arguments.steps, arguments.sample, Path(name))
        for seed in arguments.seeds:
            for way in WAYS:
                found[way].append(train(prepared, way, seed))
                tell(f"seed {seed}, {way}: {_as_text(relative_errors(found[way][-1], arguments.steps))}")
    ways = {way: describe_way(trainings) for way, trainings in found.items()}
    last = {way: ways[way]["after"][arguments.steps]["relative_error"] for way in WAYS}
    return {
        "environment": machine,
        "steps": arguments.steps,
        "seeds": arguments.seeds,
        "ways": ways,
        "error_ratio": {size: last["teacher"][size] / last["paper"][size] for size in last["paper"]},
    }


def _as_text(errors: Mapping[int, float]) -> str:
    return "relative error " + ", ".join(f"{error:.3f} at {size}" for size, error in errors.items())


def report(result: Mapping[str, Any]) -> None:
    """Print what was found for people."""
    for way, told in result["ways"].items():
        print(f"{way}: start {told['start_seconds']:.1f} s, {told['step_seconds']:.2f} s a step")
        for step, found in told["after"].items():
            print(f"  after {step} steps: {_as_text(found['relative_error'])}")
            for size, named in found["signal"].items():
                values = ", ".join(f"{name} {value:.2f}" for name, value in named.items() if value is not None)
                print(f"    {size}: {values}")
    ratios = ", ".join(f"{ratio:.2f} at {size}" for size, ratio in result["error_ratio"].items())
    print(f"error of teacher / paper after {result['steps']} steps: {ratios}")


def main() -> int:
    """Parse the command line, print, and say whether the teacher's start is ahead at every hidden size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=96, help="optimiser steps of a training (default: %(default)s)")
    parser.add_argument("--seeds", default="1,2", help="numbers with commas (default: %(default)s)")
    parser.add_argument(
        "--sample", type=int, default=24, help="architectures of each block and size (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="processor threads (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()
    arguments.seeds = [int(seed) for seed in arguments.seeds.split(",")]
    if arguments.steps < 4:
        parser.error(f"--steps: found {arguments.steps}, expected at least 4: the quarters are measured")

    def tell(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    result = measure(arguments, tell)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        report(result)
    return 0 if all(ratio < 1.0 for ratio in result["error_ratio"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
