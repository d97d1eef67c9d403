"""Tune's view of a search loop: what a trial carries, who is given it, and what becomes of its scores."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import ray
from ray.tune.search import Searcher

from orchestrator.errors import RunError, UserError
from orchestrator.evaluation.evaluator import Score
from orchestrator.evaluation.latency_device import LatencyDevice
from orchestrator.evaluation.records import Origin, Proposal
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.steady_actors import UNKNOWN_CAUSE
from orchestrator.evaluation.trial_view import CarriedCandidates, trial_metrics
from orchestrator.evaluation.tune_callbacks import DriverOnly

PLACES_INTERVAL_SECONDS = 1.0
MAX_LOST_TRIALS_IN_A_ROW = 5


@dataclass(frozen=True)
class Work:
    """What a trial carries: proposals of one batch, and whether no other trial may run meanwhile."""

    batch: int
    proposals: tuple[Proposal, ...]
    is_alone: bool = False


class _Finished(NamedTuple):
    """A trial whose scores the loop has not received yet."""

    work: Work
    scores: list[Score]
    origin: Origin


class AskTellSearcher(DriverOnly, Searcher):  # type: ignore[misc]
    """Tune's view of a search loop.

    An actor that has finished a trial waits for this process to give it the next one. So that it does not wait for the
    loop's own work, scores are digested, and the next batch is asked, while all actors are busy (:meth:`catch_up`).

    Attributes:
        error: what went wrong in here or in the housekeeping. Tune would take an exception for a failed trial or bury
            it in its own, so the search winds down and :meth:`TuneEvaluation.run` raises it.
    """

    def __init__(
        self,
        loop: SearchLoop,
        gate: Any,
        room: Callable[[], int],
        attempts: int,
        device: LatencyDevice | None = None,
        name: str = "search",
    ) -> None:
        super().__init__()
        self.error: Exception | None = None
        self._device = device
        self._loop = loop
        self._gate = gate
        self._room = room
        self._places = 0
        self._next_look = 0.0
        self._attempts = attempts
        self._wanted = 0
        self._orders = count()
        self._again: deque[Work] = deque()
        self._running: dict[str, Work] = {}
        self._arrived: dict[str, list[Score]] = {}
        self._starting: set[str] = set()
        self._undigested: deque[_Finished] = deque()
        self._name = name
        self._begins: Counter[str] = Counter()
        self._lost_in_a_row = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's candidates, nothing for now, or the end."""
        work = None
        try:
            self.collect()  # while no trial runs, Tune calls nothing else
            if self.error is None:
                work = self._next_work()
        except Exception as error:
            self.error = error
        if work is not None:
            self._running[trial_id] = work
            self._starting.add(trial_id)
        self.look_for_places()
        if work is not None:
            return {"search": self._name, "batch": work.batch, "candidates": CarriedCandidates.of(work.proposals)}
        if self.error is not None or self._loop.finished:
            return str(Searcher.FINISHED)
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Trials have one result, which comes with their completion."""

    def take(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the scores of a trial for its completion, and leave in the result what others may see of them."""
        self._digest()
        work = self._running.get(trial_id)
        if work is not None and "scores" in result:
            scores = self._arrived[trial_id] = [Score(*values) for values in result.pop("scores")]
            result.update(trial_metrics(self._loop, work.proposals, scores))

    def end_by(self, error: Exception) -> None:
        """Wind the search down; the first error is the one that is raised."""
        self.error = self.error or error

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand a trial's scores to the loop, or deal with its loss."""
        if error:
            return  # the callback that follows knows more: :meth:`lose`
        try:
            if result is None or "setup_error" not in result:
                self.lose(trial_id, UNKNOWN_CAUSE)
                return
            work = self._running.pop(trial_id, None)
            if work is None:
                return
            if result["setup_error"]:
                raise RunError(f"the evaluator could not be set up: {result['setup_error']}")
            self._lost_in_a_row = 0
            self._begins.pop(trial_id, None)
            origin = Origin(trial_id, result.get("host", ""), result.get("pid"))
            self._undigested.append(_Finished(work, self._arrived.pop(trial_id), origin))
            if not self._loop.deterministic:  # what is asked next shall know of it
                self._digest()
        except Exception as failure:
            self.end_by(failure)

    def save(self, checkpoint_path: str) -> None:
        """Tune asks for a file; the search loop has its own state."""
        Path(checkpoint_path).write_text("{}", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """A search is resumed by its loop, not by Tune."""

    def _next_work(self) -> Work | None:
        # Whoever takes all the memory of a node ends the actors beside it, too: what dies alone is the culprit.
        if self._again:
            return None if self._running else replace(self._again.popleft(), is_alone=True)
        if any(work.is_alone for work in self._running.values()):
            return None
        if not self._loop.is_prepared:
            self._digest()
        batch = self._loop.next_batch()
        return None if batch is None else Work(batch.number, batch.proposals)

    def catch_up(self) -> None:
        """Do what would keep actors waiting, if none of them waits for its trial right now."""
        if not self._starting and (len(self._running) >= self._places or not self._loop.is_prepared):
            self._digest()
            self._loop.prepare()

    def _digest(self) -> None:
        """Hand the scores of finished trials to the loop or, where latencies are measured, first to the device."""
        while self._undigested:
            work, scores, origin = self._undigested.popleft()
            numbers = [proposal.number for proposal in work.proposals]
            if self._device is None:
                self._loop.receive(work.batch, list(zip(numbers, scores, strict=True)), origin)
            else:
                self._device.submit((work.batch, numbers, origin), [one.architecture for one in work.proposals], scores)

    def collect(self) -> None:
        """Hand candidates whose latencies have been measured to the loop."""
        for measured in self._device.collect() if self._device is not None else ():
            batch, numbers, origin = measured.item
            self._loop.receive(batch, list(zip(numbers, measured.scores, strict=True)), origin)

    def note_begin(self, trial_id: str) -> None:
        """An actor has begun to score a trial."""
        self._begins[trial_id] += 1
        self._starting.discard(trial_id)

    def lose(self, trial_id: str, cause: str) -> None:
        """A trial ended its actor at every attempt: try its candidates one by one and alone, then it is the culprit.

        Args:
            trial_id: the trial that Tune has given up.
            cause: what the last one died of.

        Raises:
            RunError: no trial has succeeded for a while, so it is not the candidates.
        """
        self._arrived.pop(trial_id, None)
        self._starting.discard(trial_id)
        work = self._running.pop(trial_id, None)
        if work is None:
            return
        begins = self._begins.pop(trial_id, 0)
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= MAX_LOST_TRIALS_IN_A_ROW:
            raise RunError(
                f"{self._lost_in_a_row} trials in a row lost their evaluation actor at each of {self._attempts} "
                f"attempts ({cause}); look for a lack of memory, and run the same command again to go on"
            )
        if len(work.proposals) > 1:
            self._again.extend(Work(work.batch, (proposal,)) for proposal in work.proposals)
        elif work.is_alone and begins >= self._attempts:
            reason = f"the evaluation actor died at each of {self._attempts} attempts ({cause})"
            self._loop.receive(work.batch, [(work.proposals[0].number, Score.failed(reason))], Origin())
        else:  # it had company, or was given to idle actors that had died
            self._again.append(work)

    def look_for_places(self) -> None:
        """Nodes come and go: nobody waits for an actor that has no place. Looks about once a second."""
        now = monotonic()
        if now >= self._next_look:
            self._next_look = now + PLACES_INTERVAL_SECONDS
            with suppress(UserError, ray.exceptions.RayError):  # no room now: what waits, waits for a node
                self._places = self._room()
        self._want(min(len(self._running), self._places))

    def _want(self, actors: int) -> None:
        """Tell the gate how many actors have work, when that has changed."""
        if actors != self._wanted:
            self._wanted = actors
            # Once: a call that is repeated when the gate is closed makes Ray print a line about it.
            self._gate.want.options(max_task_retries=0).remote(next(self._orders), actors)
