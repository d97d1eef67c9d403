"""Does the latency table tell what whole networks cost? MAPE and Kendall's tau over 50 architectures of all sizes.

``python -m tests.benchmarks.bench_latency [--space paper|small] [--architectures 50] [--fit 16] [--repeats 15]
[--batch 8] [--length 64] [--threads 1] [--device cpu] [--methods chain,alone] [--json]``

A table is built as `netsuke latency build` does it: every part of the space in chains of layers, in turn with a few
whole networks, to which the remainder is fitted. Then other random networks, spread from the smallest to about the
largest of the space, are timed end to end and compared with it, with the remainder and without. Targets hold for the
default way of timing parts (chain) with the remainder; the other way (one hot layer again and again) is measured in the
same run for comparison. Nothing is trained: latency does not depend on the weights' values.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from orchestrator.latency_table import LatencyConditions
from orchestrator.latency_table.agreement import Agreement
from orchestrator.latency_table.building import BuiltTable, Check, MeasuredSpace, build_table, check_table
from spaces.encoder_shape import EncoderShape
from spaces.nas_bert.space import NasBertSpace
from tests.benchmarks.environment import as_text, describe

ARCHITECTURES, FIT, REPEATS = 50, 16, 15
MAPE_TARGET, TAU_TARGET = 0.08, 0.9
SEED = 1
SPACES: dict[str, tuple[dict[str, Any], EncoderShape]] = {
    "paper": ({}, EncoderShape()),
    "small": (
        {"preset": "small"},
        EncoderShape(num_layers=6, hidden_size=384, num_heads=12, intermediate_size=1536),
    ),
}


def make_space(name: str) -> MeasuredSpace:
    """NAS-BERT's space as in the paper, or the one of the quickstart's kind for a 6-layer teacher of width 384."""
    options, shape = SPACES[name]
    return MeasuredSpace(NasBertSpace.from_options(options, shape), "nas_bert", options, shape)


def as_percent(one: Agreement) -> str:
    return f"MAPE {100 * one.mape:5.2f} %, bias {100 * one.bias:+6.2f} %, Kendall tau {one.kendall_tau:.3f}"


def measure_method(
    space: MeasuredSpace, conditions: LatencyConditions, fit: int, architectures: int
) -> tuple[BuiltTable, Check]:
    """A table, and whole networks compared with it."""
    built = build_table(space, conditions, fit_architectures=fit, seed=SEED)
    vocab_size = space.shape.vocab_size
    check = check_table(built.table, space.space, conditions, vocab_size, architectures=architectures, seed=SEED)
    return built, check


def measure(arguments: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """All measurements, ready for JSON."""
    machine = describe(accelerator=arguments.device != "cpu")
    tell(as_text(machine))
    space = make_space(arguments.space)
    conditions = LatencyConditions(
        batch_size=arguments.batch,
        sequence_length=arguments.length,
        threads=arguments.threads,
        warm_up=2,
        repeats=arguments.repeats,
        device=arguments.device,
        precision=arguments.precision,
    )
    tell(
        f"space {arguments.space}: {len(space.space.parts())} parts, {arguments.fit} networks behind the remainder, "
        f"{arguments.architectures} others to compare; batch {arguments.batch} × {arguments.length} tokens, "
        f"{arguments.repeats} repeats"
    )
    methods: dict[str, Any] = {}
    for method in arguments.methods:
        built, check = measure_method(space, replace(conditions, method=method), arguments.fit, arguments.architectures)
        remainder = built.table.remainder
        tell(f"{method}: with remainder {as_percent(check.with_remainder)}")
        tell(f"{' ' * len(method)}  without        {as_percent(check.without_remainder)}")
        terms = ", ".join(f"{term.name} {term.value:.4g} {term.unit}" for term in remainder.terms) or "none"
        tell(f"{' ' * len(method)}  terms          {terms}")
        measured = sorted(network.measured.median_ms for network in check.networks)
        spreads = sorted(network.measured.spread_ms / network.measured.median_ms for network in check.networks)
        lost = sorted(
            network.measured.lost_ms / (network.measured.lost_ms + network.measured.median_ms)
            for network in check.networks
        )
        middle = len(measured) // 2
        tell(
            f"{' ' * len(method)}  networks       {measured[0]:.1f} to {measured[-1]:.1f} ms, quartiles of the repeats "
            f"{100 * spreads[middle]:.1f} % apart (median), {100 * lost[middle]:.0f} % of the wall-clock "
            f"time taken by other processes and left out"
        )
        methods[method] = {
            "with_remainder": asdict(check.with_remainder),
            "without_remainder": asdict(check.without_remainder),
            "remainder": remainder.to_json(),
            "fastest_ms": measured[0],
            "slowest_ms": measured[-1],
            "relative_spread": spreads[middle],
            "share_lost": lost[middle],
            "networks": [
                {
                    "architecture": str(network.architecture),
                    "measured_ms": network.measured.median_ms,
                    "predicted_ms": network.predicted_ms,
                    "additive_ms": network.additive_ms,
                }
                for network in check.networks
            ],
        }
    return {
        "environment": machine,
        "space": arguments.space,
        "conditions": asdict(conditions),
        "methods": methods,
        "targets": {"mape": MAPE_TARGET, "kendall_tau": TAU_TARGET},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, print, and say whether the targets were reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", choices=sorted(SPACES), default="paper", help="(default: %(default)s)")
    parser.add_argument("--architectures", type=int, default=ARCHITECTURES, help="compared (default: %(default)s)")
    parser.add_argument("--fit", type=int, default=FIT, help="behind the remainder (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of each measurement (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="sequences in a batch (default: %(default)s)")
    parser.add_argument("--length", type=int, default=64, help="tokens of a sequence (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of a forward pass (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=["chain", "alone"])
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args(argv)

    def tell(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    result = measure(arguments, tell)
    if arguments.json:
        print(json.dumps(result, indent=2))
    default = result["methods"].get("chain")
    if default is None:
        return 0
    mape, tau = default["with_remainder"]["mape"], default["with_remainder"]["kendall_tau"]
    tell(
        f"latency table: MAPE {100 * mape:.2f} % (target at most {100 * MAPE_TARGET:.0f} %), Kendall tau {tau:.3f} "
        f"(target at least {TAU_TARGET})"
    )
    return 0 if mape <= MAPE_TARGET and tau >= TAU_TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
