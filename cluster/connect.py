"""Starting a local Ray, or joining one that runs, and leaving nothing behind."""

from __future__ import annotations

import logging
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from cluster import ray_internals
from cluster.address import is_loopback, reachable_address
from cluster.environment import LOCAL_ENVIRONMENT, RUN_ENVIRONMENT, variables
from cluster.errors import ClusterError, one_line
from cluster.machine import memory_bytes, shared_memory_free_bytes, temporary_folder, usable_cores
from cluster.processes import CLUSTER_MARK, end_processes, marked_processes

ADDRESS_VARIABLE = "RAY_ADDRESS"
LATENCY_DEVICE = "latency_device"
"""The Ray resource of which each machine that latencies count on has one; a Ray that is started here has it."""

OBJECT_STORE_CAP_BYTES = 2 * 1024**3
OBJECT_STORE_MINIMUM_BYTES = 80 * 1024**2


@dataclass(frozen=True)
class Node:
    """One machine of a cluster: its address, and the CPUs and GPUs it offers to Ray."""

    address: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class ClusterInfo:
    """What a run got.

    Attributes:
        address: "host:port" of the head.
        is_local: whether `connect` started this Ray for this block alone.
        nodes: the living machines.
        ray_version: version of Ray in this process.
    """

    address: str
    is_local: bool
    nodes: tuple[Node, ...]
    ray_version: str

    @property
    def cpus(self) -> float:
        """CPUs of all machines together."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of all machines together."""
        return sum(node.gpus for node in self.nodes)


@contextmanager
def connect(
    address: str | None = None,
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    object_store_bytes: int | None = None,
) -> Iterator[ClusterInfo]:
    """Give the block a Ray to work with.

    Without an address (and without ``RAY_ADDRESS`` in the environment, which submitted jobs have) a Ray is started for
    this block: quiet, without a dashboard, listening on loopback only, and gone with all its processes afterwards. With
    an address that cluster is joined, and left running. A Ray that is already initialised in this process is used as it
    is, and left alone.

    When this process is killed (`kill -9`), a local Ray ends by itself on Linux: the head, the workers and their
    children within about three seconds, two idle helpers (agents that try to report the end to the head) within 62
    (Ray 2.60).

    Args:
        address: None, "local" (a new one, whatever the environment says), "auto", "host:port" or "ray://host:port".
        num_cpus: CPUs that a started Ray offers; default: the cores this process may use.
        num_gpus: GPUs that a started Ray offers; default: those Ray finds.
        object_store_bytes: size of a started Ray's object store; default: a fifth of the memory, at most 2 GiB.

    Raises:
        ClusterUserError: the address is malformed, or no Ray answers there.
        ClusterError: a local Ray did not start, or the cluster refused this run.
    """
    wanted = address or os.environ.get(ADDRESS_VARIABLE) or "local"
    with ExitStack() as stack:
        stack.enter_context(variables(LOCAL_ENVIRONMENT if wanted == "local" else RUN_ENVIRONMENT))
        import ray

        if ray.is_initialized():
            yield _describe(is_local=False)
        elif wanted == "local":
            mark = uuid.uuid4().hex
            stack.callback(_stop, mark)
            _start(mark, num_cpus, num_gpus, object_store_bytes)
            yield _describe(is_local=True)
        else:
            stack.callback(ray.shutdown)
            _join(wanted)
            yield _describe(is_local=False)


def _start(mark: str, num_cpus: int | None, num_gpus: int | None, object_store_bytes: int | None) -> None:
    import ray

    try:
        # The mark is inherited by all that Ray starts, and leaves this process' own environment at once.
        with ray_internals.loopback_only(), variables({CLUSTER_MARK: mark}, replace=True), _kept_sigterm_handler():
            ray.init(
                address="local",
                num_cpus=usable_cores() if num_cpus is None else num_cpus,
                num_gpus=num_gpus,
                resources={LATENCY_DEVICE: 1},
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **object_store(object_store_bytes, memory_bytes(), shared_memory_free_bytes()),
            )
    except Exception as error:
        raise ClusterError(
            f"Ray did not start on this machine: {one_line(error)}; `netsuke doctor` looks for the cause"
        ) from error


def _stop(mark: str) -> None:
    """Shut Ray down, and make sure that nothing it started remains."""
    import ray

    processes = marked_processes(mark)
    try:
        ray.shutdown()
    finally:
        end_processes([*processes, *marked_processes(mark)])


def _join(address: str) -> None:
    import ray

    target = reachable_address(address)
    try:
        with ExitStack() as stack:
            stack.enter_context(_kept_sigterm_handler())
            if is_loopback(target):
                stack.enter_context(ray_internals.loopback_only())
            ray.init(
                address=target,
                log_to_driver=False,
                logging_level=logging.ERROR,
                # A joined cluster's workers do not inherit this process' environment: the settings travel with the job.
                runtime_env={"env_vars": _settings_for_workers()},
            )
    except Exception as error:
        raise ClusterError(
            f"the Ray cluster at {address} refused this run: {one_line(error)}; check that Ray and Python have "
            "the same versions on both sides, and RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH if the cluster asks for a token"
        ) from error


def _settings_for_workers() -> dict[str, str]:
    """The run's settings that a submitted job does not give itself; Ray refuses a name given twice."""
    job = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "")
    return {name: os.environ[name] for name in RUN_ENVIRONMENT if name not in job}


def object_store(wanted_bytes: int | None, memory: int, shared_memory: int | None) -> dict[str, Any]:
    """Size and place of a local Ray's object store, as arguments of `ray.init`.

    It belongs into /dev/shm; where that is too small (containers often grant 64 MiB) a temporary folder has to do.

    Args:
        wanted_bytes: the size asked for, or None for a fifth of the memory, at most `OBJECT_STORE_CAP_BYTES`.
        memory: bytes of memory that this process may use.
        shared_memory: free bytes of /dev/shm; None where there is none.
    """
    size = max(wanted_bytes or min(OBJECT_STORE_CAP_BYTES, memory // 5), OBJECT_STORE_MINIMUM_BYTES)
    if shared_memory is None or size <= shared_memory:
        return {"object_store_memory": size}
    fitting = int(shared_memory * 0.8)
    if wanted_bytes is None and fitting >= OBJECT_STORE_MINIMUM_BYTES:
        return {"object_store_memory": fitting}
    return {"object_store_memory": size, "_plasma_directory": str(temporary_folder())}


def _describe(is_local: bool) -> ClusterInfo:
    import ray

    nodes = tuple(
        Node(
            address=node["NodeManagerAddress"],
            cpus=float(node["Resources"].get("CPU", 0.0)),
            gpus=float(node["Resources"].get("GPU", 0.0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    )
    return ClusterInfo(ray.get_runtime_context().gcs_address, is_local, nodes, ray.__version__)


@contextmanager
def _kept_sigterm_handler() -> Iterator[None]:
    """`ray.init` replaces the SIGTERM handler; put the caller's back if there was one (see `cluster.signals`)."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
