"""What runs on an accelerator machine that has PyTorch and transformers, but none of netsuke's other libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ABSENT = ("pydantic", "ray", "optuna", "typer", "duckdb", "scipy", "datasets", "plotly", "psutil", "sklearn")
ROOT = Path(__file__).parents[2]
MODULES = [
    *(
        f"spaces.{file.parent.name}.{file.stem}"
        for folder in ("nas_bert", "efficient_bert", "components", "model_parts")
        for file in sorted((ROOT / "spaces" / folder).glob("[!_]*.py"))
    ),
    "spaces.huggingface",
    "trainers.blockwise",
    "trainers.corpus",
    "trainers.oneshot",
    "trainers.supernet_store",
    "trainers.teacher",
    "cluster.latency",
    "tests.benchmarks.bench_accelerator",
]

HIDE = f"""
import sys

class WithoutThem:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {ABSENT!r} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [WithoutThem(finder) for finder in sys.meta_path]
"""


def run_bare(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", HIDE + program], capture_output=True, text=True, cwd=ROOT)


def test_the_libraries_are_hidden():
    """Otherwise the tests below could not fail."""
    program = f"""
import importlib
for name in {ABSENT!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(error)
"""
    assert run_bare(program).stdout.splitlines() == [f"No module named '{name}'" for name in ABSENT]


def test_modules_of_the_accelerator_script_are_imported():
    program = f"""
import importlib
for module in {MODULES!r}:
    try:
        importlib.import_module(module)
    except ImportError as error:
        import traceback
        print(module, ":", error, "imported by", traceback.extract_tb(error.__traceback__)[-2].filename)
"""
    finished = run_bare(program)
    assert finished.stderr == ""
    assert finished.stdout == ""


def test_a_space_is_read_from_a_recipe_s_options_and_built():
    program = """
import random
from spaces.encoder_shape import EncoderShape
from spaces.registry import load_space
shape = EncoderShape(num_layers=6, hidden_size=384, num_heads=12, intermediate_size=1536, vocab_size=99)
space = load_space("nas_bert", {"preset": "small"}, shape)
value = space.sample(random.Random(0))
print(sum(p.numel() for p in space.build(value).parameters()) == space.cost(value).parameters)
"""
    finished = run_bare(program)
    assert finished.stderr == ""
    assert finished.stdout == "True\n"


@pytest.mark.slow
def test_the_accelerator_script_runs_without_them():
    program = """
from tests.benchmarks.bench_accelerator import main
print("ended with", main(["--device", "cpu", "--smoke"]))
"""
    finished = run_bare(program)
    assert finished.stderr == ""
    assert finished.stdout.endswith("ended with 0\n")
