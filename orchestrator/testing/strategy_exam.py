"""The exam of a search strategy, on a toy space whose loss is a sum over layers."""

from __future__ import annotations

import json
import statistics
from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar, get_args

from orchestrator.evaluation.evaluator import Measurement
from orchestrator.objectives import LOSS, PARAMETERS, CheapObjectives, Constraint, Objective
from orchestrator.strategies.base import Strategy
from orchestrator.strategies.drawing import Sampling
from orchestrator.strategies.enumeration import enumerate_architectures
from orchestrator.strategies.random_search import RandomSearch
from orchestrator.testing.toy_space import ToySpace, toy_loss
from spaces.architecture import Architecture

Asked = tuple[Architecture, int]
"""A candidate, and the fidelity at which it is to be scored."""

FULL_FIDELITY = 9


class StrategyExam(ABC):
    """What every :class:`~orchestrator.strategies.base.Strategy` must be able to do; subclass it in a test module.

    Attributes:
        strategy_class: the strategy under examination.
        options: the options it is made with.
        multi_objective: whether it takes more than one objective.
        learns: whether it must beat random search.
        evaluations: candidates of the questions that run a whole search.
        constraint: parameters allowed in the questions about feasibility (about a fifth of the toy space fits).
    """

    strategy_class: ClassVar[type[Strategy]]
    options: ClassVar[dict[str, Any]] = {}
    multi_objective: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    evaluations: ClassVar[int] = 120
    constraint: ClassVar[Constraint] = Constraint("parameters", 1200)

    def make_strategy(
        self,
        seed: int = 0,
        space: ToySpace | None = None,
        objectives: Sequence[Objective] | None = None,
        constraints: Sequence[Constraint] = (),
    ) -> Strategy:
        """A new strategy; override it where making one takes more than the class and its options."""
        if objectives is None:
            objectives = (LOSS, PARAMETERS) if self.multi_objective else (LOSS,)
        strategy = self.strategy_class(space or ToySpace(), objectives, constraints, seed, **self.options)
        strategy.use_fidelity(FULL_FIDELITY)
        return strategy

    def ask(self, strategy: Strategy, count: int) -> list[Asked]:
        """What a strategy asks, with fidelities."""
        return [(architecture, strategy.fidelity_of(architecture)) for architecture in strategy.ask(count)]

    def measure(self, asked: Asked) -> Measurement:
        """The toy problem's answer; every eleventh architecture fails (by its ``arch_id``, so always the same ones)."""
        architecture, _ = asked
        if int(architecture.arch_id, 16) % 11 == 0:
            return Measurement(architecture, None, "failed")
        cheap = CheapObjectives(ToySpace()).values(architecture)
        return Measurement(architecture, {"loss": toy_loss(architecture), **cheap})  # type: ignore[arg-type]

    def search(self, strategy: Strategy, evaluations: int, batch: int = 4) -> list[Asked]:
        """Ask and tell in batches, one batch behind, until ``evaluations`` were asked or nothing is left."""
        asked: list[Asked] = []
        waiting: list[Asked] = []
        while len(asked) < evaluations:
            proposals = self.ask(strategy, min(batch, evaluations - len(asked)))
            asked += proposals
            strategy.tell([self.measure(one) for one in waiting])
            if not proposals and not waiting:
                break
            waiting = proposals
        return asked

    def test_asks_what_is_wanted_without_duplicates(self) -> None:
        """Every ask is answered in full with members of the space, never asked before at this fidelity or a higher."""
        space = ToySpace()
        asked = self.search(self.make_strategy(), self.evaluations)
        assert len(asked) == self.evaluations
        assert len(set(asked)) == len(asked), "the strategy asked a candidate twice"
        assert all(space.contains(architecture) for architecture, _ in asked)
        assert all(1 <= fidelity <= FULL_FIDELITY for _, fidelity in asked)
        highest: dict[Architecture, int] = {}
        for architecture, fidelity in asked:
            assert fidelity > highest.get(architecture, 0), f"{architecture} was asked at a higher fidelity before"
            highest[architecture] = fidelity

    def test_asks_only_feasible_candidates(self) -> None:
        """No candidate breaks a hard constraint."""
        asked = self.search(self.make_strategy(constraints=[self.constraint]), self.evaluations // 2)
        cheap = CheapObjectives(ToySpace())
        assert len(asked) == self.evaluations // 2
        assert all(cheap.values(architecture)["parameters"] <= self.constraint.maximum for architecture, _ in asked)

    def test_one_seed_one_sequence(self) -> None:
        """Equal seeds ask equal candidates in equal order; another seed asks others."""
        sequences = [self.search(self.make_strategy(seed=seed), self.evaluations) for seed in (1, 1, 2)]
        assert sequences[0] == sequences[1]
        assert sequences[0] != sequences[2]

    def test_resumed_equals_uninterrupted(self) -> None:
        """Saved as JSON and loaded into a new object now and then, the search asks the very same candidates."""
        for constraints in ([], [self.constraint]):
            whole = self.search(self.make_strategy(constraints=constraints), self.evaluations)
            strategy = self.make_strategy(constraints=constraints)
            asked: list[Asked] = []
            waiting: list[Asked] = []
            while len(asked) < self.evaluations:
                proposals = self.ask(strategy, 4)
                asked += proposals
                strategy.tell([self.measure(one) for one in waiting])
                waiting = proposals
                if len(asked) % 12 == 0:
                    saved = json.loads(json.dumps(strategy.state_dict()))
                    strategy = self.make_strategy(constraints=constraints)
                    strategy.load_state_dict(saved)
                    repeated = self.ask(strategy, len(proposals))
                    assert repeated == proposals, "what was asked but not told must be asked again, first and in order"
            assert asked == whole

    def test_draws_by_every_law(self) -> None:
        """However candidates that descend from no other are drawn: none twice, all feasible, and it can be resumed."""
        cheap = CheapObjectives(ToySpace())
        for law in get_args(Sampling):
            vars(self)["options"] = {**type(self).options, "sampling": law}
            whole, stopped = (self.make_strategy(constraints=[self.constraint]) for _ in range(2))
            asked: list[Asked] = []
            for number in range(6):
                proposals = self.ask(whole, 3)
                assert self.ask(stopped, 3) == proposals, f"sampling: {law}, a resumed search asks something else"
                for strategy in (whole, stopped):
                    strategy.tell([self.measure(one) for one in proposals])
                if number % 2:
                    saved = json.loads(json.dumps(stopped.state_dict()))
                    stopped = self.make_strategy(constraints=[self.constraint])
                    stopped.load_state_dict(saved)
                asked += proposals
            assert len(set(asked)) == len(asked) == 18, f"sampling: {law}, a candidate was asked twice or none was left"
            assert all(cheap.values(one)["parameters"] <= self.constraint.maximum for one, _ in asked)

    def test_saving_changes_nothing(self) -> None:
        """A state can be taken at any time without influence on what follows."""
        disturbed, undisturbed = self.make_strategy(), self.make_strategy()
        first = self.search(undisturbed, 40)
        second: list[Asked] = []
        waiting: list[Asked] = []
        while len(second) < 40:
            disturbed.state_dict()
            proposals = self.ask(disturbed, 4)
            second += proposals
            disturbed.tell([self.measure(one) for one in waiting])
            waiting = proposals
        assert first == second

    def test_survives_failures_only(self) -> None:
        """If every evaluation fails, the strategy goes on proposing."""
        strategy = self.make_strategy()
        for _ in range(10):
            proposals = strategy.ask(4)
            assert len(proposals) == 4
            strategy.tell([Measurement(architecture, None, "failed") for architecture in proposals])

    def test_takes_what_it_never_asked(self) -> None:
        """A warm start with foreign measurements is accepted, and its candidates are not asked again."""
        strategy = self.make_strategy()
        foreign = self.search(self.make_strategy(seed=99), 30)
        strategy.tell([self.measure(one) for one in foreign])
        strategy.tell([self.measure(one) for one in foreign])
        assert not {one for one, _ in self.search(strategy, 60)} & {one for one, _ in foreign}

    def test_uses_up_a_tiny_space(self) -> None:
        """Every feasible architecture of a tiny space is asked once, then nothing any more, without an error."""
        space = ToySpace(layers=2, widths=(4, 8))
        strategy = self.make_strategy(space=space)
        asked = self.search(strategy, 1000)
        assert {architecture for architecture, _ in asked} == set(enumerate_architectures(space))
        assert len(asked) == len(set(asked))
        assert not strategy.waiting, "it says that it waits, but nothing is left to wait for"

    def test_ends_where_nothing_is_feasible(self) -> None:
        """A constraint that nothing meets leaves nothing to ask."""
        strategy = self.make_strategy(
            space=ToySpace(layers=2, widths=(4, 8)), constraints=[Constraint("parameters", 1)]
        )
        assert strategy.ask(3) == []

    def test_beats_random_search(self) -> None:
        """Over ten fixed seeds, the mean of the best losses is below random search's."""
        if not self.learns:
            return
        own = [self._best(self.make_strategy(seed, objectives=[LOSS])) for seed in range(10)]
        chance = [self._best(RandomSearch(ToySpace(), [LOSS], [], seed)) for seed in range(10)]
        assert statistics.mean(own) < statistics.mean(chance), f"{own} against random search's {chance}"

    def _best(self, strategy: Strategy) -> float:
        measured = [self.measure(one) for one in self.search(strategy, self.evaluations)]
        return min(measurement.objectives["loss"] for measurement in measured if measurement.objectives)
