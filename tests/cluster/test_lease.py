"""The lock on a run folder, with a second process and a real `kill -9`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.errors import ClusterUserError
from cluster.lease import RunLock

REPOSITORY = Path(__file__).resolve().parents[2]
HOLD = (
    "import sys\nfrom pathlib import Path\nfrom cluster.lease import RunLock\n"
    "with RunLock(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
)


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_holds_the_folder_until_the_holder_is_killed(tmp_path: Path):
    folder = tmp_path / "run"
    holder = hold(folder)
    try:
        with pytest.raises(ClusterUserError) as refused, RunLock(folder):
            pass
        message = str(refused.value)
        assert "\n" not in message
        assert f"process {holder.pid} on {socket.gethostname()} since 20" in message
        assert str(folder) in message
        assert "--run-dir" in message
    finally:
        holder.kill()
        holder.communicate()
    with RunLock(folder):
        assert f'"pid": {os.getpid()}' in (folder / ".lock-holder.json").read_text()


def test_the_lock_is_free_again_after_the_block_and_after_an_error(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), RunLock(tmp_path):
        raise ZeroDivisionError
    with RunLock(tmp_path), pytest.raises(ClusterUserError, match="in use"), RunLock(tmp_path):
        pass
    holder = hold(tmp_path)
    assert holder.communicate()[0] == ""
    assert holder.returncode == 0


def test_a_holder_without_its_information_file_still_holds(tmp_path: Path):
    with RunLock(tmp_path):
        (tmp_path / ".lock-holder.json").write_text("{")
        with pytest.raises(ClusterUserError, match="another process"), RunLock(tmp_path):
            pass


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ClusterUserError, match="a part of the path is a file"), RunLock(tmp_path / "file" / "run"):
        pass
