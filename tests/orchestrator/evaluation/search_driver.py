"""A search in a process of its own, to be killed: ``python -m tests.orchestrator.evaluation.search_driver FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from cluster.connect import connect
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.tune import TuneEvaluation
from tests.orchestrator.evaluation.toy_evaluation import RowFile, ToyEvaluatorFactory, key, make_loop, score_of

BUDGET = 60


def search(folder: Path) -> None:
    """Begin the search of ``folder``, or go on with it, on the Ray that is connected."""
    rows = RowFile(folder / "rows.jsonl")
    loop: SearchLoop = make_loop(rows.append, budget=BUDGET, batch_size=2, window=4, state_file=folder / "state.json")
    loop.preload({key(saved): score_of(saved) for saved in rows.rows()}, recorded=True)
    loop.resume()
    TuneEvaluation(ToyEvaluatorFactory(seconds=0.3, log=folder / "scored.jsonl")).run(loop)


if __name__ == "__main__":
    with connect("local", num_cpus=2, num_gpus=0, object_store_bytes=128 * 1024**2):
        search(Path(sys.argv[1]))
