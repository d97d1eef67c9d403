"""A search in a process of its own, to be killed: ``python -m ...evaluation.search_driver FOLDER STRATEGY MOMENT``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Literal

from cluster.connect import connect
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.tune import TuneEvaluation
from tests.orchestrator.evaluation.toy_evaluation import RowFile, ToyEvaluatorFactory, key, make_loop, score_of

BUDGET = 60
DIES_WITH_ROWS = 20

Moment = Literal["any", "before_state"]
"""When the search kills its own process: never, with ``any`` somebody else does it at any moment; with ``before_state``
once there are twenty rows, between their being durable and the state that belongs to them."""


def search(folder: Path, strategy: str, moment: Moment = "any") -> None:
    """Begin the search of ``folder``, or go on with it, on the Ray that is connected."""
    rows = RowFile(folder / "rows.jsonl")

    def die() -> None:
        if moment == "before_state" and len(rows.rows()) >= DIES_WITH_ROWS:
            os.kill(os.getpid(), signal.SIGKILL)

    loop: SearchLoop = make_loop(
        rows.append,
        strategy=strategy,
        budget=BUDGET,
        batch_size=2,
        window=4,
        state_file=folder / "state.json",
        before_save=die,
    )
    loop.preload({key(saved): score_of(saved) for saved in rows.rows()}, recorded=True)
    loop.resume()
    TuneEvaluation(ToyEvaluatorFactory(seconds=0.15, log=folder / "scored.jsonl")).run(loop)


if __name__ == "__main__":
    with connect("local", num_cpus=2, num_gpus=0, object_store_bytes=128 * 1024**2):
        search(Path(sys.argv[1]), sys.argv[2], sys.argv[3])  # type: ignore[arg-type]
