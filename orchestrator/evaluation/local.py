"""Searching in this process, without Ray: the twin of the Tune adapter, for tests, debugging and small spaces."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from orchestrator.evaluation.evaluator import EvaluatorFactory, score_at_fidelities
from orchestrator.evaluation.latency_meter import LatencyMeter, with_latencies
from orchestrator.evaluation.records import Origin, SearchProgress
from orchestrator.evaluation.search_loop import SearchLoop


def evaluate_locally(
    loop: SearchLoop,
    evaluator_factory: EvaluatorFactory,
    *,
    meter: LatencyMeter | None = None,
    progress: Callable[[SearchProgress], None] | None = None,
) -> None:
    """Run a search to its end, one batch after the other.

    A deterministic loop asks and scores the very same candidates here as under Ray Tune.

    Args:
        loop: the search.
        evaluator_factory: called once.
        meter: measures the candidates' latencies, where they are an objective.
        progress: called after every batch.
    """
    evaluator = evaluator_factory()
    origin = Origin(host=socket.gethostname(), pid=os.getpid())
    with loop.saving():
        while (batch := loop.next_batch()) is not None:
            candidates = [(proposal.architecture, proposal.fidelity) for proposal in batch.proposals]
            scores = score_at_fidelities(evaluator, candidates)
            if meter is not None:
                scores = with_latencies(meter, [architecture for architecture, _ in candidates], scores)
            numbers = [proposal.number for proposal in batch.proposals]
            loop.receive(batch.number, list(zip(numbers, scores, strict=True)), origin)
            loop.tick()
            if progress is not None:
                progress(loop.progress)
