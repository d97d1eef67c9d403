"""The command as a process: how fast it answers, and what it does when its output is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "ray", "transformers", "pandas", "pyarrow", "optuna", "plotly", "duckdb", "datasets"}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--list"], ["space", "list"], ["run", "nope"]])
def test_quick_answers_load_nothing_heavy(arguments):
    code = (
        "import sys; from orchestrator.cli.main import execute; execute(sys.argv[1:]);"
        f"print('heavy:', sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "heavy: []"


def test_exit_codes_reach_the_shell(netsuke_process):
    process = netsuke_process("space", "show", "nothing")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith("netsuke: space.name: found 'nothing'")
    assert err.count("\n") == 1


def test_a_reader_that_closes_early_is_no_news(netsuke_process):
    process = netsuke_process("space", "show", "nas_bert")
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_output_that_cannot_be_written_is_one_line(netsuke_process):
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device, not a path of ours
        process = netsuke_process("space", "list", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "netsuke: No space left on device\n"
