"""What a finished run found: the answer of ``netsuke run``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

EQUAL_SIZE = 0.01
"""Models whose counts of weights differ by no larger share are of equal size."""


@dataclass(frozen=True)
class ModelSummary:
    """One finished model, or the teacher, as it was measured at the end.

    Attributes:
        label: of the model within the run.
        architecture: canonical text; empty for the teacher and for uniform baselines outside the space.
        arch_id: short hash of the architecture; empty where there is none.
        parameters: all weights, embeddings included.
        encoder_parameters: weights behind the embeddings.
        vocabulary_size: rows of the token embedding table.
        tied_embeddings: whether masked tokens are predicted by that table itself; ``None`` where there is no such head.
        size_bytes: size of the weights in float32.
        loss: as a subnet of the supernet (relative to the variance of the teacher's states).
        cosine_similarity: mean over held-out text of the sentence embeddings' similarity to the teacher's.
        relative_mse: squared error of token states / variance of the teacher's states, held-out text.
        masked_lm_loss: cross entropy of masked tokens of held-out text in nats; ``None`` where none are predicted.
        masked_lm_accuracy: share of these tokens that were predicted right.
        predicted_latency_ms: of one batch, by the latency table.
        measured_latency_ms: median of one batch, measured on the device.
        latency_spread_ms: distance between the quartiles of the measured latencies.
        speed_up: the teacher's measured latency divided by the model's.
        path: folder of the exported model; empty for the teacher.
        same_as: label of the model it is a copy of, because two budgets chose the same architecture; empty elsewhere.
    """

    label: str
    parameters: int
    encoder_parameters: int
    architecture: str = ""
    arch_id: str = ""
    vocabulary_size: int | None = None
    tied_embeddings: bool | None = None
    size_bytes: int | None = None
    loss: float | None = None
    cosine_similarity: float | None = None
    relative_mse: float | None = None
    masked_lm_loss: float | None = None
    masked_lm_accuracy: float | None = None
    predicted_latency_ms: float | None = None
    measured_latency_ms: float | None = None
    latency_spread_ms: float | None = None
    speed_up: float | None = None
    path: str = ""
    same_as: str = ""


@dataclass(frozen=True)
class BudgetSummary:
    """What a budget asked for and got.

    Attributes:
        name: of the budget.
        max_encoder_parameters: its limit on the weights behind the embeddings; ``None``: none.
        max_latency_ms: its limit on the predicted latency; ``None``: none.
        winner: the distilled student.
        uniform: the uniform baseline of equal size and training; ``None`` where the recipe asked for none.
        max_parameters: its limit on all weights, embeddings included; ``None``: none.
        max_flops: its limit on the operations of one sequence; ``None``: none.
        finalists: candidates that were tried before the winner was chosen; 0 where the lowest loss won.
        winners_place: the winner's place by the search's loss among all candidates within the budget, from 1.
        choose: who wins, as the recipe has it: ``loss``, or ``oneshot`` for what the one-shot training has come to.
    """

    name: str
    max_encoder_parameters: int | None
    max_latency_ms: float | None
    winner: ModelSummary
    uniform: ModelSummary | None = None
    max_parameters: int | None = None
    max_flops: int | None = None
    finalists: int = 0
    winners_place: int | None = None
    choose: str = "loss"


@dataclass(frozen=True)
class RunSummary:
    """What a run found.

    Attributes:
        recipe: name of the recipe.
        run_dir: the run folder.
        teacher: the network that was imitated.
        budgets: in the recipe's order.
        report: path of the report; empty where none was written.
        seconds: wall-clock time of this start of the run.
        rank_fidelity: for each proxy (a column of the table ``selections``) its ``tau``, ``tau_low``, ``tau_high``,
            ``tau_size``, ``tau_beyond_size``, ``spearman`` and on how much they rest; empty where nothing was compared.
        task_scores: ``model``, ``role``, ``budget``, ``task``, ``mean`` over seeds, ``spread`` and ``seeds`` of each
            model and task; empty where nothing was fine-tuned.
        glue: ``model``, and ``mean`` over seeds, ``spread`` and ``seeds`` of the mean over GLUE's nine columns (MNLI's
            two dev sets count as two, QQP and MRPC by F1), for models that have all nine.
        remarks: what the one-shot search, finalists, rank fidelity and tasks came to, in sentences.
    """

    recipe: str
    run_dir: str
    teacher: ModelSummary
    budgets: tuple[BudgetSummary, ...]
    report: str
    seconds: float
    rank_fidelity: tuple[dict[str, Any], ...] = ()
    task_scores: tuple[dict[str, Any], ...] = ()
    glue: tuple[dict[str, Any], ...] = ()
    remarks: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The summary as plain values for JSON."""
        return asdict(self)
