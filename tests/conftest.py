"""What all tests share: one quiet local Ray, the public data sets, and a check that nothing is left running."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before torch, tokenizers or Ray are imported anywhere: they read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("RAY_ADDRESS", None)  # the tests start their own Ray, never somebody's cluster

import psutil
import pytest
from hypothesis import settings

from cluster.connect import ClusterInfo, connect
from cluster.processes import end_processes

# The same examples every time, and as long as they need: how busy the machine is decides nothing.
settings.register_profile("netsuke", deadline=None, derandomize=True)
settings.load_profile("netsuke")

REPOSITORY = Path(__file__).resolve().parent.parent
RAY_PROCESS_NAMES = ("gcs_server", "raylet", "ray::")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-slow") or "slow" in config.getoption("markexpr"):
        return
    skip = pytest.mark.skip(reason="slow: give --run-slow or -m slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def no_ray_left_behind() -> Iterator[None]:
    """Every Ray process that descends from the test session has to be gone when the session ends."""
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child.name().startswith(RAY_PROCESS_NAMES)]
    names = [child.name() for child in left]
    end_processes(left, patience=0.0)
    assert not names, f"Ray processes were left running by the tests: {names}"


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Tests of several people share few cores, and one thread makes sums repeatable."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def local_ray(no_ray_left_behind: None) -> Iterator[ClusterInfo]:
    """One local Ray with 2 CPUs for the whole session."""
    with connect("local", num_cpus=2, num_gpus=0, object_store_bytes=256 * 1024**2) as info:
        yield info


@pytest.fixture(scope="session")
def netsuke_data() -> Path:
    """The folder of public data sets: NETSUKE_DATA, or ../shared/data beside the repository."""
    given = os.environ.get("NETSUKE_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data sets: {folder} is no folder; set NETSUKE_DATA to the folder that holds them")
    return folder
