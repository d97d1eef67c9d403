"""Compactions on a local disk that are killed between any two steps, or cannot write.

What holds for every storage, :class:`orchestrator.testing.ResultsStoreExam` asks.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from orchestrator.errors import RunError
from orchestrator.results import ResultsWriter, compact
from orchestrator.results.parts import list_parts
from orchestrator.testing.results_exam import numbers_of, write_parts_of_two

_KILLED_COMPACTION = """
import os, pathlib, signal, sys
from orchestrator.results import compact

folder, method, survive = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
original = getattr(pathlib.Path, method)

def die_at_last(*arguments, **options):
    global survive
    if survive == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    survive -= 1
    return original(*arguments, **options)

setattr(pathlib.Path, method, die_at_last)
compact(folder, 2)
"""


@pytest.mark.parametrize(
    ("method", "survive", "parts_left"),
    [("replace", 0, 6), ("unlink", 0, 7), ("unlink", 3, 4), ("unlink", 5, 2)],
    ids=["before the merged part appears", "before any deletion", "between deletions", "before the last deletion"],
)
def test_a_killed_compaction_counts_no_row_twice_and_loses_none(tmp_path, method, survive, parts_left):
    write_parts_of_two(str(tmp_path), 5)
    done = subprocess.run([sys.executable, "-c", _KILLED_COMPACTION, str(tmp_path), method, str(survive)])
    assert done.returncode == -signal.SIGKILL
    assert len(list_parts(tmp_path / "evaluations")) == parts_left
    assert numbers_of(str(tmp_path), "run-1") == list(range(10))
    with ResultsWriter(tmp_path, "run-1", flush_seconds=3600) as writer:
        writer.append("evaluations", arch_id="last", proposal=10)
    compact(tmp_path, minimum_parts=2)
    assert len(list_parts(tmp_path / "evaluations")) == 1
    assert numbers_of(str(tmp_path), "run-1") == list(range(11))


def test_a_compaction_that_cannot_write_changes_nothing(tmp_path):
    write_parts_of_two(str(tmp_path), 3)
    parts = list_parts(tmp_path / "evaluations")
    limited = (
        "import resource, sys, pathlib; from orchestrator.results import compact\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); compact(pathlib.Path(sys.argv[1]), 2)"
    )
    done = subprocess.run([sys.executable, "-c", limited, str(tmp_path)], capture_output=True, text=True)
    last_line = done.stderr.splitlines()[-1]
    assert RunError.__name__ in last_line
    assert "cannot merge parts (File too large); no row is lost" in last_line
    assert list_parts(tmp_path / "evaluations") == parts
    assert numbers_of(str(tmp_path), "run-1") == list(range(6))
