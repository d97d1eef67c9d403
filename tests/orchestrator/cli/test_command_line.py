from __future__ import annotations

import json
import sys
import types

import pytest

from cluster.errors import ClusterError, ClusterUserError
from orchestrator.cli.main import describe_error
from orchestrator.errors import RunError, UserError
from spaces.errors import SpaceError
from trainers.errors import TrainingInputError


@pytest.fixture
def pipeline_that(monkeypatch, tmp_path):
    """Replace the pipeline by one whose run ends in a given error: errors at will are what it is for."""
    monkeypatch.chdir(tmp_path)

    def raises(error: BaseException) -> None:
        def run_recipe(recipe, run_dir, progress):
            raise error

        module = types.ModuleType("orchestrator.pipeline")
        module.run_recipe = run_recipe
        monkeypatch.setitem(sys.modules, "orchestrator.pipeline", module)

    return raises


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("corpus.source: no such file"), 2, "corpus.source: no such file"),
        (SpaceError("space.options.x: unknown"), 2, "space.options.x: unknown"),
        (TrainingInputError("teacher.source: no encoder"), 2, "teacher.source: no encoder"),
        (ClusterUserError("cluster.num_cpus: found 1"), 2, "cluster.num_cpus: found 1"),
        (RunError("the run folder is locked"), 1, "the run folder is locked"),
        (ClusterError("Ray did not start"), 1, "Ray did not start"),
        (OSError(28, "No space left on device", "/x/y"), 1, "/x/y: No space left on device"),
        (ZeroDivisionError("division by zero\nmore"), 1, "ZeroDivisionError: division by zero (unexpected; --debug"),
        (MemoryError(), 1, "MemoryError (unexpected; --debug shows where)"),
    ],
)
def test_each_error_gets_its_line_and_code(netsuke, pipeline_that, error, code, line):
    pipeline_that(error)
    answer = netsuke("run", "quickstart")
    assert answer.code == code
    assert answer.error.startswith(line)
    assert answer.out == ""
    assert "Traceback" not in answer.err


def test_debug_shows_the_traceback_wherever_it_stands(netsuke, pipeline_that):
    pipeline_that(RunError("broken"))
    for arguments in (["--debug", "run", "quickstart"], ["run", "quickstart", "--debug"]):
        answer = netsuke(*arguments)
        assert answer.code == 1
        assert "Traceback" in answer.err
        assert answer.err.splitlines()[-1] == "netsuke: broken"


def test_an_interrupted_run_says_how_to_go_on(netsuke, pipeline_that):
    pipeline_that(KeyboardInterrupt())
    answer = netsuke("run", "quickstart", "--set", "supernet.steps=20", "--run-dir", "my runs/a")
    assert answer.code == 130
    assert answer.error.endswith("netsuke run quickstart --set supernet.steps=20 --run-dir 'my runs/a'")


def test_an_error_that_ray_wraps_is_told_as_itself():
    class WrappedError(UserError):
        cause = UserError("corpus.source: empty")

    assert describe_error(WrappedError("ray::worker\nTraceback ...")) == ("corpus.source: empty", 2)
    outer = RuntimeError("a worker died")
    outer.__cause__ = TrainingInputError("teacher.source: no encoder")
    assert describe_error(outer) == ("teacher.source: no encoder", 2)
    named = RunError("stage supernet failed")
    named.__cause__ = UserError("inner")
    assert describe_error(named) == ("stage supernet failed", 1)


def test_causes_in_a_circle_end():
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__cause__ = second, first
    assert describe_error(first)[0].startswith("RuntimeError: first")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["rnu"], "No such command 'rnu'. Did you mean 'run'?; see netsuke --help"),
        (["run", "--foo"], "No such option: --foo; see netsuke run --help"),
        (["run"], "RECIPE: missing; expected a shipped recipe"),
        (["run", "quikstart"], "no recipe 'quikstart': did you mean 'quickstart'?"),
        (["run", "quickstart", "--set", "seed=x"], "--set seed=x: seed: found 'x', expected a whole number"),
        (["run", "quickstart", "--run-dir", "file"], "--run-dir file: found a file, expected a folder or a new name"),
        (["run", "bad.yaml"], "bad.yaml:1: seeed: unknown key; did you mean 'seed'?"),
        (["results"], "Missing argument 'RUN'; see netsuke results --help"),
        (["results", "nowhere"], "nowhere: no such folder, expected a run folder"),
        (["results", "file"], "file: a file, expected a run folder"),
        (["report", "."], ".: found a folder without a run (no run.json)"),
        (["export", "nowhere", "half", "--out", "x"], "nowhere: no such folder, expected a run folder"),
        (["export", "nowhere", "half"], "Missing option '--out'; see netsuke export --help"),
        (["export", "nowhere", "half", "--out", "x", "--format", "tf"], "Invalid value for '--format': "),
        (["space"], "Missing command; see netsuke space --help"),
        (["space", "show", "nas_bret"], "space.name: found 'nas_bret', which is not an installed space"),
        (["space", "count", "nas_bert", "--set", "prest=small"], "space.options.prest: unknown key; did you mean"),
        (["space", "count", "nas_bert", "--set", "prest"], "--set prest: found 'prest', expected key.key=value"),
        (["space", "params", "nas_bert", "E64|192:X"], "architecture 'E64|192:X', column 9: expected an operation"),
        (
            ["space", "params", "nas_bert", "E64|192:M-I-M"],
            "architecture 'E64|192:M-I-M', column 11: expected operations",
        ),
        (
            ["space", "params", "nas_bert", "E64|192:M-128:F"],
            "architecture 'E64|192:M-128:F', column 11: expected one hidden",
        ),
        (["space", "params", "nas_bert", "E64|192:"], "architecture 'E64|192:', column 5: expected a block such as"),
        (
            ["space", "params", "nas_bert", "E64|192:M"],
            "architecture 'E64|192:M' is not in the space: it has 1 block, ex",
        ),
        (["space", "params", "nas_bert", "192:M"], "architecture '192:M', column 1: expected the embedding size such"),
        (["space", "params", "nas_bert", ""], "architecture '', column 1: expected the embedding size such as E128"),
        (["space", "params", "nas_bert", "E64|192:M", "--vocab-size", "0"], "Invalid value for '--vocab-size'"),
        (
            ["space", "params", "nas_bert", "E64|192:M", "--flops-rule", "all"],
            "--flops-rule all: found 'all', expected one of encoder, electra",
        ),
    ],
)
def test_a_wrong_command_line_gets_one_line_and_code_2(netsuke, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "bad.yaml").write_text("seeed: 1\n")
    answer = netsuke(*arguments)
    assert answer.code == 2
    assert answer.error.startswith(line)
    assert answer.out == ""


def test_export_refuses_a_folder_in_use(netsuke, run_folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    answer = netsuke("export", run_folder, "half", "--out", tmp_path / "full")
    assert answer.code == 2
    assert "found a folder that is not empty" in answer.error


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_the_commands(netsuke, arguments):
    answer = netsuke(*arguments)
    assert answer.code == 0
    for command in ("run", "results", "report", "export", "space", "doctor"):
        assert f"\n  {command} " in answer.out


@pytest.mark.parametrize("command", ["run", "results", "report", "export", "doctor"])
def test_every_command_has_help_and_json(netsuke, command):
    answer = netsuke(command, "--help")
    assert answer.code == 0
    assert "--json" in answer.out


def test_version(netsuke):
    answer = netsuke("--version")
    assert (answer.code, answer.out.split()[0]) == (0, "netsuke")


def test_recipes_are_listed(netsuke):
    assert "quickstart" in netsuke("run", "--list").out
    assert "quickstart" in [recipe["name"] for recipe in netsuke("run", "--list", "--json").json]


def test_json_mode_keeps_the_standard_output_clean(netsuke, monkeypatch, tmp_path):
    from orchestrator.summary import BudgetSummary, ModelSummary, RunSummary

    teacher = ModelSummary("teacher", 20, 10)
    summary = RunSummary(
        "quickstart", "r", teacher, (BudgetSummary("half", 5, None, ModelSummary("half", 15, 5)),), "", 1.0
    )
    called = {}

    def run_recipe(recipe, run_dir, progress):
        print("a library's chatter")
        progress.message("a message")
        called.update(run_dir=run_dir, steps=recipe.supernet.steps)
        return summary

    module = types.ModuleType("orchestrator.pipeline")
    module.run_recipe = run_recipe
    monkeypatch.setitem(sys.modules, "orchestrator.pipeline", module)
    monkeypatch.chdir(tmp_path)
    answer = netsuke("run", "quickstart", "--json", "--set", "supernet.steps=60")
    assert answer.code == 0
    assert answer.json == json.loads(json.dumps(summary.as_dict())) | {"budgets": [answer.json["budgets"][0]]}
    assert answer.json["budgets"][0]["winner"]["encoder_parameters"] == 5
    assert "chatter" in answer.err
    assert "a message" not in answer.err
    assert str(called["run_dir"]) == "runs/quickstart"
    assert called["steps"] == 60
