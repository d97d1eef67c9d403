"""Ray Train's workers on this machine: joined, and listening on loopback only."""

from __future__ import annotations

from pathlib import Path

import ray.train
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from cluster.connect import ClusterInfo, Node
from cluster.machine import temporary_folder
from cluster.process_group import LoopbackTorchConfig, torch_config


def test_workers_meet_without_a_port_beyond_loopback(local_ray: ClusterInfo, tmp_path: Path):
    def sum_ranks_and_report_listeners(
        config: dict[str, str],
    ) -> None:  # inside the test: workers cannot import test modules
        import psutil
        import torch
        import torch.distributed as distributed

        total = torch.tensor([float(distributed.get_rank() + 1)])
        distributed.all_reduce(total)
        distributed.barrier()
        connections = psutil.Process().net_connections(kind="inet")
        addresses = sorted({entry.laddr.ip for entry in connections if entry.status == psutil.CONN_LISTEN})
        rank = distributed.get_rank()
        Path(config["folder"], str(rank)).write_text(
            f"{total.item()} {distributed.get_backend()} {' '.join(addresses)}"
        )
        ray.train.report({"total": total.item()})

    told = tmp_path / "told"
    told.mkdir()
    config = torch_config(local_ray, timeout_seconds=60)
    assert isinstance(config, LoopbackTorchConfig)
    TorchTrainer(
        sum_ranks_and_report_listeners,
        train_loop_config={"folder": str(told)},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(name="process-group", storage_path=str(tmp_path)),
        torch_config=config,
    ).fit()
    for rank in ("0", "1"):
        total, backend, *addresses = (told / rank).read_text().split()
        assert (total, backend) == ("3.0", "gloo")
        assert addresses
        assert [address for address in addresses if address not in ("127.0.0.1", "::ffff:127.0.0.1")] == []
    assert list(temporary_folder().glob("netsuke-process-group-*")) == []


def test_several_machines_meet_in_the_usual_way():
    nodes = (Node("10.0.0.1", 2, 0), Node("10.0.0.2", 2, 0))
    config = torch_config(ClusterInfo("10.0.0.1:6379", False, nodes, ray.__version__), timeout_seconds=7)
    assert type(config) is TorchConfig
    assert config.timeout_s == 7
