"""Prices of what networks are made of, fitted to whole networks that were timed.

Where a space's networks are not put together from parts that can be timed by themselves, but say what their latency is
a sum over (:meth:`~spaces.sampled_space.SampledSpace.latency_terms`), one price for each of these terms is fitted to
random networks by robust least squares of relative errors (Huber), with no price below zero. How well the prices do is
told by networks that were left out: each fifth of them is predicted by a fit to the other four. (Paper notes on
Finding Fast Transformers, section 3.3, and section 6, "Cost fitting".)

Shape legend: A architectures, K terms, the last of which is the network itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError
from orchestrator.formatting import plural
from orchestrator.latency_table.agreement import Agreement, agreement
from orchestrator.latency_table.remainder import NETWORK, Term, fitted_term
from orchestrator.latency_table.robust import FOLDS, folds_by_size, huber_weights
from spaces.architecture import Architecture
from spaces.sampled_space import LatencyPrices, MarginalLatency, SampledSpace
from spaces.space import SearchSpace

if TYPE_CHECKING:
    from spaces.sampling_distribution import ExpectedCost

NETWORKS_A_PRICE = 4
"""With fewer measured networks for each price, prices are mostly noise."""

_UNIT = "ms each"
_RIDGE = 1e-10
"""Shares a cost evenly among terms that the measured networks cannot tell apart; small against any real effect."""
_ROUNDS = 20
_FEWEST_RANKED = 10
"""A rank correlation of fewer networks is mostly chance."""


def priced(space: SearchSpace[Any]) -> SampledSpace[Any] | None:
    """The space, if its latency is a sum over terms that prices can be fitted to."""
    return space if isinstance(space, SampledSpace) and space.latency_terms() else None


def predicts_latency(space: SearchSpace[Any]) -> bool:
    """Whether a table can say what networks of the space cost: from their parts, or by prices."""
    return bool(space.parts()) or priced(space) is not None


def fewest_architectures(space: SampledSpace[Any]) -> int:
    """The fewest networks that prices are fitted to: some for each term, and for the network itself."""
    return NETWORKS_A_PRICE * (len(space.latency_terms()) + 1)


@dataclass(frozen=True)
class Marginals:
    """Fitted prices, and how well they fit.

    Attributes:
        prices: of one of each term, in milliseconds.
        base_ms: what every network costs besides.
        costs: the same as a person reads it: what one more head costs, and the like.
        architectures: networks that were measured for the fit.
        in_sample: how well the prices agree with them.
        held_out: how well prices that were fitted to four fifths of them agree with the others (cross-validation).
        checked: how well the prices agree with other networks, where any were measured in the same rounds.
    """

    prices: tuple[Term, ...]
    base_ms: float
    costs: tuple[MarginalLatency, ...]
    architectures: int
    in_sample: Agreement
    held_out: Agreement
    checked: Agreement | None = None

    def by_name(self) -> dict[str, float]:
        """Milliseconds of one of each term."""
        return {term.name: term.value for term in self.prices}

    @property
    def terms(self) -> tuple[Term, ...]:
        """The prices, and what every network costs besides."""
        return (*self.prices, fitted_term(NETWORK, self.base_ms))

    @property
    def fitted(self) -> LatencyPrices:
        """The prices alone, as trainings take them along."""
        return LatencyPrices(self.by_name(), self.base_ms)

    def cost(self, space: SampledSpace[Any]) -> ExpectedCost:
        """The prices as a cost whose expectation over a distribution is known.

        Args:
            space: the table's, or one narrowed from it.
        """
        return space.latency_cost(self.by_name(), self.base_ms)

    def spearman(self) -> float:
        """The rank correlation on networks that the prices were not fitted to; the worse one, where there are two."""
        if self.checked is None or self.checked.architectures < _FEWEST_RANKED:
            return self.held_out.spearman
        return min(self.held_out.spearman, self.checked.spearman)

    def to_json(self) -> dict[str, Any]:
        """Plain values that :meth:`from_json` reads back."""
        return {
            **asdict(self),
            "in_sample": self.in_sample.to_json(),
            "held_out": self.held_out.to_json(),
            "checked": None if self.checked is None else self.checked.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Marginals:
        """Read what :meth:`to_json` gave."""
        checked = value["checked"]
        return cls(
            prices=tuple(Term(**term) for term in value["prices"]),
            base_ms=float(value["base_ms"]),
            costs=tuple(MarginalLatency(**cost) for cost in value["costs"]),
            architectures=int(value["architectures"]),
            in_sample=Agreement.from_json(value["in_sample"]),
            held_out=Agreement.from_json(value["held_out"]),
            checked=None if checked is None else Agreement.from_json(checked),
        )


def fit_marginals(
    space: SampledSpace[Any], architectures: Sequence[Architecture], milliseconds: Sequence[float]
) -> Marginals:
    """Fit a price for each term of a space to measured networks.

    Args:
        space: says what latency is a sum over.
        architectures: networks of many sizes; more than :func:`fewest_architectures`, for prices that mean something.
        milliseconds: of a forward pass of each, positive.

    Raises:
        UserError: the space has hardly any networks to measure.
    """
    if len(architectures) < FOLDS:
        raise UserError(
            f"space '{space.name}': found {plural(len(architectures), 'network')} to fit latencies to, expected "
            f"{FOLDS} or more; give the space more architectures, or set tables.latency.marginal_architectures to 0"
        )
    counts_AK = np.array([[*space.latency_counts(one), 1.0] for one in architectures], dtype=np.float64)
    measured_A = np.asarray(milliseconds, dtype=np.float64)
    held_out_A = np.empty(len(measured_A))
    for fold in folds_by_size(measured_A):
        held_out_A[fold] = counts_AK[fold] @ _fit(counts_AK[~fold], measured_A[~fold])
    prices_K = _fit(counts_AK, measured_A)
    values = dict(zip(space.latency_terms(), prices_K.tolist(), strict=False))
    meanings = space.latency_meanings()
    return Marginals(
        prices=tuple(Term(name, value, _UNIT, meanings[name]) for name, value in values.items()),
        base_ms=float(prices_K[-1]),
        costs=tuple(space.marginal_latencies(values)),
        architectures=len(measured_A),
        in_sample=agreement((counts_AK @ prices_K).tolist(), measured_A.tolist()),
        held_out=agreement(held_out_A.tolist(), measured_A.tolist()),
    )


def _fit(counts_AK: NDArray[np.float64], measured_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Prices of at least 0, by robust least squares of relative errors, ``[K]``."""
    from scipy.optimize import nnls  # here, so that tables can be read on a machine that has PyTorch alone

    relative_AK = counts_AK / measured_A[:, None]
    size_K = np.sqrt(np.mean(relative_AK**2, axis=0))
    size_K[size_K == 0] = 1.0  # of a term that none of the networks has
    columns_AK = relative_AK / size_K
    terms = columns_AK.shape[1]
    ridge_KK = np.sqrt(_RIDGE * len(measured_A)) * np.eye(terms)
    weights_A = np.ones(len(measured_A))
    found_K = np.zeros(terms)
    for _ in range(_ROUNDS):
        root_A = np.sqrt(weights_A)
        system = np.concatenate([columns_AK * root_A[:, None], ridge_KK])
        found_K, _ = nnls(system, np.concatenate([root_A, np.zeros(terms)]))
        weights = huber_weights(1.0 - columns_AK @ found_K)
        if weights is None:
            break
        weights_A = weights
    prices_K: NDArray[np.float64] = found_K / size_K
    return prices_K
