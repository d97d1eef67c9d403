"""The adapter to Ray Tune: long-lived actors score batches of candidates for a search loop.

A Tune trial costs tens of milliseconds of the driver, so each carries a batch of candidates; actors are set up once and
reused for every trial. Two habits of Tune would undo that and are held off (both checked against Ray 2.60): it starts
trials on the first actor that is up and then cancels the others (:mod:`~orchestrator.evaluation.actor_gate`), and it
drops idle actors whenever there is nothing to run for a moment (:mod:`~orchestrator.evaluation.steady_actors`).
"""

from __future__ import annotations

import socket
import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import astuple, dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import ray
from ray import cloudpickle, tune

from cluster.environment import variables
from cluster.errors import type_and_text
from cluster.signals import while_ray_runs
from orchestrator.errors import RunError
from orchestrator.evaluation.actor_gate import actor_gate
from orchestrator.evaluation.actor_pool import places_for_actors
from orchestrator.evaluation.ask_tell_searcher import AskTellSearcher
from orchestrator.evaluation.evaluator import EvaluatorFactory, score_at_fidelities
from orchestrator.evaluation.latency_device import LatencyDevice
from orchestrator.evaluation.latency_meter import LatencyMeter
from orchestrator.evaluation.object_store import make_evaluator, share_material
from orchestrator.evaluation.records import SearchProgress
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.steady_actors import TUNE_ENVIRONMENT, SteadyActors, quiet_tune, trial_resources
from orchestrator.evaluation.tune_callbacks import DriverOnly, NamedCallback, Notice, watchers

PROGRESS_INTERVAL_SECONDS = 1.0

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
    _materials: dict[str, list[Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

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
        self._places()  # refuses a cluster that is too small
        steady = SteadyActors(self.actors)
        with ExitStack() as stack:
            stack.enter_context(loop.saving())
            stack.enter_context(variables(TUNE_ENVIRONMENT))
            storage = storage_path or stack.enter_context(tempfile.TemporaryDirectory(prefix="netsuke-tune-"))
            gate = stack.enter_context(actor_gate())
            device = stack.enter_context(self._latency_device()) if loop.measures_latency else None
            searcher = AskTellSearcher(loop, gate, self._places, self.max_failures + 1, device, name)
            told = watchers(self.callbacks, self.result_files, searcher.end_by, notice)
            trainable = tune.with_parameters(
                _EvaluationTrial,
                pickled=cloudpickle.dumps((self.evaluator_factory, loop.strategy.space)),
                material=self._material(),
                gate=gate,
            )
            tuner = tune.Tuner(
                tune.with_resources(trainable, trial_resources(self.cpus_per_actor, self.gpus_per_actor)),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=steady,
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
                    callbacks=[_Housekeeping(loop, searcher, gate, steady, progress), *told],
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
            self._materials[connection] = share_material(
                self.evaluator_factory, self.cpus_per_actor, self.gpus_per_actor
            )
        return self._materials[connection]

    def _latency_device(self) -> LatencyDevice:
        assert self.meter is not None, "the search measures latencies, and nobody said how"
        return LatencyDevice(self.meter, self.meter.conditions.threads)

    def _places(self) -> int:
        """How many actors the cluster has room for now, at most those wanted."""
        return places_for_actors(self.actors, self.cpus_per_actor, self.gpus_per_actor)


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
        context = ray.get_runtime_context()
        self._itself = (context.get_actor_id(), cloudpickle.dumps(context.current_actor))
        self._setup_error = ""
        try:
            evaluator_factory, self._space = cloudpickle.loads(pickled)
            self._evaluator = make_evaluator(evaluator_factory, material)
        except Exception as error:
            # Reported as a result: raised here, Tune would start the actor again and again for every trial.
            self._setup_error = type_and_text(error)

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
            self._gate.begin.options(max_task_retries=0).remote(*self._itself)
        result: dict[str, Any] = {"done": True, "host": socket.gethostname(), "setup_error": self._setup_error}
        if not self._setup_error:
            carried = self.config["candidates"].candidates
            candidates = [(self._space.parse(text), fidelity) for fidelity, text in carried]
            scores = score_at_fidelities(self._evaluator, candidates)
            result["scores"] = [list(astuple(score)) for score in scores]
        # Once done, this actor is given any trial for which another actor is still being started.
        ray.get(self._gate.wait.remote(*self._itself))
        return result


class _Housekeeping(DriverOnly, tune.Callback):  # type: ignore[misc]
    """Saves the loop's state and reports progress while Tune's own loop turns, and tells the gate of dead actors."""

    def __init__(
        self, loop: SearchLoop, searcher: AskTellSearcher, gate: Any, steady: SteadyActors, progress: Progress | None
    ) -> None:
        self._loop = loop
        self._searcher = searcher
        self._gate = gate
        self._steady = steady
        self._progress = progress
        self._reported = -1
        self._next_report = 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune after each turn (ten times a second or more)."""
        try:
            self._searcher.collect()
            self._searcher.look_for_places()
            self._searcher.catch_up()
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

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """An actor begins with a trial."""
        self._searcher.note_begin(trial.trial_id)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial lost its actor and will be tried again."""
        self._gate.look.options(max_task_retries=0).remote()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial lost its actor and is given up."""
        self._gate.look.options(max_task_retries=0).remote()
        try:
            self._searcher.lose(trial.trial_id, self._steady.cause)
        except Exception as error:
            self._searcher.end_by(error)

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
