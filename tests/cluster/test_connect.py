"""Starting, joining and leaving Ray, with real processes."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from cluster.connect import OBJECT_STORE_MINIMUM_BYTES, ClusterInfo, connect, object_store
from cluster.environment import RUN_ENVIRONMENT, variables
from cluster.processes import end_processes, is_alive

REPOSITORY = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("driver.py")
GIB = 1024**3


class Driver:
    """A running `driver.py` and all processes that were ever seen below it."""

    def __init__(self, *arguments: str):
        environment = {
            name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "RAY_ADDRESS")
        }
        environment["PYTHONPATH"] = str(REPOSITORY)
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER), *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        assert line, f"the driver ended: {self.process.stderr.read()}"
        return json.loads(line)

    def order(self, text: str = "\n") -> dict[str, Any]:
        self.process.stdin.write(text)
        self.process.stdin.flush()
        return self.answer()

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def driver(*arguments: str) -> Iterator[Driver]:
    family: list[psutil.Process] = []
    started = Driver(*arguments)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            family = started.family()
            started.process.kill()
        started.process.wait()
        for stream in (started.process.stdin, started.process.stdout, started.process.stderr):
            stream.close()
        end_processes(family, patience=0)


def listening_addresses(process: psutil.Process) -> list[str]:
    try:
        connections = process.net_connections(kind="inet")
    except psutil.NoSuchProcess:  # an idle worker that Ray has let go meanwhile
        return []
    return [entry.laddr.ip for entry in connections if entry.status == psutil.CONN_LISTEN]


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def living(processes: list[psutil.Process]) -> list[int]:
    return [process.pid for process in processes if is_alive(process)]


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


def test_a_local_ray_is_on_loopback_can_be_joined_and_leaves_nothing():
    with driver("hold") as holder:
        ready = holder.answer()
        assert ready["local"]
        assert ready["surroundings"] == {"OMP_NUM_THREADS": "2", **RUN_ENVIRONMENT}

        processes = holder.family()
        assert {"gcs_server", "raylet"} <= {process.name() for process in processes}
        addresses = [address for process in processes for address in listening_addresses(process)]
        addresses += listening_addresses(psutil.Process(holder.process.pid))
        assert len(addresses) >= 4
        assert [address for address in addresses if not is_loopback(address)] == []

        with driver("join", ready["address"]) as guest:
            joined = guest.answer()
            assert joined["cpus"] == 4
            assert not joined["local"]
            assert {name: joined["surroundings"][name] for name in RUN_ENVIRONMENT} == RUN_ENVIRONMENT
            assert guest.process.wait(timeout=30) == 0
        assert holder.order() == {"cpus": 4.0}, "a guest that leaves must not end its host's cluster"

        child = psutil.Process(ready["child"])
        assert is_alive(child), "the child has to outlive its actor, or the test shows nothing"
        processes += [process for process in holder.family() if process not in processes]
        holder.process.stdin.close()
        assert holder.answer() == {"initialised": False}
        assert holder.process.wait(timeout=30) == 0
        assert living([*processes, child]) == []
        assert holder.process.stderr.read() == ""


LAST_HELPERS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}


def left_after_kill(timeout: float, tolerated: set[str]) -> list[psutil.Process]:
    """Processes of a local Ray that still run ``timeout`` seconds after its driver was killed, tolerated ones or not.

    Returns sooner when only tolerated ones are left.
    """
    with driver("hold") as holder:
        child = psutil.Process(holder.answer()["child"])
        names = {process: process.name() for process in [*holder.family(), child]}
        assert {"gcs_server", "raylet", "sleep", *LAST_HELPERS} <= set(names.values())
        holder.process.kill()
        holder.process.wait()
        deadline = time.monotonic() + timeout
        while True:
            left = [process for process in names if is_alive(process)]
            if time.monotonic() > deadline or {names[process] for process in left} <= tolerated:
                return left
            time.sleep(0.1)


def test_a_driver_that_is_killed_takes_its_ray_along():
    left = left_after_kill(timeout=15, tolerated=LAST_HELPERS)
    try:
        assert {process.name() for process in left} <= LAST_HELPERS
    finally:
        end_processes(left, patience=0)


@pytest.mark.slow
def test_the_last_helpers_of_a_killed_driver_follow_within_two_minutes():
    left = left_after_kill(timeout=120, tolerated=set())
    try:
        assert left == []
    finally:
        end_processes(left, patience=0)


def test_addresses_without_a_ray_are_one_line_errors():
    with closing(socket.socket()) as free, closing(socket.socket()) as other:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
        other.bind(("127.0.0.1", 0))
        other.listen()
        no_ray = f"127.0.0.1:{other.getsockname()[1]}"
        with driver("bad-addresses", "nonsense", nobody, f"ray://{nobody}", no_ray) as asker:
            answers = [asker.answer() for _ in range(4)]
    assert [answer["kind"] for answer in answers] == ["ClusterUserError"] * 4
    for answer in answers:
        assert answer["address"] in answer["error"]
        assert "\n" not in answer["error"]
        assert answer["seconds"] < 16
    assert "expected 'auto', 'host:port'" in answers[0]["error"]
    assert "no Ray cluster answers" in answers[1]["error"]
    assert "is no Ray head" in answers[3]["error"]


@pytest.mark.parametrize(
    ("memory", "shared", "size", "on_disk"),
    [
        (100 * GIB, 50 * GIB, 2 * GIB, False),
        (5 * GIB, 50 * GIB, GIB, False),
        (100 * GIB, GIB, int(0.8 * GIB), False),
        (100 * GIB, 64 * 1024**2, 2 * GIB, True),
        (100 * GIB, None, 2 * GIB, False),
        (100 * 1024**2, 50 * GIB, OBJECT_STORE_MINIMUM_BYTES, False),
    ],
)
def test_the_object_store_is_modest_and_fits_its_place(memory: int, shared: int | None, size: int, on_disk: bool):
    options = object_store(None, memory, shared)
    assert options["object_store_memory"] == size
    assert ("_plasma_directory" in options) == on_disk


def test_an_object_store_that_was_asked_for_is_not_shrunk():
    assert object_store(3 * GIB, 100 * GIB, GIB)["object_store_memory"] == 3 * GIB
    assert "_plasma_directory" in object_store(3 * GIB, 100 * GIB, GIB)


def test_variables_are_put_back_and_the_users_stay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NETSUKE_TEST_GIVEN", "user")
    monkeypatch.delenv("NETSUKE_TEST_ABSENT", raising=False)
    settings = {"NETSUKE_TEST_GIVEN": "ours", "NETSUKE_TEST_ABSENT": "ours"}
    with variables(settings):
        assert os.environ["NETSUKE_TEST_GIVEN"] == "user"
        assert os.environ["NETSUKE_TEST_ABSENT"] == "ours"
    with variables(settings, replace=True):
        assert os.environ["NETSUKE_TEST_GIVEN"] == "ours"
    assert os.environ["NETSUKE_TEST_GIVEN"] == "user"
    assert "NETSUKE_TEST_ABSENT" not in os.environ


def test_sigterm_stops_a_run_in_order_also_while_tune_runs(tmp_path: Path):
    with driver("stop", str(tmp_path)) as stopped:
        assert stopped.answer() == {"where": "actor", "signal": "SIGTERM"}
        assert stopped.answer() == {"where": "tune returned", "value": 1.0}
        assert stopped.answer() == {"where": "tune", "signal": "SIGTERM"}
        assert stopped.answer() == {"usr1_is_default": True}
        processes = stopped.family()
        assert processes
        assert stopped.answer() == {"where": "end"}
        assert stopped.process.wait(timeout=30) == 0
        deadline = time.monotonic() + 5
        while living(processes) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert living(processes) == []


def test_a_second_signal_ends_the_process_at_once():
    code = (
        "import time\nfrom cluster.signals import orderly_stop\n"
        "with orderly_stop():\n    try:\n        print('ready', flush=True)\n        time.sleep(60)\n"
        "    finally:\n        print('unwinding', flush=True)\n        time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "unwinding\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == -signal.SIGTERM
