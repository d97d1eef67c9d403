"""What the machine is said to be."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from cluster.device import describe_device, processor_name, supports_bfloat16
from cluster.machine import cpu_quota, memory_bytes, shared_memory_free_bytes, usable_cores

INTEL = (
    "processor\t: 0\nmodel name\t: Example Xeon\nflags\t\t: fpu sse avx512f {flag}\n\nprocessor\t: 1\nmodel name\t: B\n"
)


def test_this_machine_is_described():
    described = describe_device()
    assert described.name
    assert 1 <= described.cores <= os.cpu_count()
    assert 0 < described.memory_bytes <= psutil.virtual_memory().total
    assert described.bfloat16 == supports_bfloat16()


@pytest.mark.parametrize(
    ("flag", "expected"), [("avx512_bf16", True), ("amx_bf16", True), ("avx2", False), ("no_bf16x", False)]
)
def test_bfloat16_is_read_from_the_processors_flags(tmp_path: Path, flag: str, expected: bool):
    (tmp_path / "cpuinfo").write_text(INTEL.format(flag=flag))
    assert supports_bfloat16("cpu", tmp_path / "cpuinfo") is expected
    assert processor_name(tmp_path / "cpuinfo") == "Example Xeon"


def test_arm_names_its_flags_features(tmp_path: Path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nFeatures : fp asimd bf16\n\n")
    assert supports_bfloat16("cpu", tmp_path / "cpuinfo")


def test_a_system_without_the_file_has_a_name_and_no_bfloat16(tmp_path: Path):
    assert processor_name(tmp_path / "absent")
    assert not supports_bfloat16("cpu", tmp_path / "absent")


def test_a_containers_limits_count(tmp_path: Path):
    assert cpu_quota(tmp_path) is None
    assert memory_bytes(tmp_path) == psutil.virtual_memory().total
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert cpu_quota(tmp_path) == 1.5
    assert memory_bytes(tmp_path) == 1024**3
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert cpu_quota(tmp_path) is None
    assert memory_bytes(tmp_path) == psutil.virtual_memory().total


def test_the_first_version_of_containers_is_understood(tmp_path: Path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(tmp_path) is None
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    assert cpu_quota(tmp_path) == 2.0


def test_the_affinity_mask_counts():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs /dev/shm")
def test_shared_memory_is_found():
    assert 0 < shared_memory_free_bytes() <= psutil.disk_usage("/dev/shm").total
