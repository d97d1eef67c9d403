"""The wheel holds everything, and works away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = {"spaces", "trainers", "orchestrator", "cluster"}
NOT_PART_OF_A_BUILD = (".*", "build", "dist", "runs", "tests", "docs", "*.egg-info", "__pycache__")
DATA_SUFFIXES = {".yaml", ".j2", ".css", ".js", ".parquet", ".typed", ".md"}


def run(command: list[str], folder: Path, site: Path | None = None) -> str:
    environment = dict(os.environ) if site is None else {**os.environ, "PYTHONPATH": str(site)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel, built from a copy of the checkout, is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    copy, installed = folder / "source", folder / "site"
    # A copy, because setuptools would leave its build folder in the checkout and pack what lies in an old one.
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(*NOT_PART_OF_A_BUILD))
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(copy)], folder)
    (wheel,) = folder.glob("netsuke-*.whl")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run([*pip, "install", "--no-deps", "--no-index", "--target", str(installed), str(wheel)], folder)
    shutil.rmtree(copy)
    return installed


def test_nothing_but_the_four_packages_is_at_the_top_level(site: Path) -> None:
    names = {path.name for path in site.iterdir() if path.name != "bin"}
    assert {name for name in names if not name.endswith(".dist-info")} == PACKAGES
    assert len(names) == len(PACKAGES) + 1


def test_every_data_file_and_module_is_inside(site: Path) -> None:
    suffixes = {*DATA_SUFFIXES, ".py"}
    in_checkout = {
        path.relative_to(REPOSITORY)
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*")
        if path.suffix in suffixes and "__pycache__" not in path.parts
    }
    assert Path("trainers/corpora/novels-train.parquet") in in_checkout
    assert Path("orchestrator/recipes/quickstart.yaml") in in_checkout
    assert sorted(map(str, in_checkout)) == sorted(str(path) for path in in_checkout if (site / path).is_file())


def test_the_licence_goes_along(site: Path) -> None:
    assert [path.name for path in site.glob("netsuke-*.dist-info/licenses/*")] == ["LICENSE"]


def test_the_bundled_text_is_found_from_elsewhere(site: Path, tmp_path: Path) -> None:
    program = """
from importlib import resources
import spaces, trainers, orchestrator, cluster
for package in (spaces, trainers, orchestrator, cluster):
    print(package.__file__)
print(resources.files("trainers").joinpath("corpora", "novels-validation.parquet"))
"""
    paths = run([sys.executable, "-c", program], tmp_path, site).splitlines()
    assert len(paths) == 5
    assert all(Path(path).is_relative_to(site) and Path(path).is_file() for path in paths)


def test_the_command_works_from_elsewhere(site: Path, tmp_path: Path) -> None:
    netsuke = str(site / "bin" / "netsuke")
    assert "run" in run([netsuke, "--help"], tmp_path, site)
    assert "quickstart" in run([netsuke, "run", "--list"], tmp_path, site)
