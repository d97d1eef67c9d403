"""The stage that sweeps lambda: a one-shot search each, as trials of Ray Tune, whose ends make a Pareto front.

The supernet stage searches with one lambda. Here further ones search from the same start, each with weights of its own.
What each comes to is scored by its own weights, recorded, and tried by the search behind; students of it start at them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from cluster.resources import ResourceRequest
from orchestrator.evaluation import training_trials
from orchestrator.evaluation.evaluator import EvaluatorFactory
from orchestrator.evaluation.recorded import evaluation_row
from orchestrator.evaluation.records import Origin, Proposal, SearchRecord
from orchestrator.formatting import plural
from orchestrator.latency_table import LatencyTable
from orchestrator.objectives import CheapObjectives
from orchestrator.phases import FOUND, FOUND_BY_LAMBDA, LAMBDAS, SUPERNET, Outputs, last_phase
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Recipe, signature
from orchestrator.run_directory import SUPERNET_FILE
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.evaluators import evaluator_factory
from orchestrator.stages.oneshot import (
    found_architecture,
    keep_found,
    needs_prices,
    one_shot_factory,
    one_shot_settings,
    planned_one_shot,
    told_share,
    training_facts,
    training_inputs,
)
from orchestrator.stages.oneshot_task import keep_task_model, searched_task, task_scorer
from orchestrator.stages.training import remove_checkpoints, training_name
from trainers.ray_train import Intervals, Scaling
from trainers.task import WEIGHTS, Row

STRATEGY = "oneshot"
"""What the rows of what was found name as the strategy."""


def sweeps_lambda(recipe: Recipe) -> bool:
    """Whether a run searches with other lambdas, too."""
    return bool(recipe.supernet.one_shot.sweep)


def own_losses(outputs: Outputs) -> dict[str, float]:
    """For the text of each architecture that another lambda alone has come to, its loss with its own weights.

    What the supernet stage has come to, too, is a student of the main supernet, and is judged by it.
    """
    swept, main = outputs.get(LAMBDAS, {}).get(FOUND_BY_LAMBDA, []), outputs[SUPERNET].get(FOUND)
    losses = {str(one[FOUND]): one["loss"] for one in swept if one[FOUND] != main}
    return {text: float(loss) for text, loss in losses.items() if loss is not None}


def found_texts(outputs: Outputs) -> list[str]:
    """The texts of what all one-shot searches of a run have come to, that of the supernet stage first, each once."""
    main = outputs[SUPERNET].get(FOUND)
    swept = outputs.get(LAMBDAS, {}).get(FOUND_BY_LAMBDA, [])
    return list(dict.fromkeys([*([] if main is None else [main]), *(str(one[FOUND]) for one in swept)]))


class LambdaSweepStage(Stage):
    """Runs a one-shot search for every lambda of ``supernet.oneshot.sweep``."""

    name = LAMBDAS
    inputs = ("teacher", "corpus")
    resumable = True

    def inputs_for(self, plan: RunPlan) -> tuple[str, ...]:
        """The latency table too, where the searches make latency cheaper; else a new device trains nothing again."""
        return tuple(dict.fromkeys((*training_inputs(plan), "corpus")))

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's space, supernet and lambdas, the seed, and the text that judges what was found."""
        search = plan.recipe.search
        return [
            *training_facts(plan, cost_weight=0.0),
            list(_lambdas(plan)),
            search.validation_batches,
            search.batch_size,
        ]

    def check(self, plan: RunPlan) -> None:
        """Each training has one worker, whose paths are to be compared; the supernet stage has checked the rest.

        Raises:
            TrainingInputError: one worker draws too few of them.
        """
        one_shot_settings(plan.recipe).check_paths(1)

    def requests(self, plan: RunPlan) -> ResourceRequest:
        """What one trial needs of the cluster; as many are trained at once as there is room for."""
        scaling = plan.recipe.supernet.scaling
        return ResourceRequest("supernet.scaling", 1, scaling.cpus_per_worker, scaling.gpus_per_worker)

    def planned(self, plan: RunPlan) -> PlannedStage:
        """As many trainings as there are lambdas; time as if they took turns."""
        one, count = planned_one_shot(plan), len(_lambdas(plan))
        shown = ", ".join(f"{value:g}" for value in _lambdas(plan))
        assert one.steps is not None
        assert one.tokens is not None
        assert one.seconds is not None
        return PlannedStage(
            self.name,
            "run",
            f"search with {plural(count, 'other lambda')} ({shown}), each as a trial of its own",
            steps=count * one.steps,
            tokens=count * one.tokens,
            evaluations=count,
            seconds=count * one.seconds,
        )

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Train, or go on training, then score and keep what was found."""
        recipe, lambdas = context.recipe, _lambdas(context.plan)
        training = recipe.supernet
        progress.follow(len(lambdas) * training.steps)
        scaling = training.scaling

        def record(number: int, rows: list[Row]) -> None:
            named = {"stage": self.name, "subject": _subject(lambdas[number])}
            context.results.extend("training", [row | named for row in rows])

        checkpoints = training_trials.train_as_trials(
            [one_shot_factory(context, value) for value in lambdas],
            name=training_name(context, self.name),
            storage=context.folder.training,
            scaling=Scaling(len(lambdas), scaling.cpus_per_worker, scaling.gpus_per_worker, scaling.max_failures),
            intervals=Intervals(training.checkpoint_every, training.report_every),
            on_rows=record,
            on_steps=progress.update,
        )
        found = [
            self._finish(context, number, *pair) for number, pair in enumerate(zip(lambdas, checkpoints, strict=True))
        ]
        for one in found:
            loss = "none" if one["loss"] is None else f"{one['loss']:.3f}"
            told = told_share(recipe, one["cost_share"])
            progress.message(f"{_subject(one['cost_weight'])}: {one['architecture']}  loss {loss}, {told}")
        return StageResult(f"{plural(len(found), 'lambda')} swept", {FOUND_BY_LAMBDA: found})

    def _finish(self, context: RunContext, number: int, cost_weight: float, checkpoint: Path) -> dict[str, Any]:
        """Keep a trial's weights, score what it came to by them, and record that."""
        recipe, search = context.recipe, context.recipe.search
        folder = context.folder.lambda_folder(number)
        tensors = load_file(checkpoint / WEIGHTS)
        keep_found(tensors, folder)
        architecture, share = found_architecture(context, tensors)
        task, fidelity = searched_task(recipe), last_phase(recipe).fidelity
        factory: EvaluatorFactory
        if task is None:
            weights = folder / SUPERNET_FILE
            factory = evaluator_factory(recipe, context.folder, fidelity, search.batch_size, threads=0, weights=weights)
        else:
            factory = task_scorer(context.plan, task, one_shot_settings(recipe), folder, threads=0)
            keep_task_model(context, task, one_shot_settings(recipe), architecture, folder)
        (score,) = factory().score([architecture], fidelity)
        latency: Mapping[str, Any] = {}
        if needs_prices(recipe):  # otherwise another table would not have this written anew
            table = LatencyTable.from_json(context.outputs["latency"]["latency_table"])
            latency = table.objectives(context.space)
        cheap = CheapObjectives(context.space, latency, recipe.corpus.sequence_length)
        record = SearchRecord(Proposal(number, architecture, fidelity), score, cheap.values(architecture), Origin())
        own = signature(context.signature, cost_weight)
        context.results.append("evaluations", **evaluation_row(record, context.space, STRATEGY, own))
        return {
            "cost_weight": cost_weight,
            FOUND: str(architecture),
            "loss": score.loss,
            "cost_share": share,
        }

    def clean_up(self, context: RunContext) -> None:
        """The checkpoints have served."""
        remove_checkpoints(context, self.name)

    def is_complete(self, plan: RunPlan) -> bool:
        """Whether the weights of every lambda are there."""
        folders = [plan.folder.lambda_folder(number) for number in range(len(_lambdas(plan)))]
        return all((folder / SUPERNET_FILE).is_file() for folder in folders)


def _subject(cost_weight: float) -> str:
    return f"lambda {cost_weight:g}"


def _lambdas(plan: RunPlan) -> tuple[float, ...]:
    return plan.recipe.supernet.one_shot.sweep
