"""The address of a cluster to join: what a person may write, and whether a Ray answers there."""

from __future__ import annotations

import socket

from cluster import ray_internals
from cluster.errors import ClusterUserError, one_line

REFUSAL_TIMEOUT_SECONDS = 3.0
PROBE_TIMEOUT_SECONDS = 12.0
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


def is_loopback(address: str) -> bool:
    """Whether "host:port" means this machine's loopback; Ray has to be told so before it joins such a cluster."""
    return "://" not in address and _split(address)[0] in _LOOPBACK_HOSTS


def reachable_address(address: str) -> str:
    """The address to hand to Ray, after making sure that a Ray head answers there; `ray.init` would try for minutes.

    Args:
        address: "auto", "host:port" or "ray://host:port".

    Returns:
        "host:port" or "ray://host:port".

    Raises:
        ClusterUserError: the address is malformed, or no Ray head answers within about 15 s.
    """
    if address == "auto":
        found = ray_internals.find_running_cluster()
        if found is None:
            raise ClusterUserError(
                "cluster.address is 'auto', but no Ray runs on this machine; start one (`ray start --head`), "
                "give host:port, or leave the address out to start a local Ray"
            )
        return reachable_address(found)
    scheme, _, rest = address.rpartition("://")
    host, port = _split(rest)
    # Ray listens on the outward address even where it was told 127.0.0.1 (see `ray_internals.loopback_only`).
    hosts = [host, ray_internals.outward_address()] if host in _LOOPBACK_HOSTS else [host]
    refusals = {candidate: _refusal(candidate, port) for candidate in hosts}
    answering = [candidate for candidate, refusal in refusals.items() if refusal is None]
    if not answering:
        raise ClusterUserError(
            f"no Ray cluster answers at {address}: {refusals[host]}; check the address (host:port of the head), "
            "or leave it out to start a local Ray"
        )
    reachable = f"{answering[0]}:{port}"
    if scheme:
        return f"{scheme}://{reachable}"
    problem = ray_internals.probe_head(reachable, PROBE_TIMEOUT_SECONDS)
    if problem:
        raise ClusterUserError(f"what answers at {address} is no Ray head this run can use: {problem}; check host:port")
    return reachable


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ClusterUserError(f"cluster.address is {address!r}; expected 'auto', 'host:port' or 'ray://host:port'")
    return host.strip("[]"), int(port)


def _refusal(host: str, port: int) -> str | None:
    """None if something listens at host and port, else why no connection was made."""
    try:
        socket.create_connection((host, port), timeout=REFUSAL_TIMEOUT_SECONDS).close()
    except OSError as error:
        return one_line(error)
    return None
