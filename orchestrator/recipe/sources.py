"""How a recipe names teachers and texts: ``package:``, ``bundled:``, ``dataset:``, hub ids and paths."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Final

PRETRAIN = "pretrain"
"""The source of a teacher that the run trains itself."""
TUNED: Final = "tuned"
"""The teacher of a task that the run tunes itself."""

_PREFIX = re.compile(r"(?P<prefix>[A-Za-z_]{2,}):(?!//)")
_TEACHER_PREFIXES = {"package": "package:<installed distribution>"}
_CORPUS_PREFIXES = {"bundled": "bundled:<name>", "dataset": "dataset:<name>[:<config>]"}


def check_teacher_source(value: Any) -> str:
    """Validate the form of a teacher's source; whether it exists is the trainers' business.

    Raises:
        ValueError: not text, or an unknown prefix; the message says what was expected.
    """
    return _check(value, _TEACHER_PREFIXES, f"a Hugging Face id, a folder, or {PRETRAIN}")


def check_corpus_source(value: Any) -> str:
    """Validate the form of a corpus' source; whether it exists is the trainers' business.

    Raises:
        ValueError: not text, or an unknown prefix; the message says what was expected.
    """
    return _check(value, _CORPUS_PREFIXES, "a .txt or .parquet file or a folder")


def resolve_teacher_source(source: str, folder: Path) -> str:
    """Make a folder absolute, starting at ``folder``; packages and hub ids stay as they are.

    A plain ``name`` or ``owner/name`` is a folder only where such a folder exists: otherwise it is a hub id.
    """
    if _PREFIX.match(source) or source == PRETRAIN:
        return source
    path = Path(source).expanduser()
    if source.startswith((".", "~", "/")) or (folder / path).is_dir():
        return str((folder / path).resolve())
    return source


def resolve_task_teacher(source: str, folder: Path) -> str:
    """As :func:`resolve_teacher_source`; ``tuned`` is no folder, even where there is one of that name."""
    return source if source == TUNED else resolve_teacher_source(source, folder)


def resolve_corpus_source(source: str, folder: Path) -> str:
    """Make a path absolute, starting at ``folder``; bundled corpora and datasets stay as they are."""
    return source if _PREFIX.match(source) else str((folder / Path(source).expanduser()).resolve())


def resolve_path(source: str, folder: Path) -> str:
    """Make a path absolute, starting at ``folder``."""
    return str((folder / Path(source).expanduser()).resolve())


def resolve_task_data(source: str, folder: Path) -> str:
    """Make the path of a folder absolute, starting at ``folder``, also behind ``dataset:``; hub names stay."""
    if source == "hub":
        return source
    match = _PREFIX.match(source)
    if match is None or match["prefix"] != "dataset":
        return resolve_path(source, folder)
    name, mark, configuration = source[match.end() :].partition(":")
    return f"{match.group()}{resolve_teacher_source(name, folder)}{mark}{configuration}"


def _check(value: Any, prefixes: dict[str, str], otherwise: str) -> str:
    expected = f"{', '.join(prefixes.values())}, {otherwise}"
    if not isinstance(value, str):
        raise ValueError(f"found {'nothing' if value is None else repr(value)}, expected {expected}")
    if not value.strip() or "\0" in value or "\n" in value:
        raise ValueError(f"found {value!r}, expected {expected}")
    match = _PREFIX.match(value)
    if match is None:
        return value
    prefix = match["prefix"]
    if prefix not in prefixes:
        close = difflib.get_close_matches(prefix.lower(), prefixes, n=1)
        hint = f"; did you mean '{close[0]}:'?" if close else ""
        raise ValueError(f"found {value!r}, expected {expected}{hint}")
    if not value[match.end() :].strip():
        raise ValueError(f"found {value!r}, expected {prefixes[prefix]}")
    return value
