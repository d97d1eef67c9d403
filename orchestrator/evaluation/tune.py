"""The adapter to Ray Tune: long-lived actors score batches of candidates for a search loop.

Everything of the search that knows Tune is in this module. A Tune trial costs tens of milliseconds of the driver, so
each carries a batch of candidates; actors are set up once and reused for every trial. Two habits of Tune would undo
that and are held off here (both checked against Ray 2.60): it starts trials on the first actor that is up and then
cancels the others (the gate), and it drops idle actors whenever there is nothing to run for a moment (the pinning
scheduler, see :mod:`orchestrator.evaluation.tune_habits`).
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.tune.search import Searcher

from cluster.environment import variables
from cluster.signals import while_ray_runs
from orchestrator.errors import RunError, UserError
from orchestrator.evaluation.evaluator import EvaluatorFactory, Score, score_at_fidelities
from orchestrator.evaluation.latency_device import LatencyDevice
from orchestrator.evaluation.latency_meter import LatencyMeter
from orchestrator.evaluation.object_store import SharedMaterial, make_evaluator
from orchestrator.evaluation.records import Origin, Proposal, SearchProgress
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.trial_view import CarriedCandidates, trial_metrics
from orchestrator.evaluation.tune_callbacks import DriverOnly, NamedCallback, Notice, watchers
from orchestrator.evaluation.tune_habits import PinActors, quiet_tune

GATE_PATIENCE_SECONDS = 60.0
PROGRESS_INTERVAL_SECONDS = 1.0
MAX_LOST_TRIALS_IN_A_ROW = 5

_TUNE_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints boxes even with verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # five files a trial that nobody reads
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the command instead of this stage only
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the search has a state of its own; Tune's snapshots only cost time
}

Progress = Callable[[SearchProgress], None]


@dataclass(frozen=True)
class TuneEvaluation:
    """Runs search loops on Ray Tune actors.

    Attributes:
        evaluator_factory: pickled; makes one evaluator in each actor, of material that one task loads for all of them
            if it is a :class:`~orchestrator.evaluation.evaluator.SharingEvaluatorFactory`.
        actors: processes that evaluate at the same time.
        cpus_per_actor: CPUs Ray reserves for each.
        gpus_per_actor: GPUs Ray reserves for each; a fraction shares one.
        meter: measures latencies, where they are an objective: in an actor that holds the Ray resource
            ``latency_device`` and as many cores as a measured forward pass has threads.
        max_failures: how often a trial whose actor died is tried again before its candidates are tried one by one (and
            the one that ends its actor every time is recorded as failed).
        callbacks: are told of each trial, beside the loop.
        result_files: whether trials leave a file each, without which the data frame of the ``ResultGrid`` is empty.
    """

    evaluator_factory: EvaluatorFactory
    actors: int = 2
    cpus_per_actor: float = 1.0
    gpus_per_actor: float = 0.0
    max_failures: int = 2
    meter: LatencyMeter | None = None
    callbacks: tuple[NamedCallback, ...] = ()
    result_files: bool = True
    _materials: dict[str, SharedMaterial] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def window(self) -> int:
        """The search loop's window that keeps the actors busy while the order of telling is fixed."""
        return 2 * self.actors

    def run(
        self,
        loop: SearchLoop,
        progress: Progress | None = None,
        storage_path: str | None = None,
        name: str = "search",
        notice: Notice = warnings.warn,
    ) -> tune.ResultGrid:
        """Run a search to its end on the Ray that this process is connected to.

        Records go to the loop's ``on_result`` as they arrive, the loop's state is saved as it goes and at the end, also
        when the run ends with an error or Ctrl-C.

        Args:
            loop: the search.
            progress: called about once a second and after every trial, in this thread; must be quick.
            storage_path: where Tune may keep the files of its experiment; default: a temporary folder.
            name: of the search: trials have it among their parameters, and the experiment's folder in ``storage_path``
                is called ``name-1``, or by the next number that is free: each start is an experiment of its own.
            notice: gets a line where the search goes on without a callback that failed.

        Returns:
            The experiment, with a result for each trial of this start: see :func:`trial_metrics`.

        Raises:
            UserError: the cluster is too small for one actor, or a callback is wrong or cannot begin.
            RunError: the evaluator cannot be set up, actors keep dying, or the search was interrupted.
        """
        places = self._places()
        with ExitStack() as stack:
            stack.enter_context(loop.saving())
            stack.enter_context(variables(_TUNE_ENVIRONMENT))
            storage = storage_path or stack.enter_context(tempfile.TemporaryDirectory(prefix="netsuke-tune-"))
            gate = stack.enter_context(_gate())
            device = stack.enter_context(self._latency_device()) if loop.measures_latency else None
            searcher = AskTellSearcher(loop, gate, places, self.max_failures + 1, device, name)
            told = watchers(self.callbacks, self.result_files, searcher.end_by, notice)
            trainable = tune.with_parameters(
                _EvaluationTrial,
                pickled=cloudpickle.dumps((self.evaluator_factory, loop.strategy.space)),
                material=self._material(),
                gate=gate,
            )
            tuner = tune.Tuner(
                tune.with_resources(trainable, self._resources()),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=PinActors(places),
                    num_samples=-1,
                    max_concurrent_trials=self.actors,
                    reuse_actors=True,
                    trial_name_creator=lambda trial: trial.trial_id,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    name=_free_name(Path(storage), name),
                    storage_path=str(storage),
                    failure_config=tune.FailureConfig(max_failures=self.max_failures),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    callbacks=[_Housekeeping(loop, searcher, gate, progress), *told],
                    verbose=0,
                ),
            )
            with while_ray_runs(), quiet_tune():
                results = tuner.fit()
            if searcher.error is not None:
                raise searcher.error
            if not loop.finished:
                raise RunError("the search was interrupted; run the same command again to go on")
            return results

    def _material(self) -> list[Any]:
        """What the actors have in common; searches that follow each other on one Ray share it, too."""
        context = ray.get_runtime_context()
        connection = f"{context.gcs_address} {context.get_job_id()}"
        if connection not in self._materials:
            self._materials.clear()
            self._materials[connection] = SharedMaterial(
                self.evaluator_factory, self.cpus_per_actor, self.gpus_per_actor
            )
        return self._materials[connection].references

    def _latency_device(self) -> LatencyDevice:
        assert self.meter is not None, "the search measures latencies, and nobody said how"
        return LatencyDevice(self.meter, self.meter.conditions.threads)

    def _resources(self) -> dict[str, float]:
        gpus = {"gpu": self.gpus_per_actor} if self.gpus_per_actor else {}
        return {"cpu": self.cpus_per_actor, **gpus}

    def _places(self) -> int:
        """How many actors the cluster has room for now, at most those wanted.

        Raises:
            UserError: there is no room for one.
        """
        available = ray.cluster_resources()
        places = self.actors
        for name, needed in (("CPU", self.cpus_per_actor), ("GPU", self.gpus_per_actor)):
            if needed and available.get(name, 0.0) < needed:
                raise UserError(
                    f"search: an evaluation actor needs {needed:g} {name}, the cluster has "
                    f"{available.get(name, 0.0):g}; lower {name.lower()}s_per_actor or run on a larger cluster"
                )
            if needed:
                places = min(places, int(available[name] / needed))
        return places


class _EvaluationTrial(tune.Trainable):  # type: ignore[misc]
    """An actor: holds an evaluator, scores the candidates of one trial after the other."""

    def setup(self, config: dict[str, Any], pickled: bytes, material: list[Any], gate: Any) -> None:
        """Build the evaluator, once in the life of the actor.

        Args:
            config: of the first trial.
            pickled: the evaluator's factory and the space; bytes, so that a failure to load them is caught here.
            material: references to what the evaluators share.
            gate: the gate's handle.
        """
        self._gate = gate
        self._has_begun = False
        self._setup_error = ""
        try:
            evaluator_factory, self._space = cloudpickle.loads(pickled)
            self._evaluator = make_evaluator(evaluator_factory, material)
        except Exception as error:
            # Reported as a result: raised here, Tune would start the actor again and again for every trial.
            self._setup_error = " ".join(f"{type(error).__name__}: {error}".split())

    def is_alive(self) -> bool:
        """Answer the gate."""
        return True

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; the evaluator stays."""
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Score the trial's candidates."""
        if not self._has_begun:
            self._has_begun = True
            context = ray.get_runtime_context()
            self._gate.begin.remote(context.get_actor_id(), context.current_actor)
        result: dict[str, Any] = {"done": True, "host": socket.gethostname(), "setup_error": self._setup_error}
        if not self._setup_error:
            carried = self.config["candidates"].candidates
            candidates = [(self._space.parse(text), fidelity) for fidelity, text in carried]
            scores = score_at_fidelities(self._evaluator, candidates)
            result["scores"] = [list(astuple(score)) for score in scores]
        # Once done, this actor is given any trial for which another actor is still being started.
        ray.get(self._gate.wait.remote())
        return result


class _Gate:
    """Where actors that have finished a trial wait for actors that are still starting.

    Tune gives a waiting trial to whichever actor is free first, and cancels the one that was being started for it.
    Trials are shorter than the start of an actor; so without the gate one actor would do all the work, from the
    beginning or from the moment another died. Nobody waits for longer than ``GATE_PATIENCE_SECONDS``, and who has not
    come by then is not waited for again.
    """

    def __init__(self) -> None:
        self._alive: dict[str, Any] = {}
        self._wanted = 1
        self._last_order = -1
        self._limit = sys.maxsize
        self._changed = asyncio.Condition()
        self._checks: set[asyncio.Task[None]] = set()

    async def begin(self, actor_id: str, actor: Any) -> None:
        """An actor has begun its first trial, so it cannot be cancelled any more."""
        async with self._changed:
            self._alive[actor_id] = actor
            if len(self._alive) > self._limit:
                self._limit = sys.maxsize
            self._changed.notify_all()

    async def wait(self) -> None:
        """Wait until as many actors are there as have work."""
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

    async def _forget_if_dead(self, actor_id: str, actor: Any) -> None:
        try:
            await actor.is_alive.remote()
        except ray.exceptions.RayActorError:
            self._alive.pop(actor_id, None)

    def _is_complete(self) -> bool:
        return len(self._alive) >= min(self._wanted, self._limit)


@contextmanager
def _gate() -> Iterator[Any]:
    """The handle of a new gate, which is gone after the block."""
    gate = ray.remote(num_cpus=0)(_Gate).remote()
    try:
        yield gate
    finally:
        ray.kill(gate)


@dataclass(frozen=True)
class _Work:
    """What a trial carries: proposals of one batch."""

    batch: int
    proposals: tuple[Proposal, ...]


class AskTellSearcher(DriverOnly, Searcher):  # type: ignore[misc]
    """Tune's view of a search loop.

    Attributes:
        error: what went wrong in here or in the housekeeping. Tune would take an exception for a failed trial or bury
            it in its own, so the search winds down and :meth:`TuneEvaluation.run` raises it.
    """

    def __init__(
        self,
        loop: SearchLoop,
        gate: Any,
        places: int,
        attempts: int,
        device: LatencyDevice | None = None,
        name: str = "search",
    ) -> None:
        super().__init__()
        self.error: Exception | None = None
        self._device = device
        self._loop = loop
        self._gate = gate
        self._places = places
        self._attempts = attempts
        self._wanted = 0
        self._orders = count()
        self._again: deque[_Work] = deque()
        self._running: dict[str, _Work] = {}
        self._arrived: dict[str, list[Score]] = {}
        self._name = name
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
        self._want(min(len(self._running), self._places))
        if work is not None:
            return {"search": self._name, "batch": work.batch, "candidates": CarriedCandidates.of(work.proposals)}
        if self.error is not None or self._loop.finished:
            return str(Searcher.FINISHED)
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Trials have one result, which comes with their completion."""

    def take(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the scores of a trial for its completion, and leave in the result what others may see of them."""
        work = self._running.get(trial_id)
        if work is not None and "scores" in result:
            scores = self._arrived[trial_id] = [Score(*values) for values in result.pop("scores")]
            result.update(trial_metrics(self._loop, work.proposals, scores))

    def end_by(self, error: Exception) -> None:
        """Wind the search down; the first error is the one that is raised."""
        self.error = self.error or error

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand a trial's scores to the loop, or deal with its loss."""
        work = self._running.pop(trial_id, None)
        if work is None:
            return
        try:
            if error or result is None or "setup_error" not in result:
                self._lose(work)
            elif result["setup_error"]:
                raise RunError(f"the evaluator could not be set up: {result['setup_error']}")
            else:
                self._lost_in_a_row = 0
                self._receive(work, self._arrived.pop(trial_id), trial_id, result)
        except Exception as failure:
            self.end_by(failure)

    def save(self, checkpoint_path: str) -> None:
        """Tune asks for a file; the search loop has its own state."""
        Path(checkpoint_path).write_text("{}", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """A search is resumed by its loop, not by Tune."""

    def _next_work(self) -> _Work | None:
        if self._again:
            return self._again.popleft()
        batch = self._loop.next_batch()
        return None if batch is None else _Work(batch.number, batch.proposals)

    def _receive(self, work: _Work, scores: list[Score], trial_id: str, result: Mapping[str, Any]) -> None:
        numbers = [proposal.number for proposal in work.proposals]
        origin = Origin(trial_id, result.get("host", ""), result.get("pid"))
        if self._device is None:
            self._loop.receive(work.batch, list(zip(numbers, scores, strict=True)), origin)
        else:
            self._device.submit((work.batch, numbers, origin), [one.architecture for one in work.proposals], scores)

    def collect(self) -> None:
        """Hand candidates whose latencies have been measured to the loop."""
        for measured in self._device.collect() if self._device is not None else ():
            batch, numbers, origin = measured.item
            self._loop.receive(batch, list(zip(numbers, measured.scores, strict=True)), origin)

    def _lose(self, work: _Work) -> None:
        """A trial ended its actor at every attempt: try its candidates one by one, a single one is the culprit.

        Raises:
            RunError: no trial has succeeded for a while, so it is not the candidates.
        """
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= MAX_LOST_TRIALS_IN_A_ROW:
            raise RunError(
                f"{self._lost_in_a_row} trials in a row lost their evaluation actor at each of {self._attempts} "
                "attempts; look for a lack of memory, and run the same command again to go on"
            )
        if len(work.proposals) > 1:
            self._again.extend(_Work(work.batch, (proposal,)) for proposal in work.proposals)
            return
        reason = f"the evaluation actor died at each of {self._attempts} attempts (killed, or out of memory)"
        self._loop.receive(work.batch, [(work.proposals[0].number, Score.failed(reason))], Origin())

    def _want(self, actors: int) -> None:
        """Tell the gate how many actors have work, when that has changed."""
        if actors != self._wanted:
            self._wanted = actors
            self._gate.want.remote(next(self._orders), actors)


class _Housekeeping(DriverOnly, tune.Callback):  # type: ignore[misc]
    """Saves the loop's state and reports progress while Tune's own loop turns, and tells the gate of dead actors."""

    def __init__(self, loop: SearchLoop, searcher: AskTellSearcher, gate: Any, progress: Progress | None) -> None:
        self._loop = loop
        self._searcher = searcher
        self._gate = gate
        self._progress = progress
        self._reported = -1
        self._next_report = 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune after each turn (ten times a second or more)."""
        try:
            self._searcher.collect()
            self._loop.tick()
            self._report()
        except Exception as error:
            self._searcher.end_by(error)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """A trial is done; this callback hears of it before those that the user named."""
        try:
            self._searcher.take(trial.trial_id, result)
        except Exception as error:
            self._searcher.end_by(error)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial lost its actor and will be tried again."""
        self._gate.look.remote()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial lost its actor and is given up."""
        self._gate.look.remote()

    def _report(self) -> None:
        if self._progress is None:
            return
        progress = self._loop.progress
        now = monotonic()
        if progress.evaluated != self._reported or now >= self._next_report:
            self._reported = progress.evaluated
            self._next_report = now + PROGRESS_INTERVAL_SECONDS
            self._progress(progress)


def _free_name(storage: Path, name: str) -> str:
    """``name-1``, or the first that is not there yet."""
    return next(one for one in (f"{name}-{number}" for number in count(1)) if not (storage / one).exists())
