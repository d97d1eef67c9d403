"""The contract between a search and what scores its candidates. Nothing here knows Ray."""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal, Protocol, runtime_checkable

from spaces.architecture import Architecture

Status = Literal["ok", "failed"]
RankBy = Literal["hidden_states", "masked_lm"]
"""What whole networks are ranked by: the error of their last hidden states, or their loss at predicting hidden tokens
through the teacher's masked-LM head. NAS-BERT leaves it open which of them decides (section 3.3, last step)."""


@dataclass(frozen=True)
class Score:
    """What evaluating one candidate gave.

    Attributes:
        status: ``ok``, or ``failed``.
        loss: the validation loss; ``None`` if the evaluation failed.
        seconds: time the evaluation took.
        error: why it failed, in one line; empty if it did not.
        masked_lm_loss: cross entropy of hidden tokens in nats; ``None`` where it is not measured.
        measured_latency_ms: median time of the network's forward pass on the device; ``None`` where it is not measured.
        measured_latency_spread_ms: distance between the quartiles of that time.
    """

    status: Status
    loss: float | None
    seconds: float
    error: str = ""
    masked_lm_loss: float | None = None
    measured_latency_ms: float | None = None
    measured_latency_spread_ms: float | None = None

    @property
    def judged(self) -> float | None:
        """What the candidate is ranked by: its masked-LM loss where that is measured, its loss elsewhere."""
        return self.loss if self.masked_lm_loss is None else self.masked_lm_loss

    @classmethod
    def failed(cls, error: str, seconds: float = 0.0) -> Score:
        """A failure with its reason (line breaks are folded)."""
        return cls("failed", None, seconds, " ".join(error.split()))


@dataclass(frozen=True)
class Measurement:
    """What a strategy is told about an architecture.

    Attributes:
        architecture: the candidate.
        objectives: value by objective name, cheap and expensive ones; ``None`` if the evaluation failed.
        status: ``ok``, or ``failed``.
    """

    architecture: Architecture
    objectives: Mapping[str, float] | None
    status: Status = "ok"


class CandidateEvaluator(Protocol):
    """Scores candidates; lives in one process and keeps what it needs (supernet, validation batches) in memory."""

    def score(self, architectures: Sequence[Any], fidelity: int) -> list[Score]:
        """Score candidates.

        Args:
            architectures: members of the space the evaluator was made for.
            fidelity: how thorough to be (validation batches, or a share of a training).

        Returns:
            One score for each architecture, in order. A bad candidate gives a failed score; it raises nothing.
        """
        ...


class EvaluatorFactory(Protocol):
    """Makes an evaluator; picklable, called once in each process that evaluates, loads what it needs from paths."""

    def __call__(self) -> CandidateEvaluator:
        """Build the evaluator of this process."""
        ...


@runtime_checkable
class SharingEvaluatorFactory(Protocol):
    """A factory whose evaluators have much in common, which then is loaded once for all of them.

    Calling it does the same as ``make(load())``.
    """

    def __call__(self) -> CandidateEvaluator:
        """Build the evaluator of this process, everything loaded here."""
        ...

    def load(self) -> Any:
        """What the evaluators have in common; picklable, with tensors on the CPU and without gradients."""
        ...

    def make(self, material: Any) -> CandidateEvaluator:
        """Build the evaluator of this process.

        Args:
            material: what :meth:`load` returned, in this process or another; its memory may be shared and read-only.
        """
        ...


def score_safely(evaluator: CandidateEvaluator, architectures: Sequence[Any], fidelity: int) -> list[Score]:
    """Score candidates and turn whatever goes wrong into failed scores.

    Should the evaluator raise nevertheless (for want of memory, say), the candidates are scored one by one, so that
    only the guilty fail. A loss that is not finite is a failure, too.

    Args:
        evaluator: the evaluator of this process.
        architectures: the candidates.
        fidelity: handed to the evaluator.

    Returns:
        One score for each architecture, in order; losses are plain Python floats.
    """
    started = perf_counter()
    try:
        scores = evaluator.score(architectures, fidelity)
        if len(scores) != len(architectures):
            raise ValueError(f"the evaluator gave {len(scores)} scores for {len(architectures)} candidates")
        return [_checked(score) for score in scores]
    except Exception as error:
        failure = f"{type(error).__name__}: {error}".rstrip(": ")
    # Not until here: as long as the error lives, so do the tensors of the calls that raised it.
    _release_memory()
    if len(architectures) == 1:
        return [Score.failed(failure, perf_counter() - started)]
    return [score for architecture in architectures for score in score_safely(evaluator, [architecture], fidelity)]


def score_at_fidelities(evaluator: CandidateEvaluator, candidates: Sequence[tuple[Any, int]]) -> list[Score]:
    """Score candidates, each at its own fidelity, those of one fidelity together; otherwise :func:`score_safely`.

    Args:
        evaluator: the evaluator of this process.
        candidates: pairs of an architecture and its fidelity.

    Returns:
        One score for each candidate, in order.
    """
    scores: dict[int, Score] = {}
    for fidelity in dict.fromkeys(fidelity for _, fidelity in candidates):
        places = [place for place, candidate in enumerate(candidates) if candidate[1] == fidelity]
        found = score_safely(evaluator, [candidates[place][0] for place in places], fidelity)
        scores.update(zip(places, found, strict=True))
    return [scores[place] for place in range(len(candidates))]


def _release_memory() -> None:
    """Give what failed forward passes have left on a GPU back, so that the next candidate has room."""
    import torch

    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def _checked(score: Score) -> Score:
    """The score with a plain float, or a failed one where the loss is missing or not finite."""
    if score.status != "ok":
        return replace(score, loss=None, masked_lm_loss=None)
    if score.loss is None or not math.isfinite(float(score.loss)):
        return Score.failed(f"the loss is {score.loss}", float(score.seconds))
    masked = score.masked_lm_loss
    if masked is not None and not math.isfinite(float(masked)):
        return Score.failed(f"the masked-LM loss is {masked} (was any token hidden?)", float(score.seconds))
    masked = None if masked is None else float(masked)
    return replace(score, loss=float(score.loss), seconds=float(score.seconds), masked_lm_loss=masked)
