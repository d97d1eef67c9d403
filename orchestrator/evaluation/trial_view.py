"""What a trial of a search shows to those who look at the experiment: few numbers in place of its lists of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.evaluation.evaluator import Score
from orchestrator.evaluation.records import Proposal
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.formatting import plural

Metrics = dict[str, float | int | str]


@dataclass(frozen=True)
class CarriedCandidates:
    """The candidates of a trial, as they travel in its configuration.

    No plain text or list: dashboards take those for hyperparameters, and a trial may carry hundreds of architectures
    (MLflow cuts a parameter off at 6,000 characters). They show this by its number.

    Attributes:
        candidates: fidelity and canonical text of each.
    """

    candidates: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, proposals: Sequence[Proposal]) -> CarriedCandidates:
        """What evaluating ``proposals`` takes."""
        return cls(tuple((one.fidelity, str(one.architecture)) for one in proposals))

    def __str__(self) -> str:
        return plural(len(self.candidates), "candidate")

    def __repr__(self) -> str:
        return f"<{self}>"


def trial_metrics(loop: SearchLoop, proposals: Sequence[Proposal], scores: Sequence[Score]) -> Metrics:
    """What a finished trial is shown by, in a ``ray.tune.ResultGrid`` and on dashboards.

    Args:
        loop: the search, which has not received the scores yet.
        proposals: the trial's candidates.
        scores: theirs, in order.

    Returns:
        ``candidates`` and ``failed`` of the trial; ``evaluated`` and ``candidates_per_second`` of the search so far
        (``timesteps_total`` repeats ``evaluated``: dashboards draw over it); where one of the trial's candidates has a
        loss at the search's own fidelity, the lowest such ``loss`` with the ``architecture`` and each cheap objective
        behind it; and ``best_loss``, the lowest of the search so far, once there is one. Losses are those that
        candidates are ranked by.
    """
    progress = loop.progress
    evaluated = progress.evaluated + len(scores)
    metrics: Metrics = {
        "candidates": len(scores),
        "failed": sum(score.status == "failed" for score in scores),
        "evaluated": evaluated,
        "timesteps_total": evaluated,
        "candidates_per_second": progress.candidates_per_second,
    }
    losses = [
        (score.judged, place)
        for place, (proposal, score) in enumerate(zip(proposals, scores, strict=True))
        if score.judged is not None and proposal.fidelity >= loop.fidelity
    ]
    if losses:
        loss, place = min(losses)
        best = proposals[place].architecture
        metrics |= {"loss": loss, "architecture": str(best), **loop.cheap.values(best)}
    known = [loss for loss in (progress.best_loss, metrics.get("loss")) if isinstance(loss, float)]
    return metrics | ({"best_loss": min(known)} if known else {})
