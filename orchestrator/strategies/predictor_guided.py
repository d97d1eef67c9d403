"""Search guided by a cheap regressor, which screens many descendants before any of them costs a forward pass."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Measurement
from orchestrator.strategies.base import StrategyOptions, suggestion
from orchestrator.strategies.breeding import BreedingStrategy, Member, fitness, fittest
from orchestrator.strategies.drawing import Sampling
from spaces.architecture import Architecture


class PredictorGuidedOptions(StrategyOptions):
    """Options of :class:`PredictorGuided`.

    Attributes:
        regressor: one of :data:`REGRESSORS`.
        regressor_options: arguments of the regressor's class (``{"n_estimators": 50}``), without the seed.
        start: random candidates that are measured before the first prediction.
        offspring: descendants that are predicted at a time.
        chosen: how many of them, the best predicted, are asked before the next prediction.
        parents: the fittest measured architectures, which descendants come from.
        crossover_probability: how often a descendant gets genes from two parents before it is mutated.
        mutations: the most mutations between a parent and a descendant; the number is drawn.
        exploration: share of the candidates asked that are random, so that the regressor sees more than its own
            choices.
    """

    sampling: Sampling = "sizes"
    regressor: str = "random_forest"
    regressor_options: dict[str, Any] = Field(default_factory=dict)
    start: int = Field(default=40, ge=1)
    offspring: int = Field(default=400, ge=1)
    chosen: int = Field(default=10, ge=1)
    parents: int = Field(default=40, ge=1)
    crossover_probability: float = Field(default=0.5, ge=0.0, le=1.0)
    mutations: int = Field(default=3, ge=1)
    exploration: float = Field(default=0.1, ge=0.0, lt=1.0)


class PredictorGuided(BreedingStrategy):
    """Evolution whose children are predicted first, by regressors on ``space.encode``, one for each dear objective.

    Cheap objectives are computed, not predicted. A screening breeds ``offspring`` feasible new descendants of the
    fittest measured architectures, ranks them by predictions and cheap objectives together with all that was measured
    (non-dominated rank, then crowding), and asks the ``chosen`` best. Then regressors are fitted anew to everything
    told so far.
    """

    name: ClassVar[str] = "predictor_guided"
    options_class: ClassVar[type[StrategyOptions]] = PredictorGuidedOptions

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        _make_regressor(self.options, self.seed)
        self._measured: list[Member] = []
        self._screened: deque[Architecture] = deque()

    def _propose(self) -> Architecture | None:
        if len(self._pending) + len(self._told) < self.options.start or len(self._measured) < 2:
            return self._explore()
        if self._rng.random() < self.options.exploration:
            return self._explore()
        for _ in range(2):
            while self._screened:
                candidate = self._screened.popleft()
                if self._is_new(candidate):
                    return candidate
            self._screened.extend(self._screen())
        return self._explore()

    def _screen(self) -> list[Architecture]:
        """The best predicted of many new descendants."""
        descendants = self._breed()
        if not descendants:
            return []
        predicted = self._predict(descendants)
        rivals = [Member(one, tuple(values)) for one, values in zip(descendants, predicted.tolist(), strict=True)]
        order = fitness([*rivals, *self._measured], self.objectives)
        best = sorted(range(len(rivals)), key=order.__getitem__)[: self.options.chosen]
        return [rivals[index].architecture for index in best]

    def _breed(self) -> list[Architecture]:
        """New feasible descendants of the fittest, each once."""
        parents = fittest(self._measured, self.objectives, self.options.parents)
        found: dict[Architecture, None] = {}
        for _ in range(self.options.offspring * 2):
            if len(found) >= self.options.offspring:
                break
            child = self._rng.choice(parents).architecture
            if self._rng.random() < self.options.crossover_probability:
                child = self._cross(child, self._rng.choice(parents).architecture)
            for _ in range(self._rng.randint(1, self.options.mutations)):
                child = self._mutate(child)
            if self._is_new(child) and self.feasibility(child):
                found[child] = None
        return list(found)

    def _predict(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Objectives [architectures, objectives]: cheap ones computed, the others predicted from all measurements."""
        seen = self._encode([member.architecture for member in self._measured])
        asked = self._encode(architectures)
        values = np.array([member.values for member in self._measured], dtype=np.float64)
        result = np.empty((len(architectures), len(self.objectives)))
        for column, objective in enumerate(self.objectives):
            if objective.name in self.cheap.names:
                result[:, column] = [self.cheap.values(one)[objective.name] for one in architectures]
                continue
            regressor = _make_regressor(self.options, self.seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # kernels at their bounds, no convergence: the guess is rough anyway
                regressor.fit(seen, values[:, column])
                result[:, column] = regressor.predict(asked)
        return result

    def _encode(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.stack([self.space.encode(architecture) for architecture in architectures])

    def _observe(self, measurement: Measurement) -> None:
        if measurement.objectives is not None:
            self._measured.append(self._member(measurement))

    def _state(self) -> dict[str, Any]:
        return {"measured": self._saved(self._measured), "screened": [str(one) for one in self._screened]}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._measured = self._restored(state["measured"])
        self._screened = deque(self.space.parse(text) for text in state["screened"])


# --- regressors ------------------------------------------------------------------------------------------------------


def _random_forest(seed: int, **options: Any) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(**{"n_estimators": 50, "n_jobs": 1, "random_state": seed, **options})


def _gradient_boosting(seed: int, **options: Any) -> Any:
    from sklearn.ensemble import GradientBoostingRegressor

    return GradientBoostingRegressor(**{"random_state": seed, **options})


def _gaussian_process(seed: int, **options: Any) -> Any:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    kernel = ConstantKernel() * Matern(nu=2.5) + WhiteKernel(1e-3)
    return GaussianProcessRegressor(**{"kernel": kernel, "normalize_y": True, "random_state": seed, **options})


def _ridge(seed: int, **options: Any) -> Any:
    from sklearn.linear_model import Ridge

    return Ridge(**{"alpha": 1.0, "random_state": seed, **options})


def _lightgbm(seed: int, **options: Any) -> Any:
    import lightgbm

    settings = {"n_estimators": 100, "min_child_samples": 5, "verbose": -1, "n_jobs": 1, "deterministic": True}
    return lightgbm.LGBMRegressor(**{**settings, "random_state": seed, **options})


REGRESSORS: dict[str, Callable[..., Any]] = {
    "random_forest": _random_forest,
    "gradient_boosting": _gradient_boosting,
    "gaussian_process": _gaussian_process,
    "ridge": _ridge,
    "lightgbm": _lightgbm,
}
"""Makers of regressors by name; all are scikit-learn's but ``lightgbm``."""


def _make_regressor(options: PredictorGuidedOptions, seed: int) -> Any:
    """The named regressor, not fitted.

    Raises:
        UserError: the name is unknown, or the options do not fit.
    """
    name = options.regressor
    if name not in REGRESSORS:
        raise UserError(f"strategy predictor_guided has no regressor {name!r}{suggestion(name, REGRESSORS)}")
    try:
        return REGRESSORS[name](seed, **options.regressor_options)
    except TypeError as error:
        raise UserError(f"strategy predictor_guided, regressor_options of {name}: {error}") from None
