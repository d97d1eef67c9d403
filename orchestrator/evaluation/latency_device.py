"""The actor that measures latencies for a search: one at a time, on a core that nobody else of the search uses.

It holds the Ray resource ``latency_device``, of which a cluster has one for each machine that latencies count on, so
that no two measurements disturb each other; and a core of its own. Measurements run beside the scoring of other
candidates: the search hands over what was scored, and collects it when its latencies are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from cluster.connect import LATENCY_DEVICE
from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Score
from orchestrator.evaluation.latency_meter import LatencyMeter, MeasuredLatency, with_latencies

_RESTARTS = 3


@dataclass(frozen=True)
class Measured:
    """What came back from the device.

    Attributes:
        item: whatever the scores were handed over with.
        scores: with latencies, or failed.
    """

    item: Any
    scores: list[Score]


class LatencyDevice:
    """A search's view of the actor. Use it as a context manager.

    Args:
        meter: what the actor measures with.
        cpus: cores the actor reserves: the threads of a measured forward pass.

    Raises:
        UserError: no node of the cluster offers the resource.
    """

    def __init__(self, meter: LatencyMeter, cpus: int) -> None:
        if ray.cluster_resources().get(LATENCY_DEVICE, 0.0) < 1:
            raise UserError(
                f"search.objectives: measured_latency_ms is measured on a node that offers the Ray resource "
                f"{LATENCY_DEVICE}, found none; start one with: ray start --resources='{{\"{LATENCY_DEVICE}\": 1}}'"
            )
        actor = ray.remote(num_cpus=cpus, resources={LATENCY_DEVICE: 1}, max_restarts=_RESTARTS, max_task_retries=1)
        self._actor = actor(_Meter).remote(cloudpickle.dumps(meter))
        self._waiting: dict[Any, tuple[Any, list[Score]]] = {}

    def __enter__(self) -> LatencyDevice:
        return self

    def __exit__(self, *exception: object) -> None:
        ray.kill(self._actor)

    def submit(self, item: Any, architectures: Sequence[Any], scores: list[Score]) -> None:
        """Hand over scored candidates; returns at once.

        Args:
            item: comes back with the latencies.
            architectures: the candidates.
            scores: of them, in order.
        """
        reference = self._actor.measure.remote(
            [str(architecture) for architecture in architectures], [asdict(score) for score in scores]
        )
        self._waiting[reference] = (item, scores)

    def collect(self) -> list[Measured]:
        """What is ready, in the order of handing over; does not wait."""
        if not self._waiting:
            return []
        ready, _ = ray.wait([*self._waiting], num_returns=len(self._waiting), timeout=0)
        done = set(ready)
        return [self._take(reference) for reference in [*self._waiting] if reference in done]

    def _take(self, reference: Any) -> Measured:
        item, scores = self._waiting.pop(reference)
        try:
            return Measured(item, [Score(**columns) for columns in ray.get(reference)])
        except (OutOfMemoryError, RayActorError, RayTaskError) as error:
            lost = MeasuredLatency.failed(" ".join(str(error).split())[:200])
            return Measured(item, [lost.added_to(score) for score in scores])


class _Meter:
    """Lives in the actor."""

    def __init__(self, pickled: bytes) -> None:
        self._meter: LatencyMeter = cloudpickle.loads(pickled)

    def measure(self, texts: list[str], scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Scores with latencies, as columns."""
        architectures = [self._meter.space.parse(text) for text in texts]
        found = with_latencies(self._meter, architectures, [Score(**columns) for columns in scores])
        return [asdict(score) for score in found]
