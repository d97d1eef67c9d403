from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Measurement
from orchestrator.objectives import LOSS, PARAMETERS, CheapObjectives, Constraint
from orchestrator.strategies.base import Strategy
from orchestrator.strategies.evolution import RegularisedEvolution
from orchestrator.strategies.optuna_strategy import OptunaStrategy
from orchestrator.strategies.random_search import RandomSearch
from orchestrator.strategies.registry import create_strategy, strategy_class, strategy_names
from orchestrator.testing import SpaceExam, StrategyExam, ToySpace, toy_loss


class TestToySpace(SpaceExam):
    def make_space(self) -> ToySpace:
        return ToySpace()

    def make_tiny_space(self) -> ToySpace:
        return ToySpace(layers=3, widths=(4, 8))


class TestRandomSearch(StrategyExam):
    strategy_class = RandomSearch
    learns = False


class TestRandomSearchOverSizes(TestRandomSearch):
    options: ClassVar[dict[str, Any]] = {"sampling": "sizes"}


class TestRegularisedEvolution(StrategyExam):
    strategy_class = RegularisedEvolution
    options: ClassVar[dict[str, Any]] = {"population": 20, "sample_size": 5}


class TestRegularisedEvolutionWithCrossover(TestRegularisedEvolution):
    options: ClassVar[dict[str, Any]] = {"population": 20, "sample_size": 5, "crossover_probability": 0.5}


class TestOptunaNsga2(StrategyExam):
    strategy_class = OptunaStrategy
    options: ClassVar[dict[str, Any]] = {"sampler_options": {"population_size": 15}}


class TestOptunaNsga3(TestOptunaNsga2):
    options: ClassVar[dict[str, Any]] = {"sampler": "nsga3", "sampler_options": {"population_size": 15}}


class TestOptunaTpe(StrategyExam):
    strategy_class = OptunaStrategy
    options: ClassVar[dict[str, Any]] = {"sampler": "tpe"}
    evaluations = 48


class TestOptunaCmaes(StrategyExam):
    strategy_class = OptunaStrategy
    options: ClassVar[dict[str, Any]] = {"sampler": "cmaes", "sampler_options": {"n_startup_trials": 5}}
    multi_objective = False
    evaluations = 60


@pytest.mark.slow
class TestOptunaGp(StrategyExam):
    strategy_class = OptunaStrategy
    options: ClassVar[dict[str, Any]] = {"sampler": "gp", "sampler_options": {"n_startup_trials": 8}}
    evaluations = 16
    learns = False  # it does, by far more evaluations than an exam has


class TestOptunaRandom(StrategyExam):
    strategy_class = OptunaStrategy
    options: ClassVar[dict[str, Any]] = {"sampler": "random"}
    learns = False
    evaluations = 60


class TestOptunaQmc(TestOptunaRandom):
    options: ClassVar[dict[str, Any]] = {"sampler": "qmc"}
    evaluations = 40


def _measured(architecture: Any) -> Measurement:
    cheap = CheapObjectives(ToySpace()).values(architecture)
    return Measurement(architecture, {"loss": toy_loss(architecture), **cheap})


def test_optuna_gp_goes_on_where_it_was_stopped() -> None:
    """The exam's question in small: fits take a tenth of a second each."""
    options: dict[str, Any] = {"sampler": "gp", "sampler_options": {"n_startup_trials": 4}}
    make = lambda: OptunaStrategy(ToySpace(layers=2), [LOSS, PARAMETERS], [], 0, **options)  # noqa: E731
    whole, stopped = make(), make()
    for strategy in (whole, stopped):
        for _ in range(3):
            strategy.tell([_measured(architecture) for architecture in strategy.ask(2)])
    resumed = make()
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert [whole.ask(1) for _ in range(3)] == [resumed.ask(1) for _ in range(3)]


@pytest.mark.parametrize("sampler", ["cmaes", "gp", "qmc"])
def test_samplers_of_common_parameters_model_every_decision(
    sampler: str, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """Asked conditional choices as they are, Optuna would draw them at random and say so for each."""
    space, cheap = ToySpace(), CheapObjectives(ToySpace())
    limit = Constraint("parameters", cheap.values(space.smallest())["parameters"] * 8)
    made = create_strategy("optuna", space, [LOSS], [limit], 0, cheap=cheap, options={"sampler": sampler})
    assert isinstance(made, OptunaStrategy)
    given = space.smallest()
    made.tell([_measured(given)])  # known from elsewhere
    for _ in range(6):
        made.tell([_measured(architecture) for architecture in made.ask(2)])
    study = made._study
    trial = study.ask()
    modelled = study.sampler.infer_relative_search_space(study, study.get_trials()[trial.number])
    assert set(modelled) == {decision.name for decision in space.decisions() if len(decision.choices) > 1}
    assert not [record for record in caplog.records if record.name.startswith("optuna")]
    assert not [warning for warning in recwarn if "optuna" in str(warning.filename)]


def test_evolution_kills_the_oldest() -> None:
    strategy = RegularisedEvolution(ToySpace(), [LOSS], [], 0, population=3, sample_size=3)
    first = strategy.ask(5)
    strategy.tell([_measured(architecture) for architecture in first])
    alive = [text for text, *_ in strategy.state_dict()["own"]["population"]]
    assert alive == [str(architecture) for architecture in first[2:]]


def test_evolution_breeds_from_the_best_of_a_full_tournament() -> None:
    space = ToySpace()
    strategy = RegularisedEvolution(space, [LOSS], [], 0, population=8, sample_size=8)
    first = strategy.ask(8)
    strategy.tell([_measured(architecture) for architecture in first])
    best = min(first, key=toy_loss)
    genes = space.encode(best)
    for child in strategy.ask(5):
        changed = (space.encode(child) != genes).sum()
        assert changed == 1, f"{child} is no neighbour of {best}"


def test_evolution_with_two_objectives_breeds_from_the_front() -> None:
    space = ToySpace()
    strategy = RegularisedEvolution(
        space, [LOSS, PARAMETERS], [], 3, population=12, sample_size=12, sampling="architectures"
    )
    first = strategy.ask(12)
    strategy.tell([_measured(architecture) for architecture in first])
    cost = {architecture: (toy_loss(architecture), space.cost(architecture).parameters) for architecture in first}
    front = [
        architecture
        for architecture in first
        if not any(
            other != cost[architecture] and other[0] <= cost[architecture][0] and other[1] <= cost[architecture][1]
            for other in cost.values()
        )
    ]
    for child in strategy.ask(4):
        assert any((space.encode(child) != space.encode(parent)).sum() == 1 for parent in front)


@pytest.mark.parametrize("strategy", [RandomSearch, RegularisedEvolution, OptunaStrategy])
def test_a_needle_in_the_haystack_is_found(strategy: type[Strategy]) -> None:
    space = ToySpace(layers=12)
    smallest = 16 * 4 + 2 * 4 * 4 + 8
    candidates = strategy(space, [LOSS], [Constraint("parameters", smallest + 40)], 0).ask(2)
    assert [str(architecture) for architecture in candidates if len(architecture.operations) <= 2]  # type: ignore[attr-defined]
    assert all(space.cost(architecture).parameters <= smallest + 40 for architecture in candidates)


def test_optuna_learns_from_infeasible_proposals() -> None:
    strategy = OptunaStrategy(ToySpace(), [LOSS, PARAMETERS], [Constraint("parameters", 1200)], 0)
    for _ in range(10):
        strategy.tell([_measured(architecture) for architecture in strategy.ask(4)])
    trials = strategy.state_dict()["own"]["trials"]
    broken = [attributes for _, _, _, attributes in trials if attributes["constraints:parameters"] > 0]
    assert broken
    assert sum(state == "COMPLETE" for state, _, _, _ in trials) > 40


def test_state_of_another_strategy_is_refused() -> None:
    state = RandomSearch(ToySpace(), [LOSS], [], 0).state_dict()
    with pytest.raises(UserError, match="random"):
        RegularisedEvolution(ToySpace(), [LOSS], [], 0).load_state_dict(state)
    with pytest.raises(UserError, match="seed"):
        RandomSearch(ToySpace(), [LOSS], [], 1).load_state_dict(state)


def test_state_of_an_older_version_is_refused() -> None:
    """It knows nothing of how candidates were drawn, so the search would go on otherwise."""
    strategy = RandomSearch(ToySpace(), [LOSS], [], 0)
    with pytest.raises(UserError, match="has format 1, expected 2: another version of netsuke wrote it"):
        strategy.load_state_dict({**strategy.state_dict(), "format": 1})


def test_registry_knows_the_built_in_strategies() -> None:
    assert {"random", "regularised_evolution", "optuna"} <= set(strategy_names())
    assert strategy_class("regularised_evolution") is RegularisedEvolution
    made = create_strategy("optuna", ToySpace(), [LOSS], [], 0, options={"sampler": "tpe"})
    assert isinstance(made, OptunaStrategy)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("regularized_evolution", {}, "did you mean 'regularised_evolution'"),
        (
            "zzz",
            {},
            "expected one of binned_evolution, exact, hat_evolution, lanas, nsga2, optuna, predictor_guided, random",
        ),
        ("regularised_evolution", {"populaton": 5}, "did you mean 'population'"),
        ("regularised_evolution", {"population": 0}, "option population: found 0"),
        ("nsga2", {"sampling": "layers"}, "option sampling: found 'layers', input should be 'architectures', 'dec"),
        ("optuna", {"sampler": "nsga"}, "did you mean 'nsga"),
        ("optuna", {"sampler_options": {"popsize": 3}}, "sampler_options of nsga2"),
    ],
)
def test_mistakes_get_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        create_strategy(name, ToySpace(), [LOSS], [], 0, options=options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cmaes_needs_its_package_or_one_objective() -> None:
    with pytest.raises(UserError, match="cmaes"):
        OptunaStrategy(ToySpace(), [LOSS, PARAMETERS], [], 0, sampler="cmaes")


@pytest.mark.parametrize(
    ("constraint", "message"),
    [(Constraint("loss", 1.0), "'loss'"), (Constraint("parameters", -1), "above 0")],
)
def test_impossible_constraints_are_refused(constraint: Constraint, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RandomSearch(ToySpace(), [LOSS], [constraint], 0)
