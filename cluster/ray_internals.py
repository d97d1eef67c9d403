"""The few places where Ray's public interface is not enough; everything private of Ray that netsuke touches is here.

Checked against Ray 2.60. A guard test fails when an upgrade moves one of these.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.environment import variables

#: Ray's switch for "this machine only", which it uses on macOS and Windows to keep off the firewall; Linux obeys it
#: too.
ONE_MACHINE_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

_PROBE = "import sys\nfrom ray._raylet import GcsClient\nGcsClient(address=sys.argv[1])\n"


@contextmanager
def loopback_only() -> Iterator[None]:
    """Make the Ray that is started or joined in this block know the machine as 127.0.0.1, and listen there only.

    Without it Ray 2.60 listens on *every* interface of a Linux machine, and turns a given 127.0.0.1 into the outward
    address. The environment variable reaches the processes that Ray starts; the constant is for this process, which may
    have imported Ray long before.
    """
    from ray._private import ray_constants

    constant = ray_constants.ENABLE_RAY_CLUSTER
    with variables({ONE_MACHINE_VARIABLE: "0"}, replace=True):
        ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = constant


def find_running_cluster() -> str | None:
    """Address ("host:port") of the cluster that Ray's own "auto" means, or None where this machine runs none."""
    from ray._private import services

    with loopback_only():  # keeps a loopback address as it is
        found = services.canonicalize_bootstrap_address("auto")
    return None if found is None else str(found)


def outward_address() -> str:
    """The address under which other machines know this one: what Ray puts in place of 127.0.0.1."""
    from ray._private import services

    return str(services.get_node_ip_address())


def probe_head(address: str, timeout: float) -> str | None:
    """Ask whether a Ray head answers at "host:port" within ``timeout`` seconds; None if it does, else why not.

    `ray.init` tries for minutes and cannot be interrupted meanwhile, so the question is asked in a child process.
    """
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _PROBE, address], capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no Ray head answered within {timeout:.0f} s"
    if answer.returncode == 0:
        return None
    lines = [line.strip() for line in answer.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else "the connection was refused"
