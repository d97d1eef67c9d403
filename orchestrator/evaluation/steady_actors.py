"""Where Ray Tune's public interface is not enough for a search: all that netsuke touches of Tune's private parts.

Checked against Ray 2.60. Should a private part be gone after an upgrade, the search is slower, or ends where a node
runs out of memory, but what it finds is right; and a test fails. Beside that stands what all experiments have in
common.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.schedulers import FIFOScheduler

TUNE_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints boxes even with verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # files of each trial that nobody reads: the results are in Parquet
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the command instead of this stage only
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # searches and trainings go on from states of their own
}
"""The environment variables of every experiment."""

UNKNOWN_CAUSE = "killed, or out of memory"
OUT_OF_MEMORY_CAUSE = "Ray killed it because its node was running low on memory"


class SteadyActors(FIFOScheduler):  # type: ignore[misc]
    """First in, first out; Tune keeps idle actors alive until the end, and a lack of memory ends one actor alone.

    Tune drops idle actors whenever there is nothing to run for a moment. And of an actor that Ray's memory monitor
    killed it hears by another error than of actors that died of anything else, which ends the whole experiment.

    Args:
        count: how many idle actors are kept.

    Attributes:
        cause: what the actor died of whose loss is being dealt with at this moment.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.cause = UNKNOWN_CAUSE
        self._count = count
        self._is_ready = False

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Take hold with the first trial: only then the actors' resources are known."""
        if not self._is_ready:
            self._is_ready = True
            cache = getattr(tune_controller, "_actor_cache", None)
            if cache is not None and hasattr(cache, "increase_max"):
                cache.increase_max(trial.placement_group_factory, self._count)
            manager = getattr(tune_controller, "_actor_manager", None)
            if manager is not None and hasattr(manager, "_actor_task_failed"):
                self._catch_lack_of_memory(tune_controller, manager)
        super().on_trial_add(tune_controller, trial)

    def _catch_lack_of_memory(self, tune_controller: Any, manager: Any) -> None:
        deal_with = manager._actor_task_failed

        def deal_with_lack_of_memory_too(tracked_actor_task: Any, exception: Exception) -> None:
            if isinstance(exception, OutOfMemoryError):
                self.cause = OUT_OF_MEMORY_CAUSE
                _forget_first_answers(tune_controller)
                exception = RayActorError(error_msg=str(exception))
            try:
                deal_with(tracked_actor_task=tracked_actor_task, exception=exception)
            finally:
                self.cause = UNKNOWN_CAUSE

        manager._actor_task_failed = deal_with_lack_of_memory_too


def _forget_first_answers(tune_controller: Any) -> None:
    """Let no trial wait for its actor's first answer (host and process id, for display): it may have died with it."""
    for trial in tune_controller.get_trials():
        if isinstance(getattr(trial, "_default_result_or_future", None), ray.ObjectRef):
            trial._default_result_or_future = None


def trial_resources(cpus: float, gpus: float) -> dict[str, float]:
    """What a trial's actor reserves, as Tune wants it: a GPU that is not wanted is not named."""
    return {"cpu": cpus, **({"gpu": gpus} if gpus else {})}


@contextmanager
def quiet_tune() -> Iterator[None]:
    """Keep Tune from logging a traceback for every actor that dies: what matters becomes a record or an error."""
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
