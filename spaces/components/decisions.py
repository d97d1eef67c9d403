"""Architectures of components as named categorical choices, which samplers such as Optuna's are asked.

Sublayer by sublayer: whether each component is kept; of each that is kept but the last, whether the next one stands
beside or behind it (its edge); which query-key slices are kept, and the mean of the LayerNorm. Of a sublayer that is
absent nothing more is asked. Were nothing kept of any sublayer, the very last component would be: it is not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, partial

from spaces.components.architecture import ComponentsArchitecture
from spaces.components.options import ComponentsOptions
from spaces.components.sublayers import Gene, SublayerChoice, SublayerKind
from spaces.space import Decision

DROP, KEEP = "drop", "keep"
BESIDE, BEHIND = "horizontal", "vertical"


class DecisionBook:
    """The decisions of one space, and the ways between choices and architectures.

    Args:
        options: of the space.
    """

    def __init__(self, options: ComponentsOptions) -> None:
        self._options = options

    @cached_property
    def decisions(self) -> list[Decision]:
        """All decisions, in an order in which conditions only look back."""
        listed = [decision for index, kind in self._searched for decision in _decisions(index, kind)]
        if any(fixed is not None and not fixed.is_absent for fixed in self._options.fixed):
            return listed
        others = tuple(name for index, kind in self._searched for name in _kept_names(index, kind))[:-1]
        place = next(place for place, decision in enumerate(listed) if decision.name == self._last_component)
        listed[place] = Decision(self._last_component, (DROP, KEEP), partial(_any_kept, others))
        return listed

    @cached_property
    def _searched(self) -> list[tuple[int, SublayerKind]]:
        """Sublayers that are not fixed, by their number from 0."""
        pairs = zip(self._options.sublayers, self._options.fixed, strict=True)
        return [(index, kind) for index, (kind, fixed) in enumerate(pairs) if fixed is None]

    @cached_property
    def _last_component(self) -> str:
        index, kind = self._searched[-1]
        return _kept_names(index, kind)[-1]

    def from_decisions(self, chosen: Mapping[str, str]) -> ComponentsArchitecture:
        """The architecture of a complete set of choices."""
        searched = {index: _choice(index, kind, chosen) for index, kind in self._searched}
        sublayers = [searched.get(index, fixed) for index, fixed in enumerate(self._options.fixed)]
        return ComponentsArchitecture.of_sublayers([one for one in sublayers if one is not None])

    def to_decisions(self, architecture: ComponentsArchitecture) -> dict[str, str]:
        """The choices that lead to an architecture."""
        chosen: dict[str, str] = {}
        for index, kind in self._searched:
            chosen.update(_chosen(index, kind, architecture.sublayers[index]))
        asked = {decision.name: decision for decision in self.decisions}
        if self._searched and not asked[self._last_component].is_active(chosen):
            del chosen[self._last_component]
        return chosen


def _decisions(index: int, kind: SublayerKind) -> Iterator[Decision]:
    names = _kept_names(index, kind)
    for name in names:
        yield Decision(name, (DROP, KEEP))
    for place, name in enumerate(names[:-1] if kind.vertical else ()):
        yield Decision(f"{name}_edge", (BESIDE, BEHIND), partial(_kept_before, name, names[place + 1 :]))
    for name in _bit_names(index, kind):
        yield Decision(name, (DROP, KEEP), partial(_any_kept, names))


def _kept_names(index: int, kind: SublayerKind) -> tuple[str, ...]:
    """The decisions whether components are kept, of a sublayer by its number from 0."""
    return tuple(f"layer_{index // 2 + 1}_{kind.component}_{number + 1}" for number in kind.numbers)


def _bit_names(index: int, kind: SublayerKind) -> tuple[str, ...]:
    """The decisions about query-key slices, and about the mean, as far as they may be kept."""
    layer = f"layer_{index // 2 + 1}"
    slices = tuple(f"{layer}_query_key_{number + 1}" for number in kind.slices)
    return (*slices, f"{layer}_{kind.name}_mean") if kind.whole.mean else slices


def _any_kept(names: tuple[str, ...], chosen: Mapping[str, str]) -> bool:
    """Whether one of some components is kept; the one that is not asked for, if nothing else is."""
    return any(chosen.get(name, KEEP) == KEEP for name in names)


def _kept_before(name: str, later: tuple[str, ...], chosen: Mapping[str, str]) -> bool:
    """Whether a component and one of those after it are kept."""
    return chosen.get(name, KEEP) == KEEP and _any_kept(later, chosen)


def _choice(index: int, kind: SublayerKind, chosen: Mapping[str, str]) -> SublayerChoice:
    genes = []
    for name in _kept_names(index, kind):
        kept = Gene.VERTICAL if chosen.get(f"{name}_edge") == BEHIND else Gene.HORIZONTAL
        genes.append(kept if chosen.get(name, KEEP) == KEEP else Gene.DROPPED)
    return kind.spelled(genes, [chosen.get(name) == KEEP for name in _bit_names(index, kind)])


def _chosen(index: int, kind: SublayerKind, choice: SublayerChoice) -> dict[str, str]:
    chosen: dict[str, str] = {}
    names, genes = _kept_names(index, kind), kind.genes_of(choice)
    for name, gene in zip(names, genes, strict=True):
        chosen[name] = DROP if gene == Gene.DROPPED else KEEP
    if choice.is_absent:
        return chosen
    if kind.vertical:
        kept = [(name, gene) for name, gene in zip(names, genes, strict=True) if gene != Gene.DROPPED]
        for name, gene in kept[:-1]:
            chosen[f"{name}_edge"] = BEHIND if gene == Gene.VERTICAL else BESIDE
    bits = (KEEP if bit else DROP for bit in kind.bits_of(choice))
    chosen.update(zip(_bit_names(index, kind), bits, strict=True))
    return chosen
