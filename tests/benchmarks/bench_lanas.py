"""Evaluations until the optimum of a table is found: LaNAS, greedy and with UCT, against chance and an evolution.

``python -m tests.benchmarks.bench_lanas [--seeds 10] [--table 0] [--json]``

The authors' logs have LaNAS at the best of NASBench-101's 420,000 networks after 2,274 samples in the mean. That table
is not at hand; this one has 27,000 networks of NAS-BERT's space and a made-up rugged loss (``rugged_table.py``). One
candidate at a time is asked and told, until the one network with the lowest loss is asked; who has not found it after
as many as chance needs in the mean, half of the table, is counted with that number. Ends with exit code 1 where LaNAS
with UCT needs more than a fifth of what chance needs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from orchestrator.evaluation.evaluator import Measurement
from orchestrator.objectives import LOSS
from orchestrator.strategies.registry import create_strategy
from tests.benchmarks.environment import as_text, describe
from tests.benchmarks.rugged_table import RuggedTable, rugged_table

TARGET = 0.2
"""Evaluations of LaNAS with UCT, divided by those that chance needs in the mean."""

JUDGED = "lanas, uct"

WHOLE = {"max_proposals": 30_000}
"""The whole table can be looked through for a region's candidates, as LaNAS does on NASBench-101."""

STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "lanas, uct": ("lanas", {"mode": "uct", **WHOLE}),
    "lanas, uct around the known": ("lanas", {"mode": "uct", "around": 0.5, **WHOLE}),
    "lanas, greedy": ("lanas", WHOLE),
    "lanas, greedy around the known": ("lanas", {"around": 0.5, **WHOLE}),
    "lanas, greedy linear": ("lanas", {"model": "linear", **WHOLE}),
    "regularised_evolution": ("regularised_evolution", {}),
}
"""Who searches, with options that differ from the defaults."""


def evaluations_to_optimum(table: RuggedTable, name: str, options: Mapping[str, Any], seed: int, most: int) -> int:
    """Which candidate was the best of the table, from 1; ``most`` if it is none of these."""
    strategy = create_strategy(name, table.space, [LOSS], [], seed, options=options)
    for number in range(1, most):
        (asked,) = strategy.ask(1)
        if asked == table.best:
            return number
        strategy.tell([Measurement(asked, {"loss": table.losses[asked]})])
    return most


def main() -> int:
    """Parse the command line, search, print, and say whether the target was reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--table", type=int, default=0, help="seed of the table")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()
    machine = describe()
    table = rugged_table(arguments.table)
    by_chance = (len(table.losses) + 1) / 2
    lines = [as_text(machine), f"{len(table.losses):,} networks; chance needs {by_chance:,.0f} evaluations in the mean"]
    needed: dict[str, list[int]] = {}
    for line in lines:
        print(line, flush=True, file=sys.stderr)
    for name, (registered, options) in STRATEGIES.items():
        started = time.perf_counter()
        needed[name] = [
            evaluations_to_optimum(table, registered, options, seed, round(by_chance))
            for seed in range(arguments.seeds)
        ]
        found, spent = needed[name], time.perf_counter() - started
        print(
            f"{name:32} mean {statistics.mean(found):8,.0f}, median {statistics.median(found):8,.0f}, "
            f"{min(found):,} to {max(found):,}; {spent / sum(found) * 1000:.2f} ms an evaluation",
            flush=True,
            file=sys.stderr if arguments.json else sys.stdout,
        )
    if arguments.json:
        print(json.dumps({"environment": machine, "networks": len(table.losses), "evaluations": needed}, indent=2))
    return 0 if statistics.mean(needed[JUDGED]) <= TARGET * by_chance else 1


if __name__ == "__main__":
    sys.exit(main())
