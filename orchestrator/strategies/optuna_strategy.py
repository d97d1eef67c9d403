"""Optuna's samplers behind the ask/tell contract, asked the space's decisions as the parameters they understand."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from pydantic import Field

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Measurement
from orchestrator.strategies.base import Strategy, StrategyOptions, suggestion
from orchestrator.strategies.optuna_mirror import StudyMirror
from spaces.architecture import Architecture


@dataclass(frozen=True)
class _Sampler:
    """A sampler that can be named.

    Attributes:
        sampler_class: of Optuna.
        modules: what it needs beyond Optuna.
        single_objective: whether it takes one objective only.
        complete: whether it learns of parameters only that every trial has; it is then asked every decision, and what
            it says of those that do not apply is ignored.
        ordinal: whether it knows numbers only; a choice then is its place among the choices.
        constrained: whether it is told how a trial stands to the constraints; others warn of what they do not use.
        defaults: arguments of the class that differ from Optuna's.
    """

    sampler_class: Callable[..., BaseSampler]
    modules: tuple[str, ...] = ()
    single_objective: bool = False
    complete: bool = False
    ordinal: bool = False
    constrained: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)


class _ForgetfulGPSampler(optuna.samplers.GPSampler):
    """Optuna's Gaussian processes, fitted from the trials alone for every proposal.

    Optuna begins each fit at the kernels of the one before, which it keeps in memory, where no state can save them:
    an interrupted search would go on with other proposals.
    """

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Forget the kernels of the proposal before."""
        self._gprs_cache_list = None
        self._constraints_gprs_cache_list = None
        super().before_trial(study, trial)


SAMPLERS: dict[str, _Sampler] = {
    "nsga2": _Sampler(optuna.samplers.NSGAIISampler),
    "nsga3": _Sampler(optuna.samplers.NSGAIIISampler),
    "tpe": _Sampler(optuna.samplers.TPESampler),
    "random": _Sampler(optuna.samplers.RandomSampler),
    "qmc": _Sampler(
        optuna.samplers.QMCSampler,
        ("scipy",),
        complete=True,
        ordinal=True,
        constrained=False,
        defaults={"warn_independent_sampling": False, "warn_asynchronous_seeding": False},
    ),
    "cmaes": _Sampler(
        optuna.samplers.CmaEsSampler,
        ("cmaes",),
        single_objective=True,
        complete=True,
        ordinal=True,
        constrained=False,
        defaults={"warn_independent_sampling": False},
    ),
    "gp": _Sampler(
        _ForgetfulGPSampler, ("scipy", "torch"), complete=True, defaults={"warn_independent_sampling": False}
    ),
}
"""The samplers of Optuna by the names that a recipe uses. Asked conditional choices as they are, the last three would
fall back to random sampling, the first of a trial or all: they model parameters that all trials share, two of them
numbers only."""


class OptunaOptions(StrategyOptions):
    """Options of :class:`OptunaStrategy`.

    Attributes:
        sampler: one of :data:`SAMPLERS`.
        sampler_options: arguments of the sampler's class in Optuna (``{"population_size": 20}``), without the seed.
        storage: where a copy of the study is kept for ``optuna-dashboard``: an SQLAlchemy URL (``sqlite:///study.db``)
            or a journal file (``study.log``); ``null``: nowhere.
        study_name: its name there; ``null``: ``netsuke-<space>-<seed>``.
        max_tries: proposals of the sampler that may be infeasible or known before a mutation or a sample steps in.
    """

    sampler: str = "nsga2"
    sampler_options: dict[str, Any] = Field(default_factory=dict)
    storage: str | None = None
    study_name: str | None = None
    max_tries: int = Field(default=10, ge=1)


class OptunaStrategy(Strategy):
    """A study whose parameters are the space's decisions, conditional ones included.

    An infeasible proposal never leaves the strategy: the sampler is told its constraint values (Optuna's own constraint
    API), with the worst values seen so far in place of the unknown ones. A proposal that is known already is told its
    known values again. After ``max_tries`` of these, a mutation of the last known proposal, or a random sample, is
    enqueued instead.
    """

    name: ClassVar[str] = "optuna"
    options_class: ClassVar[type[StrategyOptions]] = OptunaOptions

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sampler = _named_sampler(self.options)
        self._decisions = list(self.space.decisions())
        self._choices = {decision.name: decision.choices for decision in self._decisions}
        self._distributions: dict[str, BaseDistribution] = {
            name: IntDistribution(0, len(choices) - 1) if self._sampler.ordinal else CategoricalDistribution(choices)
            for name, choices in self._choices.items()
        }
        self._pending_numbers: dict[Architecture, int] = {}
        self._known_values: dict[Architecture, list[float] | None] = {}
        self._directions = [
            StudyDirection.MINIMIZE if objective.minimise else StudyDirection.MAXIMIZE for objective in self.objectives
        ]
        self._mirror = self._make_mirror()
        self._start_study()

    def _make_mirror(self) -> StudyMirror | None:
        if self.options.storage is None:
            return None
        name = self.options.study_name or f"netsuke-{self.space.name}-{self.seed}"
        metrics = [objective.name for objective in self.objectives]
        return StudyMirror(self.options.storage, name, self._directions, metrics)

    def _start_study(self) -> None:
        """Begin an empty study with a freshly seeded sampler."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(
            storage=self._storage,
            study_name="netsuke",
            sampler=_make_sampler(self._sampler, self.options, self.seed, len(self.objectives)),
            directions=self._directions,
        )
        self._study_id = self._storage.get_study_id_from_name("netsuke")

    def _propose(self) -> Architecture | None:
        last_known: Architecture | None = None
        for _ in range(self.options.max_tries):
            trial = self._study.ask()
            architecture = self._suggest(trial)
            if not self.feasibility(architecture):
                self._reject(trial, architecture)
            elif self._is_new(architecture):
                self._pending_numbers[architecture] = trial.number
                return architecture
            else:
                self._finish(trial.number, self._known_values.get(architecture))
                last_known = architecture
        replacement = (self._walk(last_known) if last_known is not None else None) or self._explore()
        return None if replacement is None else self._propose_given(replacement)

    def _propose_given(self, architecture: Architecture) -> Architecture:
        """Make the study propose a given architecture."""
        self._study.enqueue_trial(self._parameters(self.space.to_decisions(architecture)))
        trial = self._study.ask()
        self._suggest(trial)
        self._pending_numbers[architecture] = trial.number
        return architecture

    def _suggest(self, trial: Trial) -> Architecture:
        """Ask the sampler every decision that it needs, and record how the outcome stands to the constraints."""
        chosen: dict[str, str] = {}
        for decision in self._decisions:
            applies = decision.is_active(chosen)
            if not applies and not self._sampler.complete:
                continue
            if self._sampler.ordinal:
                choice = decision.choices[trial.suggest_int(decision.name, 0, len(decision.choices) - 1)]
            else:
                choice = trial.suggest_categorical(decision.name, decision.choices)
            if applies:
                chosen[decision.name] = choice
        architecture: Architecture = self.space.from_decisions(chosen)
        if self._sampler.constrained:
            for name, excess in self.feasibility.excesses(architecture).items():
                trial.set_constraint(name, excess)
        return architecture

    def _parameters(self, chosen: Mapping[str, str]) -> dict[str, Any]:
        """Decisions as the study's parameters; the first choice stands for those that do not apply but are asked."""
        if self._sampler.complete:
            chosen = {name: chosen.get(name, choices[0]) for name, choices in self._choices.items()}
        if self._sampler.ordinal:
            return {name: self._choices[name].index(choice) for name, choice in chosen.items()}
        return dict(chosen)

    def _reject(self, trial: Trial, architecture: Architecture) -> None:
        """Tell the sampler that a proposal breaks constraints (nothing, while no value is known to stand in)."""
        known = [values for values in self._known_values.values() if values is not None]
        if not known:
            self._finish(trial.number, None)
            return
        cheap = self.cheap.values(architecture)
        values = []
        for index, objective in enumerate(self.objectives):
            column = [row[index] for row in known]
            worst = max(column) if objective.minimise else min(column)
            values.append(cheap.get(objective.name, worst))
        self._finish(trial.number, values)

    def _finish(self, number: int, values: list[float] | None) -> None:
        """End a trial of the study, as failed if there are no values."""
        if values is None:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, values)

    def _observe(self, measurement: Measurement) -> None:
        architecture = measurement.architecture
        values = None if measurement.objectives is None else self._values(measurement)
        self._known_values[architecture] = values
        chosen = self.space.to_decisions(architecture)
        constraints = self.feasibility.excesses(architecture)
        if self._mirror is not None:
            categories = {name: CategoricalDistribution(self._choices[name]) for name in chosen}
            self._mirror.write(str(architecture), values, chosen, categories, constraints)
        number = self._pending_numbers.pop(architecture, None)
        if number is not None:
            self._finish(number, values)
        elif values is not None:
            parameters = self._parameters(chosen)
            self._study.add_trial(
                create_trial(
                    values=values,
                    params=parameters,
                    distributions=self._distributions_of(parameters),
                    constraints=(constraints or None) if self._sampler.constrained else None,
                )
            )

    def _distributions_of(self, chosen: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        return {name: self._distributions[name] for name in chosen}

    def _state(self) -> dict[str, Any]:
        """The study trial by trial (choices as indices), and where the sampler's random numbers stand."""
        return {
            "trials": [self._trial_state(trial) for trial in self._study.get_trials(deepcopy=False)],
            "study_attributes": self._storage.get_study_system_attrs(self._study_id),
            "random_states": [_random_state_to_json(state) for state in _random_states(self._study.sampler)],
            "pending_numbers": [self._pending_numbers.get(architecture) for architecture in self._pending],
            "known_values": [self._known_values[architecture] for architecture in self._told],
        }

    def _trial_state(self, trial: FrozenTrial) -> list[Any]:
        """One trial as [state, index of the choice of each decision or None, values, attributes]."""
        indices = [
            self._place(decision.name, trial.params[decision.name]) if decision.name in trial.params else None
            for decision in self._decisions
        ]
        return [trial.state.name, indices, trial.values, trial.system_attrs]

    def _place(self, name: str, parameter: Any) -> int:
        """The place of a parameter's choice among the choices."""
        return int(parameter) if self._sampler.ordinal else self._choices[name].index(parameter)

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._start_study()
        for name, indices, values, attributes in state["trials"]:
            parameters = {
                decision.name: index if self._sampler.ordinal else decision.choices[index]
                for decision, index in zip(self._decisions, indices, strict=True)
                if index is not None
            }
            self._study.add_trial(
                create_trial(
                    state=TrialState[name],
                    values=values,
                    params=parameters,
                    distributions=self._distributions_of(parameters),
                    system_attrs=dict(attributes),
                )
            )
        for key, value in state["study_attributes"].items():
            self._storage.set_study_system_attr(self._study_id, key, value)
        for random_state, saved in zip(_random_states(self._study.sampler), state["random_states"], strict=True):
            random_state.set_state(saved)
        numbers = zip(self._pending, state["pending_numbers"], strict=True)
        self._pending_numbers = {architecture: number for architecture, number in numbers if number is not None}
        self._known_values = dict(zip(self._told, state["known_values"], strict=True))


def _named_sampler(options: OptunaOptions) -> _Sampler:
    """The sampler that the options name.

    Raises:
        UserError: there is none of that name.
    """
    sampler = SAMPLERS.get(options.sampler)
    if sampler is None:
        raise UserError(f"strategy optuna has no sampler {options.sampler!r}{suggestion(options.sampler, SAMPLERS)}")
    return sampler


def _make_sampler(sampler: _Sampler, options: OptunaOptions, seed: int, objectives: int) -> BaseSampler:
    """The named sampler, seeded.

    Raises:
        UserError: a package is missing, or the options do not fit.
    """
    missing = [module for module in sampler.modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(
            f"strategy optuna, sampler {options.sampler}: the package {missing[0]} is not installed, "
            f"install it with `pip install {missing[0]}` or choose another sampler"
        )
    if sampler.single_objective and objectives > 1:
        raise UserError(
            f"strategy optuna, sampler {options.sampler}: found {objectives} objectives, expected one; "
            "choose nsga2, nsga3 or tpe for several"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            made: BaseSampler = sampler.sampler_class(seed=seed, **{**sampler.defaults, **options.sampler_options})
    except (TypeError, ValueError) as error:
        raise UserError(f"strategy optuna, sampler_options of {options.sampler}: {error}") from None
    return made


def _random_states(sampler: BaseSampler) -> list[np.random.RandomState]:
    """Every random generator inside a sampler, in an order that depends on the sampler's class alone.

    Optuna has no public way to save a sampler but pickle; its samplers keep their randomness in numpy generators that
    are found by walking through the attributes of Optuna's own objects.
    """
    found: list[np.random.RandomState] = []
    visited: set[int] = set()

    def visit(value: Any) -> None:
        if id(value) in visited:
            return
        visited.add(id(value))
        if isinstance(value, np.random.RandomState):
            found.append(value)
        elif isinstance(value, BaseSampler) or type(value).__module__.startswith("optuna.samplers"):
            for _, attribute in sorted(getattr(value, "__dict__", {}).items()):
                visit(attribute)

    visit(sampler)
    return found


def _random_state_to_json(random_state: np.random.RandomState) -> dict[str, Any]:
    """A generator's state with lists and plain numbers in place of arrays; ``set_state`` takes it back."""
    state: dict[str, Any] = dict(random_state.get_state(legacy=False))
    inner = state["state"]
    return {
        "bit_generator": state["bit_generator"],
        "state": {"key": [int(word) for word in inner["key"]], "pos": int(inner["pos"])},
        "has_gauss": int(state["has_gauss"]),
        "gauss": float(state["gauss"]),
    }
