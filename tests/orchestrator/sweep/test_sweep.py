"""A sweep from its file to its table and page, on real Ray, over the supernet of a finished run."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace

import psutil
import pytest
from ray.tune import ExperimentAnalysis, ResultGrid

from cluster.processes import end_processes
from orchestrator.cli.sweep import print_sweep
from orchestrator.evaluation import tune
from orchestrator.pipeline import checked_plan, planned_stages
from orchestrator.recipe import load_recipe
from orchestrator.results import open_results
from orchestrator.results.hypervolume import hypervolume
from orchestrator.run_directory import RunDirectory
from orchestrator.sweep.adoption import adopt
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.running import check_sweep, plan_sweep

pytestmark = pytest.mark.timeout(900)


def test_members_have_rows_of_their_own(swept):
    sweep, summary = swept
    rows = sweep.rows()
    assert set(rows["member"]) == {row["member"] for row in summary.members}
    assert sorted(rows.groupby("member").size()) == [10] * 4
    assert set(rows["strategy"]) == {"random", "genetic"}
    assert set(rows["run_id"].str.startswith("small-")) == {True}


def test_nothing_is_scored_twice(swept):
    sweep, summary = swept
    rows = sweep.rows()
    scored = rows[rows["pid"].notna()]
    assert not scored.duplicated(["arch_id", "fidelity", "supernet_signature"]).any()
    assert len(scored) + sum(row["reused"] for row in summary.members) == len(rows)
    # Members of one sweep start at the same points: at least these are known to all but the first.
    assert sum(row["reused"] for row in summary.members) >= 3
    assert rows.groupby("arch_id")["loss"].nunique().max() == 1


def test_experiments_that_are_kept_lie_apart(swept):
    sweep, summary = swept
    scored = sweep.rows().dropna(subset=["pid"]).groupby("member").size()
    for member in (row["member"] for row in summary.members):
        (experiment,) = (sweep.folder / "members" / member / "tune").iterdir()
        assert experiment.name == f"{member}-1"
        frame = ResultGrid(ExperimentAnalysis(str(experiment))).get_dataframe()
        assert set(frame["config/search"]) == {member}
        assert frame["candidates"].sum() == scored[member]


def test_what_is_shared_is_taken_from_the_run(swept, finished):
    sweep, _ = swept
    (run,) = (sweep.folder / "spaces").iterdir()
    log = open_results(run / "results").frame("runs").set_index("run_id")
    own = RunDirectory(run).read()["run_id"]
    assert list(log.loc[own, "status"]) == ["skipped"] * 4
    assert set(log["stage"]) == {"teacher", "corpus", "latency", "supernet"}, "no row of what was not taken over"
    ours, theirs = (folder / "supernet" / "supernet.safetensors" for folder in (run, finished.folder))
    assert ours.read_bytes() == theirs.read_bytes()


def test_the_table_tells_each_members_front(swept):
    sweep, summary = swept
    table = sweep.rows("sweeps").set_index("member")
    assert set(table.index) == {row["member"] for row in summary.members}
    rows = sweep.rows()
    (best_loss, worst_loss), (best_size, worst_size) = (summary.box[name] for name in ("loss", "encoder_parameters"))
    assert (best_loss, worst_loss) == (rows["loss"].min(), rows["loss"].max())
    for member, part in rows.groupby("member"):
        loss = (part["loss"] - best_loss) / (worst_loss - best_loss)
        size = (part["encoder_parameters"].astype(float) - best_size) / (worst_size - best_size)
        expected = hypervolume(list(zip(loss, size, strict=True)), [1, 1])
        assert table.loc[member, "hypervolume"] == pytest.approx(expected)
        assert table.loc[member, "best_loss"] == part["loss"].min()
        assert table.loc[member, "evaluation_seconds"] == pytest.approx(part["seconds"].sum())


def test_the_end_is_a_table_and_a_page(swept, capsys):
    sweep, summary = swept
    print_sweep(summary)
    out = capsys.readouterr().out
    assert "genetic" in out
    assert "4 searches, 40 scores" in out
    page = (sweep.folder / "report.html").read_text(encoding="utf-8")
    assert "against evaluations" in page
    assert "against seconds" in page
    assert {group.seeds for group in summary.groups} == {2}
    assert all(group.hypervolume_spread is not None for group in summary.groups)


def test_a_finished_sweep_is_skipped_and_a_seed_more_is_one_search_more(swept, tmp_path, monkeypatch):
    sweep, before = swept
    copy = replace(sweep, folder=tmp_path / "swept")
    shutil.copytree(sweep.folder, copy.folder, ignore=shutil.ignore_patterns(".lock*"))
    plan = plan_sweep(check_sweep(load_sweep(str(copy.file)), copy.folder))
    assert plan.is_done
    monkeypatch.setattr(tune.TuneEvaluation, "run", lambda *_: pytest.fail("a finished member was searched again"))
    again = copy.start()
    assert again.groups == before.groups
    # The same search with fewer evaluations finds all its scores among those that are known, and starts no actor.
    shorter = copy.file.read_text().replace("[10]", "[10, 5]")
    file = tmp_path / "small.yaml"
    file.write_text(shorter)
    answer = replace(copy, file=file).start()
    assert len(answer.members) == 8
    assert all(row["reused"] == row["scored"] == 5 for row in answer.members if row["evaluations"] == 5)


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_ends_like_one_that_was_left_alone(swept, make_sweep):
    undisturbed, _ = swept
    sweep = make_sweep([1, 2])
    code = "from orchestrator.cli.main import entry_point; entry_point()"
    arguments = ["sweep", str(sweep.file), "--run-dir", str(sweep.folder), "--reuse", str(sweep.reuse)]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], start_new_session=True)
    deadline = time.monotonic() + 400
    while not list(sweep.folder.glob("results/evaluations/*.parquet")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    end_processes(family, patience=1.0)
    assert len(list(sweep.folder.glob("members/*/finished.json"))) < 4
    sweep.start()
    assert sweep.asked() == undisturbed.asked()
    scored = sweep.rows()[lambda rows: rows["pid"].notna()]
    assert not scored.duplicated(["arch_id", "fidelity"]).any()


@pytest.mark.slow
def test_a_sweep_with_its_tables_elsewhere_finds_the_same(swept, make_sweep):
    undisturbed, _ = swept
    sweep, url = make_sweep([1]), f"memory://{uuid.uuid4().hex}"
    elsewhere = f'results: {{url: "{url}/{{run}}"}}\nset: {{results.url: "{url}/spaces/{{run_id}}"}}\n'
    sweep.file.write_text(sweep.file.read_text() + elsewhere)
    sweep.start()
    (run,) = (sweep.folder / "spaces").iterdir()
    assert not (sweep.folder / "results").exists()
    assert not (run / "results").exists()
    assert len(sweep.asked()) == len(sweep.rows("sweeps")) == 2
    assert sweep.asked().items() <= undisturbed.asked().items(), "nor does it change what a member is"
    assert_shows_the_same(undisturbed.reuse, run)
    assert sweep.start().members


def test_what_is_taken_over_counts_as_it_did_where_it_was_measured(swept):
    sweep, _ = swept
    (run,) = (sweep.folder / "spaces").iterdir()
    assert_shows_the_same(sweep.reuse, run)


def assert_shows_the_same(theirs, ours):
    """Rows of stages that were taken over came along, and their new run's own log does not supersede them."""
    found, taken = (open_results(RunDirectory(folder).results) for folder in (theirs, ours))
    for table, rows in {"latency": "kind <> 'model'", "latency_terms": "", "shrinking": ""}.items():
        assert taken.table(table, where=rows).equals(found.table(table, where=rows)), table
    assert taken.table("latency_terms").num_rows > 0


def test_spaces_share_what_does_not_depend_on_them(swept, place, tmp_path):
    sweep, _ = swept
    recipe = load_recipe(str(place / "microscopic.yaml"), ["space.options.operations=[M, F]"])
    plan = checked_plan(recipe, tmp_path / "other")
    names = ["teacher", "corpus", "latency", "supernet"]
    (run,) = (sweep.folder / "spaces").iterdir()
    assert adopt(plan, RunDirectory(run), names) == ["teacher", "corpus"]
    stages, _ = planned_stages(plan, names)
    assert [stage.action for stage in stages] == ["skip", "skip", "run", "run"]
    assert adopt(plan, RunDirectory(run), names) == []


def test_other_commands_know_a_sweep(swept, netsuke):
    sweep, _ = swept
    assert "4 rows" in netsuke("results", sweep.folder, "sweeps").out
    assert "found a sweep, whose page netsuke sweep writes" in netsuke("report", sweep.folder).error
