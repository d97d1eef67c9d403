"""A microscopic run of EfficientBERT's space, in the paper's three phases or in one search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from tests.orchestrator.pipeline.microscopic_run import RECIPE
from tests.orchestrator.pipeline.runs import Run
from tests.orchestrator.pipeline.task_words import write_pairs, write_words

OPTIONS: dict[str, Any] = {
    "hidden_size": 24,
    "layers": 2,
    "heads": 2,
    "embedding_size": 8,
    "stacked": [1, 2],
    "divisors": [1, 2],
    "max_nodes": 7,
    "dropout": 0.0,
}
TRAINING: dict[str, Any] = {"steps": 4, "batch_size": 8, "precision": "float32", "learning_rate": 0.001}
SUPERNET: dict[str, Any] = {
    "steps": 8,
    "batch_size": 8,
    "checkpoint_every": 4,
    "report_every": 4,
    "precision": "float32",
    "scaling": {"cpus_per_worker": 1},
}
HALVING: dict[str, Any] = {"name": "successive_halving", "evaluations": 10, "options": {"bracket": 4, "eta": 2}}
LANAS: dict[str, Any] = {"name": "lanas", "evaluations": 24, "options": {"initial": 4, "relearn": 4}}
PHASES: list[dict[str, Any]] = [
    {
        "name": "both",
        "score": "training",
        "strategies": [HALVING],
        "training": TRAINING | {"fidelities": 2},
    },
    {
        "name": "expressions",
        "keep": ["sizes"],
        "score": "training",
        "strategies": [LANAS],
        "training": TRAINING,
    },
    {
        "name": "sizes",
        "keep": ["expressions"],
        "strategies": [
            {"name": "regularised_evolution", "evaluations": 60, "options": {"population": 4, "sample_size": 2}}
        ],
        "supernet": SUPERNET,
        "stop": 8,
    },
]

ROWS = 80
"""Of each task's training split."""
TASK_TUNING: dict[str, Any] = {
    "tasks": ["sst2", "stsb"],
    "judged_by": "stsb",
    "steps": 12,
    "batch_size": 8,
    "learning_rate": 0.005,
    "checkpoint_every": 6,
    "report_every": 6,
    "precision": "float32",
    "training_share": 0.75,
    "held_out_share": 0.25,
    "scaling": {"cpus_per_worker": 1},
}
TUNED_PHASES: list[dict[str, Any]] = [*PHASES[:2], PHASES[2] | {"supernet": SUPERNET | {"tuning": TASK_TUNING}}]
"""The third phase as the paper has it: its supernet is tuned on tasks, one of which scores candidates. Here it is the
one of numbers, whose correlations tell even candidates apart that have hardly learnt anything."""
FINETUNING: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 16,
    "learning_rate": 0.005,
    "max_length": 16,
    "pooling": "mean",
    "dropout": 0.0,
    "precision": "float32",
    "distillation_weight": 1.0,
    "imitation": "soft_cross_entropy",
    "imitation_numbers": "labels",
    "layer_weight": 1.0,
    "actors": 1,
}
"""How teachers are tuned and imitated; no task has the finished models tuned."""

EFFICIENT_BERT: dict[str, Any] = RECIPE | {
    "name": "efficient",
    "space": {"name": "efficient_bert", "options": OPTIONS},
    "supernet": SUPERNET,
    "search": {
        "strategies": [{"name": "random", "evaluations": 12}],
        "objectives": ["loss", "encoder_parameters"],
        "validation_batches": 1,
        "batch_size": 8,
        "actors": 1,
        "candidates_per_trial": 2,
    },
    "budgets": [RECIPE["budgets"][0]],
    "distillation": RECIPE["distillation"] | {"objective": "layer_states", "steps": 4},
}
"""One search, scored by the supernet; with ``phases: PHASES`` three."""


def in_tuned_phases(data: Path) -> dict[str, Any]:
    """The recipe of a run in the paper's three phases, with the data of both tasks written to a folder."""
    write_pairs(write_words(data, ROWS), ROWS)
    return EFFICIENT_BERT | {"phases": TUNED_PHASES, "finetuning": FINETUNING | {"data": str(data)}}


def networks(run: Run, phase: str) -> pd.DataFrame:
    """What a phase had scored so far."""
    if not (run.folder / "results" / "evaluations").is_dir():
        return pd.DataFrame()
    rows = run.table("evaluations")
    return rows[rows["phase"] == phase]


def winners_of(run: Run) -> dict[str, str]:
    """What each phase handed over, by the name of its stage."""
    stages = [f"search.{phase['name']}" for phase in PHASES]
    records = {name: json.loads((run.folder / "stages" / f"{name}.json").read_text()) for name in stages}
    return {name: record["outputs"]["winner"] for name, record in records.items()}
