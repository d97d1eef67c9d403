"""Evaluating the paper's block architectures along the tree of their beginnings, against one by one.

``python -m tests.benchmarks.bench_prefix [--rounds 3] [--device cuda] [--precision bfloat16] [--profile] [--json]``

NAS-BERT's space at the paper's sizes: teacher width 768, hidden sizes 128 to 512, blocks of up to six layers, random
weights. A slice is everything below a random beginning of two operations, 781 architectures of each hidden size, with
the whole tree's mix of depths (5.75 layers on average). In every round both ways score the slice of each hidden size on
the same batches in one process: the tree all of it, one by one a sample spread evenly over it. The ratio is that of
architectures a second over the whole space, in which every hidden size has as many architectures; the losses of both
ways have to be equal bit for bit. The whole space's hours (4 blocks of 97,650 architectures, five batches of 32 x 128
tokens) are extrapolated from the slices, by tokens.

Needs PyTorch, transformers, NumPy, pandas and PyArrow alone, so that it runs on a bare accelerator machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from spaces.nas_bert.architecture import BlockArchitecture
from spaces.nas_bert.options import NasBertOptions
from spaces.nas_bert.space import NasBertSpace
from tests.benchmarks.environment import as_text, describe
from tests.spaces.microscopic import shaken
from trainers.losses import masked_variance
from trainers.prefix_evaluation import PrefixEvaluator
from trainers.validation import ValidationBatch

ROUNDS = 3
BEGINNING = 2
SAMPLE = 32
TARGET = 4.5
TOKENS = 128
WHOLE_TOKENS = 5 * 32 * 128
"""Tokens the extrapolation is for: the paper ranks on five batches, of a size that it does not state."""


class Side:
    """A block of random weights and random batches on a device, and the two ways of scoring it.

    Args:
        device: ``cpu`` or ``cuda``.
        precision: of the forward passes.
        output: of the evaluator.
        batches: validation batches.
        batch_size: sequences of each, 128 tokens long.
    """

    def __init__(self, device: str, precision: Any, output: Any, batches: int, batch_size: int) -> None:
        torch.manual_seed(1)
        self.space = NasBertSpace(NasBertOptions(num_blocks=1))
        self.device = torch.device(device)
        supernet = shaken(self.space.supernet()).eval().requires_grad_(False).to(self.device)
        mask_BT = torch.ones(batch_size, TOKENS, dtype=torch.int64, device=self.device)
        made = [self._batch(mask_BT, batch_size) for _ in range(batches)]
        self.evaluator = PrefixEvaluator(supernet, made, precision, output)
        self.tokens = batches * batch_size * TOKENS

    def _batch(self, mask_BT: Tensor, batch_size: int) -> ValidationBatch:
        width = self.space.options.shape.hidden_size
        states = [torch.randn(batch_size, TOKENS, width).to(self.device) for _ in range(2)]
        variances = [float(masked_variance(state, mask_BT)) for state in states]
        return ValidationBatch(torch.zeros_like(mask_BT), mask_BT, states, variances)

    def slice(self, hidden_size: int, beginning: Sequence[str]) -> list[BlockArchitecture]:
        """Everything of a hidden size that starts with ``beginning``."""
        options = self.space.options
        return [
            BlockArchitecture(hidden_size, (*beginning, *rest))
            for more in range(options.layers_per_block - len(beginning) + 1)
            for rest in product(options.operations, repeat=more)
        ]

    def along_the_tree(self, blocks: Sequence[Any]) -> tuple[float, list[float]]:
        """Seconds an architecture, and the losses."""
        return self._timed(lambda: self.evaluator.losses(0, blocks).tolist(), len(blocks))

    def one_by_one(self, blocks: Sequence[Any]) -> tuple[float, list[float]]:
        """Seconds an architecture, and the losses."""
        return self._timed(lambda: [self.evaluator.loss_alone(0, block) for block in blocks], len(blocks))

    def _timed(self, work: Callable[[], list[float]], count: int) -> tuple[float, list[float]]:
        self._settle()
        started = time.perf_counter()
        losses = work()
        self._settle()
        return (time.perf_counter() - started) / count, losses

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def measure_round(side: Side, beginning: Sequence[str], sample: int, tree_first: bool) -> dict[str, Any]:
    """Both ways on the slice of every hidden size."""
    found: dict[str, Any] = {"beginning": "-".join(beginning), "sizes": {}}
    for size in side.space.options.hidden_sizes:
        blocks = side.slice(size, beginning)
        places = range(0, len(blocks), max(1, len(blocks) // sample))
        chosen = [blocks[place] for place in places]
        side.one_by_one(chosen[:2])  # first calls choose kernels and take memory
        if tree_first:
            (shared, losses), (alone, expected) = side.along_the_tree(blocks), side.one_by_one(chosen)
        else:
            (alone, expected), (shared, losses) = side.one_by_one(chosen), side.along_the_tree(blocks)
        mine = [losses[place] for place in places]
        if side.evaluator.output == "full" and mine != expected:
            raise SystemExit(f"losses differ at hidden size {size}: this is a bug")
        gap = max(abs(one - other) / other for one, other in zip(mine, expected, strict=True))
        found["sizes"][size] = {
            "tree_ms": 1e3 * shared,
            "alone_ms": 1e3 * alone,
            "ratio": alone / shared,
            "largest_difference": gap,
        }
    sizes = found["sizes"].values()
    found["ratio"] = sum(one["alone_ms"] for one in sizes) / sum(one["tree_ms"] for one in sizes)
    found["architectures_per_second"] = 1e3 * len(sizes) / sum(one["tree_ms"] for one in sizes)
    found["whole_space_hours"] = _whole_hours([one["tree_ms"] for one in sizes], side)
    found["whole_space_hours_one_by_one"] = _whole_hours([one["alone_ms"] for one in sizes], side)
    return found


def _whole_hours(milliseconds: Sequence[float], side: Side) -> float:
    """Hours of 4 blocks, from milliseconds an architecture of each hidden size."""
    each = side.space.block_cardinality() // len(milliseconds)
    return 4 * each * sum(milliseconds) / 3.6e6 * WHOLE_TOKENS / side.tokens


def profile(side: Side, beginning: Sequence[str]) -> str:
    """Where the time of the walk goes, for the smallest and the largest hidden size."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    key = "self_cpu_time_total"
    if side.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
        key = "self_cuda_time_total"
    texts = []
    sizes = side.space.options.hidden_sizes
    for size in (sizes[0], sizes[-1]):
        blocks = side.slice(size, beginning)
        side.along_the_tree(blocks[:6])
        with torch.profiler.profile(activities=activities) as profiler:
            side.along_the_tree(blocks)
        texts.append(f"hidden size {size}:\n{profiler.key_averages().table(sort_by=key, row_limit=14)}")
    return "\n".join(texts)


def measure(arguments: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """All measurements, ready for JSON."""
    machine = describe(accelerator=True)
    tell(as_text(machine))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    side = Side(arguments.device, arguments.precision, arguments.output, arguments.batches, arguments.batch_size)
    beginning = 4 if arguments.smoke else BEGINNING
    tell(
        f"{arguments.batches} batch(es) of {arguments.batch_size} x {TOKENS} tokens on {arguments.device}, "
        f"{arguments.precision}, output {arguments.output}"
    )
    rng = random.Random(1)
    rounds = []
    for number in range(arguments.rounds):
        chosen = rng.choices(side.space.options.operations, k=beginning)
        found = measure_round(side, chosen, arguments.sample, tree_first=number % 2 == 0)
        rounds.append(found)
        of_sizes = ", ".join(
            f"{size}: {one['tree_ms']:.2f}/{one['alone_ms']:.2f} ms = {one['ratio']:.2f}"
            for size, one in found["sizes"].items()
        )
        tell(f"round {number + 1} below {found['beginning']}: ratio {found['ratio']:.2f} ({of_sizes})")
    if arguments.profile:
        tell(profile(side, ["M"] * beginning))
    return {
        "environment": machine,
        "device": arguments.device,
        "precision": arguments.precision,
        "output": arguments.output,
        "tokens": side.tokens,
        "rounds": rounds,
        "ratio": statistics.median(one["ratio"] for one in rounds),
        "architectures_per_second": statistics.median(one["architectures_per_second"] for one in rounds),
        "whole_space_hours": statistics.median(one["whole_space_hours"] for one in rounds),
        "whole_space_hours_one_by_one": statistics.median(one["whole_space_hours_one_by_one"] for one in rounds),
        "target": TARGET,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, print, and say whether the target was reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="times of each way (default: %(default)s)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--output", default="full", choices=["full", "factored"])
    parser.add_argument("--batches", type=int, default=0, help="validation batches (default: 1, 5 on cuda)")
    parser.add_argument("--batch-size", type=int, default=0, help="sequences of a batch (default: 4, 32 on cuda)")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="architectures one by one (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="31 architectures a slice: whether it works, no figures")
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args(argv)
    on_cuda = arguments.device == "cuda"
    arguments.batches = arguments.batches or (5 if on_cuda else 1)
    arguments.batch_size = arguments.batch_size or (32 if on_cuda else 4)

    def tell(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    result = measure(arguments, tell)
    if arguments.json:
        print(json.dumps(result, indent=2))
    ratios = [one["ratio"] for one in result["rounds"]]
    tell(
        f"prefix-shared / one by one = {result['ratio']:.2f} (median of {len(ratios)}, {min(ratios):.2f} to "
        f"{max(ratios):.2f}; target at least {TARGET}); {result['architectures_per_second']:.1f} architectures "
        f"a second on {result['tokens']} tokens\n"
        f"the whole space, 4 x 97,650 architectures on {WHOLE_TOKENS} tokens: {result['whole_space_hours']:.2f} hours "
        f"(extrapolated), one by one {result['whole_space_hours_one_by_one']:.2f} hours"
    )
    return 0 if arguments.smoke or result["ratio"] >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
