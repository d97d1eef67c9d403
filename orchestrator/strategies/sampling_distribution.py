"""Search by distributions that learn what to draw, one for each price of cost (Finding Fast Transformers)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Measurement
from orchestrator.expected_costs import arithmetic_costs
from orchestrator.objectives import FLOPS, LATENCY, LOSS
from orchestrator.strategies.base import Strategy
from orchestrator.strategies.learned_distribution import LearnedDistribution, LearningOptions
from orchestrator.strategies.told_losses import ToldLosses
from spaces.architecture import Architecture
from spaces.sampled_space import SampledSpace

if TYPE_CHECKING:
    from torch import Tensor

    from spaces.sampling_distribution import ExpectedCost, SamplingDistribution

_SEED_BITS = 63

RETREATS = 20
"""Steps away from what breaks constraints, before a candidate is looked for by mutations instead."""


class DistributionSearchOptions(LearningOptions):
    """Options of :class:`DistributionSearch`.

    Attributes:
        cost_weights: a lambda for each distribution: what the expected cost, as a share of the largest architecture's,
            counts beside the expected loss. At 0.3, a tenth of the cost is worth a loss of 0.03. Low ones find the dear
            end of the Pareto front, high ones the cheap end.
        cost: what is to become cheaper: ``latency_ms`` by the run's table, ``flops``, or ``encoder_parameters``;
            ``auto``: latency where the table can say what a distribution costs, else FLOPs.
        start: where distributions begin: ``learned``, at the one that a one-shot training has learned, where there is
            one; or ``teacher``, around the largest architecture.
    """

    cost_weights: tuple[Annotated[float, Field(ge=0.0, allow_inf_nan=False)], ...] = Field(
        default=(0.03, 0.1, 0.3, 1.0, 3.0), min_length=1
    )
    cost: Literal["auto", "latency_ms", "flops", "encoder_parameters"] = "auto"
    start: Literal["learned", "teacher"] = "learned"


class DistributionSearch(Strategy):
    """Learns distributions over a space, one for each lambda, by the expected loss plus lambda times the expected cost.

    The objective is ``min E[loss] + lambda * E[cost] / cost(largest)``, that of Finding Fast Transformers (Tsai et al.
    2020), here over a supernet that is trained already: log-odds of genes are the population, and the sweep over lambda
    gives the Pareto front. The distributions draw in turn. When the losses of a group of ``paths`` draws are complete,
    its distribution takes a step: by the score function with a leave-one-out baseline, with a control variate or
    importance weights as the option ``estimator`` says; the expected cost is differentiated in closed form.

    *Lambda* is the loss that one is willing to add for the whole cost of the largest architecture. The loss is taken as
    it is measured: over a supernet the squared error of the last state relative to the teacher's variance, about 0 for
    the teacher and 1 for a network that knows nothing, so that both terms are of one scale. Where candidates are
    ranked by another loss, weights follow its scale.

    *What is asked.* First the architecture at which the distributions begin, then draws. A draw whose loss is known, or
    under way, joins its group and is not asked again. One that breaks a constraint joins none: what is learned is the
    expected loss of those that keep them, which such a rejection leaves without bias; the expected cost counts them.
    Where nothing else is drawn any more, the distribution first retreats from those that break constraints by more to
    those that do so by less. Where only known ones are drawn, its most likely architecture is asked, then mutations of
    it; these teach nothing, since they were not drawn. The last candidates of the search are the most likely
    architectures of all distributions, as far as they are new; of one that breaks a constraint, a mutation that keeps
    them all.
    """

    name: ClassVar[str] = "sampling_distribution"
    options_class: ClassVar[type[DistributionSearchOptions]] = DistributionSearchOptions

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if not isinstance(self.space, SampledSpace):
            raise UserError(
                f"strategy {self.name}: the space '{self.space.name}' has no distribution to learn, expected a space "
                f"such as components; take another strategy"
            )
        if LOSS.name not in [objective.name for objective in self.objectives]:
            found = ", ".join(objective.name for objective in self.objectives)
            raise UserError(f"strategy {self.name}: found the objectives {found}, expected {LOSS.name} among them")
        self._sampled_space: SampledSpace[Any] = self.space
        self._learned = [
            LearnedDistribution(
                self.space.distribution(self.options.certainty), weight, self.options, self._rng.getrandbits(_SEED_BITS)
            )
            for weight in self.options.cost_weights
        ]
        if not any(parameter.numel() for parameter in self._learned[0].distribution.parameters()):
            raise UserError(
                f"strategy {self.name}: everything is fixed in the space '{self.space.name}', expected something to "
                f"search; fix less of it"
            )
        self._losses = ToldLosses(self.space)
        self._cost: ExpectedCost | None = None
        self._budget: int | None = None
        self._asked = 0
        self._begun = False

    # --- what it is given ----------------------------------------------------------------------------------------

    def use_costs(self, costs: Mapping[str, ExpectedCost]) -> None:
        """See :meth:`Strategy.use_costs`; without a call, FLOPs and parameters are those of the space.

        Raises:
            UserError: the one that the option ``cost`` names is not among them.
        """
        self._cost = self._cost_among(costs)

    def start_at(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Strategy.start_at`; with ``start: teacher`` it changes nothing.

        Raises:
            UserError: the distribution is of another space.
        """
        if self.options.start == "teacher":
            return
        for learned in self._learned:
            problem = learned.misfit(state)
            if problem is not None:
                raise UserError(
                    f"strategy {self.name}, option start: the distribution that was learned is of another space than "
                    f"'{self.space.name}' with these options: {problem}; set start: teacher"
                )
            learned.start_at(state)

    def use_budget(self, evaluations: int) -> None:
        """See :meth:`Strategy.use_budget`; it tells when the most likely architectures are due."""
        self._budget = evaluations

    # --- cost ----------------------------------------------------------------------------------------------------

    @property
    def cost(self) -> ExpectedCost:
        """What is to become cheaper.

        Raises:
            UserError: nothing says what distributions cost by the name in the option ``cost``.
        """
        if self._cost is None:
            self._cost = self._cost_among(arithmetic_costs(self._sampled_space, self.cheap.sequence_length))
        return self._cost

    def _cost_among(self, costs: Mapping[str, ExpectedCost]) -> ExpectedCost:
        name = self.options.cost
        if name == "auto":
            name = LATENCY.name if LATENCY.name in costs else FLOPS.name
        if name not in costs:
            raise UserError(
                f"strategy {self.name}, option cost: found '{name}', but no table of this run says what distributions "
                f"cost by it; expected auto or one of {', '.join(sorted(costs))}"
            )
        return costs[name]

    @cached_property
    def _largest_cost(self) -> float:
        return self.cost.of(self._sampled_space.largest())

    def _cost_share(self, distribution: SamplingDistribution[Any]) -> Tensor:
        return self.cost.expected(distribution) / self._largest_cost

    # --- what was learned ----------------------------------------------------------------------------------------

    def expected_cost_shares(self) -> list[float]:
        """The expected cost of each distribution as it is now, as a share of the largest architecture's."""
        return [float(self._cost_share(learned.distribution).detach()) for learned in self._learned]

    def most_likely(self) -> list[Architecture]:
        """The most likely architecture of each distribution as it is now, in the order of ``cost_weights``."""
        return [learned.mode() for learned in self._learned]

    # --- asking --------------------------------------------------------------------------------------------------

    def _propose(self) -> Architecture | None:
        count = len(self._learned)
        left = None if self._budget is None else self._budget - self._asked
        closing = left is not None and 0 < left <= count
        learned = self._learned[count - left if left is not None and closing else self._asked % count]
        found = self._likeliest(learned) if closing or not self._begun else None
        self._begun = True
        found = found or self._new_draw(learned) or self._likeliest(learned) or self._walk(learned.mode())
        found = found or self._explore()
        self._asked += found is not None
        return found

    def _propose_given(self, architecture: Architecture) -> Architecture:
        self._asked += 1
        return architecture

    def _likeliest(self, learned: LearnedDistribution) -> Architecture | None:
        """The most likely architecture, brought within the constraints; ``None`` where it is known."""
        mode = learned.mode()
        if not self.feasibility(mode):
            return self._walk(mode)
        return mode if self._is_new(mode) else None

    def _new_draw(self, learned: LearnedDistribution) -> Architecture | None:
        """A new draw that keeps the constraints; ``None`` where a group of others is drawn, or none in many tries."""
        for _ in range(RETREATS):
            broken: list[Architecture] = []
            known = 0
            while known < self.options.paths and len(broken) < self.options.max_tries:
                drawn = learned.draw(self._rng.getrandbits(_SEED_BITS))
                if not self.feasibility(drawn):
                    broken.append(drawn)
                elif self._is_new(drawn):
                    learned.join(drawn)
                    return drawn
                else:
                    known += 1
                    self._learn_again(learned, drawn)
            if known == self.options.paths:
                return None
            if len(broken) >= 2:
                learned.retreat(broken, [self.feasibility.violation(one) for one in broken])
        return None

    def _learn_again(self, learned: LearnedDistribution, drawn: Architecture) -> None:
        """Let a draw that is asked already join the group; not one that only behaves like an architecture that is."""
        if drawn in self._losses or drawn in self._pending:
            learned.join(drawn)
            learned.learn(self._losses, self._cost_share)

    # --- learning ------------------------------------------------------------------------------------------------

    def _observe(self, measurement: Measurement) -> None:
        values = measurement.objectives
        self._losses.add(measurement.architecture, None if values is None else float(values[LOSS.name]))
        for learned in self._learned:
            learned.learn(self._losses, self._cost_share)

    def _state(self) -> dict[str, Any]:
        return {
            "asked": self._asked,
            "begun": self._begun,
            "losses": self._losses.values(),
            "distributions": [learned.state() for learned in self._learned],
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._asked, self._begun = int(state["asked"]), bool(state["begun"])
        self._losses = ToldLosses(self.space)
        for architecture, loss in zip(self._told, state["losses"], strict=True):
            self._losses.add(architecture, loss)
        for learned, saved in zip(self._learned, state["distributions"], strict=True):
            learned.load_state(saved, self.space.parse)
