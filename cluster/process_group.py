"""Joining Ray Train's workers to one PyTorch process group without opening a port beyond loopback.

PyTorch's usual meeting point is a server (`TCPStore`) that listens on every interface of the machine. Workers that
share one machine can meet in a file instead. Checked against Ray 2.60, of whose `TorchConfig` this replaces one step.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend

from cluster.connect import ClusterInfo
from cluster.machine import temporary_folder


def torch_config(cluster: ClusterInfo, *, timeout_seconds: int = 1800) -> TorchConfig:
    """The process-group settings for a `TorchTrainer` on this cluster: a meeting file where all workers share loopback.

    Args:
        cluster: what `cluster.connect.connect` gave.
        timeout_seconds: how long a worker waits for the others in a collective operation.
    """
    on_loopback = [node.address for node in cluster.nodes] == ["127.0.0.1"]
    return (LoopbackTorchConfig if on_loopback else TorchConfig)(timeout_s=timeout_seconds)


@dataclass
class LoopbackTorchConfig(TorchConfig):  # type: ignore[misc]
    """A `TorchConfig` for workers on one machine, whose process group opens no port beyond loopback."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """The backend that Ray Train starts and stops with its worker group."""
        return _LoopbackBackend


class _LoopbackBackend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Join the workers; called for each new worker group, so each group meets in a file of its own."""
        has_gpus = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        meeting = temporary_folder() / f"netsuke-process-group-{uuid.uuid4().hex}"
        worker_group.execute(_set_torch_distributed_env_vars)
        joining = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend=backend_config.backend or ("nccl" if has_gpus else "gloo"),
                world_rank=rank,
                world_size=len(worker_group),
                init_method=meeting.as_uri(),
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(len(worker_group))
        ]
        try:
            ray.get(joining)
        finally:
            meeting.unlink(missing_ok=True)  # all hold it open; the name is not needed any more
