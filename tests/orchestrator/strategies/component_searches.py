"""Microscopic spaces of components with losses by arithmetic, and searches over them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from orchestrator.evaluation.evaluator import Measurement
from orchestrator.strategies.base import Strategy
from spaces.components.architecture import ComponentsArchitecture
from spaces.components.space import ComponentsSpace
from spaces.encoder_shape import EncoderShape
from tests.spaces.components.microscopic import make_space

Loss = Callable[[Any], float]


def make_heads_space() -> ComponentsSpace:
    """One layer of twelve heads beside each other; its feed-forward is fixed."""
    shape = EncoderShape(1, 24, 12, 8, 99, 16, 2)
    return make_space(shape=shape, feed_forward_slices=2, vertical=(), fixed_feed_forward=("F1-2.M",))


def make_two_layers(**changes: Any) -> ComponentsSpace:
    """Two layers of four heads and four slices."""
    return make_space(shape=EncoderShape(2, 16, 4, 32, 99, 16, 2), feed_forward_slices=4, **changes)


def signal_loss(signal: Collection[int], each: float = 0.3) -> Loss:
    """What it costs to lack heads that carry signal; all others carry none."""
    return lambda architecture: each * len(set(signal) - set(architecture.layers[0].attention.components))


def additive_loss(space: ComponentsSpace, seed: int) -> Loss:
    """A sum over all components and query-key slices that are missed, few of which matter much; at most 1."""
    rng = np.random.default_rng(seed)
    counts = [(kind.components, kind.query_key) for kind in space.options.sublayers]
    worths = [[rng.lognormal(0, 1.5, count) for count in pair] for pair in counts]
    total = sum(float(part.sum()) for pair in worths for part in pair)

    def loss(architecture: ComponentsArchitecture) -> float:
        found = 0.0
        for choice, parts in zip(architecture.sublayers, worths, strict=True):
            for kept, part in zip((choice.components, choice.query_key), parts, strict=True):
                found += float(np.delete(part, list(kept)).sum())
        return found / total

    return loss


def measured(strategy: Strategy, architecture: Any, loss: Loss) -> Measurement:
    """What an evaluation gives."""
    return Measurement(architecture, {"loss": loss(architecture), **strategy.cheap.values(architecture)})


def search(strategy: Strategy, loss: Loss, evaluations: int, batch: int = 4) -> list[Measurement]:
    """Ask and tell, one batch behind, until so many were asked or nothing is left."""
    strategy.use_budget(evaluations)
    found: list[Measurement] = []
    waiting: list[Measurement] = []
    while len(found) < evaluations:
        asked = strategy.ask(min(batch, evaluations - len(found)))
        strategy.tell(waiting)
        waiting = [measured(strategy, architecture, loss) for architecture in asked]
        found += waiting
        if not asked:
            break
    strategy.tell(waiting)
    return found
