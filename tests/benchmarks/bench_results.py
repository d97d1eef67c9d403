"""How fast results are written, how fast "the front now" is read while a run goes on, and how much room they take.

``python -m tests.benchmarks.bench_results [--rows 100000] [--repeats 5] [--trials 2000] [--json]``

The reference for speed, in the same run with the same rows: one JSON-lines file, appended row by row, scanned with
pandas. Both sides force the disk to take their rows every 1,000 rows, drop repeated measurements, and compute the same
front.

The reference for size: an Optuna study in SQLite with the first ``--trials`` of the same rows as finished trials, since
Optuna takes long to write all. Loss and parameters are the trial's values, the genes its parameters, the other numbers
and the architecture user attributes; the texts that are equal in all rows are left out. What the file grew by is
extrapolated to all rows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd

from orchestrator.results import TABLES, ResultsWriter, open_results
from orchestrator.results.pareto import non_dominated
from tests.benchmarks.environment import as_text, describe

OBJECTIVES = ["loss", "encoder_parameters"]
FLUSH_ROWS = 1000
REPEATED_SHARE = 0.05
TARGET_APPENDS_PER_SECOND = 20_000
TARGET_QUERY_SECONDS = 0.2
TARGET_SHARE_OF_OPTUNA = 1 / 3
ATTRIBUTES = ("arch_id", "architecture", "proposal", "fidelity", "parameters", "flops", "latency_ms", "seconds", "pid")


def make_rows(count: int) -> list[dict[str, Any]]:
    """Evaluations as a search records them; some measurements come twice, as after a resume."""
    generator = np.random.default_rng(0)
    parameters = generator.integers(1_000_000, 10_000_000, count)
    # Larger networks lose less, with noise around the trend: the front has a few dozen points.
    losses = 2.0 / np.log10(parameters) + generator.exponential(0.05, count)
    measured_before = generator.random(count) < REPEATED_SHARE
    rows = []
    for number in range(count):
        key = int(generator.integers(number)) if number and measured_before[number] else number
        rows.append(
            {
                "arch_id": f"{key:012x}",
                "architecture": f"E64|192:S3-S7-M|192:S7-S7-M|192:S3-M-S7|{key}:S5-M-S3",
                "genes": {"embedding_size": "64", "hidden_sizes": "192-192-192-192", "M": "4", "F": "0", "S3": "3"},
                "scope": "network",
                "strategy": "regularised_evolution",
                "proposal": number,
                "trial_id": f"{number // 64:08x}",
                "status": "ok",
                "supernet_signature": "5f1d0c2b9a7e",
                "fidelity": 8,
                "loss": float(losses[number]),
                "parameters": int(parameters[number]) + 2_000_000,
                "encoder_parameters": int(parameters[number]),
                "flops": int(parameters[number]) * 256,
                "latency_ms": float(parameters[number]) / 1e6,
                "seconds": 0.02,
                "host": "node-1",
                "pid": 4242,
            }
        )
    return rows


def timed(function: Callable[[], Any]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def front(values: np.ndarray) -> int:
    """Size of the front of values [rows, 2]."""
    return int(non_dominated(values).sum())


def bench_netsuke(rows: list[dict[str, Any]], folder: Path, repeats: int) -> dict[str, Any]:
    """Append all rows, query while the writer is open and again after it merged its parts."""

    def append_all() -> None:
        for row in rows:
            writer.append("evaluations", **row)
        writer.flush()

    def query() -> int:
        return open_results(folder).front("evaluations", OBJECTIVES, columns=OBJECTIVES).num_rows

    writer = ResultsWriter(folder, "benchmark", flush_rows=FLUSH_ROWS)
    append_seconds = timed(append_all)
    parts = len(list((folder / "evaluations").glob("part-*.parquet")))
    open_seconds = [timed(query) for _ in range(repeats)]
    close_seconds = timed(writer.close)
    return {
        "append_rows_per_second": len(rows) / append_seconds,
        "close_seconds": close_seconds,
        "parts_before_closing": parts,
        "query_seconds_before_closing": open_seconds,
        "query_seconds_after_closing": [timed(query) for _ in range(repeats)],
        "bytes": sum(path.stat().st_size for path in (folder / "evaluations").glob("part-*.parquet")),
        "distinct_measurements": open_results(folder).counts()["evaluations"],
        "front_size": query(),
    }


def bench_json_lines(rows: list[dict[str, Any]], path: Path, repeats: int) -> dict[str, Any]:
    """The same with one JSON-lines file and pandas."""
    key = [name for name in TABLES["evaluations"].key if name in rows[0]]  # the others are constant here

    def append_all() -> None:
        with path.open("a", encoding="utf-8") as file:
            for number, row in enumerate(rows, start=1):
                file.write(json.dumps({"run_id": "benchmark", "recorded_at": time.time(), **row}) + "\n")
                file.flush()
                if number % FLUSH_ROWS == 0 or number == len(rows):
                    os.fsync(file.fileno())

    def query() -> int:
        frame = pd.read_json(path, lines=True, dtype={"arch_id": str, "trial_id": str, "supernet_signature": str})
        return front(frame.drop_duplicates(key, keep="last")[OBJECTIVES].to_numpy(dtype=float))

    append_seconds = timed(append_all)
    return {
        "append_rows_per_second": len(rows) / append_seconds,
        "query_seconds": [timed(query) for _ in range(repeats)],
        "bytes": path.stat().st_size,
        "front_size": query(),
    }


def bench_optuna(rows: list[dict[str, Any]], path: Path, trials: int) -> dict[str, Any]:
    """What an Optuna study of the same rows would take, from the first ``trials`` of them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=f"sqlite:///{path}", directions=["minimize"] * len(OBJECTIVES))
    empty = path.stat().st_size
    measured = rows[:trials]
    study.add_trials([as_trial(row) for row in measured])
    grown = path.stat().st_size - empty
    return {"trials": len(measured), "bytes": grown, "bytes_of_all_rows": grown / len(measured) * len(rows)}


def as_trial(row: dict[str, Any]) -> optuna.trial.FrozenTrial:
    """A row as Optuna would keep it."""
    return optuna.trial.create_trial(
        values=[float(row[name]) for name in OBJECTIVES],
        params=row["genes"],
        distributions={
            name: optuna.distributions.CategoricalDistribution([value]) for name, value in row["genes"].items()
        },
        user_attrs={name: row[name] for name in ATTRIBUTES},
    )


def run(row_count: int, repeats: int, trials: int) -> dict[str, Any]:
    """All measurements, ready for JSON."""
    machine = describe(("netsuke", "numpy", "pyarrow", "pandas", "optuna"))
    rows = make_rows(row_count)
    with tempfile.TemporaryDirectory() as folder:
        netsuke = bench_netsuke(rows, Path(folder) / "results", repeats)
        reference = bench_json_lines(rows, Path(folder) / "results.jsonl", repeats)
        study = bench_optuna(rows, Path(folder) / "study.db", trials)
    if netsuke["front_size"] != reference["front_size"]:
        raise SystemExit(f"the fronts differ: {netsuke['front_size']} and {reference['front_size']} points")
    return {
        "environment": machine,
        "rows": row_count,
        "netsuke": netsuke,
        "json_lines_and_pandas": reference,
        "optuna_sqlite": study,
        "share_of_optuna_size": netsuke["bytes"] / study["bytes_of_all_rows"],
    }


def as_report(result: dict[str, Any]) -> str:
    """The measurements as text."""
    netsuke, reference, study = result["netsuke"], result["json_lines_and_pandas"], result["optuna_sqlite"]
    lines = [
        as_text(result["environment"]),
        f"rows:     {result['rows']:,}, {netsuke['distinct_measurements']:,} distinct measurements, "
        f"{netsuke['front_size']} on the front of {' × '.join(OBJECTIVES)}",
        "",
        f"{'':34}{'netsuke':>26}{'JSON lines, pandas':>26}",
        f"{'append, rows/s':34}{netsuke['append_rows_per_second']:>26,.0f}"
        f"{reference['append_rows_per_second']:>26,.0f}   (target: {TARGET_APPENDS_PER_SECOND:,})",
        f"{'front now, while writing':34}{_spread(netsuke['query_seconds_before_closing']):>26}"
        f"{_spread(reference['query_seconds']):>26}   (target: {TARGET_QUERY_SECONDS} s)",
        f"{'front, after closing':34}{_spread(netsuke['query_seconds_after_closing']):>26}",
        f"{'size, MB':34}{netsuke['bytes'] / 1e6:>26.1f}{reference['bytes'] / 1e6:>26.1f}",
        f"{'size of an Optuna study, MB':34}{study['bytes_of_all_rows'] / 1e6:>26.1f}   SQLite; extrapolated from "
        f"{study['trials']:,} trials of {study['bytes'] / study['trials']:,.0f} bytes",
        f"{'netsuke / Optuna':34}{result['share_of_optuna_size']:>26.3f}   (target: {TARGET_SHARE_OF_OPTUNA:.3f})",
        "",
        f"{netsuke['parts_before_closing']} parts while writing, merged at the end in {netsuke['close_seconds']:.2f} s",
    ]
    return "\n".join(lines)


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.3f} s ({min(seconds):.3f}-{max(seconds):.3f})"


def main() -> int:
    """Parse the command line, print, and say whether the targets were reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="evaluations to write (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of each query (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=2000, help="trials of the Optuna study (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()
    result = run(arguments.rows, arguments.repeats, arguments.trials)
    print(json.dumps(result, indent=2) if arguments.json else as_report(result))
    netsuke = result["netsuke"]
    reached = (
        netsuke["append_rows_per_second"] >= TARGET_APPENDS_PER_SECOND,
        statistics.median(netsuke["query_seconds_before_closing"]) <= TARGET_QUERY_SECONDS,
        result["share_of_optuna_size"] <= TARGET_SHARE_OF_OPTUNA,
    )
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
