"""The stage that judges the finished models: fidelity on held-out text, size, measured against predicted latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from cluster.latency import LatencyMeasurement, measure_in_turn
from orchestrator.export import write_model_card
from orchestrator.formatting import plural
from orchestrator.latency_table import LatencyConditions, LatencyTable
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.distillation import WINNER
from orchestrator.stages.judge import Judge, judging_share
from orchestrator.stages.latency import latency_conditions
from orchestrator.stages.latency_rows import latency_row
from orchestrator.stages.prediction import PredictionJudge
from trainers.fidelity import Fidelity
from trainers.prediction import Prediction
from trainers.students import load_student, load_whole_student, ties_embeddings
from trainers.teacher import TeacherSource

TEACHER = "teacher"
_BYTES_PER_WEIGHT = 4


@dataclass(frozen=True)
class Judged:
    """One model with everything that is measured of it.

    Attributes:
        label: within the run.
        model: the encoder, in evaluation mode, without a head.
        facts: what the distillation stage said of it.
        initial: its fidelity before distillation; ``None`` for the teacher.
        fidelity: on held-out text.
        prediction: of masked tokens of the same text; ``None`` where the model has no head for it.
        tied: whether its head predicts tokens by the table it looks them up in; ``None`` where it has none.
    """

    label: str
    model: PreTrainedModel
    facts: Mapping[str, Any]
    initial: Fidelity | None
    fidelity: Fidelity
    prediction: Prediction | None
    tied: bool | None


class EvaluationStage(Stage):
    """Measures every model of the run, and the teacher, under the same conditions."""

    name = "evaluation"
    inputs = ("latency", "distillation")
    version = 3

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's evaluation."""
        return [plan.recipe.evaluation]

    def check(self, plan: RunPlan) -> None:
        """Nothing that earlier checks have not seen."""

    def planned(self, plan: RunPlan) -> PlannedStage:
        """All models on the held-out sequences."""
        settings, recipe = plan.recipe.evaluation, plan.recipe
        models = 1 + len(recipe.budgets) * (2 if recipe.distillation.uniform_baseline else 1)
        at_most = "up to " if len(recipe.budgets) > 1 else ""
        work = (
            f"judge {at_most}{models} models on up to {settings.sequences} held-out sequences, "
            f"time each {settings.latency_repeats} times"
        )
        return PlannedStage(self.name, "run", work, seconds=5 + models * settings.sequences * 0.012)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Judge, time, record, and write the model cards."""
        teacher = TeacherSource(str(context.folder.teacher)).load()
        listed = context.outputs["distillation"]["models"]
        distinct = [facts for facts in listed if facts["same_as"] is None]
        progress.follow(len(distinct) + 1, "models")
        judge = Judge(context, teacher, judging_share(context.recipe))
        heads = PredictionJudge(context, judge, teacher)
        fidelity, prediction = judge.fidelity(teacher.model), heads.of_teacher(teacher)
        tied = ties_embeddings(load_whole_student(context.folder.teacher))
        judged = [Judged(TEACHER, teacher.model, {"role": TEACHER}, None, fidelity, prediction, tied)]
        progress.advance()
        for facts in distinct:
            judged.append(_judge(context, judge, heads, facts))
            progress.advance()
        conditions = latency_conditions(context, context.recipe.evaluation.latency_repeats)
        latencies = _latencies(judged, conditions, teacher.shape.vocab_size)
        table = LatencyTable.from_json(context.outputs["latency"]["latency_table"])
        for one, latency in zip(judged, latencies, strict=True):
            predicted = None
            if one.facts["role"] == WINNER:
                predicted = table.known_ms(context.space, context.space.parse(one.facts["architecture"]))
            self._record(context, one, latency, predicted, latencies[0].median_ms)
            self._record_latency(context, one, latency, predicted, conditions)
            for facts in listed:  # what was measured of one model holds for those that are copies of it
                if facts["same_as"] == one.label:
                    copied = replace(one, label=facts["label"], facts=facts)
                    self._record(context, copied, latency, predicted, latencies[0].median_ms)
        return StageResult(f"{len(judged)} models on {judged[0].fidelity.sequences} held-out sequences")

    @staticmethod
    def _record(
        context: RunContext,
        one: Judged,
        latency: LatencyMeasurement,
        predicted_ms: float | None,
        teacher_ms: float,
    ) -> None:
        parameters, encoder_parameters = count_parameters(one.model)
        is_teacher = one.label == TEACHER
        path = None if is_teacher else context.folder.model(one.label)
        steps = context.outputs["distillation"]["steps"]
        sequence = context.recipe.distillation.batch_size * context.recipe.corpus.sequence_length
        context.results.append(
            "models",
            model=one.label,
            role=one.facts["role"],
            budget=one.facts.get("budget"),
            same_as=one.facts.get("same_as"),
            arch_id=one.facts.get("arch_id"),
            architecture=one.facts.get("architecture"),
            initialisation=one.facts.get("initialisation"),
            matched_on=one.facts.get("matched_on"),
            parameters=parameters,
            encoder_parameters=encoder_parameters,
            vocabulary_size=int(one.model.config.vocab_size),
            tied_embeddings=one.tied,
            size_bytes=parameters * _BYTES_PER_WEIGHT,
            predicted_latency_ms=predicted_ms,
            measured_latency_ms=latency.median_ms,
            latency_spread_ms=latency.spread_ms,
            speed_up=teacher_ms / latency.median_ms,
            cosine_similarity=one.fidelity.cosine_similarity,
            initial_cosine_similarity=None if one.initial is None else one.initial.cosine_similarity,
            relative_mse=one.fidelity.relative_mse,
            masked_lm_loss=None if one.prediction is None else one.prediction.loss,
            perplexity=None if one.prediction is None else one.prediction.perplexity,
            masked_lm_accuracy=None if one.prediction is None else one.prediction.accuracy,
            distillation_steps=None if is_teacher else steps,
            distillation_tokens=None if is_teacher else steps * sequence,
            path=None if path is None else str(path.relative_to(context.folder.path)),
        )
        if path is not None:
            _write_card(context, one, path, latency.median_ms, teacher_ms, encoder_parameters)

    @staticmethod
    def _record_latency(
        context: RunContext,
        one: Judged,
        latency: LatencyMeasurement,
        predicted_ms: float | None,
        conditions: LatencyConditions,
    ) -> None:
        context.results.append(
            "latency",
            kind="model",
            operation=one.label,
            arch_id=one.facts.get("arch_id"),
            architecture=one.facts.get("architecture"),
            median_ms=latency.median_ms,
            spread_ms=latency.spread_ms,
            repeats=latency.repeats,
            predicted_ms=predicted_ms,
            **latency_row(conditions),
        )


def _judge(context: RunContext, judge: Judge, heads: PredictionJudge, facts: Mapping[str, Any]) -> Judged:
    """Load a finished model and measure it, before and after its distillation."""
    folder, label = context.folder, facts["label"]
    before, after = load_student(folder.student(label)), load_student(folder.model(label))
    prediction, tied = heads.of_student(folder.model(label)), ties_embeddings(load_whole_student(folder.model(label)))
    return Judged(label, after, facts, judge.fidelity(before), judge.fidelity(after), prediction, tied)


def _latencies(judged: Sequence[Judged], conditions: LatencyConditions, vocab_size: int) -> list[LatencyMeasurement]:
    """Time all models in turn, so that a drift of the machine hits all alike."""
    input_ids_BT, mask_BT = conditions.token_ids(vocab_size), conditions.mask().to(torch.int64)

    def forward(model: nn.Module) -> Callable[[], object]:
        model.to(conditions.device)
        return lambda: model(input_ids=input_ids_BT, attention_mask=mask_BT)

    with conditions.forward_passes():
        return measure_in_turn(
            [forward(one.model) for one in judged],
            warm_up=conditions.warm_up,
            repeats=conditions.repeats,
            threads=conditions.threads,
            device=conditions.device,
            compute_bound=True,
        )


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """All weights of a model, and those behind its embeddings."""
    total = sum(parameter.numel() for parameter in model.parameters())
    embeddings: Any = model.embeddings
    return total, total - sum(parameter.numel() for parameter in embeddings.parameters())


def _write_card(
    context: RunContext, one: Judged, folder: Path, latency_ms: float, teacher_ms: float, encoder_parameters: int
) -> None:
    shape = context.plan.shape
    share = encoder_parameters / shape.encoder_parameters
    settings = context.recipe.tables.latency
    threads = plural(settings.threads, "thread")
    shape_and_threads = f"batch {settings.batch_size} × {settings.sequence_length} tokens, {threads}"
    measured = {
        "encoder parameters": f"{encoder_parameters:,} ({share:.0%} of the teacher's)",
        "cosine similarity of sentence embeddings to the teacher's": f"{one.fidelity.cosine_similarity:.3f}",
        "relative error of token states": f"{one.fidelity.relative_mse:.3f}",
        f"latency, {shape_and_threads}": (
            f"{latency_ms:.1f} ms ({teacher_ms / latency_ms:.2f} × as fast as the teacher)"
        ),
        "distillation": f"{context.outputs['distillation']['steps']} steps",
    }
    if one.prediction is not None:
        found = f"{one.prediction.accuracy:.1%} right, perplexity {one.prediction.perplexity:.1f}"
        measured["masked tokens of held-out text"] = found
    facts = {
        "name": one.label,
        "teacher": context.recipe.teacher.source,
        "architecture": one.facts["architecture"],
        "measured": measured,
    }
    write_model_card(folder, facts)
