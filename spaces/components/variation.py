"""Neighbours of a sublayer's choice, and choices of a wanted size."""

from __future__ import annotations

import random

from spaces.components.sublayers import Gene, SublayerChoice, SublayerKind

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
    genes = [rng.choice(edges) if rng.random() < share else Gene.DROPPED for _ in kind.numbers]
    return kind.spelled(genes, _bits(kind, share, rng))


def _step(choice: SublayerChoice, kind: SublayerKind, rng: random.Random) -> SublayerChoice:
    """Change one gene or bit; what comes out may be the same, where it was the last edge."""
    components = len(kind.numbers)
    place = rng.randrange(components + kind.bits)
    genes, bits = [min(gene, kind.genes[-1]) for gene in kind.genes_of(choice)], kind.bits_of(choice)
    if place < components:  # of the last one that is kept too, whose edge says nothing
        genes[place] = rng.choice([gene for gene in kind.genes if gene != genes[place]])
        bits = _bits(kind, 0.5, rng) if choice.is_absent else bits
    else:
        bits[place - components] = not bits[place - components]
    return kind.spelled(genes, bits)


def _bits(kind: SublayerKind, share: float, rng: random.Random) -> list[bool]:
    """Each query-key slice with a probability of ``share``, and the mean by a coin."""
    slices = [rng.random() < share for _ in kind.slices]
    return [*slices, *(rng.random() < 0.5 for _ in range(kind.bits - len(slices)))]
