"""A made-up one-shot search over components: a run folder as far as the report reads it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from orchestrator.phases import FOUND, SUPERNET
from orchestrator.results import ResultsWriter
from orchestrator.run_directory import RunDirectory, StageRecord
from tests.spaces.components.microscopic import TEXT, make_space
from tests.spaces.microscopic import SHAPE

STEPS, EVERY = 100, 10
WINNER = "H1-2.Q1-2.M/F1-8.M|0|H1-4.Q1-2.M|F1-4.M"
SETTLED = ([0.95, 0.95, 0.9, 0.7, 0.6, 0.595, 0.59], [0.5, 0.5, 0.6, 0.7, 0.5, 0.3, 0.2])
"""Expected costs and entropies (of all, in shares of the open decisions) until the architecture is frozen."""
CUT_SHORT = ([0.95, 0.95, 0.94, 0.9, 0.85, 0.79, 0.7], [0.5, 0.5, 0.6, 0.7, 0.8, 0.8, 0.75])


def recipe(**changes: Any) -> dict[str, Any]:
    return {
        "name": "made-up",
        "space": {"name": "components", "options": {}},
        "corpus": {"sequence_length": 16},
        "supernet": {
            "steps": STEPS,
            "oneshot": {"cost": "flops", "warm_up_share": 0.2, "search_share": 0.5},
        },
        "budgets": [{"name": "most", "choose": "oneshot"}, {"name": "half", "encoder_parameters": "50%"}],
        **changes,
    }


def write_one_shot_run(
    folder: Path,
    found: str = TEXT,
    course: tuple[Sequence[float], Sequence[float]] = SETTLED,
    winners: Mapping[str, str] | None = None,
    **changes: Any,
) -> Path:
    """Fill ``folder`` with a run whose supernet is trained and whose search is done.

    Args:
        folder: to be made.
        found: what the one-shot training came to; "": it has not ended.
        course: expected costs and entropies of the rows until the freeze.
        winners: the text of each budget's; what was found and :data:`WINNER` if none are given.
        changes: of whole sections of the recipe.
    """
    (folder / "teacher").mkdir(parents=True)
    (folder / "teacher" / "config.json").write_text(json.dumps(_configuration()))
    save_file({}, folder / "teacher" / "model.safetensors")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(**changes)))
    if found:
        RunDirectory(folder).write_stage_record(SUPERNET, StageRecord("s", "", 1.0, {FOUND: found}))
    with ResultsWriter(folder / "results", "made-up-1") as writer:
        _write_training(writer, found, course)
        for budget, text in (winners or {"most": found or WINNER, "half": WINNER}).items():
            _write_choice(writer, budget, text)
    return folder


def _configuration() -> dict[str, Any]:
    sizes = dataclasses.asdict(SHAPE)
    names = {
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "max_positions": "max_position_embeddings",
        "activation": "hidden_act",
    }
    return {"model_type": "bert", **{names.get(name, name): size for name, size in sizes.items()}}


def _write_training(writer: ResultsWriter, found: str, course: tuple[Sequence[float], Sequence[float]]) -> None:
    decisions = len(make_space().encode(make_space().largest()))
    for place, (cost, openness) in enumerate(zip(*course, strict=True), start=1):
        weight = 0.0 if place <= 2 else 1.0
        entropy = math.log(2) * decisions * openness
        _write_row(writer, place, expected_cost=cost, cost_weight=weight, entropy=entropy)
    if found:
        for place in range(len(course[0]) + 1, STEPS // EVERY + 1):
            _write_row(writer, place, expected_cost=0.5, cost_weight=0.0, entropy=entropy, arch_id="frozen")


def _write_row(writer: ResultsWriter, place: int, **columns: object) -> None:
    error = 0.5 / place
    writer.append(
        "training", stage=SUPERNET, subject=SUPERNET, step=EVERY * place, loss=error, relative_mse=error, **columns
    )


def _write_choice(writer: ResultsWriter, budget: str, text: str) -> None:
    space = make_space()
    architecture = space.parse(text)
    cost = space.cost(architecture, 16)
    row = {
        "arch_id": architecture.arch_id,
        "architecture": text,
        "strategy": "sampling_distribution",
        "loss": 0.4,
        "parameters": cost.parameters,
        "encoder_parameters": cost.encoder_parameters,
        "latency_ms": 2.5 if budget == "half" else None,
    }
    scored = {"scope": "network", "status": "ok", "supernet_signature": "s", "fidelity": 1, "flops": cost.flops}
    writer.append("evaluations", **row, **scored)
    writer.append("selections", **row, budget=budget, rank=1, chosen=True)
