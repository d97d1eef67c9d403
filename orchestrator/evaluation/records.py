"""What travels between a search and those who score: proposals, batches, records, progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.evaluation.evaluator import Score, Status
from spaces.architecture import Architecture


@dataclass(frozen=True)
class Origin:
    """Who scored a candidate.

    Attributes:
        trial_id: the Ray Tune trial that carried it; empty outside Tune.
        host: machine of the evaluating process.
        pid: its process id; ``None`` for a score that was known already.
    """

    trial_id: str = ""
    host: str = ""
    pid: int | None = None


@dataclass(frozen=True)
class Proposal:
    """A candidate that is to be scored.

    Attributes:
        number: running number within the strategy, from 0.
        architecture: the candidate.
        fidelity: how thoroughly to score it (validation batches).
    """

    number: int
    architecture: Architecture
    fidelity: int = 1

    @property
    def key(self) -> tuple[str, int]:
        """What a supernet scores at most once: the architecture's id, and the fidelity."""
        return self.architecture.arch_id, self.fidelity


@dataclass(frozen=True)
class Batch:
    """Candidates that travel together to be scored.

    Attributes:
        number: running number of the batch, from 0.
        proposals: those whose score is not known yet, at least one.
    """

    number: int
    proposals: tuple[Proposal, ...]


@dataclass(frozen=True)
class SearchRecord:
    """One evaluated candidate, as it goes into the results.

    Attributes:
        proposal: the candidate, its number and its fidelity.
        score: what the evaluator gave.
        cheap: every cheap objective by name, also of a failed candidate.
        origin: who scored it.
        known: the score came from the cache (for example from another strategy's search), not from an evaluation.
    """

    proposal: Proposal
    score: Score
    cheap: Mapping[str, float]
    origin: Origin
    known: bool = False

    @property
    def architecture(self) -> Architecture:
        """The candidate."""
        return self.proposal.architecture

    @property
    def status(self) -> Status:
        """``ok``, or ``failed``."""
        return self.score.status


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is.

    Attributes:
        evaluated: candidates with a score, failed ones included.
        budget: how many there shall be.
        failed: how many of ``evaluated`` failed.
        candidates_per_second: evaluated per second since this process began or resumed the search.
        best_loss: the lowest loss seen by this process; ``None`` if there is none yet.
    """

    evaluated: int
    budget: int
    failed: int
    candidates_per_second: float
    best_loss: float | None
