"""Well-known architectures of components: the largest, which is the teacher itself, and regular thinnings of it."""

from __future__ import annotations

from collections.abc import Collection

from spaces.components.architecture import ComponentsArchitecture
from spaces.components.options import ComponentsOptions
from spaces.components.sublayers import SublayerChoice, SublayerKind

EIGHTHS = 8
"""Thinnings go down by eighths, of what every layer keeps, and of how many layers there are."""


def whole(options: ComponentsOptions) -> ComponentsArchitecture:
    """The teacher's own form, or what the space lies within, but for what is fixed."""
    return _alike(options, EIGHTHS, range(options.shape.num_layers))


def regular(options: ComponentsOptions) -> list[ComponentsArchitecture]:
    """The largest, the same with fewer heads and slices in every layer, and with fewer whole layers.

    What is fixed stays as it is.
    """
    from spaces.extraction import uniform_layers

    layers = _layers(options)
    found = [_alike(options, eighths, layers) for eighths in range(EIGHTHS, 0, -1)]
    for eighths in range(EIGHTHS - 1, 0, -1):
        depth = max(1, round(len(layers) * eighths / EIGHTHS))
        kept = uniform_layers(len(layers), depth)
        found.append(_alike(options, EIGHTHS, [layers[place] for place in kept]))
    return list(dict.fromkeys(found))


def _layers(options: ComponentsOptions) -> list[int]:
    """The layers of which anything may be kept, by their numbers from 0."""
    absent = [fixed is not None and fixed.is_absent for fixed in options.fixed]
    return [layer for layer in range(options.shape.num_layers) if not all(absent[2 * layer : 2 * layer + 2])]


def _alike(options: ComponentsOptions, eighths: int, layers: Collection[int]) -> ComponentsArchitecture:
    """Some layers, by their numbers from 0, each with as many eighths of its components."""
    sublayers = []
    for index, (kind, fixed) in enumerate(zip(options.sublayers, options.fixed, strict=True)):
        free = _leading(kind, eighths) if index // 2 in layers else SublayerChoice()
        sublayers.append(free if fixed is None else fixed)
    return ComponentsArchitecture.of_sublayers(sublayers)


def _leading(kind: SublayerKind, eighths: int) -> SublayerChoice:
    """The first components, one at least, with all else that the largest choice has."""
    whole = kind.whole
    kept = whole.components[: max(1, round(len(whole.components) * eighths / EIGHTHS))]
    stages = (tuple(number for number in stage if number in kept) for stage in whole.stages)
    return SublayerChoice(tuple(filter(None, stages)), whole.query_key, whole.mean)
