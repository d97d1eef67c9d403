"""Neighbours of a sublayer's choice, and choices of a wanted size."""

from __future__ import annotations

import random

from spaces.components.sublayers import Gene, SublayerChoice, SublayerKind, stages_of

REDRAWN = 0.5
"""How often a sublayer is drawn afresh instead of varied by one gene: 240 components are a long way one by one."""


def neighbour(choice: SublayerChoice, kind: SublayerKind, rng: random.Random) -> SublayerChoice:
    """Another choice of the kind: one gene or bit is another, or all of them are drawn afresh."""
    changed = choice
    while changed == choice:
        changed = draw(kind, rng.random(), rng) if rng.random() < REDRAWN else _step(choice, kind, rng)
    return changed


def draw(kind: SublayerKind, share: float, rng: random.Random) -> SublayerChoice:
    """Keep each component and each query-key slice with a probability of ``share``, and draw everything else uniformly.

    Queries and keys are a sixth of a layer's weights: drawn by coins, nobody would be as large as the teacher.
    """
    edges = kind.genes[1:]
    genes = [rng.choice(edges) if rng.random() < share else Gene.DROPPED for _ in range(kind.components)]
    slices = tuple(number for number in range(kind.query_key) if rng.random() < share)
    return SublayerChoice(stages_of(genes), slices, rng.random() < 0.5)


def _step(choice: SublayerChoice, kind: SublayerKind, rng: random.Random) -> SublayerChoice:
    """Change one gene or bit; what comes out may be the same, where it was the last edge."""
    place = rng.randrange(kind.components + kind.query_key + 1)
    if place < kind.components:
        genes = [min(gene, kind.genes[-1]) for gene in choice.genes(kind.components)]  # a last edge says nothing
        genes[place] = rng.choice([gene for gene in kind.genes if gene != genes[place]])
        bits = _bits(kind, rng) if choice.is_absent else (choice.query_key, choice.mean)
        return SublayerChoice(stages_of(genes), *bits)
    if place == kind.components + kind.query_key:
        return SublayerChoice(choice.stages, choice.query_key, not choice.mean)
    flipped = {place - kind.components} ^ set(choice.query_key)
    return SublayerChoice(choice.stages, tuple(sorted(flipped)), choice.mean)


def _bits(kind: SublayerKind, rng: random.Random) -> tuple[tuple[int, ...], bool]:
    """Query-key slices and mean, each by a coin."""
    return tuple(number for number in range(kind.query_key) if rng.random() < 0.5), rng.random() < 0.5
