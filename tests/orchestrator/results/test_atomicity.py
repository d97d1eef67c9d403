"""Writers and compactions that are killed for real, next to readers that never stop looking."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.errors import RunError
from orchestrator.results import TABLES, ResultsWriter, compact, open_results
from orchestrator.results.compaction import compact_table
from orchestrator.results.parts import list_parts, new_part_name, read_parts, write_part

STREAMING_WRITER = "tests.orchestrator.results.streaming_writer"
REPOSITORY = Path(__file__).parents[3]
START = datetime(2026, 1, 1, tzinfo=UTC)
EVALUATIONS = TABLES["evaluations"]


@pytest.fixture
def start_writer():
    """Start streaming writers; whatever still runs at the end of the test is killed."""
    started = []

    def start(folder, run_id, rows, flush_rows):
        command = [sys.executable, "-m", STREAMING_WRITER, str(folder), run_id, str(rows), str(flush_rows)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def numbers_of(folder, run_id):
    """The numbers of a streaming writer's rows that are on the disk, copies (there must be none) included."""
    rows = read_parts(folder / "evaluations", EVALUATIONS, ["run_id", "proposal"])
    return sorted(rows.filter(pa.compute.equal(rows["run_id"], run_id))["proposal"].to_pylist())


def read_every_part(folder):
    """Whatever can be listed is whole, also for readers that know nothing of netsuke."""
    for part in list_parts(folder / "evaluations"):
        with contextlib.suppress(FileNotFoundError):  # merged in the meantime
            pq.read_table(part, partitioning=None)


def test_a_killed_writer_leaves_no_torn_part_and_loses_only_what_was_not_flushed(tmp_path, start_writer):
    flush_rows = 5
    # The first goes on for long enough to merge parts while it writes, the second where the first was killed.
    for run_id, enough_parts in (("first", 100), ("second", 20)):
        writer = start_writer(tmp_path, run_id, 0, flush_rows)
        flushed = int(writer.stdout.readline())
        seen = 0
        scans = 0
        while scans < 10 or seen < enough_parts * flush_rows:
            numbers = numbers_of(tmp_path, run_id)
            assert numbers == list(range(len(numbers)))
            assert len(numbers) >= seen
            seen = len(numbers)
            read_every_part(tmp_path)
            scans += 1
        os.kill(writer.pid, signal.SIGKILL)
        rest, _ = writer.communicate()
        assert writer.returncode == -signal.SIGKILL
        flushed = max([flushed, *(int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n"))])
        numbers = numbers_of(tmp_path, run_id)
        assert numbers == list(range(len(numbers)))
        assert len(numbers) - flushed in (0, flush_rows)  # it may die between the flush and the line that tells of it
    assert open_results(tmp_path).counts()["evaluations"] == sum(
        len(numbers_of(tmp_path, run_id)) for run_id in ("first", "second")
    )


def test_two_processes_write_at_once(tmp_path, start_writer):
    writers = {run_id: start_writer(tmp_path, run_id, 300, 3) for run_id in ("first", "second")}
    while any(writer.poll() is None for writer in writers.values()):
        for run_id in writers:
            numbers = numbers_of(tmp_path, run_id) if (tmp_path / "evaluations").is_dir() else []
            assert numbers == list(range(len(numbers)))
    for run_id, writer in writers.items():
        assert writer.returncode == 0
        assert numbers_of(tmp_path, run_id) == list(range(300))


def many_parts(folder, parts):
    """A table of ``parts`` parts of two rows each, and one that is empty, as a killed writer would leave it."""
    (folder / "evaluations").mkdir(parents=True)
    rows = [
        {
            "run_id": "run-1",
            "recorded_at": START + timedelta(seconds=number),
            "arch_id": str(number),
            "proposal": number,
        }
        for number in range(2 * parts)
    ]
    for first in range(-2, 2 * parts, 2):
        table = pa.Table.from_pylist(rows[first : first + 2] if first >= 0 else [], schema=EVALUATIONS.schema())
        write_part(folder / "evaluations", new_part_name(), table)


def test_compaction_keeps_every_row_in_order_and_leaves_one_part(tmp_path):
    many_parts(tmp_path, 5)
    assert compact(tmp_path, minimum_parts=7)["evaluations"] == 0
    before = read_parts(tmp_path / "evaluations", EVALUATIONS)
    assert compact(tmp_path, minimum_parts=6) == {name: 6 if name == "evaluations" else 0 for name in TABLES}
    (part,) = list_parts(tmp_path / "evaluations")
    assert read_parts(tmp_path / "evaluations", EVALUATIONS).equals(before)
    assert pq.read_table(part, partitioning=None).num_rows == 10
    with ResultsWriter(tmp_path, "run-1") as writer:
        writer.append("evaluations", arch_id="last", proposal=10)
    assert compact_table(tmp_path, "evaluations", minimum_parts=2) == 2
    assert numbers_of(tmp_path, "run-1") == list(range(11))


def test_closing_merges_many_parts(tmp_path):
    with ResultsWriter(tmp_path, "run-1", flush_rows=1) as writer:
        for number in range(20):
            writer.append("evaluations", arch_id=f"{number}", proposal=number)
        assert len(list_parts(tmp_path / "evaluations")) == 21
    assert len(list_parts(tmp_path / "evaluations")) == 1
    assert numbers_of(tmp_path, "run-1") == list(range(20))


def test_a_writer_merges_many_parts_while_it_goes_on(tmp_path):
    with ResultsWriter(tmp_path, "run-1", flush_rows=1) as writer:
        for number in range(70):
            writer.append("evaluations", arch_id=f"{number}", proposal=number)
        deadline = time.monotonic() + 20
        while len(list_parts(tmp_path / "evaluations")) > 35:
            assert time.monotonic() < deadline, "nothing was merged"
            time.sleep(0.01)
        assert numbers_of(tmp_path, "run-1") == list(range(70))


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
    many_parts(tmp_path, 5)
    done = subprocess.run([sys.executable, "-c", _KILLED_COMPACTION, str(tmp_path), method, str(survive)])
    assert done.returncode == -signal.SIGKILL
    assert len(list_parts(tmp_path / "evaluations")) == parts_left
    assert numbers_of(tmp_path, "run-1") == list(range(10))
    with ResultsWriter(tmp_path, "run-1", flush_seconds=3600) as writer:
        writer.append("evaluations", arch_id="last", proposal=10)
    compact(tmp_path, minimum_parts=2)
    assert len(list_parts(tmp_path / "evaluations")) == 1
    assert numbers_of(tmp_path, "run-1") == list(range(11))


def test_readers_see_every_row_once_while_parts_are_merged_again_and_again(tmp_path):
    def write_and_merge():
        with ResultsWriter(tmp_path, "run-1", flush_rows=1) as writer:
            for number in range(150):
                writer.append("evaluations", arch_id=f"{number}", proposal=number)
                if number % 3 == 0:
                    compact_table(tmp_path, "evaluations", minimum_parts=2)

    writing = threading.Thread(target=write_and_merge)
    writing.start()
    seen = 0
    while writing.is_alive():
        numbers = numbers_of(tmp_path, "run-1")
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= seen
        seen = len(numbers)
    writing.join()
    assert numbers_of(tmp_path, "run-1") == list(range(150))


def test_a_compaction_that_cannot_write_changes_nothing(tmp_path):
    many_parts(tmp_path, 3)
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
    assert numbers_of(tmp_path, "run-1") == list(range(6))
