"""The tables of a synthetic run that tell of its supernet's blocks, of trials, and of tasks."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from orchestrator.rank_agreement import rank_agreement
from orchestrator.results import ResultsWriter

SUPERNET = "s1"
WIDTHS = (96, 192, 288, 384)
OPERATIONS = {"M": 4.0, "F": 8.0, "F2": 4.0, "S3": 1.05, "S5": 1.1, "S7": 1.15}
TASKS = {"sst2": ("accuracy", 0.86), "mrpc": ("f1", 0.84), "rte": ("accuracy", 0.61), "cola": ("matthews", 0.34)}


def write_block_losses(writer: ResultsWriter, rng: random.Random, each: int = 40) -> None:
    """Losses that fall with width more than with operations, as those of short trainings do."""
    for block in range(3):
        variance = 0.5 + 0.4 * block
        for width in WIDTHS:
            texts = set()
            while len(texts) < each:
                texts.add(f"{width}:{'-'.join(rng.choices(list(OPERATIONS), k=rng.randint(1, 4)))}")
            for text in sorted(texts):
                names = text.partition(":")[2].split("-")
                parameters = int(sum(OPERATIONS[name] * width**2 for name in names))
                relative = 0.04 + 16 / width * (0.9 + 0.1 * block) - 0.012 * len(names) + rng.gauss(0, 0.006)
                writer.append(
                    "block_losses",
                    supernet_signature=SUPERNET,
                    block=block,
                    arch_id=f"{block}{abs(hash(text)) % 10**11:011d}",
                    architecture=text,
                    hidden_size=width,
                    layers=len(names),
                    fidelity=4,
                    loss=max(0.01, relative) * variance,
                    variance=variance,
                    relative_loss=max(0.01, relative),
                    parameters=parameters,
                    flops=128 * parameters,
                    latency_ms=0.1 + parameters / 4e5,
                    alive=relative < 0.2,
                )


def write_signals(writer: ResultsWriter) -> None:
    for block in range(3):
        for place, width in enumerate(WIDTHS):
            signal = (0.9 + 1.6 * place) * (1.0 - 0.2 * block)
            writer.append(
                "signals",
                supernet_signature=SUPERNET,
                block=block,
                hidden_size=width,
                architectures=40,
                batches=4,
                spread=0.004 * (1 + place),
                noise=0.004 * (1 + place) / signal,
                signal=signal,
                kendall_tau=min(0.9, 0.2 * signal),
                explained_by_size=0.8 - 0.1 * block,
            )


def write_shrinking(writer: ResultsWriter) -> None:
    """Three blocks of five bins that end one after another."""
    for block in range(3):
        alive = {number: 900 // number**2 + 12 for number in range(1, 6)}
        for turn in range(1, 7):
            for number, before in alive.items():
                if before <= 10:
                    continue
                removed = min(before // 2, before - 10)
                alive[number] = before - removed
                best = 0.08 + 0.3 / (number + 1) / turn + 0.02 * block
                writer.append(
                    "shrinking",
                    round=turn,
                    block=block,
                    bin=number,
                    step=80 * turn,
                    live_before=before,
                    sampled=before,
                    removed=removed,
                    live_after=before - removed,
                    best_loss=best,
                    median_loss=best * 1.4,
                    worst_loss=best * 3,
                    rule="half_bin",
                    latency_rule="upper",
                )


def write_check(writer: ResultsWriter, rng: random.Random, setting: Mapping[str, Any]) -> None:
    """Networks that were timed whole to check the latency table, and its remainder."""
    fit = {"architectures": 24, "error_without": 0.21, "error_out_of_sample": 0.035}
    terms = [("network", 0.42, "ms a network", "what starting a forward pass costs")]
    terms += [("layer", 0.031, "ms an operation", "what each layer costs besides its operation")]
    for term, value, unit, meaning in terms:
        writer.append("latency_terms", term=term, value=value, unit=unit, meaning=meaning, **fit)
    for number in range(30):
        measured = 1.5 + 0.4 * number
        writer.append(
            "latency",
            kind="check",
            operation="check",
            arch_id=f"check{number:02d}",
            architecture=f"E384|192:M-F|384:{'-'.join(['S3'] * (1 + number % 4))}",
            median_ms=measured,
            spread_ms=0.03 * measured,
            repeats=20,
            predicted_ms=measured * rng.gauss(1.0, 0.03),
            additive_ms=0.8 * measured * rng.gauss(1.0, 0.05),
            **setting,
        )


def write_prices(writer: ResultsWriter, spearman: float) -> None:
    """A latency table of prices, as the stage records it, with the networks of its fit."""
    fit: dict[str, Any] = {"architectures": 200, "error_in_sample": 0.03, "error_out_of_sample": 0.04}
    fit |= {"median_error": 0.031, "r_squared": 0.987, "spearman": spearman, "kendall_tau": 0.9}
    setting = {"batch_size": 8, "sequence_length": 64, "device": "a far device", "threads": 1, "dtype": "float32"}
    for term, value in (("attention.component", 0.34), ("attention.stage", 0.33), ("network", 1.3)):
        writer.append("latency_terms", term=term, value=value, unit="ms each", meaning=f"of {term}", **fit, **setting)
    costs = [("head", 0.43, 0.76), ("mean of the LayerNorm behind attention", -0.34, None)]
    for name, beside, behind in costs:
        both = {"horizontal_ms": beside, "vertical_ms": behind, "unit": "ms", "meaning": name}
        writer.append("latency_terms", term=f"one more {name}", **both, **fit, **setting)
    for number in range(6):
        measured = 2.0 + number
        network = {"kind": "fit", "arch_id": f"fit{number}", "architecture": "H1/F1", "median_ms": measured}
        writer.append("latency", predicted_ms=1.01 * measured, repeats=8, **network, **setting)


def write_rank_fidelity(writer: ResultsWriter, rng: random.Random) -> None:
    """A proxy that sees hardly more than the size."""
    sizes = [int(300_000 * 1.35**place) for place in range(12)]
    errors = [0.6 * (300_000 / size) ** 0.35 * rng.uniform(0.8, 1.2) for size in sizes]
    guesses = [0.9 * (300_000 / size) ** 0.3 * rng.uniform(0.93, 1.07) for size in sizes]
    for place, (size, error, guess) in enumerate(zip(sizes, errors, guesses, strict=True)):
        writer.append(
            "selections",
            budget="rank_fidelity",
            rank=sorted(guesses).index(guess) + 1,
            chosen=False,
            arch_id=f"sample{place:02d}",
            architecture=f"E384|192:M-S3|{96 * (1 + place % 4)}:F-M",
            strategy="drawn for the rank fidelity",
            loss=guess,
            parameters=size + 10**7,
            encoder_parameters=size,
            latency_ms=2.0 + place,
            trial_steps=100,
            trial_relative_mse=error,
            trial_cosine_similarity=1 - error / 2,
            trial_measure="relative_mse",
            trial_rank=sorted(errors).index(error) + 1,
            block_loss_sum=guess * rng.uniform(0.95, 1.05),
            relative_block_loss_sum=guess * 2,
        )
    for proxy, values in (("loss", guesses), ("encoder_parameters", [-size for size in sizes])):
        found = rank_agreement(values, errors, sizes)
        writer.append(
            "selections",
            budget="rank_fidelity",
            proxy=proxy,
            architectures=found.architectures,
            tau=found.tau,
            tau_p_value=found.p_value,
            tau_low=found.low,
            tau_high=found.high,
            tau_size=found.tau_size,
            tau_beyond_size=found.beyond_size,
        )
    writer.append("selections", budget="rank_fidelity", proxy="block_loss_sum", spearman=0.83, networks=400)


def trial_columns(place: int, loss: float, rng: random.Random) -> dict[str, Any]:
    """A finalist's trial, whose order is not that of the losses."""
    error = loss * (1.5 if place == 1 else rng.uniform(0.8, 1.3))
    return {
        "trial_steps": 60,
        "trial_relative_mse": error,
        "trial_cosine_similarity": 1 - error / 3,
        "trial_measure": "relative_mse",
    }


def write_task_scores(writer: ResultsWriter, rng: random.Random) -> None:
    models = [("teacher", "teacher", None, 0.03), ("half-winner", "winner", "half", 0.0)]
    models += [("half-uniform", "uniform", "half", -0.02), ("quarter-winner", "winner", "quarter", -0.04)]
    models += [("quarter-uniform", "uniform", "quarter", -0.05)]
    for label, role, budget, skill in models:
        for task, (metric, level) in TASKS.items():
            for seed in (1, 2, 3):
                common = {"model": label, "role": role, "budget": budget, "task": task, "split": "validation"}
                common |= {"seed": seed, "signature": f"{label}-{task}", "examples": 3_000, "dev_examples": 400}
                value = level + skill + rng.gauss(0, 0.01)
                writer.append("task_scores", metric=metric, value=value, headline=True, **common)
                writer.append("task_scores", metric="loss", value=0.5, headline=False, **common)
