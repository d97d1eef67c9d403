"""Independent pieces of work on long-lived Ray actors: the adapter for everything that is not a search.

An actor is set up once (a supernet, validation batches) and then gets one item after the other, whenever it is free.
Results come back in any order, each exactly once. An actor that dies is replaced, and its item tried again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray import cloudpickle

from cluster.errors import ClusterError, ClusterUserError
from orchestrator.errors import RunError, UserError
from spaces.errors import SpaceError
from trainers.errors import TrainingError, TrainingInputError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

ATTEMPTS = 3
"""How often an item is tried whose actors die."""

LOST_IN_A_ROW = 5
"""Actors that may die without a result in between; then it is not the items."""

PATIENCE_SECONDS = 1.0
"""How long a wait lasts before signals are looked at again."""

_OURS = (UserError, SpaceError, TrainingInputError, ClusterUserError, RunError, ClusterError, TrainingError)


MakeWorker = Callable[[], Callable[[ItemT], ResultT]]
"""Makes a worker; picklable, called once in each process, loads what it needs from paths."""


def run_here(
    make_worker: MakeWorker[ItemT, ResultT],
    items: Sequence[ItemT],
    *,
    actors: int = 1,
    cpus_per_actor: float = 1.0,
    gpus_per_actor: float = 0.0,
    on_result: Callable[[int, ResultT], None],
) -> None:
    """Do all items in this process, without Ray, one after the other; arguments as in :func:`run_on_actors`."""
    worker = make_worker() if items else None
    for number, item in enumerate(items):
        assert worker is not None
        on_result(number, worker(item))


def run_on_actors(
    make_worker: MakeWorker[ItemT, ResultT],
    items: Sequence[ItemT],
    *,
    actors: int,
    cpus_per_actor: float = 1.0,
    gpus_per_actor: float = 0.0,
    on_result: Callable[[int, ResultT], None],
) -> None:
    """Do all items on actors of the Ray that this process is connected to.

    Args:
        make_worker: called once in each actor; what it returns is called with one item at a time.
        items: picklable; the longest should come first.
        actors: processes that work at the same time, at most.
        cpus_per_actor: CPUs Ray reserves for each.
        gpus_per_actor: GPUs Ray reserves for each; a fraction shares one.
        on_result: called in this process with the item's number and its result, in the order of arrival, exactly once
            for each item.

    Raises:
        UserError: the cluster is too small for one actor.
        RunError: an item fails, or its actor dies at every attempt, or actors keep dying. What was found before has
            been handed to ``on_result``.
        ValueError: a worker raised one of the packages' errors for a user's mistake; it is raised as it was.
    """
    if not items:
        return
    places = min(actors, len(items), places_for_actors(actors, cpus_per_actor, gpus_per_actor))
    with _Pool(make_worker, places, cpus_per_actor, gpus_per_actor).running() as pool:
        for number, result in pool.results(items):
            on_result(number, result)


def places_for_actors(actors: int, cpus_per_actor: float, gpus_per_actor: float) -> int:
    """How many actors the cluster has room for, at most those wanted.

    Raises:
        UserError: there is no room for one.
    """
    available = ray.cluster_resources()
    places = actors
    for name, needed in (("CPU", cpus_per_actor), ("GPU", gpus_per_actor)):
        if not needed:
            continue
        found = available.get(name, 0.0)
        if found < needed:
            raise UserError(
                f"search: an evaluation actor needs {needed:g} {name}, the cluster has {found:g}; lower "
                f"{name.lower()}s_per_actor or run on a larger cluster"
            )
        places = min(places, int(found / needed))
    return places


class _Actor:
    """The process that holds a worker. Errors are returned as values: raised, Ray would wrap them."""

    def __init__(self, pickled: bytes) -> None:
        self._worker: Any = None
        self._failure: bytes | None = None
        try:
            self._worker = cloudpickle.loads(pickled)()
        except Exception as error:
            self._failure = _portable(error)

    def work(self, item: Any) -> tuple[bytes | None, Any]:
        """The failure, or the result of one item."""
        if self._failure is not None:
            return self._failure, None
        try:
            return None, self._worker(item)
        except Exception as error:
            return _portable(error), None

    def pid(self) -> int:
        """The process."""
        return os.getpid()


@dataclass
class _Pool:
    """Actors, what each is doing, and what waits."""

    make_worker: Any
    places: int
    cpus_per_actor: float
    gpus_per_actor: float
    _pickled: Any = None
    _actors: list[Any] = field(default_factory=list)
    _running: dict[Any, tuple[Any, int]] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[_Pool]:
        """The pool; its actors are gone after the block, however it ends."""
        self._pickled = ray.put(cloudpickle.dumps(self.make_worker))
        try:
            yield self
        finally:
            for actor in self._actors:
                ray.kill(actor)

    def results(self, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield each item's number and result."""
        waiting = deque(range(len(items)))
        attempts = [0] * len(items)
        lost_in_a_row = 0
        for _ in range(self.places):
            self._give(self._start(), waiting, items)
        while self._running:
            done, _ = ray.wait(list(self._running), num_returns=1, timeout=PATIENCE_SECONDS)
            for reference in done:
                actor, number = self._running.pop(reference)
                try:
                    failure, result = ray.get(reference)
                except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
                    attempts[number] += 1
                    lost_in_a_row += 1
                    self._check_losses(number, attempts[number], lost_in_a_row, error)
                    self._actors.remove(actor)
                    waiting.appendleft(number)
                    self._give(self._start(), waiting, items)
                    continue
                if failure is not None:
                    raise _revived(failure)
                lost_in_a_row = 0
                self._give(actor, waiting, items)  # before the result is dealt with, so that nobody waits for us
                yield number, result

    def _start(self) -> Any:
        options = {"num_cpus": self.cpus_per_actor, "num_gpus": self.gpus_per_actor, "max_restarts": 0}
        actor = ray.remote(_Actor).options(**options).remote(self._pickled)
        self._actors.append(actor)
        return actor

    def _give(self, actor: Any, waiting: deque[int], items: Sequence[Any]) -> None:
        if waiting:
            number = waiting.popleft()
            self._running[actor.work.remote(items[number])] = (actor, number)

    @staticmethod
    def _check_losses(number: int, attempts: int, lost_in_a_row: int, error: Exception) -> None:
        if attempts >= ATTEMPTS:
            raise RunError(
                f"evaluation: item {number} lost its actor at each of {attempts} attempts (killed, or out of memory); "
                f"run the same command again to go on"
            ) from error
        if lost_in_a_row >= LOST_IN_A_ROW:
            raise RunError(
                f"evaluation: {lost_in_a_row} actors in a row died without a result; look for a lack of memory, and "
                f"run the same command again to go on"
            ) from error


def _portable(error: Exception) -> bytes:
    """An error as bytes: one of ours as it is, any other as a RunError that names it."""
    if not isinstance(error, _OURS):
        error = RunError(f"evaluation: a worker failed: {type(error).__name__}: {' '.join(str(error).split())}")
    dumped: bytes = cloudpickle.dumps(error.with_traceback(None))
    return dumped


def _revived(dumped: bytes) -> Exception:
    error: Exception = cloudpickle.loads(dumped)
    return error
