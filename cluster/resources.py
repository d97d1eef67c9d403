"""Whether a cluster, or this machine, can give what a recipe asks for; asked before anything starts.

Ray waits politely, and for ever, for resources that will never come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.connect import Node
from cluster.errors import ClusterUserError
from cluster.machine import usable_cores


@dataclass(frozen=True)
class ResourceRequest:
    """Workers (or actors) that run at the same time.

    Attributes:
        key: the recipe's key that asks, such as ``supernet.workers``; errors name it.
        workers: how many.
        cpus: CPUs for each of them.
        gpus: GPUs for each of them.
    """

    key: str
    workers: int
    cpus: float = 1.0
    gpus: float = 0.0


def require_feasible(request: ResourceRequest, nodes: Sequence[Node]) -> None:
    """Raise `ClusterUserError` unless all workers fit on the nodes at once; a worker never spans two nodes."""
    if request.workers < 1 or request.cpus < 0 or request.gpus < 0:
        raise ClusterUserError(
            f"{request.key} asks for {_asked(request)}; expected at least one worker and no negative resources"
        )
    room = sum(_room(request, node) for node in nodes)
    if room >= request.workers:
        return
    advice = f"lower it to {room}" if room else "lower what each worker asks for"
    raise ClusterUserError(
        f"{request.key} asks for {_asked(request)}, but there is room for {room} on {_offered(nodes)}; "
        f"{advice}, or run on a larger cluster"
    )


def this_machine(num_cpus: int | None = None) -> tuple[Node, ...]:
    """The node that a local Ray would have, found without starting Ray; ``num_cpus`` as given to `connect`."""
    import torch

    cpus = usable_cores() if num_cpus is None else num_cpus
    return (Node(address="127.0.0.1", cpus=float(cpus), gpus=float(torch.cuda.device_count())),)


def _room(request: ResourceRequest, node: Node) -> int:
    """How many of the request's workers one node takes."""
    places = [
        int(offered / asked + 1e-6)
        for offered, asked in ((node.cpus, request.cpus), (node.gpus, request.gpus))
        if asked > 0
    ]
    return min(places, default=request.workers)


def _asked(request: ResourceRequest) -> str:
    workers = f"{request.workers} worker{'' if request.workers == 1 else 's'}"
    gpus = f" and {_count(request.gpus, 'GPU')}" if request.gpus else ""
    return f"{workers} with {_count(request.cpus, 'CPU')}{gpus} each"


def _offered(nodes: Sequence[Node]) -> str:
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    machines = f"{len(nodes)} machine{'' if len(nodes) == 1 else 's'}"
    return f"{machines} with {_count(cpus, 'CPU')} and {_count(gpus, 'GPU')}"


def _count(amount: float, unit: str) -> str:
    return f"{amount:g} {unit}{'' if amount == 1 else 's'}"
