"""Habits of Ray Tune that a search breaks it of: dropping idle actors, and logging what is dealt with elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune.schedulers import FIFOScheduler


class PinActors(FIFOScheduler):  # type: ignore[misc]
    """First in, first out, and Tune keeps ``count`` idle actors alive until the end.

    Tune's public interface has no such switch. Should the private one be gone after an upgrade, the search is slower
    but right, and a test fails.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count
        self._pinned = False

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Pin with the first trial: only then the actors' resources are known."""
        if not self._pinned:
            self._pinned = True
            cache = getattr(tune_controller, "_actor_cache", None)
            if cache is not None and hasattr(cache, "increase_max"):
                cache.increase_max(trial.placement_group_factory, self._count)
        super().on_trial_add(tune_controller, trial)


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
