"""Scoring the candidates of a trial together, what they share run once, against one by one.

``python -m tests.benchmarks.bench_relatives [--evaluations 192] [--trial 16] [--device cuda] [--json]``

Each strategy searches NAS-BERT's space (preset ``minilm``: a teacher of 6 layers of 384) on a supernet of random
weights, and asks for as many candidates at once as a trial carries. Both ways score each trial, in changing order, in
one process; their losses have to be equal bit for bit. The ratio is that of candidates a second over the search. Random
candidates are strangers: what they gain is what any two networks have in common by chance; an evolution's candidates
are each other's relatives, the more so the longer it runs.

Needs PyTorch, transformers and what the strategies need (NumPy, pydantic), no Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from orchestrator.evaluation.evaluator import Measurement, Score
from orchestrator.evaluation.supernet_evaluator import SupernetEvaluator
from orchestrator.objectives import LOSS, PARAMETERS, CheapObjectives
from orchestrator.strategies.registry import create_strategy
from spaces.encoder_shape import EncoderShape
from spaces.nas_bert.space import NasBertSpace
from tests.benchmarks.environment import as_text, describe
from tests.spaces.microscopic import shaken
from trainers.losses import masked_variance
from trainers.validation import ValidationBatch

STRATEGIES = ("random", "regularised_evolution", "nsga2")
TEACHER = EncoderShape(num_layers=6, hidden_size=384, num_heads=12, intermediate_size=1536, vocab_size=1000)
SEQUENCES, TOKENS = 8, 64


def make_evaluator(space: NasBertSpace, device: str) -> SupernetEvaluator:
    """An evaluator with random weights and one batch of random states for the teacher's."""
    torch.manual_seed(1)
    supernet = shaken(space.supernet()).eval().requires_grad_(False).to(device)
    input_ids_BT = torch.randint(1, TEACHER.vocab_size, (SEQUENCES, TOKENS))
    mask_BT = torch.ones_like(input_ids_BT)
    states = [torch.randn(SEQUENCES, TOKENS, TEACHER.hidden_size) for _ in range(space.num_blocks + 1)]
    variances = [float(masked_variance(state, mask_BT)) for state in states]
    batch = ValidationBatch(input_ids_BT, mask_BT, states, variances).to(device)
    return SupernetEvaluator(supernet, [batch], "bfloat16" if device == "cuda" else "float32")


def timed(score: Callable[[], list[Score]]) -> tuple[float, list[Score]]:
    """Seconds, and the scores; reading a loss has waited for the device."""
    started = time.perf_counter()
    scores = score()
    return time.perf_counter() - started, scores


def search(
    name: str, evaluator: SupernetEvaluator, space: NasBertSpace, evaluations: int, trial: int
) -> dict[str, Any]:
    """Run one strategy and time both ways on each of its trials."""
    objectives = [LOSS, PARAMETERS]
    strategy = create_strategy(name, space, objectives, [], 0, cheap=CheapObjectives(space))
    together = alone = 0.0
    for number in range(evaluations // trial):
        candidates = strategy.ask(trial)
        ways: list[Callable[[], list[Score]]] = [
            lambda candidates=candidates: evaluator.score(candidates, 1),
            lambda candidates=candidates: [evaluator.score([candidate], 1)[0] for candidate in candidates],
        ]
        order = (0, 1) if number % 2 == 0 else (1, 0)
        found = {way: timed(ways[way]) for way in order}
        losses = [[score.loss for score in found[way][1]] for way in (0, 1)]
        if losses[0] != losses[1]:
            raise SystemExit("losses differ: this is a bug")
        together += found[0][0]
        alone += found[1][0]
        values = [
            {LOSS.name: float(loss or 0.0), PARAMETERS.name: float(space.cost(candidate).parameters)}
            for candidate, loss in zip(candidates, losses[0], strict=True)
        ]
        strategy.tell([Measurement(*pair) for pair in zip(candidates, values, strict=True)])
    scored = evaluations // trial * trial
    return {"strategy": name, "together": scored / together, "alone": scored / alone, "ratio": alone / together}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=192, help="of each strategy (default: %(default)s)")
    parser.add_argument("--trial", type=int, default=16, help="candidates scored together (default: %(default)s)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    machine = describe(accelerator=True)
    space = NasBertSpace.from_options({"preset": "minilm"}, TEACHER)
    evaluator = make_evaluator(space, arguments.device)
    evaluator.score([space.sample(random.Random(0))], 1)  # the first pass chooses kernels and takes memory
    if not arguments.json:
        print(as_text(machine), flush=True)
    rows = []
    for name in STRATEGIES:
        rows.append(search(name, evaluator, space, arguments.evaluations, arguments.trial))
        if not arguments.json:
            row = rows[-1]
            print(
                f"{name}: {row['together']:.1f} candidates a second together, {row['alone']:.1f} one by one, ratio "
                f"{row['ratio']:.2f}",
                flush=True,
            )
    if arguments.json:
        print(json.dumps({"environment": machine, "trial": arguments.trial, "strategies": rows}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
