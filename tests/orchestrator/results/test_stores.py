"""The storages that netsuke comes with sit the exam: the local disk, fsspec's memory, and a real S3 server."""

from __future__ import annotations

import contextlib
import json
import uuid

import fsspec
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow import fs

import orchestrator.results
from orchestrator.cli.main import execute
from orchestrator.errors import RunError, UserError
from orchestrator.results import ResultsWriter, compact, open_results
from orchestrator.results.parts import list_parts
from orchestrator.results.storage import CLAIM_SECONDS, folder_at
from orchestrator.testing import ResultsStoreExam
from tests.orchestrator.s3_server import s3_server as s3_server


class TestLocalDisk(ResultsStoreExam):
    parts_before_kill = 100  # so that it merges while it writes
    merges = 50

    def make_place(self, folder):
        return str(folder / "deep" / "results")


class TestMemory(ResultsStoreExam):
    shared = False

    def make_place(self, folder):
        return f"memory:/{folder}"


@pytest.mark.slow
@pytest.mark.usefixtures("s3_server")
class TestS3(ResultsStoreExam):
    merges = 8
    parts_before_kill = 12

    def make_place(self, folder):
        return f"s3://bucket/{uuid.uuid4().hex}/results"


def test_a_run_in_a_bucket_is_read_by_the_command_and_by_others(s3_server, capsys):
    run = f"s3://bucket/{uuid.uuid4().hex}"
    options = f"?scheme=http&endpoint_override={s3_server.replace(':', '%3A')}"
    with ResultsWriter(f"{run}/results{options}", "run-1") as writer:
        writer.extend("evaluations", [{"arch_id": f"{n}", "loss": n / 2, "latency_ms": 3.0 - n} for n in range(4)])
    question = ["evaluations", "--pareto", "loss,latency_ms", "--where", "loss > 0", "--json"]
    for place in (f"{run}/results", f"{run}/results{options}", run):
        assert execute(["results", place, *question]) == 0
        assert [row["arch_id"] for row in json.loads(capsys.readouterr().out)] == ["1", "2", "3"]
    filesystem, path = fs.FileSystem.from_uri(f"{run}/results/evaluations")
    assert pq.read_table(path, filesystem=filesystem).num_rows == 4
    assert execute(["results", "s3://bucket/nothing", "evaluations"]) == 2
    assert "s3://bucket/nothing is no such folder, expected the results folder" in capsys.readouterr().err


def test_a_bucket_that_is_not_there_is_named_without_keys(s3_server):
    with pytest.raises(RunError) as caught:
        ResultsWriter("s3://key:secret@elsewhere/results", "run-1")
    assert "s3://elsewhere/results: cannot be written to" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nowhere://x/results", "found a URL of the scheme 'nowhere', expected one that pyarrow or fsspec knows"),
        ("s3://bucket/results?colour=red", r"s3://bucket/results cannot be opened \(.*colour"),
    ],
)
def test_a_url_nobody_understands_is_explained(url, expected):
    with pytest.raises(UserError, match=expected):
        open_results(url)


def test_a_file_url_is_the_local_disk(tmp_path):
    with ResultsWriter(f"file://{tmp_path}/results", "run-1") as writer:
        writer.append("models", model="teacher", role="teacher")
    assert type(folder_at(f"file://{tmp_path}")) is type(folder_at(tmp_path))
    assert open_results(tmp_path / "results").counts()["models"] == 1


def test_results_are_found_in_a_run_folder_and_by_themselves(tmp_path):
    run = tmp_path / "run"
    for folder in ("models", "training"):  # as a run has them, beside the tables of these names
        (run / folder).mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match=r"run/results is no such folder"):
        orchestrator.results.open(run)
    with ResultsWriter(run / "results", "run-1") as writer:
        writer.append("models", model="teacher", role="teacher")
    for place in (run, str(run), run / "results", f"file://{run}"):
        assert orchestrator.results.open(place).frame("models")["model"].tolist() == ["teacher"]
    with pytest.raises(UserError, match="is a folder without tables"):
        orchestrator.results.open(tmp_path)


def claims_of(place):
    return [name for name in (folder_at(place) / ".evaluations.compaction").names() if name.startswith("claim-")]


def test_who_merges_gives_way_to_an_earlier_claim_until_it_lapses(tmp_path):
    place = f"memory:/{tmp_path}"
    with ResultsWriter(place, "run-1", flush_rows=1) as writer:
        for number in range(3):
            writer.append("evaluations", arch_id=f"{number}")
    with folder_at(place).sole_merger("evaluations") as first:
        assert first()
        with folder_at(place).sole_merger("evaluations") as second:
            assert second is None
        assert compact(place, 2)["evaluations"] == 0
        assert first()
        (claim,) = claims_of(place)
        lapsed = f"claim-{int(claim.split('-')[1]) - int((CLAIM_SECONDS + 60) * 1e9):019d}-dead"
        memory = fsspec.filesystem("memory")
        memory.mv(f"{tmp_path}/.evaluations.compaction/{claim}", f"{tmp_path}/.evaluations.compaction/{lapsed}")
        assert not first()
        assert compact(place, 2)["evaluations"] == 4
        assert claims_of(place) == []
    assert open_results(place).counts()["evaluations"] == 3


class FlakyFileSystem(MemoryFileSystem):
    """Does what it is asked to, but for a while says that it failed, and answers no questions."""

    protocol = "flaky"
    is_down = False

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("flaky://", "memory://"))

    def mv(self, *arguments, **options):
        super().mv(*arguments, **options)
        if self.is_down:
            raise ConnectionResetError("the answer got lost")

    def info(self, *arguments, **options):
        if self.is_down:
            raise ConnectionResetError("no answer")
        return super().info(*arguments, **options)


def test_a_part_whose_writing_seemed_to_fail_is_there_once(tmp_path, monkeypatch):
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    place = f"flaky:/{tmp_path}"
    writer = ResultsWriter(place, "run-1", flush_rows=2, flush_seconds=3600)
    monkeypatch.setattr(FlakyFileSystem, "is_down", True)
    for name in "abc":
        with contextlib.suppress(RunError):
            writer.append("evaluations", arch_id=name)
    with pytest.raises(RunError, match=r"cannot write \(the answer got lost\), 2 rows wait in memory"):
        writer.flush()
    monkeypatch.setattr(FlakyFileSystem, "is_down", False)
    assert open_results(place).table("evaluations")["arch_id"].to_pylist() == ["a", "b"]
    writer.append("evaluations", arch_id="d")
    writer.close()
    assert open_results(place).table("evaluations")["arch_id"].to_pylist() == ["a", "b", "c", "d"]
    assert sum(name.startswith("part-") for name in list_parts(f"{place}/evaluations")) == 3
