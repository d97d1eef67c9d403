"""Starting a local Ray, or joining one that runs, and leaving nothing behind."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from cluster import ray_internals
from cluster.errors import ClusterError, ClusterUserError, one_line
from cluster.machine import memory_bytes, shared_memory_free_bytes, temporary_folder, usable_cores
from cluster.processes import CLUSTER_MARK, end_processes, marked_processes

#: Settings every run wants, on a local and on a joined cluster; what the user has set stays as it is.
RUN_ENVIRONMENT: Mapping[str, str] = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning in workers
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # train.report() waits for this poll: 2 s by default
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # five files a trial that nobody reads: the results are in Parquet
}
#: Settings for a Ray that this process starts for itself. OMP_NUM_THREADS is left to Ray on purpose: it gives each worker as
#: many threads as the worker was granted CPUs, unless the user has set the variable.
LOCAL_ENVIRONMENT: Mapping[str, str] = {
    **RUN_ENVIRONMENT,
    "RAY_AUTH_MODE": "disabled",  # bound to loopback; else Ray writes a token into the home folder and warns at each start
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # helpers of a head that was killed go after 5 s instead of 60 s
    "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
    "NCCL_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
}

ADDRESS_VARIABLE = "RAY_ADDRESS"
OBJECT_STORE_CAP_BYTES = 2 * 1024**3
OBJECT_STORE_MINIMUM_BYTES = 80 * 1024**2
JOIN_TIMEOUT_SECONDS = 12.0
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


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
        is_local: whether `connect` started this Ray for this run alone.
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

    With no address (and no ``RAY_ADDRESS`` in the environment, which submitted jobs have) a Ray is started for this block: quiet,
    without a dashboard, listening on loopback only, and gone with all its processes afterwards. With an address that cluster is
    joined and left running. A Ray that is already initialised in this process is used as it is and left alone.

    Args:
        address: None, "local" (a new one whatever the environment says), "auto", "host:port" or "ray://host:port".
        num_cpus: CPUs a started Ray offers; default: the cores this process may use.
        num_gpus: GPUs a started Ray offers; default: those Ray finds.
        object_store_bytes: size of a started Ray's object store; default: a fifth of the memory, at most 2 GiB.

    Raises:
        ClusterUserError: the address is malformed or nothing answers there.
        ClusterError: a local Ray did not start, or the cluster refused this driver.
    """
    wanted = address or os.environ.get(ADDRESS_VARIABLE) or "local"
    with ExitStack() as stack:
        stack.enter_context(_environment(LOCAL_ENVIRONMENT if wanted == "local" else RUN_ENVIRONMENT))
        import ray

        if ray.is_initialized():
            yield _describe(is_local=False)
        elif wanted == "local":
            yield stack.enter_context(_started(num_cpus, num_gpus, object_store_bytes))
        else:
            yield stack.enter_context(_joined(wanted))


@contextmanager
def _started(num_cpus: int | None, num_gpus: int | None, object_store_bytes: int | None) -> Iterator[ClusterInfo]:
    import ray

    mark = uuid.uuid4().hex
    try:
        # The mark is inherited by all that Ray starts, and taken out of this process' environment at once.
        with ray_internals.loopback_only(), _environment({CLUSTER_MARK: mark}, force=True), _kept_sigterm_handler():
            ray.init(
                address="local",
                num_cpus=usable_cores() if num_cpus is None else num_cpus,
                num_gpus=num_gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **_object_store(object_store_bytes),
            )
        yield replace(_describe(is_local=True), is_local=True)
    except Exception as error:
        if ray.is_initialized():
            raise  # the block's own error
        raise ClusterError(
            f"Ray did not start on this machine: {one_line(error)}; `netsuke doctor` looks for the cause"
        ) from error
    finally:
        _stop(mark)


def _stop(mark: str) -> None:
    """Shut Ray down and make sure that nothing it started remains."""
    import ray

    processes = marked_processes(mark)
    try:
        ray.shutdown()
    finally:
        known = {process.pid for process in processes}
        processes += [process for process in marked_processes(mark) if process.pid not in known]
        end_processes(processes)


@contextmanager
def _joined(address: str) -> Iterator[ClusterInfo]:
    import ray

    target = _reachable_address(address)
    is_loopback = "://" not in target and _split(target)[0] in _LOOPBACK_HOSTS
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    # Workers of a joined cluster do not inherit this process' environment: the run's settings travel with the job.
    options["runtime_env"] = {"env_vars": {name: os.environ[name] for name in _missing_in_job(RUN_ENVIRONMENT)}}
    try:
        with ExitStack() as stack:
            stack.enter_context(_kept_sigterm_handler())
            if is_loopback:
                stack.enter_context(ray_internals.loopback_only())
            ray.init(address=target, **options)
    except Exception as error:
        raise ClusterError(
            f"the Ray cluster at {address} refused this run: {one_line(error)}; "
            "check that Ray and Python have the same versions on both sides, and RAY_AUTH_MODE / RAY_AUTH_TOKEN_PATH if it asks for a token"
        ) from error
    try:
        yield _describe(is_local=False)
    finally:
        ray.shutdown()


def _missing_in_job(settings: Mapping[str, str]) -> list[str]:
    """Names of settings that the job's own runtime environment does not give already (Ray refuses a name given twice)."""
    job_environment = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "")
    return [name for name in settings if name not in job_environment]


def _reachable_address(address: str) -> str:
    """The address to hand to Ray, after making sure that something answers there; `ray.init` alone would try for minutes."""
    if address == "auto":
        found = ray_internals.find_running_cluster()
        if found is None:
            raise ClusterUserError(
                "cluster.address is 'auto', but no Ray runs on this machine; start one (`ray start --head`), give host:port, "
                "or leave the address out to start a local Ray"
            )
        return _reachable_address(found)
    scheme, _, rest = address.rpartition("://")
    host, port = _split(rest)
    hosts = [host, ray_internals.outward_address()] if host in _LOOPBACK_HOSTS else [host]
    reasons = [_refusal(candidate, port) for candidate in hosts]
    if all(reasons):
        raise ClusterUserError(
            f"no Ray cluster answers at {address}: {reasons[0]}; check the address (host:port of the head), or leave it out to start a local Ray"
        )
    reachable = f"{hosts[reasons.index(None)]}:{port}"
    if scheme:
        return f"{scheme}://{reachable}"
    problem = ray_internals.probe_head(reachable, JOIN_TIMEOUT_SECONDS)
    if problem:
        raise ClusterUserError(f"what answers at {address} is no Ray head this run can use: {problem}; check host:port")
    return reachable


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ClusterUserError(f"cluster.address is {address!r}; expected 'auto', 'host:port' or 'ray://host:port'")
    return host.strip("[]"), int(port)


def _refusal(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), timeout=3.0).close()
    except OSError as error:
        return one_line(error)
    return None


def _object_store(wanted: int | None) -> dict[str, Any]:
    """Size and place of the object store: /dev/shm where it is large enough (containers often grant 64 MB), else a temporary folder."""
    size = wanted or min(OBJECT_STORE_CAP_BYTES, memory_bytes() // 5)
    shared = shared_memory_free_bytes()
    if shared is not None and wanted is None:
        size = min(size, int(shared * 0.8))
    if shared is None or size <= shared and size >= OBJECT_STORE_MINIMUM_BYTES:
        return {"object_store_memory": max(size, OBJECT_STORE_MINIMUM_BYTES)}
    size = max(wanted or 0, min(OBJECT_STORE_CAP_BYTES, memory_bytes() // 5), OBJECT_STORE_MINIMUM_BYTES)
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
def _environment(settings: Mapping[str, str], force: bool = False) -> Iterator[None]:
    """Set variables for the length of a block; those the user has set stay, unless ``force``."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update({name: value for name, value in settings.items() if force or before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _kept_sigterm_handler() -> Iterator[None]:
    """`ray.init` replaces the SIGTERM handler; put the caller's back if there was one (see `cluster.signals`)."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if in_main_thread and callable(handler):
            signal.signal(signal.SIGTERM, handler)
