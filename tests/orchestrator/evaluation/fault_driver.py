"""Searches on a Ray of their own that lose a node or run out of memory: ``fault_driver node|memory FOLDER``.

They are processes of their own because a process knows one Ray at a time, and the tests share another one.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import ray
from ray._private.utils import get_system_memory, get_used_memory

from cluster.connect import connect
from cluster.environment import LOCAL_ENVIRONMENT, variables
from cluster.ray_internals import loopback_only
from orchestrator.evaluation.search_loop import SearchRecord
from orchestrator.evaluation.tune import TuneEvaluation
from tests.orchestrator.evaluation.toy_evaluation import RowFile, ToyEvaluatorFactory, make_loop

BUDGET = 60
REMOVED_AT = 12
JOINED_AT = 30
NODE = {"num_cpus": 1, "object_store_memory": 80 * 1024**2}

MEMORY_BUDGET = 20
MEMORY_BATCH = 4
HEADROOM_BYTES = 2 * 1024**3

# Else a node that was lost abruptly is missed after 15 seconds.
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "6",
}


def lose_a_node(folder: Path) -> None:
    """Search on two nodes of one CPU each; the second one dies, later another one joins."""
    from ray.cluster_utils import Cluster

    rows = RowFile(folder / "rows.jsonl")
    pids = folder / "pids.txt"
    recorded = 0
    with variables({**LOCAL_ENVIRONMENT, **IMPATIENT}), loopback_only():
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        second = cluster.add_node(**NODE)
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)

        def record(found: SearchRecord) -> None:
            nonlocal recorded
            rows.append(found)
            with pids.open("a") as file:
                file.write(f"{found.origin.pid}\n")
            recorded += 1
            if recorded == REMOVED_AT:
                cluster.remove_node(second, allow_graceful=False)
            if recorded == JOINED_AT:
                cluster.add_node(**NODE)

        try:
            TuneEvaluation(ToyEvaluatorFactory(seconds=0.2)).run(make_loop(record, budget=BUDGET, window=4))
        finally:
            ray.shutdown()
            cluster.shutdown()


def run_out_of_memory(folder: Path, victim: str) -> None:
    """Search on a Ray that kills actors once there is less memory left than one candidate takes."""
    threshold = (get_used_memory() + HEADROOM_BYTES) / get_system_memory()
    rows = RowFile(folder / "rows.jsonl")
    settings = {"RAY_memory_usage_threshold": f"{threshold:.4f}", "RAY_memory_monitor_refresh_ms": "50"}
    with (
        variables(settings, replace=True),
        connect("local", num_cpus=2, num_gpus=0, object_store_bytes=128 * 1024**2),
    ):
        loop = make_loop(rows.append, strategy="random", budget=MEMORY_BUDGET, batch_size=MEMORY_BATCH)
        TuneEvaluation(ToyEvaluatorFactory(eats=victim), max_failures=0).run(loop)


if __name__ == "__main__":
    place = Path(sys.argv[2])
    if sys.argv[1] == "node":
        lose_a_node(place)
    else:
        run_out_of_memory(place, sys.argv[3])
