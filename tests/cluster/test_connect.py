"""Starting, joining and leaving Ray, with real processes."""

from __future__ import annotations

import ray

from cluster.connect import ClusterInfo, connect


def test_the_session_cluster_has_what_was_asked(local_ray: ClusterInfo):
    assert local_ray.is_local
    assert local_ray.cpus == 2
    assert local_ray.gpus == 0
    assert [node.address for node in local_ray.nodes] == ["127.0.0.1"]
    assert local_ray.address.startswith("127.0.0.1:")
    assert local_ray.ray_version == ray.__version__


def test_an_initialised_ray_is_used_and_left_alone(local_ray: ClusterInfo):
    with connect() as inner:
        assert inner.address == local_ray.address
        assert not inner.is_local
    assert ray.is_initialized()
