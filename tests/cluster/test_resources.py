"""What fits on which machines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.connect import ClusterInfo, Node
from cluster.errors import ClusterUserError
from cluster.machine import usable_cores
from cluster.resources import ResourceRequest, require_feasible, this_machine


def nodes(*cpus_and_gpus: tuple[float, float]) -> tuple[Node, ...]:
    return tuple(Node(f"10.0.0.{number}", *offer) for number, offer in enumerate(cpus_and_gpus))


def test_what_fits_passes(local_ray: ClusterInfo):
    require_feasible(ResourceRequest("search.actors", workers=2), local_ray.nodes)
    require_feasible(ResourceRequest("search.actors", workers=20, cpus=0.1), local_ray.nodes)
    require_feasible(ResourceRequest("search.actors", workers=99, cpus=0), local_ray.nodes)
    require_feasible(ResourceRequest("supernet.workers", workers=3, cpus=2, gpus=1), nodes((8, 2), (2, 1)))


def test_too_many_workers_are_told_how_many_fit():
    with pytest.raises(ClusterUserError) as refused:
        require_feasible(ResourceRequest("search.actors", workers=8), nodes((2, 0)))
    assert str(refused.value) == (
        "search.actors asks for 8 workers with 1 CPU each, but there is room for 2 on 1 machine with 2 CPUs "
        "and 0 GPUs; lower it to 2, or run on a larger cluster"
    )


def test_a_worker_never_spans_two_machines():
    with pytest.raises(ClusterUserError, match="room for 0 on 2 machines with 6 CPUs"):
        require_feasible(ResourceRequest("supernet.workers", workers=1, cpus=4), nodes((3, 0), (3, 0)))


def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(ClusterUserError, match="1 worker with 1 CPU and 1 GPU each, but there is room for 0"):
        require_feasible(ResourceRequest("supernet.workers", workers=1, gpus=1), this_machine_without_gpu())


def this_machine_without_gpu() -> tuple[Node, ...]:
    return tuple(Node(node.address, node.cpus, gpus=0) for node in this_machine())


@pytest.mark.parametrize(("workers", "cpus"), [(0, 1), (-1, 1), (1, -1)])
def test_impossible_numbers_are_refused(workers: int, cpus: float):
    with pytest.raises(ClusterUserError, match=r"search\.actors"):
        require_feasible(ResourceRequest("search.actors", workers, cpus), nodes((8, 0)))


def test_this_machine_is_what_a_local_ray_would_offer():
    assert this_machine()[0].cpus == usable_cores()
    assert this_machine(num_cpus=7)[0].cpus == 7


@given(workers=st.integers(1, 20), cpus=st.integers(1, 4), offers=st.lists(st.integers(0, 16), min_size=1, max_size=4))
def test_a_request_passes_exactly_when_workers_can_be_dealt_one_by_one(workers: int, cpus: int, offers: list[int]):
    left, placed = list(offers), 0
    for _ in range(workers):
        place = next((number for number, free in enumerate(left) if free >= cpus), None)
        if place is not None:
            left[place] -= cpus
            placed += 1
    request, machines = ResourceRequest("key", workers, cpus), nodes(*((offer, 0) for offer in offers))
    if placed == workers:
        require_feasible(request, machines)
    else:
        with pytest.raises(ClusterUserError, match=f"room for {placed}"):
            require_feasible(request, machines)
