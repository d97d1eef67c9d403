"""What the sum of the parts leaves out of a network's latency: few additive terms, fitted to whole networks.

A network is not exactly the sum of its parts: something is spent once (entering the model, output), something on each
layer (calling it, handing over its input), and caches treat a layer within a network otherwise than the same layer
measured by itself. Whole networks of many sizes, timed in turn with the parts, tell how much. The terms stay additive
over parts, so that an exact solver can still add them up.

Only numpy is needed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.latency_table.robust import folds_by_size, huber_weights
from spaces.space import Part

NETWORK, LAYER, PROJECTION, SCALE = "network", "layer", "projection", "scale"
OPERATION_KIND, PROJECTION_KIND = "operation", "projection"
FEWEST_ARCHITECTURES = 4
"""With fewer measured networks no term can be told from noise."""

_UNITS = {NETWORK: "ms a network", LAYER: "ms an operation", PROJECTION: "ms a projection"}
_MEANINGS = {
    NETWORK: "spent once, whatever the network's size",
    LAYER: "spent on each layer besides what its operation was measured at",
    PROJECTION: "spent on each linear map between widths besides what it was measured at",
    SCALE: "what every part's measured latency is multiplied with",
}
_SCALES = "scales"
"""Stands for one scale each operation name and one for projections."""

CANDIDATES: tuple[tuple[str, ...], ...] = (
    (),
    (SCALE,),
    (NETWORK,),
    (SCALE, NETWORK),
    (SCALE, NETWORK, LAYER),
    (SCALE, NETWORK, LAYER, PROJECTION),
    (_SCALES, NETWORK),
    (_SCALES, NETWORK, LAYER, PROJECTION),
)
"""Sets of terms that a fit chooses from, the simpler first."""

_TOLERANCE = 1.1
"""A simpler set of terms is preferred while its error on unseen networks is at most this times the least one."""
_RIDGE = 1e-4
"""Pulls terms to "the parts add up" where the measured networks cannot tell; small against any real effect."""


@dataclass(frozen=True)
class Term:
    """One term of a remainder.

    Attributes:
        name: ``network``, ``layer``, ``projection``, ``scale``, or ``scale:<name of the parts>``.
        value: in its unit.
        unit: what the value is counted in.
        meaning: in words.
    """

    name: str
    value: float
    unit: str
    meaning: str


@dataclass(frozen=True)
class Remainder:
    """The fitted terms and how well they fit; without terms the parts simply add up.

    Errors are means of |predicted - measured| / measured over the networks of the fit.

    Attributes:
        terms: few, each of which names what it stands for.
        architectures: networks that were measured for the fit.
        error_without: of the plain sum of the parts.
        error_in_sample: of the fit on the networks it was fitted to.
        error_out_of_sample: of fits on networks they were not fitted to (cross-validation).
    """

    terms: tuple[Term, ...] = ()
    architectures: int = 0
    error_without: float | None = None
    error_in_sample: float | None = None
    error_out_of_sample: float | None = None

    @property
    def constant_ms(self) -> float:
        """Milliseconds spent once in each network."""
        return self._values().get(NETWORK, 0.0)

    def part_ms(self, part: Part, measured_ms: float) -> float:
        """What a part costs within a network, from what it was measured at by itself."""
        values = self._values()
        scale = values.get(f"{SCALE}:{part.name}", values.get(SCALE, 1.0))
        overhead = {OPERATION_KIND: LAYER, PROJECTION_KIND: PROJECTION}.get(part.kind, "")
        return scale * measured_ms + values.get(overhead, 0.0)

    def _values(self) -> dict[str, float]:
        return {term.name: term.value for term in self.terms}

    def to_json(self) -> dict[str, Any]:
        """Plain values that :meth:`from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Remainder:
        """Read what :meth:`to_json` gave."""
        return cls(**{**value, "terms": tuple(Term(**term) for term in value["terms"])})


@dataclass(frozen=True)
class MeasuredNetwork:
    """A whole network that was timed.

    Attributes:
        parts: its parts, repeats included.
        milliseconds: of one forward pass.
    """

    parts: Sequence[Part]
    milliseconds: float


def fit_remainder(parts_ms: Mapping[Part, float], networks: Sequence[MeasuredNetwork]) -> Remainder:
    """Fit the remainder to measured networks.

    Every set of terms in :data:`CANDIDATES` is fitted by robust (Huber) ridge regression of relative errors, terms that
    would be negative left out; cross-validation decides how many of them are justified.

    Args:
        parts_ms: what each part was measured at, in milliseconds.
        networks: measured under the same conditions; below :data:`FEWEST_ARCHITECTURES` nothing is fitted.

    Returns:
        The remainder; one without terms where none lowers the error on unseen networks.
    """
    if len(networks) < FEWEST_ARCHITECTURES:
        return Remainder(architectures=len(networks))
    problem = _Problem.of(parts_ms, networks)
    folds = folds_by_size(problem.measured)
    unseen = np.empty((len(CANDIDATES), len(networks)))
    for row, terms in enumerate(CANDIDATES):
        for fold in folds:
            unseen[row, fold] = problem.errors(problem.fit(terms, ~fold), fold)
    chosen = _simplest_good(unseen)
    everything = np.ones(len(networks), dtype=bool)
    values = problem.fit(CANDIDATES[chosen], everything)
    return Remainder(
        terms=tuple(fitted_term(name, value) for name, value in values.items()),
        architectures=len(networks),
        error_without=float(np.mean(problem.errors({}, everything))),
        error_in_sample=float(np.mean(problem.errors(values, everything))),
        error_out_of_sample=float(np.mean(unseen[chosen])),
    )


def _simplest_good(errors: NDArray[np.float64]) -> int:
    """The first set of terms that is about as good as the best one.

    Args:
        errors: of each set (rows, the simpler first) on each network, fitted without it, [sets, networks].

    Returns:
        The first row whose mean exceeds the least one by at most :data:`_TOLERANCE`, or by at most the standard error
        of the difference: what noise alone would do.
    """
    means = np.mean(errors, axis=1)
    best = int(np.argmin(means))
    excess = errors - errors[best]
    noise = np.std(excess, axis=1, ddof=1) / np.sqrt(errors.shape[1])
    good = (means <= means[best] * _TOLERANCE) | (np.mean(excess, axis=1) <= noise)
    return int(np.argmax(good))


def fitted_term(name: str, value: float) -> Term:
    """A term of its value, with its unit and in words."""
    meaning = _MEANINGS.get(name, f"what the measured latency of {name.partition(':')[2]} is multiplied with")
    return Term(name, value, _UNITS.get(name, "1"), meaning)


@dataclass(frozen=True)
class _Problem:
    """Measured networks as columns of milliseconds.

    Attributes:
        measured: of each network, shape [networks].
        plain: the sum of its parts, [networks].
        by_name: the sum over its parts of each name, embeddings excepted, [networks] each.
        counts: how many operations and projections it has, and ones for the network itself, [networks] each.
    """

    measured: NDArray[np.float64]
    plain: NDArray[np.float64]
    by_name: Mapping[str, NDArray[np.float64]]
    counts: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, parts_ms: Mapping[Part, float], networks: Sequence[MeasuredNetwork]) -> _Problem:
        kinds = {LAYER: OPERATION_KIND, PROJECTION: PROJECTION_KIND}
        names = dict.fromkeys(part.name for part in parts_ms if part.kind in kinds.values())
        counts = {
            term: np.array([sum(part.kind == kind for part in network.parts) for network in networks], dtype=np.float64)
            for term, kind in kinds.items()
        }
        return cls(
            measured=np.array([network.milliseconds for network in networks]),
            plain=np.array([sum(parts_ms[part] for part in network.parts) for network in networks]),
            by_name={
                name: np.array([sum(parts_ms[p] for p in network.parts if p.name == name) for network in networks])
                for name in names
            },
            counts=counts | {NETWORK: np.ones(len(networks))},
        )

    def fit(self, terms: Sequence[str], rows: NDArray[np.bool_]) -> dict[str, float]:
        """The values of those terms that are not negative, fitted to some of the networks."""
        names = [name for term in terms for name in self._expanded(term)]
        names = [name for name in names if np.any(self._column(name)[rows])]
        while names:
            values = self._solve(names, rows)
            if min(values) > 0:
                return dict(zip(names, values, strict=True))
            del names[int(np.argmin(values))]
        return {}

    def errors(self, values: Mapping[str, float], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        """|predicted - measured| / measured of some of the networks."""
        change = sum((self._column(name) * (value - _neutral(name)) for name, value in values.items()), start=0.0)
        return np.abs((self.plain + change - self.measured) / self.measured)[rows]

    def _expanded(self, term: str) -> list[str]:
        return [f"{SCALE}:{name}" for name in self.by_name] if term == _SCALES else [term]

    def _column(self, name: str) -> NDArray[np.float64]:
        """Milliseconds of each network per unit of a term."""
        if name == SCALE:
            return self.plain
        kind, _, part = name.partition(":")
        return self.by_name[part] if kind == SCALE else self.counts[name]

    def _solve(self, names: Sequence[str], rows: NDArray[np.bool_]) -> list[float]:
        """Robust ridge regression of the relative remainder; the ridge pulls each term to its neutral value."""
        columns = np.stack([self._column(name) for name in names], axis=1)[rows] / self.measured[rows, None]
        target = ((self.measured - self.plain) / self.measured)[rows]
        size = np.sqrt(np.mean(columns**2, axis=0))
        columns = columns / size
        weights = np.ones(len(target))
        change = np.zeros(len(names))
        for _ in range(20):
            weighted = columns * weights[:, None]
            ridge = _RIDGE * len(target) * np.eye(len(names))
            change = np.linalg.solve(weighted.T @ columns + ridge, weighted.T @ target)
            if (found := huber_weights(target - columns @ change)) is None:
                break
            weights = found
        return [float(c / s) + _neutral(name) for c, s, name in zip(change, size, names, strict=True)]


def _neutral(name: str) -> float:
    """The value of a term that changes nothing."""
    return 1.0 if name.startswith(SCALE) else 0.0
