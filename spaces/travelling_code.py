"""The code of a stand-alone model as it lies in an exported folder: flat, and without a trace of the project.

Hugging Face loads a model's own code from one folder, in which files import each other as ``from .name import ...``.
At home a family's files lie in a folder of their own, and what families share in ``spaces/model_parts``. So that
nothing is written twice, files name the shared parts by their full path at home, and are rewritten when they leave.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_SHARED = re.compile(r"^from spaces\.model_parts\.(\w+) import", re.MULTILINE)
_NEIGHBOUR = re.compile(r"^from \.(\w+) import", re.MULTILINE)
_AT_HOME = re.compile(r"^\s*(?:from|import)\s+(?:(?:spaces|trainers|orchestrator|cluster)\b|\.\.).*$", re.MULTILINE)
_SHARED_FOLDER = Path(__file__).with_name("model_parts")


def travelling_files(entries: Iterable[Path]) -> dict[str, str]:
    """All that a model's files need of the project, ready to be written into one folder.

    Args:
        entries: the files that are loaded by name, such as a family's configuration, encoder and heads.

    Returns:
        The text of each file by its name, in alphabetical order.

    Raises:
        ValueError: a file imports more of the project than its neighbours and the shared parts, or two files that
            travel together have one name.
    """
    sources: dict[str, Path] = {}
    texts: dict[str, str] = {}
    waiting = list(entries)
    while waiting:
        file = waiting.pop()
        if sources.setdefault(file.name, file) != file:
            raise ValueError(f"{file}: a model that takes it along takes {sources[file.name]} too; rename one of them")
        if file.name in texts:
            continue
        text = file.read_text(encoding="utf-8")
        waiting += [file.with_name(f"{name}.py") for name in _NEIGHBOUR.findall(text)]
        waiting += [_SHARED_FOLDER / f"{name}.py" for name in _SHARED.findall(text)]
        texts[file.name] = _SHARED.sub(r"from .\1 import", text)
        stays = _AT_HOME.search(texts[file.name])
        if stays:
            raise ValueError(f"{file}: travels with exported models, but has '{stays.group().strip()}'")
    return dict(sorted(texts.items()))
