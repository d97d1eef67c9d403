"""A driver process for the tests of `cluster.connect` and `cluster.signals`: what it does is named on the command line.

It prints one JSON object a line, and reads its orders from standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import ray

import cluster.address
from cluster.connect import connect
from cluster.environment import RUN_ENVIRONMENT
from cluster.errors import ClusterError, ClusterUserError
from cluster.signals import Interrupted, orderly_stop, while_ray_runs


def say(**values: Any) -> None:
    print(json.dumps(values), file=sys.__stdout__, flush=True)


@ray.remote
class Worker:
    """An actor that reports its surroundings, and starts a child that detaches itself from it."""

    def surroundings(self) -> dict[str, str | None]:
        return {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", *RUN_ENVIRONMENT)}

    def start_detached_child(self) -> int:
        return subprocess.Popen(["sleep", "600"], start_new_session=True).pid

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def hold() -> None:
    """Start a local Ray and keep it until told otherwise."""
    with connect(num_cpus=4) as info:
        worker = Worker.options(num_cpus=2).remote()
        say(
            address=info.address,
            local=info.is_local,
            surroundings=ray.get(worker.surroundings.remote()),
            child=ray.get(worker.start_detached_child.remote()),
        )
        for _ in sys.stdin:
            say(cpus=ray.cluster_resources()["CPU"])
    say(initialised=ray.is_initialized())


def join() -> None:
    """Join the cluster whose address is given, and leave it."""
    with connect(sys.argv[2]) as info:
        worker = Worker.options(num_cpus=1).remote()
        say(cpus=info.cpus, local=info.is_local, surroundings=ray.get(worker.surroundings.remote()))


def bad_addresses() -> None:
    """Say what `connect` answers to each address given."""
    cluster.address.PROBE_TIMEOUT_SECONDS = 3.0
    for address in sys.argv[2:]:
        start = time.monotonic()
        try:
            with connect(address):
                say(address=address, error=None)
        except (ClusterUserError, ClusterError) as error:
            seconds = time.monotonic() - start
            say(address=address, error=str(error), kind=type(error).__name__, seconds=seconds)


def stop_in_order() -> None:
    """Be stopped by SIGTERM twice: while waiting for an actor, and while Tune runs."""
    with connect(num_cpus=2):
        try:
            with orderly_stop():
                worker = Worker.options(num_cpus=0).remote()
                ray.get(worker.surroundings.remote())
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
                ray.get(worker.sleep.remote(600))
        except Interrupted as stopped:
            say(where="actor", signal=stopped.signal.name)
        try:
            with orderly_stop():
                _stopped_tune()
        except Interrupted as stopped:
            say(where="tune", signal=stopped.signal.name)
        say(usr1_is_default=signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL)
    say(where="end")


def _stopped_tune() -> None:
    from ray import tune

    class Trial(tune.Trainable):
        def step(self) -> dict[str, Any]:
            time.sleep(0.1)
            return {"value": 1.0}

    class StopAfterFirstResult(tune.Callback):
        def on_trial_result(self, iteration: int, *_: Any, **__: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    tuner = tune.Tuner(
        Trial,
        run_config=tune.RunConfig(
            name="stopped",
            storage_path=sys.argv[2],
            verbose=0,
            callbacks=[StopAfterFirstResult()],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    with while_ray_runs(), contextlib.redirect_stdout(sys.stderr):  # Tune prints a headline whatever it is told
        results = tuner.fit()
        say(where="tune returned", value=results[0].metrics["value"])


if __name__ == "__main__":
    {"hold": hold, "join": join, "bad-addresses": bad_addresses, "stop": stop_in_order}[sys.argv[1]]()
