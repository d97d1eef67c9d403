"""The doctor's checks, on this machine and on broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cluster.connect import ClusterInfo
from cluster.doctor import Check, _hugging_face, _package, diagnose
from cluster.hub import ask_hub


def test_this_machine_has_no_failures_and_every_trouble_has_an_advice(local_ray: ClusterInfo, tmp_path: Path):
    checks = diagnose(folder=tmp_path)
    assert [check for check in checks if check.status == "failure"] == []
    assert all(check.advice for check in checks if check.status != "ok")
    assert all("\n" not in check.found + check.advice for check in checks)
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    for name in ("Python", "PyTorch", "cores", "memory", "disk", "shared memory", "offline teacher", "Ray"):
        assert name in names
    hub = next(check for check in checks if check.name == "Hugging Face")
    assert hub.found.startswith("this process is set to be offline (HF_HUB_OFFLINE); ")
    ray_check = next(check for check in checks if check.name == "Ray")
    assert "an actor in" in ray_check.found
    assert "2 CPUs" in ray_check.found


def test_a_hub_that_does_not_answer_is_not_called_online(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "*")
    ask_hub.cache_clear()
    try:
        check = _hugging_face()
    finally:
        ask_hub.cache_clear()
    assert check.status == "warning"
    assert check.found.startswith("127.0.0.1:1 does not answer (asked once: ")
    assert "check network and proxy" in check.advice


def test_a_token_is_never_shown(local_ray: ClusterInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-secret-of-somebody")
    assert "a-secret-of-somebody" not in str(diagnose(folder=tmp_path))


@pytest.mark.parametrize(
    ("line", "status"), [("pytest>=1", "ok"), ("pytest>=999", "failure"), ("netsuke-no-such-package", "failure")]
)
def test_a_package_is_held_against_what_is_required(line: str, status: str):
    check = _package(Requirement(line))
    assert check.status == status
    assert (check.advice == "") == (status == "ok")


def test_checks_are_values():
    assert Check("a", "ok", "b") == Check("a", "ok", "b", advice="")
