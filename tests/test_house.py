"""The house's own rules: which way imports go, where Ray may be, and how large a file may grow."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("spaces", "trainers", "orchestrator", "cluster")
LONGEST_FILE = 500

# Steps, losses, supernets, strategies and evaluation run on a bare machine; the adapters to Ray are the exceptions.
FREE_OF_RAY = ("spaces", "trainers", "orchestrator.strategies", "orchestrator.evaluation", "orchestrator.results")
ADAPTERS = (
    "trainers.ray_train",
    "orchestrator.evaluation.tune",
    "orchestrator.evaluation.ask_tell_searcher",
    "orchestrator.evaluation.tune_callbacks",
    "orchestrator.evaluation.training_trials",
    "orchestrator.evaluation.actor_gate",
    "orchestrator.evaluation.steady_actors",
    "orchestrator.evaluation.actor_pool",
    "orchestrator.evaluation.latency_device",
    "orchestrator.evaluation.object_store",
)

IMPORT_AND_TELL = """
import importlib, json, sys
culprits = []
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
    if "ray" in sys.modules:
        culprits.append(name)
        break
print(json.dumps(culprits))
"""


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy_of_the_house(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(
            REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "corpora")
        )
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_go_one_way_and_ray_stays_at_the_edges() -> None:
    result = lint_imports(REPOSITORY)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("spaces/errors.py", "import trainers"),
        ("spaces/errors.py", "import cluster"),
        ("spaces/errors.py", "from ray import tune"),
        ("cluster/errors.py", "import spaces"),
        ("trainers/errors.py", "import orchestrator.errors"),
        ("trainers/errors.py", "from ray.train import report"),
        ("orchestrator/errors.py", "import ray"),
    ],
)
def test_a_forbidden_import_is_found(copy_of_the_house: Path, module: str, forbidden: str) -> None:
    with (copy_of_the_house / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{forbidden}\n")
    result = lint_imports(copy_of_the_house)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout
    assert module.removesuffix(".py").replace("/", ".") in result.stdout


def test_plain_modules_load_without_ray() -> None:
    names = [module_name(path) for path in python_files(*PACKAGES)]
    plain = [name for name in names if name.startswith(FREE_OF_RAY) and name not in ADAPTERS]
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_AND_TELL, json.dumps(plain)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == [], "the first module whose import brings Ray along"


def test_no_file_has_grown_too_long() -> None:
    lengths = {
        str(path.relative_to(REPOSITORY)): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files(*PACKAGES, "tests")
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed(package: str) -> None:
    assert (REPOSITORY / package / "py.typed").is_file()


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_folders_of_modules_are_packages(package: str) -> None:
    # Without one of them pytest would take tests/trainers for the package trainers.
    folders = {path.parent for path in python_files(package)} | {REPOSITORY / package}
    missing = [folder / "__init__.py" for folder in folders if not (folder / "__init__.py").is_file()]
    assert [str(path.relative_to(REPOSITORY)) for path in missing] == []


@pytest.mark.parametrize("path", python_files(*PACKAGES), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_modules_say_what_they_are_for(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith('"""')
