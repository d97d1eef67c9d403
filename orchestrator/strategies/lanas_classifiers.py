"""How a node of a LaNAS tree tells the good half of its region from the bad: a classifier, or a regressor's boundary.

LightGBM runs on one thread and deterministically, so that a tree can be learned again from its samples and its seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.strategies.predictor_guided import REGRESSORS

Model = Literal["lightgbm", "linear"]
"""What nodes learn with: gradient-boosted trees; or logistic regression (classifiers) and ridge (regressors)."""

Features = NDArray[np.float64]
"""Encoded architectures [architectures, features]."""

Predict = Callable[[Features], NDArray[np.float64]]
"""One number for each encoded architecture: the probability of being good, or the fitness."""

ROUNDS = 100
"""Trees of a booster, and the rounds without progress after which it stops: what is kept is its best round."""

HELD_OUT = 0.2
"""Share of a node's samples that judges its classifier."""

FEW_VALUES = 20
"""The most values of a feature that a linear model is told one by one."""

_LEAST = 2
"""Good samples, and bad ones, without which nothing is classified: one to learn from, one to judge by."""


@dataclass(frozen=True)
class Split:
    """What divides a region in two.

    Attributes:
        predict: gives a number for each architecture.
        boundary: those at or above it are good.
    """

    predict: Predict
    boundary: float

    def __call__(self, features: Features) -> NDArray[np.bool_]:
        """Which architectures are on the good side, bool [architectures]."""
        good: NDArray[np.bool_] = np.asarray(self.predict(features)) >= self.boundary
        return good


@dataclass(frozen=True)
class Indicators:
    """Features as linear models see them: one of 0 and 1 for each value of a feature of few values.

    What a place of an architecture has is no amount, and a space may number it (EfficientBERT's does, as its authors'
    code). Trees can tell such numbers apart, a linear model takes the third operation for thrice the first. On a slice
    of EfficientBERT's space (``bench_efficient_slice``), trees of ridge regressions on 80 random samples had the best
    hundredth of all networks 4.3 times as often in their best region as elsewhere, with indicators 8.9 times.

    Attributes:
        columns: features that are replaced.
        values: of each of them, those that samples had; any other has no indicator.
    """

    columns: tuple[int, ...]
    values: tuple[NDArray[np.float64], ...]

    @classmethod
    def of(cls, features: Features) -> Indicators:
        """Those of the features that have three to :data:`FEW_VALUES` values among some samples."""
        values = [np.unique(column) for column in features.T]
        chosen = [number for number, own in enumerate(values) if 3 <= len(own) <= FEW_VALUES]
        return cls(tuple(chosen), tuple(values[number] for number in chosen))

    def __call__(self, features: Features) -> Features:
        """The other features, then the indicators [architectures, features]."""
        if not self.columns:
            return features
        told = [features[:, [column]] == own for column, own in zip(self.columns, self.values, strict=True)]
        return np.concatenate([np.delete(features, self.columns, axis=1), *told], axis=1).astype(np.float64)


@dataclass(frozen=True)
class ClassifierSettings:
    """How classifiers are fitted.

    Attributes:
        model: what they are.
        tuning: settings of LightGBM that Optuna's TPE tries for each fit; 0: LightGBM's own.
        max_refits: fits after which a node stays undivided.
    """

    model: Model
    tuning: int
    max_refits: int


def allowed_error(refits: int) -> float:
    """The hold-out error below which a classifier is taken: 0.5, and 0.0003 more for each refit beyond 100."""
    return 0.5 + 0.0003 * max(0, refits - 100)


def fit_classifier(
    features: Features, is_good: NDArray[np.bool_], settings: ClassifierSettings, rng: random.Random
) -> Split | None:
    """A classifier of a node's samples (paper notes, section 3.3).

    Each fit leaves out another fifth of both classes and is judged by it, until one errs less than
    :func:`allowed_error`.

    Args:
        features: of the node's samples.
        is_good: bool [samples], the class of each.
        settings: see :class:`ClassifierSettings`.
        rng: of the samples left out and the seeds.

    Returns:
        The split; ``None`` where the samples are (all but one) of one class, where no fit is better than guessing, or
        where it puts all of them on one side: the region is then not divided.
    """
    if min(int(is_good.sum()), int((~is_good).sum())) < _LEAST:
        return None
    for refits in range(settings.max_refits):
        held_out = _held_out(is_good, rng)
        data = _Data(features[~held_out], is_good[~held_out], features[held_out], is_good[held_out])
        seed = rng.randrange(1 << 31)
        predict = _logistic(data) if settings.model == "linear" else _boosted_classifier(data, seed, settings.tuning)
        split = Split(predict, 0.5)
        if np.mean(split(data.judging) != data.judged) < allowed_error(refits):
            sides = split(features)
            return split if sides.any() and not sides.all() else None
    return None


def fit_boundary(features: Features, fitness: NDArray[np.float64], model: Model, seed: int) -> Split | None:
    """A regressor of a node's samples with the boundary of LaNAS: the mean of what it predicts for them.

    The authors train a linear layer by gradient descent at every relearning; here it is ridge regression, whose answer
    is exact and owes nothing to earlier ones.

    Args:
        features: of the node's samples.
        fitness: of the node's samples, float [samples].
        model: of the regressor.
        seed: of LightGBM.

    Returns:
        The split; ``None`` where all samples are predicted alike.
    """
    if model == "linear":
        indicators = Indicators.of(features)
        regressor = REGRESSORS["ridge"](seed)
        regressor.fit(indicators(features), fitness)
        predict: Predict = lambda asked: regressor.predict(indicators(asked))  # noqa: E731
    else:
        predict = _boosted({"objective": "regression", **_settings_for(len(features), seed)}, features, fitness)[0]
    predicted = predict(features)
    if np.ptp(predicted) <= 1e-9 * np.ptp(fitness):
        return None
    return Split(predict, float(np.mean(predicted)))


@dataclass(frozen=True)
class _Data:
    """Samples to learn from (``learning``, of class ``learned``) and to judge by (``judging``, ``judged``)."""

    learning: Features
    learned: NDArray[np.bool_]
    judging: Features
    judged: NDArray[np.bool_]


def _held_out(is_good: NDArray[np.bool_], rng: random.Random) -> NDArray[np.bool_]:
    """A fifth of each class, at least one: bool [samples]."""
    held_out = np.zeros(len(is_good), dtype=np.bool_)
    for side in (True, False):
        rows = np.flatnonzero(is_good == side).tolist()
        held_out[rng.sample(rows, max(1, round(HELD_OUT * len(rows))))] = True
    return held_out


def _logistic(data: _Data) -> Predict:
    """The probability of being good by logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    indicators = Indicators.of(data.learning)
    model.fit(indicators(data.learning), data.learned)
    return lambda features: model.predict_proba(indicators(features))[:, 1]


# --- LightGBM --------------------------------------------------------------------------------------------------------


def _settings_for(samples: int, seed: int) -> dict[str, Any]:
    """What every booster is given; LightGBM's least number of samples a leaf is lowered for small nodes only."""
    return {
        "min_data_in_leaf": min(20, max(1, samples // 3)),
        "seed": seed,
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def _boosted_classifier(data: _Data, seed: int, tuning: int) -> Predict:
    """The probability of being good by LightGBM, tuned on the samples held out where that is wanted."""
    settings = {"objective": "binary", **_settings_for(len(data.learning), seed)}
    return _boosted({**settings, **_tuned(data, settings, seed, tuning)}, data.learning, data.learned, data)[0]


def _boosted(
    settings: dict[str, Any], features: Features, target: NDArray[Any], judge: _Data | None = None
) -> tuple[Predict, float]:
    """A booster of :data:`ROUNDS` rounds, cut at the round that is best for ``judge``, and its loss there."""
    import lightgbm

    learning = lightgbm.Dataset(features, label=target.astype(np.float64), params={"verbosity": -1})
    if judge is None:
        booster = lightgbm.train(settings, learning, ROUNDS, keep_training_booster=True)
    else:
        judging = lightgbm.Dataset(judge.judging, label=judge.judged.astype(np.float64), reference=learning)
        stop = lightgbm.early_stopping(ROUNDS, verbose=False)
        booster = lightgbm.train(
            settings, learning, ROUNDS, valid_sets=[judging], callbacks=[stop], keep_training_booster=True
        )
    loss = 0.0 if judge is None else float(booster.best_score["valid_0"]["binary_logloss"])
    return lambda asked: booster.predict(asked, num_threads=1), loss


def _tuned(data: _Data, settings: dict[str, Any], seed: int, evaluations: int) -> dict[str, Any]:
    """The settings that Optuna's TPE finds best on the samples held out, within the authors' ranges."""
    if not evaluations:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(1, evaluations // 2))
    study = optuna.create_study(direction="minimize", sampler=sampler)
    for _ in range(evaluations):
        trial = study.ask()
        study.tell(trial, _boosted({**settings, **_suggested(trial)}, data.learning, data.learned, data)[1])
    return _suggested(study.best_trial)


def _suggested(trial: Any) -> dict[str, Any]:
    """One setting of the authors' ranges, by an Optuna trial that is asked or was told."""
    leaves = np.linspace(10, 200, 50, dtype=int).tolist()
    frequencies = np.linspace(0, 50, 10, dtype=int).tolist()
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.5, log=True),
        "max_depth": trial.suggest_categorical("max_depth", [-1, 2, 3, 4, 5, 6]),
        "num_leaves": leaves[trial.suggest_int("num_leaves", 0, len(leaves) - 1)],
        "feature_fraction": trial.suggest_float("feature_fraction", 0.5, 1.0, step=0.1),
        "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0, step=0.1),
        "bagging_freq": frequencies[trial.suggest_int("bagging_freq", 0, len(frequencies) - 1)],
        "lambda_l1": trial.suggest_float("lambda_l1", 0.0, 2.0),
        "lambda_l2": trial.suggest_float("lambda_l2", 0.0, 2.0),
        "min_sum_hessian_in_leaf": trial.suggest_float("min_sum_hessian_in_leaf", 0.5, 10.0),
    }
