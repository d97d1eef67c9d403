"""Searched against uniform models of equal size on GLUE: is the architecture worth the search?

``python -m tests.benchmarks.bench_glue RUN --data ../shared/data [--tasks sst2,mrpc,rte,cola] [--seeds 1,2,3]
[--budgets quarter] [--epochs 3] [--max-train-examples N] [--no-teacher] [--output DIR] [--json]``

RUN is a finished run folder. Every winner and its uniform baseline are tuned with the same settings and the same
training rows on every task with every seed; both imitate the teacher, which is tuned first, beside learning the task
(lambda 0.5, as the paper's second stage does), unless ``--no-teacher`` leaves the teacher out, which takes a third of
the time. What counts is the mean dev score over tasks, averaged over seeds, of each winner against its own baseline.
Fine-tunings run in two processes at the same time with one thread each. Finished ones are kept in ``--output``
(default: ``RUN/bench_glue``), so the same command goes on where it was stopped. Ends with exit code 1 where a winner is
not ahead of its baseline.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from orchestrator.cli.evaluate import print_scores, run_evaluation
from orchestrator.finetuning.plan import TEACHER, Comparison, Contestant
from orchestrator.finetuning.summary import ModelScores
from orchestrator.results import open_results
from orchestrator.run_directory import RunDirectory
from tests.benchmarks.environment import as_text, describe
from trainers.tasks.catalogue import find_task
from trainers.tasks.finetuning import FineTuningSettings
from trainers.tasks.sources import TaskSource

TASKS = "sst2,mrpc,rte,cola"
WINNER, UNIFORM = "winner", "uniform"


def contestants(folder: RunDirectory, budgets: Sequence[str]) -> list[Contestant]:
    """The winners of a run and their uniform baselines, of some budgets or, where none is named, of all."""
    rows = open_results(folder.results).frame("models")
    found = []
    for row in rows.to_dict("records"):
        if row["role"] in (WINNER, UNIFORM) and (folder.model(row["model"]) / "config.json").is_file():
            found.append(Contestant(row["model"], str(folder.model(row["model"])), row["role"], row["budget"]))
    unknown = sorted(set(budgets) - {one.budget for one in found})
    if unknown:
        known = ", ".join(sorted({str(one.budget) for one in found}))
        raise SystemExit(f"--budgets: found {', '.join(unknown)}, but {folder.path} has finished winners of {known}")
    found = [one for one in found if not budgets or one.budget in budgets]
    return sorted(found, key=lambda one: (one.budget, one.role != WINNER))


def comparison_of(arguments: argparse.Namespace, folder: RunDirectory, output: Path) -> Comparison:
    """Equal fine-tuning of all models of a run."""
    settings = FineTuningSettings(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        max_length=arguments.max_length,
        pooling=arguments.pooling,
        max_train_examples=arguments.max_train_examples,
        max_eval_examples=arguments.max_eval_examples,
        distillation_weight=0.0 if arguments.no_teacher else 0.5,
    )
    teacher = Contestant(TEACHER, str(folder.teacher), TEACHER)
    models = tuple(contestants(folder, arguments.budgets))
    if not models:
        raise SystemExit(f"{folder.path}: found no finished winners, expected the folder of a finished run")
    return Comparison(
        models,
        None if arguments.no_teacher else teacher,
        tuple(find_task(name) for name in arguments.tasks.split(",")),
        tuple(int(seed) for seed in arguments.seeds.split(",")),
        settings,
        TaskSource(str(arguments.data)),
        output / "models",
    )


def pairs(models: Sequence[Contestant], found: Sequence[ModelScores]) -> list[dict[str, Any]]:
    """For each budget the winner's lead over its baseline, on every task and on average, in points (x 100)."""
    by_label = {one.model: one for one in found}
    result = []
    for winner in (one for one in models if one.role == WINNER):
        rival = next((one for one in models if one.role == UNIFORM and one.budget == winner.budget), None)
        if rival is None:
            continue
        ours, theirs = by_label[winner.label], by_label[rival.label]
        assert ours.average is not None
        assert theirs.average is not None
        lead = ours.average.mean - theirs.average.mean
        spreads = [one.average.spread or 0.0 for one in (ours, theirs) if one.average is not None]
        result.append(
            {
                "budget": winner.budget,
                "winner": winner.label,
                "uniform": rival.label,
                "lead": 100 * lead,
                "standard_error": 100 * math.sqrt(sum(spread**2 for spread in spreads) / ours.average.seeds),
                "tasks": {task: 100 * (ours.tasks[task].mean - theirs.tasks[task].mean) for task in ours.tasks},
            }
        )
    return result


def sizes(folder: RunDirectory) -> dict[str, int]:
    """Encoder parameters of every model of a run."""
    rows = open_results(folder.results).frame("models")
    return {row["model"]: int(row["encoder_parameters"]) for row in rows.to_dict("records")}


def report(result: Mapping[str, Any], found: Sequence[ModelScores], tasks: Sequence[str], seeds: int) -> None:
    """Print what was found for people."""
    print_scores(found, tasks, seeds)
    for model, size in result["encoder_parameters"].items():
        print(f"{model}: {size:,} encoder parameters")
    for pair in result["pairs"]:
        by_task = ", ".join(f"{task} {lead:+.1f}" for task, lead in pair["tasks"].items())
        print(
            f"{pair['winner']} - {pair['uniform']} = {pair['lead']:+.2f} points on average "
            f"(standard error {pair['standard_error']:.2f} from {seeds} seeds; {by_task})"
        )


def main() -> int:
    """Parse the command line, tune what is left, print, and say whether every winner is ahead."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with glue/sst2/train.parquet")
    parser.add_argument("--tasks", default=TASKS, help="names with commas (default: %(default)s)")
    parser.add_argument("--seeds", default="1,2,3", help="numbers with commas (default: %(default)s)")
    parser.add_argument("--budgets", default="", help="names with commas (default: all of the run)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--pooling", choices=("mean", "first", "own"), default="mean", help="(default: %(default)s)")
    parser.add_argument(
        "--max-train-examples", type=int, default=8_000, help="rows of a task (default: %(default)s); 0: all"
    )
    parser.add_argument("--max-eval-examples", type=int, default=None)
    parser.add_argument("--no-teacher", action="store_true", help="without task distillation: plain tuning alone")
    parser.add_argument("--processes", type=int, default=2, help="fine-tunings at a time (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=None, help="keeps finished scores (default: RUN/bench_glue)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()
    arguments.max_train_examples = arguments.max_train_examples or None
    arguments.budgets = [name for name in arguments.budgets.split(",") if name]
    folder = RunDirectory(arguments.run)
    output = arguments.output or folder.path / "bench_glue"
    comparison = comparison_of(arguments, folder, output)
    machine = describe()
    with redirect_stdout(sys.stderr):
        print(as_text(machine))
        found = run_evaluation(comparison, output, arguments.processes, silently=False)
    result = {
        "environment": machine,
        "settings": {name: str(value) for name, value in vars(arguments).items()},
        "encoder_parameters": sizes(folder),
        "models": [one.as_dict() for one in found],
        "pairs": pairs(comparison.contestants, found),
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        report(result, found, [task.name for task in comparison.tasks], len(comparison.seeds))
    return 0 if result["pairs"] and all(pair["lead"] > 0 for pair in result["pairs"]) else 1


if __name__ == "__main__":
    sys.exit(main())
