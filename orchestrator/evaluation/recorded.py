"""Evaluated networks in the results: the row of one, and what a search finds there before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.evaluation.evaluator import RankBy, Score
from orchestrator.evaluation.records import SearchRecord
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.results import open_results
from orchestrator.results.storage import Place
from spaces.space import SearchSpace

_MEASURED = ("loss", "masked_lm_loss", "measured_latency_ms", "measured_latency_spread_ms")
_SCORE_COLUMNS = (
    "arch_id",
    "scope",
    "strategy",
    "member",
    "phase",
    "status",
    "supernet_signature",
    "fidelity",
    *_MEASURED,
    "seconds",
    "error",
)


def evaluation_row(
    found: SearchRecord,
    space: SearchSpace[Any],
    strategy: str,
    supernet_signature: str,
    member: str | None = None,
    phase: str | None = None,
) -> dict[str, Any]:
    """The row of the table ``evaluations`` about one candidate.

    Args:
        found: the candidate and its score.
        space: of the candidate.
        strategy: that proposed it.
        supernet_signature: which supernet scored it.
        member: of a sweep, whose search it was; ``None`` elsewhere.
        phase: of the search; ``None`` where it has none.
    """
    return {
        "arch_id": found.architecture.arch_id,
        "architecture": str(found.architecture),
        "genes": space.genes(found.architecture),
        "scope": "network",
        "strategy": strategy,
        "proposal": found.proposal.number,
        "trial_id": found.origin.trial_id,
        "status": found.status,
        "supernet_signature": supernet_signature,
        "fidelity": found.proposal.fidelity,
        "loss": found.score.loss,
        "masked_lm_loss": found.score.masked_lm_loss,
        "parameters": int(found.cheap["parameters"]),
        "encoder_parameters": int(found.cheap["encoder_parameters"]),
        "flops": int(found.cheap["flops"]),
        "latency_ms": found.cheap.get("latency_ms"),
        "measured_latency_ms": found.score.measured_latency_ms,
        "measured_latency_spread_ms": found.score.measured_latency_spread_ms,
        "seconds": found.score.seconds,
        "host": found.origin.host,
        "pid": found.origin.pid,
        "error": found.score.error,
        "member": member,
        "phase": phase,
    }


def preload_recorded(
    loop: SearchLoop,
    results: Place,
    strategy: str,
    supernet_signature: str,
    rank_by: RankBy = "hidden_states",
    member: str | None = None,
    phase: str | None = None,
) -> None:
    """Give a search the scores that are recorded already: its strategy's own, and those of others.

    Args:
        loop: the search, before it begins or resumes.
        results: folder of the run's tables; what is recorded must be flushed.
        strategy: whose rows need no other record, those of ``member`` and ``phase`` alone.
        supernet_signature: which supernet's scores count.
        rank_by: with ``masked_lm``, scores without a masked-LM loss do not count.
        member: of a sweep, whose search it is; ``None`` elsewhere.
        phase: of the search; ``None`` where it has none.
    """
    wanted = {"scope": "network", "supernet_signature": supernet_signature}
    rows = open_results(results).table("evaluations", _SCORE_COLUMNS).to_pylist()
    recorded = [row for row in rows if wanted.items() <= row.items()]
    if rank_by == "masked_lm":
        recorded = [row for row in recorded if row["status"] != "ok" or row["masked_lm_loss"] is not None]
    if loop.measures_latency:
        recorded = [row for row in recorded if row["status"] != "ok" or row["measured_latency_ms"] is not None]
    for own in (True, False):
        search = (strategy, member, phase)
        rows = [row for row in recorded if ((row["strategy"], row["member"], row["phase"]) == search) == own]
        loop.preload({(row["arch_id"], row["fidelity"]): _score(row, rank_by) for row in rows}, recorded=own)


def _score(row: Mapping[str, Any], rank_by: RankBy) -> Score:
    seconds = float(row["seconds"])
    if row["status"] != "ok":
        return Score.failed(str(row["error"]), seconds)
    masked_lm_loss = float(row["masked_lm_loss"]) if rank_by == "masked_lm" else None
    latency, spread = row["measured_latency_ms"], row["measured_latency_spread_ms"]
    return Score("ok", float(row["loss"]), seconds, "", masked_lm_loss, latency, spread)
