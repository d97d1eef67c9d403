"""Well-known architectures of components: the teacher itself, and regular thinnings of it."""

from __future__ import annotations

from collections.abc import Collection

from spaces.components.architecture import ComponentsArchitecture
from spaces.components.options import ComponentsOptions
from spaces.components.sublayers import SublayerChoice, SublayerKind

EIGHTHS = 8
"""Thinnings go down by eighths, of what every layer keeps, and of how many layers there are."""


def whole(options: ComponentsOptions) -> ComponentsArchitecture:
    """The teacher's own form, but for what is fixed."""
    return _alike(options, EIGHTHS, range(options.shape.num_layers))


def regular(options: ComponentsOptions) -> list[ComponentsArchitecture]:
    """The teacher, layers that are all alike with fewer heads and slices, and fewer whole layers.

    What is fixed stays as it is.
    """
    from spaces.extraction import uniform_layers

    layers = options.shape.num_layers
    found = [_alike(options, eighths, range(layers)) for eighths in range(EIGHTHS, 0, -1)]
    for eighths in range(EIGHTHS - 1, 0, -1):
        depth = max(1, round(layers * eighths / EIGHTHS))
        found.append(_alike(options, EIGHTHS, uniform_layers(layers, depth)))
    return list(dict.fromkeys(found))


def _alike(options: ComponentsOptions, eighths: int, layers: Collection[int]) -> ComponentsArchitecture:
    """Some layers, by their numbers from 0, each with as many eighths of its components."""
    sublayers = []
    for index, (kind, fixed) in enumerate(zip(options.sublayers, options.fixed, strict=True)):
        free = _leading(kind, eighths) if index // 2 in layers else SublayerChoice()
        sublayers.append(free if fixed is None else fixed)
    return ComponentsArchitecture.of_sublayers(sublayers)


def _leading(kind: SublayerKind, eighths: int) -> SublayerChoice:
    """The first components beside each other, one at least, with all else that the teacher has."""
    count = max(1, round(kind.components * eighths / EIGHTHS))
    return SublayerChoice((tuple(range(count)),), kind.whole.query_key, True)
