"""docs/extending.md is a package: its files, word for word, are built, installed, examined and run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.orchestrator.cli.conftest import Answer
from tests.orchestrator.pipeline.microscopic_run import write_recipe, write_teacher, write_text

REPOSITORY = Path(__file__).parents[1]
GUIDE = REPOSITORY / "docs" / "extending.md"
IN_ONE_PROCESS = """
import json, sys
from tests.orchestrator.cli.conftest import call_here
answers = [call_here(*words) for words in json.loads(sys.argv[1])]
print(json.dumps([[answer.code, answer.out, answer.err] for answer in answers]))
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


def files_of_the_guide() -> dict[str, str]:
    """Every file by its path: the first code block of a section whose heading is a file's name."""
    files = {}
    for section in _text().split("\n## ")[1:]:
        name = re.match(r"`([^`]+)`\n", section)
        code = re.search(r"^```(?:python|toml)\n(.*?)^```$", section, flags=re.M | re.S)
        if name is not None and code is not None:
            files[name[1]] = code[1]
    return files


def commands_of_the_guide() -> list[list[str]]:
    lines = [
        line
        for block in re.findall(r"^```console\n(.*?)^```$", _text(), flags=re.M | re.S)
        for line in block.splitlines()
    ]
    return [shlex.split(line.removeprefix("$ ")) for line in lines]


def _text() -> str:
    return GUIDE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the package, as its author has it."""
    folder = tmp_path_factory.mktemp("netsuke-uniform")
    for name, text in files_of_the_guide().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a command where the package is installed, as pip installs it, and its source is out of sight."""
    site, work = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("work")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(site)]
    installed = subprocess.run([*pip, *offline, str(package)], capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(site), str(REPOSITORY)))}

    def call(*command: str | Path) -> subprocess.CompletedProcess[str]:
        words = list(map(str, command))
        return subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True, check=False)

    return call


@pytest.fixture(scope="module")
def netsuke(run: Run) -> Callable[..., list[Answer]]:
    """Run command lines there, one after the other in the same process."""

    def call(*commands: Sequence[object]) -> list[Answer]:
        done = run(sys.executable, "-c", IN_ONE_PROCESS, json.dumps([[str(word) for word in one] for one in commands]))
        assert done.returncode == 0, done.stderr
        return [Answer(*answer) for answer in json.loads(done.stdout)]

    return call


def test_the_guide_names_every_file_of_its_tree() -> None:
    tree = re.search(r"^netsuke-uniform/\n(.*?)^```$", _text(), flags=re.M | re.S)
    assert tree is not None
    drawn = set(re.findall(r"[├└]── (\S+\.\w+)", tree[1]))
    assert drawn == {Path(name).name for name in files_of_the_guide()}


def test_space_and_strategy_pass_their_exams(package: Path, run: Run) -> None:
    exams = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", package / "test_exams.py")
    assert exams.returncode == 0, exams.stdout + exams.stderr
    passed = re.search(r"(\d+) passed", exams.stdout)
    assert passed is not None
    assert int(passed[1]) >= 23  # a SpaceExam, a StrategyExam, and the package's own


def test_the_commands_on_spaces_take_it(netsuke: Callable[..., list[Answer]]) -> None:
    guide = [words[1:] for words in commands_of_the_guide() if words[:2] == ["netsuke", "space"]]
    *answers, listed, cost, mistake, wrong_option = netsuke(
        *guide,
        ["space", "list"],
        ["space", "params", "uniform", "3x64F2", "--json"],
        ["space", "params", "uniform", "99x64F2"],
        ["space", "show", "uniform", "--set", "width=[32]"],
    )
    assert guide
    assert [answer.code for answer in answers] == [0] * len(guide), answers
    assert "uniform" in listed.out.split()
    assert cost.json["genes"] == {"layers": 3, "width": 64, "factor": 2}
    assert mistake.code == 2
    assert mistake.error.startswith("'99x64F2' lies outside the space uniform: layers is 99, expected one of")
    assert wrong_option.error == "space.options.width: unknown key, expected widths; remove it"


def test_a_recipe_names_the_strategy(netsuke: Callable[..., list[Answer]], tmp_path: Path) -> None:
    (command,) = [words for words in commands_of_the_guide() if words[:2] == ["netsuke", "run"]]
    write_text(tmp_path)
    write_teacher(tmp_path / "teacher")
    dry = ["run", write_recipe(tmp_path), "--dry-run", "--run-dir", tmp_path / "run", "--set"]
    plan, mistake, wrong_space = netsuke(
        ["run", dry[1], *command[3:], "--json", "--run-dir", tmp_path / "run"],
        [*dry, "search.strategies=[{name: annealing, options: {cool: 0.5}}]"],
        [*dry, "space={name: uniform}"],
    )
    assert plan.code == 0, plan.err
    (search,) = [stage for stage in plan.json["stages"] if stage["name"] == "search"]
    assert search["work"].startswith("score candidates of annealing (100)")
    assert (mistake.code, wrong_space.code) == (2, 2)
    assert mistake.error == "strategy annealing has no option 'cool'; did you mean 'cooling'?"
    assert "found 'uniform', which is no space of blocks" in wrong_space.error


def test_the_search_runs(package: Path, run: Run) -> None:
    search = run(sys.executable, package / "search.py")
    assert search.returncode == 0, search.stderr
    lines = search.stdout.splitlines()
    assert len({line.split()[0] for line in lines}) == len(lines) == 12
    weights = [int(line.split()[-2].replace(",", "")) for line in lines]
    assert max(weights) <= 120_000
