"""``netsuke evaluate``: any encoder on downstream tasks, tuned on them or as it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import JsonOption, console, new_table, only_results_on_stdout, print_json
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.finetuning.plan import Comparison, PlannedJob
    from orchestrator.finetuning.summary import ModelScores
    from orchestrator.progress import StageProgress
    from trainers.tasks.finetuning import FineTuningSettings

_DEFAULT_OUTPUT = "evaluations"


class Start(StrEnum):
    """Where RTE, MRPC and STS-B start."""

    MODEL = "model"
    MNLI = "mnli"


class PoolingChoice(StrEnum):
    """What the class of a text is read from."""

    FIRST = "first"
    MEAN = "mean"
    OWN = "own"


class AnswerabilityChoice(StrEnum):
    """How a question is found to have no answer."""

    LAYER = "layer"
    SPAN = "span"


class KeepChoice(StrEnum):
    """Which weights are judged."""

    LAST = "last"
    BEST = "best"


def evaluate(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL_DIR...", help="folders, hub ids or package:<name>; compared as equals")
    ],
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks", help="names with commas, such as sst2,rte,squad_v2,wnut17; or glue; authors needs no data"
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="FOLDER|hub|dataset:NAME",
            help="Parquet files laid out as glue/sst2/train.parquet; the tasks' data sets on the hub; or one data set, "
            "a name or folder that datasets.load_dataset takes",
        ),
    ] = "hub",
    train_data: Annotated[
        list[str] | None,
        typer.Option("--train-data", metavar="TASK=FOLDER", help="training rows from elsewhere: squad_v1=squadshifts"),
    ] = None,
    seeds: Annotated[str, typer.Option("--seeds", help="numbers with commas")] = "1",
    epochs: Annotated[int, typer.Option("--epochs", min=1)] = 3,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="peak learning rate")] = 1e-4,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 32,
    max_length: Annotated[int, typer.Option("--max-length", min=8, help="tokens of a text or pair")] = 128,
    teacher: Annotated[
        str, typer.Option("--teacher", metavar="MODEL_DIR", help="tuned first; the models imitate it (lambda 0.5)")
    ] = "",
    start_from: Annotated[Start, typer.Option("--start-from", help="mnli: RTE, MRPC and STS-B start there")] = (
        Start.MODEL
    ),
    pooling: Annotated[
        PoolingChoice, typer.Option("--pooling", help="mean suits sentence encoders such as all-MiniLM")
    ] = PoolingChoice.FIRST,
    answerability: Annotated[
        AnswerabilityChoice,
        typer.Option("--answerability", help="squad_v2: no answer by a binary layer (RoBERTa) or by spans (BERT)"),
    ] = AnswerabilityChoice.LAYER,
    keep: Annotated[KeepChoice, typer.Option("--keep", help="weights after the last or the best epoch")] = (
        KeepChoice.LAST
    ),
    max_train_examples: Annotated[int | None, typer.Option("--max-train-examples", min=1, metavar="N")] = None,
    max_eval_examples: Annotated[int | None, typer.Option("--max-eval-examples", min=1, metavar="N")] = None,
    train: Annotated[
        bool, typer.Option("--train/--no-train", help="--no-train only judges models that have a head for the task")
    ] = True,
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="keeps finished scores, so that the same command goes on")
    ] = Path(_DEFAULT_OUTPUT),
    save_models: Annotated[bool, typer.Option("--save-models", help="keep the tuned models in the output folder")] = (
        False
    ),
    processes: Annotated[
        int, typer.Option("--processes", min=0, help="fine-tunings at the same time, a core each; 0: one a core")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Tune encoders on downstream tasks and print their scores on the dev splits, mean and spread over seeds."""
    from orchestrator.finetuning.plan import with_start
    from trainers.tasks.answers import AnswerSettings
    from trainers.tasks.catalogue import MNLI
    from trainers.tasks.finetuning import FineTuningSettings

    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: found a file, expected a folder or a new name")
    if not 0 < learning_rate <= 1:
        raise UserError(f"--learning-rate: found {learning_rate}, expected more than 0 and at most 1")
    settings = FineTuningSettings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        max_length=max_length,
        answers=AnswerSettings(answerability=answerability.value),
        pooling=pooling.value,
        keep=keep.value,
        max_train_examples=max_train_examples,
        max_eval_examples=max_eval_examples,
        distillation_weight=0.5 if teacher else 0.0,
    )
    with only_results_on_stdout() if as_json else nullcontext():
        comparison = _comparison(models, tasks, data, train_data or [], seeds, teacher, settings, output, train)
        comparison = replace(comparison, start_from_mnli=start_from is Start.MNLI, save_models=save_models)
        for task in with_start(comparison.tasks, comparison.starts_from_mnli):
            comparison.source.check(task, train)
        found = run_evaluation(comparison, output, processes, silently=as_json)
    names = [task.name for task in comparison.tasks]
    if as_json:
        starts = dict.fromkeys(comparison.starting, MNLI)
        print_json(
            {"output": str(output), "tasks": names, "starts": starts, "models": [one.as_dict() for one in found]}
        )
    else:
        print_scores(found, names, len(comparison.seeds))
        if comparison.starting:
            print(f"{', '.join(comparison.starting)}: each model started from its own weights tuned on mnli, same seed")


def _comparison(
    models: Sequence[str],
    tasks: str,
    data: str,
    train_data: Sequence[str],
    seeds: str,
    teacher: str,
    settings: FineTuningSettings,
    output: Path,
    train: bool,
) -> Comparison:
    """What the command line asks for, checked as far as that goes without loading a model."""
    from orchestrator.finetuning.plan import TEACHER, Comparison, Contestant
    from trainers.tasks.catalogue import GLUE, find_task
    from trainers.tasks.models import locate
    from trainers.tasks.sources import TaskSource

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    names = [inner for name in names for inner in (GLUE if name.lower() == "glue" else (name,))]
    if not names:
        raise UserError("--tasks: found nothing, expected names with commas, such as sst2,rte")
    chosen = tuple(dict.fromkeys(find_task(name, "--tasks") for name in names))
    elsewhere = {}
    for pair in train_data:
        name, mark, folder = pair.partition("=")
        if not mark or not folder:
            raise UserError(f"--train-data: found '{pair}', expected TASK=FOLDER, such as squad_v1=squadshifts")
        elsewhere[find_task(name, "--train-data").name] = folder
    source = TaskSource(data, elsewhere, "--data")
    guide = Contestant(TEACHER, locate(teacher, "--teacher"), TEACHER) if teacher else None
    contestants = [Contestant(_label(model), locate(model)) for model in models]
    if guide is not None:  # who is compared with the teacher need not name it twice
        contestants = [one for one in contestants if one.location != guide.location]
    labels = [one.label for one in [*contestants, *([guide] if guide else [])]]
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise UserError(
            f"MODEL_DIR: found two models called '{repeated[0]}', expected different names; rename a folder"
        )
    return Comparison(
        tuple(contestants), guide, chosen, _seeds(seeds), settings, source, output / "models", train=train
    )


def _label(model: str) -> str:
    from trainers.teacher import PACKAGE_PREFIX

    return model.removeprefix(PACKAGE_PREFIX) if model.startswith(PACKAGE_PREFIX) else Path(model).name or model


def _seeds(text: str) -> tuple[int, ...]:
    try:
        found = tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip()))
    except ValueError:
        found = ()
    if not found or min(found) < 0:
        raise UserError(f"--seeds: found '{text}', expected whole numbers with commas, such as 1,2,3")
    return found


def run_evaluation(comparison: Comparison, output: Path, processes: int, silently: bool) -> list[ModelScores]:
    """Do what is left of a comparison and gather all its scores.

    Args:
        comparison: what is compared.
        output: folder of the scores; made if absent.
        processes: fine-tunings at the same time; 0 for one a core.
        silently: whether to show no progress.

    Raises:
        ValueError: one of the packages' errors for a user's mistake.
        RuntimeError: one of the packages' errors for a failure; what was measured is kept.
    """
    from cluster.lease import RunLock
    from orchestrator.evaluation.actor_pool import run_here, run_on_actors
    from orchestrator.finetuning.plan import planned_jobs
    from orchestrator.finetuning.running import (
        TASK_SCORES,
        jobs_to_do,
        remove_tuned_models,
        rows_of,
        run_comparison,
    )
    from orchestrator.finetuning.summary import summarise
    from orchestrator.progress import Progress
    from orchestrator.results import ResultsWriter, open_results

    output.mkdir(parents=True, exist_ok=True)
    cores = os.cpu_count() or 1
    with ExitStack() as stack:
        stack.enter_context(RunLock(output))
        writer = stack.enter_context(ResultsWriter(output / "results", "evaluate"))
        rows = open_results(output / "results").table(TASK_SCORES).to_pylist()
        jobs = planned_jobs(comparison)
        due = len(jobs_to_do(jobs, rows))
        actors = min(processes or cores, max(1, due))
        if actors > 1:
            from cluster.connect import connect
            from cluster.signals import orderly_stop

            stack.enter_context(orderly_stop())
            stack.enter_context(connect("local", num_cpus=actors))
        progress = Progress("silent" if silently else "auto")
        with progress.stage("evaluate", len(jobs), "fine-tunings", len(jobs) - due) as stage:
            run_comparison(
                comparison,
                writer=writer,
                rows=rows,
                runner=run_on_actors if actors > 1 else run_here,
                actors=actors,
                threads=1 if actors > 1 else None,
                on_done=_teller(stage),
            )
        writer.flush()
        found = rows_of(comparison, open_results(output / "results").table(TASK_SCORES).to_pylist())
        remove_tuned_models(comparison)
    return summarise(found, [task.name for task in comparison.tasks], comparison.seeds)


def _teller(stage: StageProgress) -> Callable[[PlannedJob, Any, int, int], None]:
    def tell(planned: PlannedJob, result: Any, done: int, total: int) -> None:
        headline = ", ".join(f"{score.metric} {score.value:.3f}" for score in result.scores if score.headline)
        stage.update(done)
        stage.message(f"{planned.name}: {headline} in {result.seconds:.0f} s")

    return tell


def print_scores(found: Sequence[ModelScores], tasks: Sequence[str], seeds: int) -> None:
    """Print a table of headline metrics, and one of all metrics."""
    from orchestrator.finetuning.summary import GLUE_LABEL
    from trainers.tasks.metrics import THRESHOLD

    means = ["average", *([GLUE_LABEL] if any(one.glue for one in found) else [])]
    title = f"dev scores × 100, mean{f' ± standard deviation of {seeds} seeds' if seeds > 1 else ' (one seed)'}"
    table = new_table(title, "model", *tasks, *means, right=(*tasks, *means))
    for one in found:
        cells = [one.tasks[task].text() if task in one.tasks else "" for task in tasks]
        both = [mean.text() if mean else "" for mean in (one.average, one.glue)]
        table.add_row(one.model, *cells, *both[: len(means)])
    console().print(table)
    names = list(dict.fromkeys(name for one in found for name in one.metrics))
    if len(names) > len(tasks):
        models = [one.model for one in found]
        details = new_table("all metrics", "task / split / metric", *models, right=tuple(models))
        for name in names:
            scale = 1.0 if name.endswith(THRESHOLD) else 100.0
            cells = [one.metrics[name].text(scale) if name in one.metrics else "" for one in found]
            details.add_row(name.replace("/", " / "), *cells)
        console().print(details)
