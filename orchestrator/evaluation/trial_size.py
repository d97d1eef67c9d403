"""How many candidates travel to an actor together: enough that a trial's pause does not matter."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

from orchestrator.plan import CORE_FLOPS_PER_SECOND
from spaces.space import SearchSpace

TRIAL_SECONDS = 1.6
"""What a trial shall take: Tune's pause between two trials of an actor, some 33 ms, is then 2 % of it. That leaves room
for what Ray's own processes take of the cores."""

ACCELERATOR_FLOPS_PER_SECOND = 2.0e13
"""Assumed of one accelerator at the batch sizes of a search; only an order of magnitude."""

LARGEST_TRIAL = 512
_SAMPLES = 32


def candidates_per_trial(
    space: SearchSpace[Any],
    sequences: int,
    sequence_length: int,
    evaluations: int,
    window: int,
    cpus: float,
    gpus: float = 0.0,
) -> int:
    """A trial's size for ``search.candidates_per_trial: auto``.

    By arithmetic, not by a clock: what a search asks depends on the size of its batches, and the same recipe has to ask
    the same candidates on every machine and after every interruption.

    Args:
        space: whose median architecture is taken as typical.
        sequences: that each candidate is scored on.
        sequence_length: tokens of each.
        evaluations: of the search. At most half of them are under way at once, so that a strategy learns something
            before all is asked.
        window: batches under way at once.
        cpus: cores of an actor.
        gpus: accelerators of an actor.

    Returns:
        From 1 to :data:`LARGEST_TRIAL`.
    """
    rng = random.Random(0)
    flops = statistics.median(space.cost(space.sample(rng), sequence_length).flops for _ in range(_SAMPLES))
    speed = ACCELERATOR_FLOPS_PER_SECOND * gpus if gpus else CORE_FLOPS_PER_SECOND * max(1.0, cpus)
    wanted = math.ceil(TRIAL_SECONDS * speed / (flops * sequences))
    return max(1, min(wanted, LARGEST_TRIAL, evaluations // (2 * window)))
