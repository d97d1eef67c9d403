"""The figures of an accelerator, in one go, on a machine that has only torch, transformers, numpy, pandas and pyarrow.

From the root of a checkout, without installing anything:

    python -m tests.benchmarks.bench_accelerator

It runs the benchmarks of prefix-shared evaluation (with the whole space at the paper's sizes, extrapolated), of several
paths a teacher pass, and of the latency table, one after the other on the same device. Nothing of Ray is involved.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from tests.benchmarks import bench_latency, bench_paths, bench_prefix

Run = tuple[str, Callable[[Sequence[str]], int], list[str]]
"""What is measured, the benchmark's main function, and its arguments besides the device."""

RUNS: list[Run] = [
    ("prefix-shared evaluation, float32", bench_prefix.main, []),
    ("prefix-shared evaluation, bfloat16", bench_prefix.main, ["--precision", "bfloat16"]),
    ("prefix-shared evaluation, factored ends", bench_prefix.main, ["--output", "factored"]),
    (
        "paths a teacher pass",
        bench_paths.main,
        ["--teacher", "random", "--batch-size", "256", "--sequence-length", "128", "--steps", "10"],
    ),
    ("latency table", bench_latency.main, ["--batch", "128", "--length", "128"]),
]
SMOKE_RUNS: list[Run] = [
    ("prefix-shared evaluation", bench_prefix.main, ["--smoke", "--rounds", "1", "--sample", "1"]),
    (
        "paths a teacher pass",
        bench_paths.main,
        ["--teacher", "random", "--batch-size", "2", "--sequence-length", "8", "--steps", "1", "--rounds", "1"],
    ),
    (
        "latency table",
        bench_latency.main,
        ["--space", "small", "--batch", "1", "--length", "8", "--repeats", "1", "--fit", "4", "--architectures", "4"],
    ),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run all benchmarks and name those that missed their target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"], help="(default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="smallest sizes: whether it works, no figures")
    arguments = parser.parse_args(argv)
    missed = []
    for name, run, given in SMOKE_RUNS if arguments.smoke else RUNS:
        print(f"--- {name}", flush=True)
        if run(["--device", arguments.device, *given]):
            missed.append(name)
    if arguments.smoke:
        return 0
    if missed:
        print(f"missed its target: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
