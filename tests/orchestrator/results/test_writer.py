"""What goes in comes out, soon and whole; what does not belong is refused at once; a full disk loses nothing."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import RunError, UserError
from orchestrator.results import TABLES, ResultsWriter, open_results
from orchestrator.results.parts import list_parts, read_parts
from tests.orchestrator.results.rows_of_tables import any_row


def as_read(row):
    """A row as it comes back: maps as pairs, and NaN as something that equals itself."""

    def cell(value):
        if isinstance(value, float) and math.isnan(value):
            return "NaN"
        return list(value.items()) if isinstance(value, dict) else value

    return {name: cell(value) for name, value in row.items()}


@pytest.mark.parametrize("table", sorted(TABLES))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_every_row_comes_back_as_it_went_in(tmp_path_factory, table, data):
    rows = data.draw(st.lists(any_row(table), max_size=4))
    folder = tmp_path_factory.mktemp("results")
    with ResultsWriter(folder, "unused", flush_rows=data.draw(st.integers(1, 5))) as writer:
        writer.extend(table, rows)
    assert [as_read(row) for row in read_parts(folder / table, TABLES[table]).to_pylist()] == [as_read(r) for r in rows]


def test_scalars_of_numpy_and_torch_become_plain_numbers(tmp_path):
    with ResultsWriter(tmp_path, "run-1") as writer:
        writer.append(
            "evaluations",
            arch_id=np.str_("a"),
            loss=np.float32(0.5),
            latency_ms=torch.tensor(2.5),
            seconds=3,
            parameters=np.int32(7),
            flops=torch.tensor(9),
            genes={"depth": np.int64(3), "operations": ["M", "F"], "name": "x"},
        )
        writer.append("selections", budget="small", chosen=np.bool_(True), loss=float("nan"))
    (row,) = open_results(tmp_path).table("evaluations").to_pylist()
    assert (row["arch_id"], row["loss"], row["latency_ms"], row["seconds"]) == ("a", 0.5, 2.5, 3.0)
    assert (row["parameters"], row["flops"], row["run_id"]) == (7, 9, "run-1")
    assert row["genes"] == [("depth", "3"), ("operations", '["M", "F"]'), ("name", "x")]
    (row,) = open_results(tmp_path).table("selections").to_pylist()
    assert row["chosen"] is True
    assert math.isnan(row["loss"])


@pytest.mark.parametrize(
    ("table", "columns", "expected"),
    [
        ("evaluation", {}, "unknown table 'evaluation', did you mean 'evaluations'?; the tables are runs, "),
        ("evaluations", {"los": 1.0}, "results table 'evaluations': unknown column 'los', did you mean 'loss'?"),
        ("evaluations", {"zzz": 1.0}, "unknown column 'zzz'; the columns are run_id, recorded_at, arch_id"),
        ("evaluations", {"loss": "low"}, "column 'loss': found 'low' (str), expected a number"),
        ("evaluations", {"loss": True}, "expected a number"),
        ("evaluations", {"loss": 10**400}, "expected a number within the range of a float"),
        ("evaluations", {"loss": np.zeros(2)}, "expected a number"),
        ("evaluations", {"parameters": 1.5}, "column 'parameters': found 1.5 (float), expected a whole number"),
        ("evaluations", {"parameters": True}, "expected a whole number"),
        ("evaluations", {"parameters": 2**63}, "at most 64 bits"),
        ("evaluations", {"arch_id": 7}, "column 'arch_id': found 7 (int), expected text"),
        ("evaluations", {"genes": [1]}, "expected a mapping from gene names to values"),
        ("evaluations", {"genes": {"a": object()}}, "expected genes that are text"),
        ("evaluations", {"recorded_at": datetime(2026, 1, 1)}, "expected a datetime with a time zone"),
        ("selections", {"budget": "s", "chosen": 1}, "expected true or false"),
        ("selections", {"loss": 1.0}, "column 'budget' is required"),
    ],
)
def test_wrong_rows_are_refused_at_once_in_one_line(tmp_path, table, columns, expected):
    with ResultsWriter(tmp_path, "run-1") as writer:
        with pytest.raises(UserError) as caught:
            writer.append(table, **columns)
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
    assert sum(open_results(tmp_path).counts().values()) == 0


def test_one_wrong_row_keeps_the_others_out_too(tmp_path):
    with ResultsWriter(tmp_path, "run-1") as writer, pytest.raises(UserError, match="did you mean 'loss'"):
        writer.extend("evaluations", [{"arch_id": "a"}, {"arch_id": "b", "lss": 1.0}])
    assert open_results(tmp_path).counts()["evaluations"] == 0


def test_an_undecodable_message_does_not_block_the_table(tmp_path):
    with ResultsWriter(tmp_path, "run-1") as writer:
        writer.append("evaluations", arch_id="a", error=os.fsdecode(b"caf\xc3\xa9 \xff"))
    assert open_results(tmp_path).table("evaluations")["error"].to_pylist() == ["café ?"]


def test_the_row_appended_last_is_recorded_last(tmp_path):
    with ResultsWriter(tmp_path, "run-1") as writer:
        writer.extend("runs", [{"attempt": number} for number in range(50)])
        for number in range(50, 100):
            writer.append("runs", attempt=number)
    rows = open_results(tmp_path).table("runs").to_pydict()
    assert rows["attempt"] == list(range(100))
    assert all(a < b for a, b in zip(rows["recorded_at"], rows["recorded_at"][1:], strict=False))
    assert abs((rows["recorded_at"][0] - datetime.now(UTC)).total_seconds()) < 60


def test_all_tables_exist_from_the_start_and_once(tmp_path):
    for _ in range(2):
        with ResultsWriter(tmp_path / "deep" / "results", "run-1"):
            for name, table in TABLES.items():
                (_,) = list_parts(tmp_path / "deep" / "results" / name)
                assert read_parts(tmp_path / "deep" / "results" / name, table).schema.equals(
                    table.schema(), check_metadata=True
                )


def test_half_parts_of_dead_writers_are_cleared_but_not_those_of_living_ones(tmp_path):
    with ResultsWriter(tmp_path, "run-1"):
        pass
    old, young = (tmp_path / "runs" / f".part-{name}.parquet.tmp" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"PAR1 half")
    os.utime(old, (time.time() - 3600,) * 2)
    with ResultsWriter(tmp_path, "run-2"):
        assert open_results(tmp_path).counts()["runs"] == 0
    assert not old.exists()
    assert young.exists()


def test_a_closed_writer_takes_nothing_and_can_be_closed_again(tmp_path):
    threads = threading.active_count()
    writer = ResultsWriter(tmp_path, "run-1")
    writer.append("runs", stage="search")
    writer.close()
    writer.close()
    with pytest.raises(RunError, match="closed"):
        writer.append("runs", stage="search")
    assert open_results(tmp_path).counts()["runs"] == 1
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("arguments", "expected"), [({"flush_rows": 0}, "flush_rows: found 0"), ({"flush_seconds": 0}, "flush_seconds")]
)
def test_nonsensical_arguments_are_refused(tmp_path, arguments, expected):
    with pytest.raises(UserError, match=expected):
        ResultsWriter(tmp_path, "run-1", **arguments)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"results folder .*file: cannot be written to \(Not a directory\)"):
        ResultsWriter(tmp_path / "file", "run-1")


def test_the_first_failure_of_a_run_is_what_the_caller_sees(tmp_path):
    def run():
        with ResultsWriter(tmp_path, "run-1") as writer:
            writer.append("runs", stage="search")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert open_results(tmp_path).counts()["runs"] == 1


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 256 KiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "netsuke-test", str(folder)], capture_output=True, text=True
    )
    if mount.returncode != 0:
        pytest.skip(f"a tmpfs of its own needs root: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_loses_no_row(tiny_disk):
    writer = ResultsWriter(tiny_disk / "results", "run-1", flush_rows=100, flush_seconds=0.05)
    filler = tiny_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(os.urandom(2**20))
    refusals = []
    for number in range(500):
        try:
            writer.append("evaluations", arch_id=str(number), error=os.urandom(40).hex())
        except RunError as error:
            refusals.append(str(error))
    assert refusals
    start = f"results folder {tiny_disk / 'results' / 'evaluations'}: cannot write (No space left on device), "
    assert all(refusal.startswith(start) and "\n" not in refusal for refusal in refusals)
    with pytest.raises(RunError, match="500 rows wait in memory"):
        writer.close()
    assert open_results(tiny_disk / "results").counts()["evaluations"] == 0
    assert not list((tiny_disk / "results" / "evaluations").glob(".*.tmp"))
    filler.unlink()
    writer.close()
    found = open_results(tiny_disk / "results").table("evaluations")["arch_id"].to_pylist()
    assert found == [str(number) for number in range(500)]


_LIMITED_WRITER = """
import os, resource, sys, time
from pathlib import Path
from orchestrator.errors import RunError
from orchestrator.results import ResultsWriter

writer = ResultsWriter(Path(sys.argv[1]), "run-1", flush_seconds=0.05)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
writer.append("evaluations", arch_id="a")
for _ in range(400):  # a quiet writer's failure has to reach the next call
    time.sleep(0.05)
    if writer._background_error is not None:
        break
try:
    writer.append("evaluations", arch_id="b")
except RunError as error:
    print("append:", error)
try:
    writer.close()
except RunError as error:
    print("close:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
writer.close()
"""


def test_a_failure_in_the_background_reaches_the_next_call(tmp_path):
    done = subprocess.run([sys.executable, "-c", _LIMITED_WRITER, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    append, close = done.stdout.splitlines()
    assert append.startswith("append: results folder")
    assert "File too large" in append
    assert "1 rows wait" in append
    assert "2 rows wait" in close
    assert open_results(tmp_path).table("evaluations")["arch_id"].to_pylist() == ["a", "b"]
