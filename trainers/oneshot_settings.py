"""How a supernet is trained together with its sampling distribution: settings and schedule (paper notes, section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainers.errors import TrainingInputError
from trainers.optimisation import OptimiserSettings
from trainers.precision import Precision

Estimator = Literal["straight_through", "score_function", "importance_weighted"]
"""How the distribution learns what its architectures lose. ``straight_through``: gates on a path, whose gradients pass
the threshold as if it were a binary concrete; one pass tells of all genes, with a bias. ``score_function``: the losses
of some paths against each other; without bias, and of paths alone. ``importance_weighted``: the same, and paths of the
last steps count again, by how much likelier they have become."""

ComponentOrder = Literal["importance", "teacher"]
"""How a teacher's heads, neurons, and channels of queries and keys are ordered before it is taken apart: the most
important first, so that slices differ in what they are worth, or as they are. Its function is the same."""

Phase = Literal["warm_up", "search", "frozen"]


@dataclass(frozen=True)
class OneShotSettings:
    """How a supernet and its distribution are trained.

    The weights learn in all steps. The distribution learns in those between warm-up and freezing; from then on the
    architecture is its most likely one.

    Attributes:
        batch_size: sequences of a step, all workers together.
        seed: of data order, drawn architectures and dropout.
        precision: number format of forward passes.
        optimiser: of the weights: learning rate, steps and regularisation.
        warm_up_steps: steps before the distribution begins to learn.
        search_steps: steps in which it learns.
        estimator: how.
        paths: architectures that each worker draws for a step.
        same_text: whether all of a worker's paths see all of its text, so that their losses compare, at the price of
            as many passes; otherwise each sees a share, and a step costs as much as with one path.
        cost_weight: lambda: what the expected cost, as a share of the largest architecture's, counts in the objective.
        ramp_steps: steps of the search in which it rises from 0.
        certainty: how likely, to begin with, each gene is as the largest architecture has it.
        distribution_rate: learning rate of the distribution's log-odds (Adam, constant).
        temperatures: tau of the binary concrete at the beginning and at the end of the search (straight_through only).
        reuse: steps whose paths count, the newest among them (importance_weighted only).
        weight_limits: what their weights are cut off at (importance_weighted only).
        intermediate_weight: on the errors of the states between the layers, beside that of the last state (plain text
            only).
        order: of the teacher's components at the start.

    Raises:
        TrainingInputError: values contradict each other.
    """

    batch_size: int
    seed: int
    precision: Precision
    optimiser: OptimiserSettings
    warm_up_steps: int
    search_steps: int
    estimator: Estimator = "straight_through"
    paths: int = 2
    same_text: bool = False
    cost_weight: float = 1.0
    ramp_steps: int = 0
    certainty: float = 0.95
    distribution_rate: float = 0.05
    temperatures: tuple[float, float] = (1.0, 0.2)
    reuse: int = 4
    weight_limits: tuple[float, float] = (0.2, 5.0)
    intermediate_weight: float = 0.0
    order: ComponentOrder = "importance"

    def __post_init__(self) -> None:
        if self.frozen_from > self.optimiser.total_steps:
            raise TrainingInputError(
                f"supernet.steps: found {self.optimiser.total_steps}, expected {self.frozen_from} or more: "
                f"warm_up_steps {self.warm_up_steps} and search_steps {self.search_steps}"
            )

    def check_paths(self, world_size: int) -> None:
        """Make sure that there are enough paths to compare, and enough sequences to share out.

        Raises:
            TrainingInputError: there are not.
        """
        drawn = self.paths * world_size
        if self.estimator != "straight_through" and drawn < 2:
            raise TrainingInputError(
                f"supernet.paths_per_step: found {self.paths} on one worker, expected 2 or more: "
                f"{self.estimator} compares the losses of the paths of a step"
            )
        shares = world_size if self.same_text else drawn
        if self.batch_size < shares:
            raise TrainingInputError(
                f"supernet.batch_size: found {self.batch_size}, expected {shares} or more, a sequence for each of "
                f"{'the workers' if self.same_text else 'the paths of a step'}"
            )

    @property
    def frozen_from(self) -> int:
        """The first step with a frozen architecture, counted from 0."""
        return self.warm_up_steps + self.search_steps

    def phase_of(self, step: int) -> Phase:
        """What a step is for."""
        if step < self.warm_up_steps:
            return "warm_up"
        return "search" if step < self.frozen_from else "frozen"

    def cost_weight_at(self, step: int) -> float:
        """Lambda in a step: it rises linearly over the first steps of the search, and plays no part outside."""
        if self.phase_of(step) != "search":
            return 0.0
        return self.cost_weight * min(1.0, (step - self.warm_up_steps + 1) / max(1, self.ramp_steps))

    def temperature_at(self, step: int) -> float:
        """Tau in a step of the search: it falls linearly."""
        begin, end = self.temperatures
        return begin + (end - begin) * (step - self.warm_up_steps) / max(1, self.search_steps - 1)
