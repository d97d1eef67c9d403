"""A distribution over architectures that learns from the losses of what was drawn from it, whenever they arrive.

Shape legend: S draws of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from orchestrator.strategies.base import StrategyOptions
from orchestrator.strategies.told_losses import LossModel, ToldLosses
from spaces.architecture import Architecture
from spaces.sampling_distribution import SamplingDistribution
from trainers.oneshot_estimators import PathMemory, compared_paths, score_loss

CostShare = Callable[[SamplingDistribution[Any]], Tensor]
"""The expected cost of a distribution as a share of the largest architecture's, a scalar with gradients."""

_NO_WEIGHTS = (1.0, 1.0)

FREE_DRAWS = 32
"""Draws that a model of losses is averaged over (``control_variate``)."""

_SEEDS = 2**63


class LearningOptions(StrategyOptions):
    """How a distribution learns.

    Attributes:
        estimator: how losses reach the distribution. ``score_function``: those of a group against each other;
            ``importance_weighted``: the same, and the groups before count again, by how much likelier their members
            have become; ``control_variate``: those of a group less what a linear model of all losses told so far says,
            and beside that what the model says of many draws that nobody evaluates. None has a bias but for weights
            that are cut off; with the last one, what was told to one distribution serves all.
        paths: draws of a group, after whose losses the distribution takes a step.
        reuse: groups that count in a step, the newest among them (``importance_weighted`` only).
        weight_limits: what the weights of draws that were made before the last steps are cut off at.
        learning_rate: of the log-odds (Adam).
        certainty: how likely, to begin with, each gene is as the largest architecture has it; a distribution that was
            learned before begins no surer than that.
        ramp: groups over which lambda rises linearly from 0.
    """

    estimator: Literal["score_function", "importance_weighted", "control_variate"] = "control_variate"
    paths: int = Field(default=4, ge=2)
    reuse: int = Field(default=4, ge=1)
    weight_limits: tuple[float, float] = (0.2, 5.0)
    learning_rate: float = Field(default=0.3, gt=0.0)
    certainty: float = Field(default=0.9, gt=0.5, lt=1.0)
    ramp: int = Field(default=5, ge=0)

    @field_validator("weight_limits")
    @classmethod
    def _limits_hold_one(cls, limits: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= limits[0] <= 1 <= limits[1]:
            raise ValueError("expected a limit from 0 to 1 and one of at least 1")
        return limits


@dataclass(frozen=True)
class Draw:
    """What was drawn.

    Attributes:
        architecture: which.
        log_probability: of its being drawn when it was.
    """

    architecture: Architecture
    log_probability: float


class LearnedDistribution:
    """A distribution, the groups of draws whose losses it waits for, and what it has learned by.

    It goes down the gradient of ``E[loss] + lambda * E[cost] / cost(largest)``: the second term is known in closed
    form, the first is estimated from a group whose losses are complete. A group may be completed after others that
    were drawn later, and its members may have been drawn before the distribution's last steps: they count by how much
    likelier they have become since, as importance weighting has it.

    With a model of losses as the control variate, the gradient of ``E[loss]`` is that of ``E[loss - model]``, which the
    group tells, and that of ``E[model]``, which any number of draws tells. The model does not know the group, so that
    nothing is biased; the better it is, the less a group's few losses scatter.

    Args:
        distribution: at its start.
        cost_weight: lambda, after the ramp.
        options: how to learn.
        seed: of the draws that a model of losses is averaged over.
    """

    def __init__(
        self, distribution: SamplingDistribution[Any], cost_weight: float, options: LearningOptions, seed: int
    ) -> None:
        self.distribution = distribution.double()
        self.cost_weight = cost_weight
        self.options = options
        self.seed = seed
        self.steps = 0
        self._odds = list(self.distribution.parameters())
        self._memory = PathMemory(options.reuse if options.estimator == "importance_weighted" else 1)
        self._groups: list[list[Draw]] = []

    @cached_property
    def _optimiser(self) -> torch.optim.Adam:
        """Made when the first step is due: making one takes seconds, which a look at the recipe shall not."""
        return torch.optim.Adam(self._odds, lr=self.options.learning_rate)

    # --- drawing -------------------------------------------------------------------------------------------------

    def draw(self, seed: int) -> Architecture:
        """Draw one architecture; it teaches nothing unless it joins a group."""
        drawn: Architecture = self.distribution.draw(torch.Generator().manual_seed(seed))
        return drawn

    def mode(self) -> Architecture:
        """The most likely architecture."""
        found: Architecture = self.distribution.most_likely()
        return found

    def join(self, architecture: Architecture) -> None:
        """Let what was drawn just now be a member of the group that is being filled."""
        if not self._groups or len(self._groups[-1]) == self.options.paths:
            self._groups.append([])
        with torch.no_grad():
            log_probability = float(self.distribution.log_probability([architecture])[0])
        self._groups[-1].append(Draw(architecture, log_probability))

    # --- learning ------------------------------------------------------------------------------------------------

    def learn(self, told: ToldLosses, cost_share: CostShare) -> None:
        """Take a step for every group that is complete.

        Args:
            told: losses so far. Draws that failed are left out of their group; a group of which fewer than two are left
                is dropped, since there is nothing to compare.
            cost_share: what the distribution costs.
        """
        complete = [group for group in self._groups if self._is_complete(group, told)]
        self._groups = [group for group in self._groups if group not in complete]
        for group in complete:
            members = [(draw, loss) for draw in group if (loss := told.of(draw.architecture)) is not None]
            if len(members) >= 2:
                draws, losses = zip(*members, strict=True)
                self._step(draws, torch.tensor(losses, dtype=torch.float64), told, cost_share)

    def _is_complete(self, group: Sequence[Draw], told: ToldLosses) -> bool:
        return len(group) == self.options.paths and all(draw.architecture in told for draw in group)

    def _step(self, draws: Sequence[Draw], losses_S: Tensor, told: ToldLosses, cost_share: CostShare) -> None:
        """One step of Adam on the objective."""
        objective = self._expected_loss(draws, losses_S, told)
        self.steps += 1
        cost_weight = self.cost_weight * min(1.0, self.steps / max(1, self.options.ramp))
        (objective + cost_weight * cost_share(self.distribution)).backward()
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def _expected_loss(self, draws: Sequence[Draw], losses_S: Tensor, told: ToldLosses) -> Tensor:
        """A scalar whose gradient estimates that of the expected loss."""
        architectures = [draw.architecture for draw in draws]
        model = told.model(without=architectures) if self.options.estimator == "control_variate" else None
        unexplained_S = losses_S if model is None else losses_S - model(architectures)
        log_probabilities = [draw.log_probability for draw in draws]
        self._memory.add(compared_paths(self.distribution, architectures, unexplained_S, log_probabilities))
        estimate = score_loss(self.distribution, self._memory.paths, self.options.weight_limits)
        return estimate if model is None else estimate + self._expected_prediction(model)

    def _expected_prediction(self, model: LossModel) -> Tensor:
        """The same of what a model says, of draws that cost no evaluation."""
        generator = torch.Generator().manual_seed((self.seed + self.steps) % _SEEDS)
        drawn = [self.distribution.draw(generator) for _ in range(FREE_DRAWS)]
        return score_loss(self.distribution, compared_paths(self.distribution, drawn, model(drawn)), _NO_WEIGHTS)

    def retreat(self, architectures: Sequence[Architecture], violations: Sequence[float]) -> None:
        """Make architectures that break constraints less likely, those that do so by more above all.

        The log-odds go down the expected violation, the one with the steepest slope by the learning rate. Adam's
        moments stay as they are: violations are of another scale than losses.

        Args:
            architectures: two or more, drawn just now.
            violations: of each, above 0.
        """
        paths = compared_paths(self.distribution, architectures, torch.tensor(violations, dtype=torch.float64))
        slope = torch.autograd.grad(score_loss(self.distribution, paths, _NO_WEIGHTS), self._odds, allow_unused=True)
        steepest = max((float(one.abs().max()) for one in slope if one is not None and one.numel()), default=0.0)
        if steepest == 0:
            return
        with torch.no_grad():
            for odds, one in zip(self._odds, slope, strict=True):
                if one is not None:
                    odds.sub_(one, alpha=self.options.learning_rate / steepest)

    # --- what is kept --------------------------------------------------------------------------------------------

    def misfit(self, state: Mapping[str, Tensor]) -> str | None:
        """What tells a distribution's ``state_dict`` from one over this space, in a few words; ``None``: nothing."""
        own = self.distribution.state_dict()
        for name in sorted({*own, *state}):
            found, expected = (list(one[name].shape) if name in one else "nothing" for one in (state, own))
            if found != expected:
                return f"found {found} of {name}, expected {expected}"
        return None

    def start_at(self, state: Mapping[str, Tensor]) -> None:
        """Begin at a distribution that was learned before, no surer than this one is at its start.

        Args:
            state: its ``state_dict``, which fits. Log-odds beyond the largest of this distribution are cut off there:
                of what was certain nothing else would ever be drawn, so that nothing could be learned.

        """
        limit = max(float(odds.detach().abs().max()) for odds in self._odds if odds.numel())
        self.distribution.load_state_dict({name: tensor.clamp(-limit, limit) for name, tensor in state.items()})

    def state(self) -> dict[str, Any]:
        """Everything in JSON-native values."""
        moments = self._optimiser.state_dict()["state"] if self.steps else {}
        return {
            "log_odds": {name: tensor.tolist() for name, tensor in self.distribution.state_dict().items()},
            "adam": {
                str(place): {name: tensor.tolist() for name, tensor in one.items()} for place, one in moments.items()
            },
            "steps": self.steps,
            "groups": [[[str(draw.architecture), draw.log_probability] for draw in group] for group in self._groups],
            "memory": self._memory.state(),
        }

    def load_state(self, state: Mapping[str, Any], parse: Callable[[str], Architecture]) -> None:
        """Take over what :meth:`state` gave.

        Args:
            state: of a distribution of the same space and options.
            parse: reads an architecture's text.
        """
        self.distribution.load_state_dict({name: _tensor(values) for name, values in state["log_odds"].items()})
        moments = {
            int(place): {name: _tensor(values) for name, values in one.items()} for place, one in state["adam"].items()
        }
        if moments:
            self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": moments})
        self.steps = int(state["steps"])
        self._groups = [[Draw(parse(text), logarithm) for text, logarithm in group] for group in state["groups"]]
        self._memory.load_state(state["memory"], parse)


def _tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
