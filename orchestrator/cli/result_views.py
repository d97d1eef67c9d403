"""How tables of many columns are printed for people: the columns that matter together, one kind of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class View:
    """Some rows of a table, and which of their columns are shown.

    Attributes:
        title: what the rows are.
        matches: whether a row is one of them.
        columns: in the order in which they are shown.
    """

    title: str
    matches: Callable[[Row], bool]
    columns: tuple[str, ...]


def _is_proxy(row: Row) -> bool:
    return bool(row["proxy"])


def _is_sample(row: Row) -> bool:
    return row["budget"] == "rank_fidelity" and not _is_proxy(row)


def _is_candidate(row: Row) -> bool:
    return not _is_sample(row) and not _is_proxy(row)


VIEWS: dict[str, tuple[View, ...]] = {
    "selections": (
        View(
            "candidates",
            _is_candidate,
            (
                "budget",
                "rank",
                "chosen",
                "architecture",
                "loss",
                "encoder_parameters",
                "latency_ms",
                "trial_relative_mse",
                "trial_masked_lm_loss",
                "trial_rank",
            ),
        ),
        View(
            "rank fidelity, the sample",
            _is_sample,
            (
                "rank",
                "architecture",
                "encoder_parameters",
                "loss",
                "block_loss_sum",
                "trial_relative_mse",
                "trial_masked_lm_loss",
                "trial_rank",
            ),
        ),
        View(
            "rank fidelity, the proxies",
            _is_proxy,
            (
                "proxy",
                "architectures",
                "tau",
                "tau_low",
                "tau_high",
                "tau_p_value",
                "tau_size",
                "tau_beyond_size",
                "spearman",
                "networks",
            ),
        ),
    ),
    "models": (
        View(
            "what they are",
            lambda row: True,
            ("model", "role", "same_as", "architecture", "initialisation", "path"),
        ),
        View(
            "how large they are",
            lambda row: True,
            ("model", "parameters", "encoder_parameters", "vocabulary_size", "tied_embeddings", "matched_on"),
        ),
        View(
            "what was measured of them",
            lambda row: True,
            (
                "model",
                "cosine_similarity",
                "relative_mse",
                "masked_lm_loss",
                "masked_lm_accuracy",
                "predicted_latency_ms",
                "measured_latency_ms",
                "speed_up",
                "distillation_steps",
            ),
        ),
    ),
    "sweeps": (
        View(
            "the searches",
            lambda row: True,
            (
                "space",
                "budget",
                "strategy",
                "seed",
                "evaluations",
                "failed",
                "reused",
                "best_loss",
                "front",
                "hypervolume",
                "seconds",
                "evaluation_seconds",
            ),
        ),
        View("their best", lambda row: True, ("member", "best_loss", "best_arch_id", "best_architecture")),
    ),
}
"""The views of each table that has some; other tables are printed with all their columns that are not empty."""

LEFT_OUT: dict[str, frozenset[str]] = {
    "block_losses": frozenset({"supernet_signature", "arch_id"}),
    "evaluations": frozenset(
        {"arch_id", "genes", "scope", "trial_id", "supernet_signature", "flops", "parameters", "seconds", "host", "pid"}
    ),
    "signals": frozenset({"supernet_signature"}),
    "shrinking": frozenset({"worst_loss", "live_total", "seconds"}),
}
"""Columns that are not printed of tables without views, so that a row fits on a line."""
