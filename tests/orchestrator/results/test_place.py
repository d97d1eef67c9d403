"""Where a run's tables lie: decided at its first start, remembered by its folder, and never two runs in one place."""

from __future__ import annotations

import json
import shutil
import uuid

import pytest

import orchestrator.results
from orchestrator.errors import RunError, UserError
from orchestrator.recipe import Recipe
from orchestrator.recipe.results import ResultsSettings
from orchestrator.report.data import load
from orchestrator.results import ResultsWriter, open_results
from orchestrator.results.parts import copy_parts
from orchestrator.results.storage import folder_at
from orchestrator.run_directory import RunDirectory
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.settings import Sweep, SweptStrategy


def recipe_with(url: str | None) -> Recipe:
    return Recipe(name="small", results=ResultsSettings(url=url))


def sweep_with(url: str | None) -> Sweep:
    strategies = (SweptStrategy(name="random"),)
    return Sweep(name="small", recipe="quickstart", strategies=strategies, results=ResultsSettings(url=url))


@pytest.fixture
def memory():
    """A place in memory that no other test has."""
    return f"memory://{uuid.uuid4().hex}"


def recorded(run: RunDirectory, recipe: Recipe, rows: int = 3) -> RunDirectory:
    """The run, started, with rows in its table of evaluations."""
    run.check(recipe)
    described = run.open(recipe)
    with ResultsWriter(run.results, described["run_id"]) as writer:
        writer.extend("evaluations", [{"arch_id": f"{number}", "loss": number / 2} for number in range(rows)])
    return run


def test_without_a_url_tables_are_in_the_run_folder(tmp_path):
    run = recorded(RunDirectory(tmp_path / "run"), recipe_with(None))
    assert str(run.results) == str(tmp_path / "run" / "results")
    assert run.read()["results_url"] is None
    assert run.read()["format_version"] == 1, "any version can read it"


def test_a_run_folder_leads_to_its_tables(tmp_path, memory, netsuke):
    run = recorded(RunDirectory(tmp_path / "run"), recipe_with(f"{memory}/{{run}}/results"))
    assert str(run.results) == f"{memory}/run/results"
    assert not (tmp_path / "run" / "results").exists()
    assert run.read()["format_version"] == 2
    for place in (run.path, str(run.path), run.results, f"{memory}/run"):
        assert orchestrator.results.open(place).counts()["evaluations"] == 3
    assert [row["arch_id"] for row in netsuke("results", run.path, "evaluations", "--json").json] == ["0", "1", "2"]
    assert len(load(run.path).tables["evaluations"]) == 3
    run.check(recipe_with(f"{memory}/{{run}}/results"))
    run.open(recipe_with(f"{memory}/{{run}}/results"))
    assert run.read()["attempt"] == 2


def test_the_run_id_makes_a_place_of_its_own(tmp_path, memory):
    runs = [recorded(RunDirectory(tmp_path / name), recipe_with(f"{memory}/{{run_id}}")) for name in ("my run", "b")]
    assert [str(run.results) for run in runs] == [f"{memory}/{run.read()['run_id']}" for run in runs]
    assert open_results(runs[0].results).counts()["evaluations"] == 3


def test_two_runs_never_share_a_place(tmp_path, memory):
    recipe = recipe_with(f"{memory}/shared")
    first, second = recorded(RunDirectory(tmp_path / "a"), recipe), RunDirectory(tmp_path / "b")
    for use in (second.check, second.open):
        with pytest.raises(
            UserError, match=rf"^results.url: found {memory}/shared, where the tables of small-.* are"
        ) as e:
            use(recipe)
        assert first.read()["run_id"] in str(e.value)
    assert second.read() is None


@pytest.mark.parametrize("before", ["{memory}/old", None])
@pytest.mark.parametrize("after", ["{memory}/new", None])
def test_rows_stay_where_they_are_unless_they_were_copied(tmp_path, memory, before, after):
    if before == after:
        return
    old, new = (recipe_with(url and url.replace("{memory}", memory)) for url in (before, after))
    run = recorded(RunDirectory(tmp_path / "run"), old)
    for use in (run.check, run.open):
        with pytest.raises(
            UserError, match=r"^results.url: found .*, but the rows of this run lie in .*0 of 3"
        ) as caught:
            use(new)
        assert f"give {old.results.url or 'null'} as before" in str(caught.value)
    assert run.read()["attempt"] == 1
    target = folder_at(new.results.url or run.path / "results")
    for table in orchestrator.results.TABLES:
        copy_parts(run.results / table, target / table)
    run.check(new)
    run.open(new)
    assert str(run.results) == str(target)
    assert open_results(run.results).counts()["evaluations"] == 3


def test_rows_that_cannot_be_read_any_more_are_left_only_for_rows_of_the_same_run(tmp_path, memory):
    run = recorded(RunDirectory(tmp_path / "run"), recipe_with(None))
    target = folder_at(memory)
    copy_parts(run.results / "evaluations", target / "evaluations")
    for part in (run.path / "results" / "evaluations").glob("part-*"):
        part.write_bytes(b"damaged")
    with pytest.raises(UserError, match="none of this run, as far as can be told"):
        run.open(recipe_with(f"{memory}/empty"))
    run.open(recipe_with(memory))
    assert open_results(run.results).counts()["evaluations"] == 3


def test_a_run_without_rows_may_go_anywhere_that_is_free(tmp_path, memory):
    run = recorded(RunDirectory(tmp_path / "run"), recipe_with(f"{memory}/typo"), rows=0)
    recorded(RunDirectory(tmp_path / "other"), recipe_with(f"{memory}/taken"))
    with pytest.raises(UserError, match="taken, where the tables of small-"):
        run.open(recipe_with(f"{memory}/taken"))
    run.open(recipe_with(f"{memory}/right"))
    assert str(run.results) == f"{memory}/right"


@pytest.mark.parametrize("place", ["/proc/netsuke/results", "{tmp_path}/file/results"])
def test_a_place_that_takes_no_files_is_told_at_once_and_forgotten(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    run, wrong = RunDirectory(tmp_path / "run"), place.replace("{tmp_path}", str(tmp_path))
    with pytest.raises(RunError, match=rf"^results.url: {wrong}.* cannot be .*directory\)"):
        run.open(recipe_with(f"file://{wrong}"))
    assert run.read() is None
    recorded(run, recipe_with(f"file://{tmp_path}/elsewhere/results"))
    assert open_results(tmp_path / "elsewhere" / "results").counts()["evaluations"] == 3


def test_a_damaged_run_json_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run.json: cannot be read"):
        orchestrator.results.open(tmp_path)


def test_parts_are_copied_as_they_are_and_once(tmp_path, memory):
    run = recorded(RunDirectory(tmp_path / "run"), recipe_with(None))
    source, target = run.results / "evaluations", folder_at(memory) / "evaluations"
    assert copy_parts(source, target) == len(source.names()) > 0
    assert copy_parts(source, target) == 0
    assert copy_parts(folder_at(tmp_path / "nowhere"), target) == 0
    assert {name: target.size(name) for name in target.names()} == {name: source.size(name) for name in source.names()}


def test_a_sweep_remembers_its_place_too(tmp_path, memory, netsuke):
    folder, sweep = SweepDirectory(tmp_path / "sweep"), sweep_with(f"{memory}/{{run}}")
    folder.check(sweep)
    sweep_id = folder.open(sweep)
    with ResultsWriter(folder.results, sweep_id) as writer:
        writer.append("evaluations", arch_id="a")
    assert str(folder.results) == f"{memory}/sweep"
    assert json.loads((folder.path / "sweep.json").read_text())["results_url"] == f"{memory}/sweep"
    assert len(netsuke("results", folder.path, "evaluations", "--json").json) == 1
    with pytest.raises(UserError, match=r"^results.url: .* lie in memory://.*/sweep, and not all"):
        folder.check(sweep_with(None))
    shutil.rmtree(folder.path)
    with pytest.raises(UserError, match="where the tables of small-"):
        SweepDirectory(tmp_path / "sweep").check(sweep)
