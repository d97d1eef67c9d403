"""A run folder with real tables, and the command as a person calls it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import execute
from orchestrator.results import ResultsWriter


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of an error, without the program's name."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("netsuke: "), self.err
        return lines[0].removeprefix("netsuke: ")


def call_here(*arguments: object) -> Answer:
    """Run a command line in this process, also in fixtures of whole modules."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = execute([str(argument) for argument in arguments])
    return Answer(code, out.getvalue(), err.getvalue())


@pytest.fixture
def netsuke(capsys):
    """Run a command line in this process."""

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        code = execute([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture
def netsuke_process(tmp_path):
    """Start a command line in a process of its own, in an empty folder."""

    def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
        code = "from orchestrator.cli.main import entry_point; entry_point()"
        command = [sys.executable, "-c", code, *map(str, arguments)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen(command, cwd=tmp_path, text=True, **streams)

    return start


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """A run folder with three training rows and two evaluations."""
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    with ResultsWriter(folder / "results", "run-1") as writer:
        for step in (10, 20, 30):
            writer.append("training", stage="supernet", subject="supernet", block=0, step=step, loss=1 / step)
        for number, name in enumerate(("E8|8:M-F", "E8|8:F")):
            writer.append(
                "evaluations", arch_id=f"a{number}", architecture=name, genes={"layers": str(2 - number)}, loss=0.5
            )
    return folder
