"""From the tables of a finished run to its summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from orchestrator.limits import limits_of
from orchestrator.report.data import load, records
from orchestrator.report.oneshot_sections import one_shot_sentences
from orchestrator.report.ranking_sections import finalist_sentences, rank_sentences
from orchestrator.report.task_sections import glue_means, scores, task_sentences
from orchestrator.results import open_results
from orchestrator.stages.base import RunPlan
from orchestrator.summary import BudgetSummary, ModelSummary, RunSummary


def summarise(plan: RunPlan, seconds: float) -> RunSummary:
    """Read what the run found from its tables.

    Args:
        plan: of the run.
        seconds: wall-clock time of this start of the run.
    """
    results = open_results(plan.folder.results)
    models = {row["model"]: row for row in results.table("models").to_pylist()}
    selections = results.table("selections").to_pylist()
    chosen = {row["budget"]: row for row in selections if row["chosen"]}
    tried = Counter(row["budget"] for row in selections if row["trial_rank"] is not None)
    budgets = []
    for budget in plan.recipe.budgets:
        limits = {name: int(limit) for name, limit in limits_of(budget, plan.shape).items() if name != "latency_ms"}
        uniform = models.get(f"{budget.name}-uniform") if plan.recipe.distillation.uniform_baseline else None
        winner = chosen.get(budget.name, {})
        budgets.append(
            BudgetSummary(
                name=budget.name,
                max_encoder_parameters=limits.get("encoder_parameters"),
                max_latency_ms=budget.latency_ms,
                winner=_model(plan, models[budget.name], winner.get("loss")),
                uniform=None if uniform is None else _model(plan, uniform, None),
                max_parameters=limits.get("parameters"),
                max_flops=limits.get("flops"),
                finalists=tried[budget.name],
                winners_place=winner.get("rank"),
                choose=budget.choose,
            )
        )
    data = load(plan.folder.path)
    scored = scores(data)
    remarks = [*one_shot_sentences(data), *finalist_sentences(data), *rank_sentences(data.agreements)]
    remarks += task_sentences(data, scored)
    return RunSummary(
        recipe=plan.recipe.name,
        run_dir=str(plan.folder.path),
        teacher=_model(plan, models["teacher"], None),
        budgets=tuple(budgets),
        report=str(plan.folder.report),
        seconds=seconds,
        rank_fidelity=tuple(_plain(row, _AGREEMENT) for row in records(data.agreements)),
        task_scores=tuple(_plain(row, scored.columns) for row in records(scored)),
        glue=tuple({"model": model, **asdict(mean)} for model, mean in glue_means(data).items()),
        remarks=tuple(remarks),
    )


_AGREEMENT = (
    "proxy",
    "architectures",
    "tau",
    "tau_p_value",
    "tau_low",
    "tau_high",
    "tau_size",
    "tau_beyond_size",
    "spearman",
    "networks",
)


def _plain(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Some columns of a row as JSON knows them: no NaN, no NumPy."""
    return {name: None if pd.isna(row[name]) else row[name] for name in names}


def _model(plan: RunPlan, row: dict[str, Any], loss: float | None) -> ModelSummary:
    return ModelSummary(
        label=row["model"],
        architecture=row["architecture"] or "",
        arch_id=row["arch_id"] or "",
        parameters=row["parameters"],
        encoder_parameters=row["encoder_parameters"],
        vocabulary_size=row["vocabulary_size"],
        tied_embeddings=row["tied_embeddings"],
        size_bytes=row["size_bytes"],
        loss=loss,
        cosine_similarity=row["cosine_similarity"],
        relative_mse=row["relative_mse"],
        masked_lm_loss=None if pd.isna(row["masked_lm_loss"]) else row["masked_lm_loss"],
        masked_lm_accuracy=None if pd.isna(row["masked_lm_accuracy"]) else row["masked_lm_accuracy"],
        predicted_latency_ms=row["predicted_latency_ms"],
        measured_latency_ms=row["measured_latency_ms"],
        latency_spread_ms=row["latency_spread_ms"],
        speed_up=row["speed_up"],
        path=str(plan.folder.path / row["path"]) if row["path"] else "",
        same_as=row["same_as"] or "",
    )
