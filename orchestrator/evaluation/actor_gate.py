"""The gate of a search on Ray Tune: where actors wait for each other, so that each gets its share of the work."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

GATE_PATIENCE_SECONDS = 60.0


class Gate:
    """Where actors that have finished a trial wait for actors that are still starting.

    Tune gives a waiting trial to whichever actor is free first, and cancels the one that was being started for it.
    Trials are shorter than the start of an actor; so without the gate one actor would do all the work, from the
    beginning or from the moment another died. Nobody waits for longer than ``GATE_PATIENCE_SECONDS``, and who has not
    come by then is not waited for again.

    Handles of actors arrive pickled, and stay so unless one has died: they bring the code of their actors along, and
    loading that (PyTorch is among it) would keep the first actors waiting for seconds.

    An actor itself; should its process be killed, Ray starts it again, and it hears of the others as they come.
    """

    def __init__(self) -> None:
        self._alive: dict[str, bytes] = {}
        self._wanted = 1
        self._last_order = -1
        self._limit = sys.maxsize
        self._changed = asyncio.Condition()
        self._checks: set[asyncio.Task[None]] = set()

    async def begin(self, actor_id: str, actor: bytes) -> None:
        """An actor has begun its first trial, so it cannot be cancelled any more."""
        async with self._changed:
            self._alive[actor_id] = actor
            if len(self._alive) > self._limit:
                self._limit = sys.maxsize
            self._changed.notify_all()

    async def wait(self, actor_id: str, actor: bytes) -> None:
        """Wait until as many actors are there as have work."""
        await self.begin(actor_id, actor)
        try:
            async with self._changed:
                await asyncio.wait_for(self._changed.wait_for(self._is_complete), GATE_PATIENCE_SECONDS)
        except TimeoutError:
            self._limit = max(1, len(self._alive))

    async def want(self, order: int, count: int) -> None:
        """There is work for ``count`` actors now. Calls may come in any order: that of the highest ``order`` counts."""
        async with self._changed:
            if order > self._last_order:
                self._last_order, self._wanted = order, count
                self._changed.notify_all()

    async def look(self) -> None:
        """An actor may have died: a call to a dead one fails at once, one to a living one waits for its turn."""
        for actor_id, actor in self._alive.items():
            check = asyncio.create_task(self._forget_if_dead(actor_id, actor))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)

    async def _forget_if_dead(self, actor_id: str, actor: bytes) -> None:
        try:
            await cloudpickle.loads(actor).is_alive.remote()
        except ray.exceptions.RayError:
            self._alive.pop(actor_id, None)

    def _is_complete(self) -> bool:
        return len(self._alive) >= min(self._wanted, self._limit)


@contextmanager
def actor_gate() -> Iterator[Any]:
    """The handle of a new gate, which is gone after the block.

    It lives on the node of this process: with any other node the search would lose it, and end.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    gate = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(Gate).remote()
    try:
        yield gate
    finally:
        ray.kill(gate)
