"""The exam of a place where results can lie: rows come out once and whole, whoever writes, dies, merges or reads."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.results import TABLES, Results, ResultsWriter, compact, open_results
from orchestrator.results.compaction import compact_table
from orchestrator.results.parts import is_merged, list_parts, new_part_name, read_parts, write_part
from orchestrator.results.storage import Folder, folder_at

EVALUATIONS = TABLES["evaluations"]
_START = datetime(2026, 1, 1, tzinfo=UTC)
_FLUSH_ROWS = 5
_SOON = 60.0

_STREAMING_WRITER = """
import sys
from itertools import count
from orchestrator.results import ResultsWriter

place, run_id, rows, flush_rows = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with ResultsWriter(place, run_id, flush_rows=flush_rows, flush_seconds=60) as writer:
    for number in range(rows) if rows else count():
        writer.append("evaluations", arch_id=f"{number:08d}", proposal=number, loss=number / 7)
        if (number + 1) % flush_rows == 0:
            print(number + 1, flush=True)
"""
"""Writes numbered rows until it is killed or has written enough (0: never), and tells how many are flushed for sure."""

_KILLED_MERGER = """
import os, signal, sys
from orchestrator.results import compact
from orchestrator.results.storage import folder_at

place, method, survive = sys.argv[1], sys.argv[2], int(sys.argv[3])
kind = type(folder_at(place))
original = getattr(kind, method)

def die_at_last(folder, name, *arguments):
    global survive
    if name.startswith("part-"):
        if survive == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        survive -= 1
    return original(folder, name, *arguments)

setattr(kind, method, die_at_last)
compact(place, 2)
"""
"""Merges, and dies at a part's writing or deletion."""


class ResultsStoreExam(ABC):
    """What must hold wherever :class:`~orchestrator.results.ResultsWriter` writes; subclass it in a test module.

    Attributes:
        shared: whether other processes see the place; without that, the questions about killed processes are left out.
        parts_before_kill: parts that a writer has written at least when it is killed; from 64 it merges meanwhile.
        merges: how often rows are merged while readers look.
    """

    shared: ClassVar[bool] = True
    parts_before_kill: ClassVar[int] = 20
    merges: ClassVar[int] = 20

    @abstractmethod
    def make_place(self, folder: Path) -> str:
        """The path or URL of a place without results, another one at each call.

        Args:
            folder: a local folder of the question's own. A place that outlives the tests needs a name of its own, such
                as ``uuid.uuid4().hex``.
        """

    def test_rows_come_out_once_and_as_they_went_in(self, tmp_path: Path) -> None:
        """Every table exists from the start; rows come back in order, by the writer's end at the latest."""
        place = self.make_place(tmp_path)
        rows = [
            {"arch_id": f"{n}", "loss": n / 8, "parameters": None if n % 3 else n, "genes": {"M": "1"}}
            for n in range(9)
        ]
        with ResultsWriter(place, "run-1") as writer:
            assert open_results(place).counts() == dict.fromkeys(TABLES, 0)
            writer.extend("evaluations", rows)
            writer.append("selections", budget="größer", chosen=True)
        found = open_results(place).table("evaluations", ["arch_id", "loss", "parameters", "genes"]).to_pylist()
        assert found == [row | {"genes": [("M", "1")]} for row in rows]
        assert open_results(place).table("selections", ["budget", "chosen"]).to_pylist() == [
            {"budget": "größer", "chosen": True}
        ]
        with ResultsWriter(place, "run-2") as writer:
            writer.append("evaluations", arch_id="again")
        assert open_results(place).counts() == dict.fromkeys(TABLES, 0) | {"evaluations": 10, "selections": 1}

    def test_rows_appear_when_they_are_flushed(self, tmp_path: Path) -> None:
        """A full buffer is there when ``append`` returns, a waiting row within the time that was given."""
        place = self.make_place(tmp_path)
        with ResultsWriter(place, "run-1", flush_rows=3, flush_seconds=3600) as writer:
            writer.extend("evaluations", [{"arch_id": "a"}, {"arch_id": "b"}])
            assert _count(place) == 0
            writer.append("evaluations", arch_id="c")
            assert _count(place) == 3
        with ResultsWriter(place, "run-2", flush_seconds=0.05) as writer:
            for number in (4, 5):  # also after it went to sleep once
                writer.append("evaluations", arch_id=f"{number}")
                _wait_until(lambda expected=number: _count(place) == expected)  # type: ignore[misc]

    def test_writers_at_once_lose_nothing(self, tmp_path: Path) -> None:
        """Several writers, of several threads each, and nobody's row is lost or there twice."""
        place = self.make_place(tmp_path)

        def write(writer: ResultsWriter, thread: int) -> None:
            for number in range(30):
                writer.append("evaluations", arch_id=f"{thread}-{number}", proposal=number)

        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(ResultsWriter(place, f"run-{n}", flush_rows=4)) for n in range(2)]
            _in_threads([lambda w=w, t=t: write(w, t) for w in writers for t in range(2)])  # type: ignore[misc]
        rows = read_parts(folder_at(place) / "evaluations", EVALUATIONS, ["run_id", "arch_id"]).to_pylist()
        expected = [(f"run-{w}", f"{t}-{n}") for w in range(2) for t in range(2) for n in range(30)]
        assert sorted((row["run_id"], row["arch_id"]) for row in rows) == sorted(expected)

    def test_processes_write_at_once(self, tmp_path: Path) -> None:
        """A reader sees each process's rows from the first on without a gap, and in the end all of them."""
        if not self.shared:
            return
        place = self.make_place(tmp_path)
        with ResultsWriter(place, "reader"), contextlib.ExitStack() as stack:
            writers = {name: stack.enter_context(_process(_STREAMING_WRITER, place, name, 60, 3)) for name in "ab"}
            while any(writer.poll() is None for writer in writers.values()):
                for name in writers:
                    _assert_numbered(numbers_of(place, name))
            for name, writer in writers.items():
                assert writer.returncode == 0
                assert numbers_of(place, name) == list(range(60))

    def test_a_killed_writer_loses_only_what_was_not_flushed(self, tmp_path: Path) -> None:
        """Readers see whole parts only, and after ``kill -9`` everything that was flushed; the next one goes on."""
        if not self.shared:
            return
        place = self.make_place(tmp_path)
        for run_id, parts in (("first", self.parts_before_kill), ("second", 10)):
            with _process(_STREAMING_WRITER, place, run_id, 0, _FLUSH_ROWS) as writer:
                assert writer.stdout is not None
                flushed, seen = int(writer.stdout.readline()), 0
                while seen < parts * _FLUSH_ROWS:
                    numbers = numbers_of(place, run_id)
                    _assert_numbered(numbers)
                    assert len(numbers) >= seen, "rows that were there are gone"
                    seen = len(numbers)
                    _read_without_netsuke(place)
                os.kill(writer.pid, signal.SIGKILL)
                rest, _ = writer.communicate()
                assert writer.returncode == -signal.SIGKILL
            flushed = max([flushed, *(int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n"))])
            numbers = numbers_of(place, run_id)
            _assert_numbered(numbers)
            # It may die between the flush and the line that tells of it.
            assert len(numbers) - flushed in (0, _FLUSH_ROWS)
        assert _count(place) == len(numbers_of(place, "first")) + len(numbers_of(place, "second"))

    def test_merging_keeps_every_row_in_order_and_leaves_one_part(self, tmp_path: Path) -> None:
        """Parts are merged where there are enough of them; rows and their order stay."""
        place = self.make_place(tmp_path)
        parts = write_parts_of_two(place, 5)
        assert compact(place, minimum_parts=7)["evaluations"] == 0
        before = read_parts(parts, EVALUATIONS)
        assert compact(place, minimum_parts=6) == {name: 6 if name == "evaluations" else 0 for name in TABLES}
        (part,) = list_parts(parts)
        assert is_merged(part)
        assert read_parts(parts, EVALUATIONS).equals(before)
        with ResultsWriter(place, "run-1") as writer:
            writer.append("evaluations", arch_id="last", proposal=10)
        assert compact_table(place, "evaluations", minimum_parts=2) == 2
        assert numbers_of(place, "run-1") == list(range(11))

    def test_writers_merge_what_they_wrote(self, tmp_path: Path) -> None:
        """Many parts are merged while their writer goes on, and when it closes."""
        place = self.make_place(tmp_path)
        with ResultsWriter(place, "run-1", flush_rows=1) as writer:
            for number in range(70):
                writer.append("evaluations", arch_id=f"{number}", proposal=number)
            parts = folder_at(place) / "evaluations"
            _wait_until(lambda: len(list_parts(parts)) <= 40)
            assert numbers_of(place, "run-1") == list(range(70))
            for number in range(70, 80):
                writer.append("evaluations", arch_id=f"{number}", proposal=number)
        assert len(list_parts(parts)) == 1
        assert numbers_of(place, "run-1") == list(range(80))

    def test_readers_see_every_row_once_while_parts_are_merged(self, tmp_path: Path) -> None:
        """Two mergers in turn or at once, a writer that goes on, and readers that never stop looking."""
        place = self.make_place(tmp_path)
        rows = 3 * self.merges

        def write_and_merge() -> None:
            with ResultsWriter(place, "run-1", flush_rows=1) as writer:
                for number in range(rows):
                    writer.append("evaluations", arch_id=f"{number}", proposal=number)
                    if number % 3 == 0:
                        compact_table(place, "evaluations", minimum_parts=2)

        def merge() -> None:
            while writing.is_alive():
                compact_table(place, "evaluations", minimum_parts=3)

        with ResultsWriter(place, "run-0"):
            pass
        writing = threading.Thread(target=write_and_merge)
        merging = threading.Thread(target=merge)
        writing.start()
        merging.start()
        seen = 0
        while writing.is_alive():
            numbers = numbers_of(place, "run-1")
            _assert_numbered(numbers)
            assert len(numbers) >= seen, "rows that were there are gone"
            seen = len(numbers)
        writing.join()
        merging.join()
        assert numbers_of(place, "run-1") == list(range(rows))

    def test_a_killed_merger_counts_no_row_twice_and_loses_none(self, tmp_path: Path) -> None:
        """Killed before its part appears, before a deletion, or between deletions; writers and mergers go on."""
        if not self.shared:
            return
        for index, (method, survive) in enumerate((("write", 0), ("delete", 0), ("delete", 3))):
            place = self.make_place(tmp_path / str(index))
            write_parts_of_two(place, 3)
            with _process(_KILLED_MERGER, place, method, survive) as merger:
                assert merger.wait(_SOON) == -signal.SIGKILL
            assert numbers_of(place, "run-1") == list(range(6))
            with ResultsWriter(place, "run-1", flush_seconds=3600) as writer:
                writer.append("evaluations", arch_id="last", proposal=6)
            compact(place, minimum_parts=2)
            assert numbers_of(place, "run-1") == list(range(7))


def _count(place: str) -> int:
    return Results(folder_at(place)).counts()["evaluations"]


def numbers_of(place: str, run_id: str) -> list[int]:
    """The numbers of a run's rows that are there, copies (there must be none) included."""
    rows = read_parts(folder_at(place) / "evaluations", EVALUATIONS, ["run_id", "proposal"])
    return sorted(rows.filter(pc.equal(rows["run_id"], run_id))["proposal"].to_pylist())


def _assert_numbered(numbers: list[int]) -> None:
    assert numbers == list(range(len(numbers))), "a row is missing, or there twice"


def write_parts_of_two(place: str, parts: int) -> Folder:
    """A table of ``parts`` parts of two rows each, and one that is empty, as a killed writer would leave it."""
    folder = folder_at(place) / "evaluations"
    folder.make()
    for first in range(-2, 2 * parts, 2):
        rows = [
            {
                "run_id": "run-1",
                "recorded_at": _START + timedelta(seconds=number),
                "arch_id": str(number),
                "proposal": number,
            }
            for number in range(max(first, 0), first + 2)
        ]
        write_part(folder, new_part_name(), pa.Table.from_pylist(rows, schema=EVALUATIONS.schema()))
    return folder


def _read_without_netsuke(place: str) -> None:
    """Whatever can be listed is whole, also for readers that know nothing of netsuke."""
    folder = folder_at(place) / "evaluations"
    for part in list_parts(folder)[-3:]:
        with contextlib.suppress(FileNotFoundError), folder.open(part) as file:  # it may be merged in the meantime
            pq.read_table(pa.BufferReader(_whole(file)))


def _whole(file: pa.NativeFile) -> bytes:
    try:
        return bytes(file.read())
    except OSError as error:  # object stores forget files that are open
        raise FileNotFoundError from error


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SOON
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def _in_threads(tasks: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def _process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process of its own, which is killed at the end if it still runs."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
