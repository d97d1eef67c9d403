"""The claim of EfficientBERT's warm-up: networks that start at a trained supernet's weights against random ones.

``python -m tests.benchmarks.bench_warm_start [--steps 48] [--distillation 16] [--networks 3] [--seeds 1,2] [--json]``

The plain supernet is trained for N steps on all-MiniLM and the bundled novels, once from a random start (``warm``, as
in the paper) and once from the start at the teacher (``teacher``). Then the same drawn networks are distilled layer by
layer for M steps on the same batches: from the cropped weights of either supernet, and from random weights
(``scratch``). What is told is the relative error of the last state on held-out text, before and after the
distillation, and its ratio to that of ``scratch``. By default losses are ``relative``, so that all layers weigh alike:
with ``--scale raw``, the paper's, attention scores make up nearly all of the loss, and so few steps hardly reach the
last state. Nothing of Ray is involved.

Ends with exit code 1 where ``warm`` is not ahead of ``scratch`` for every seed, in the mean over the networks.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from spaces.architecture import Architecture
from spaces.registry import load_space
from spaces.space import SearchSpace
from tests.benchmarks.environment import as_text, describe
from tests.benchmarks.recipe_text import save_teacher_and_text
from trainers.candidate_training import CandidateSettings, CandidateTraining
from trainers.corpus import PackedCorpus
from trainers.fidelity import Judgement
from trainers.layer_losses import Scale
from trainers.optimisation import OptimiserSettings
from trainers.supernet_store import supernet_with
from trainers.task import run_locally
from trainers.teacher import Teacher
from trainers.warm_up import WarmUpFactory, WarmUpSettings

WAYS = ("scratch", "warm", "teacher")
RECIPE = "quickstart"
"""Whose teacher and text are used."""
SPACE = "efficient_bert"
OPTIONS: Mapping[str, Any] = {"hidden_size": 192, "heads": 12, "stacked": [1, 2], "divisors": [1, 2]}


@dataclass(frozen=True)
class Prepared:
    """What all trainings have in common.

    Attributes:
        folder: has the teacher and the packed corpus.
        teacher: loaded.
        space: fits it.
        judgement: held-out text with the teacher's answers.
    """

    folder: Path
    teacher: Teacher
    space: SearchSpace[Any]
    judgement: Judgement


def prepare(folder: Path) -> Prepared:
    """Teacher, text and space."""
    teacher, judgement = save_teacher_and_text(RECIPE, folder, batches=2)
    return Prepared(folder, teacher, load_space(SPACE, OPTIONS, teacher.shape), judgement)


def trained_supernet(prepared: Prepared, init: str, seed: int, arguments: argparse.Namespace) -> Any:
    """The plain supernet, started in one of two ways and trained."""
    steps = arguments.steps
    settings = WarmUpSettings(
        init=init,
        batch_size=arguments.batch,
        seed=seed,
        precision="float32",
        optimiser=OptimiserSettings(1e-3, max(1, steps // 10), steps, 0.01, 1.0),
        scale=arguments.scale,
    )
    folder = prepared.folder
    task = WarmUpFactory(folder / "teacher", folder / "corpus", SPACE, OPTIONS, settings)(0, 1, torch.device("cpu"))
    run_locally(task, report_every=steps)
    return supernet_with(prepared.space, dict(task.tensors()))


def distil(
    prepared: Prepared, supernet: Any, start: str, networks: Sequence[Architecture], settings: CandidateSettings
) -> dict[str, list[float]]:
    """The relative error of each network before and after its distillation."""
    found = {}
    for when, steps in (("before", 0), ("after", settings.warm_up_steps)):
        chosen = replace(settings, start=start, warm_up_steps=steps)
        corpus = PackedCorpus(prepared.folder / "corpus")
        training = CandidateTraining(prepared.space, supernet, prepared.teacher, corpus, prepared.judgement, chosen)
        results = training.train(networks, 1)
        failed = [result.error for result in results if result.loss is None]
        if failed:
            raise RuntimeError(f"a network could not be distilled: {failed[0]}")
        found[when] = [float(result.loss) for result in results if result.loss is not None]
    return found


def measure_seed(
    prepared: Prepared, seed: int, arguments: argparse.Namespace, tell: Callable[[str], None]
) -> dict[str, Any]:
    """All three ways with one seed: of the supernets, the networks that are drawn, and the distillations."""
    rng = random.Random(f"warm start/{seed}")
    networks = [prepared.space.sample(rng) for _ in range(arguments.networks)]
    scale: Scale = arguments.scale
    settings = CandidateSettings(
        arguments.distillation,
        arguments.batch,
        1e-3,
        seed=seed,
        precision="float32",
        scale=scale,
        company=len(networks),
    )
    found: dict[str, Any] = {"networks": [str(one) for one in networks], "errors": {}, "seconds": {}}
    supernet = prepared.space.supernet()
    for way, init in zip(WAYS, (None, "paper", "teacher"), strict=True):
        began = time.perf_counter()
        if init is not None:
            supernet = trained_supernet(prepared, init, seed, arguments)
        start = "scratch" if init is None else "inherited"
        found["errors"][way] = distil(prepared, supernet, start, networks, settings)
        found["seconds"][way] = time.perf_counter() - began
        tell(f"seed {seed}, {way}: {_as_text(found['errors'][way])} ({found['seconds'][way]:.0f} s)")
    scratch = statistics.fmean(found["errors"]["scratch"]["after"])
    found["ratios"] = {way: statistics.fmean(found["errors"][way]["after"]) / scratch for way in WAYS[1:]}
    return found


def _as_text(errors: Mapping[str, Sequence[float]]) -> str:
    means = (f"{statistics.fmean(values):.3f} {when}" for when, values in errors.items())
    return f"relative error {', '.join(means)} distillation"


def measure(arguments: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """All measurements, ready for JSON."""
    torch.set_num_threads(arguments.threads)
    machine = describe()
    tell(as_text(machine))
    with tempfile.TemporaryDirectory() as name:
        prepared = prepare(Path(name))
        seeds = {seed: measure_seed(prepared, seed, arguments, tell) for seed in arguments.seeds}
    ratios = {way: statistics.fmean(found["ratios"][way] for found in seeds.values()) for way in WAYS[1:]}
    asked = {name: getattr(arguments, name) for name in ("steps", "distillation", "batch", "networks", "scale")}
    return {"environment": machine, **asked, "seeds": seeds, "error_ratio": ratios}


def report(result: Mapping[str, Any]) -> None:
    """Print what was found for people."""
    for seed, found in result["seeds"].items():
        ratios = ", ".join(f"{way} {ratio:.2f}" for way, ratio in found["ratios"].items())
        print(f"seed {seed}: error against that of scratch after the distillation: {ratios}")
    ratios = ", ".join(f"{way} {ratio:.2f}" for way, ratio in result["error_ratio"].items())
    print(f"mean over the seeds: {ratios}; target: warm below 1 for every seed")


def main() -> int:
    """Parse the command line, print, and say whether a warm start is ahead for every seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=48, help="of each supernet (default: %(default)s)")
    parser.add_argument("--distillation", type=int, default=16, help="steps of each network (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="sequences of a step (default: %(default)s)")
    parser.add_argument("--networks", type=int, default=3, help="drawn for each seed (default: %(default)s)")
    parser.add_argument("--seeds", default="1,2", help="numbers with commas (default: %(default)s)")
    parser.add_argument("--scale", choices=("raw", "relative"), default="relative", help="of the losses")
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()
    arguments.seeds = [int(seed) for seed in arguments.seeds.split(",")]

    def tell(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    result = measure(arguments, tell)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        report(result)
    return 0 if all(found["ratios"]["warm"] < 1.0 for found in result["seeds"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
