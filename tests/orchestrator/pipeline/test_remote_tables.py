"""A whole run whose tables lie in a bucket of a real S3 server: by the command alone, as a person has it."""

from __future__ import annotations

import threading
import time
import uuid

import pytest

import orchestrator.results
from orchestrator.results.storage import folder_at
from tests.orchestrator.pipeline.microscopic_run import EVALUATIONS, MODELS, STAGES
from tests.orchestrator.s3_server import s3_server as s3_server
from tests.orchestrator.s3_server import started_s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def bucket_url():
    """A place of its own for each test, with a placeholder that the run fills in."""
    return f"s3://bucket/{uuid.uuid4().hex}/{{run}}/results"


@pytest.mark.usefixtures("local_ray", "s3_server")
def test_a_run_in_a_bucket_is_read_by_its_folder(netsuke, place, tmp_path, bucket_url):
    folder, url = tmp_path / "away", bucket_url.replace("{run}", "away")
    command = ["run", place / "microscopic.yaml", "--run-dir", folder, "--json", "--set", f"results.url={bucket_url}"]
    answer = netsuke(*command)
    assert answer.code == 0, answer.err
    assert {model["label"] for budget in answer.json["budgets"] for model in (budget["winner"],)} == {"most", "some"}
    assert not (folder / "results").exists()
    assert all((folder_at(url) / table).exists() for table in orchestrator.results.TABLES)

    rows = netsuke("results", folder, "evaluations", "--format", "json").json
    assert len(rows) == sum(EVALUATIONS.values())
    assert rows == netsuke("results", url, "evaluations", "--format", "json").json
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(model in page for model in MODELS)
    assert netsuke("signal", folder, "--json").code == 0
    scored = netsuke("score", folder, "--block", "0", "--architectures", "alive", "--json")
    assert scored.json["rows"] == f"{url}/block_losses"
    exported = netsuke("export", folder, rows[0]["arch_id"], "--format", "hf", "--out", tmp_path / "model")
    assert exported.code == 0, exported.err

    assert netsuke(*command).code == 0
    runs = orchestrator.results.open(folder).frame("runs", where="attempt = 2")
    assert dict(zip(runs["stage"], runs["status"], strict=True)) == dict.fromkeys(STAGES, "skipped")
    elsewhere = netsuke(*command[:-1], "results.url=null")
    assert elsewhere.code == 2
    assert f"the rows of this run lie in {url}" in elsewhere.error


@pytest.mark.usefixtures("s3_server")
def test_a_bucket_that_is_not_there_ends_the_command_before_anything_ran(netsuke, place, tmp_path):
    command = ["run", place / "microscopic.yaml", "--run-dir", tmp_path / "run", "--set"]
    answer = netsuke(*command, "results.url=s3://elsewhere/results")
    assert answer.code == 1
    assert answer.error.startswith("results.url: s3://elsewhere/results cannot be ")
    assert not (tmp_path / "run" / "run.json").exists(), "so that the URL can be corrected"


@pytest.mark.usefixtures("local_ray")
def test_a_server_that_dies_under_a_run_costs_one_line(netsuke, place, tmp_path, bucket_url):
    folder = tmp_path / "run"
    with started_s3_server() as server:

        def kill_in_time() -> None:
            while not (folder / "stages" / "corpus.json").exists():
                time.sleep(0.05)
            server.process.kill()

        killer = threading.Thread(target=kill_in_time)
        killer.start()
        answer = netsuke(
            "run", place / "microscopic.yaml", "--run-dir", folder, "--json", "--set", f"results.url={bucket_url}"
        )
        killer.join()
        asked = netsuke("results", folder, "runs")
    for said in (answer, asked):
        assert said.code == 1
        assert bucket_url.replace("{run}", "run") in said.error
        assert "Traceback" not in said.err
        assert "unexpected" not in said.err
