"""Where the tables of a run or sweep lie: in ``results/`` of its folder, or behind the URL that the folder remembers.

The first start decides: the URL of the recipe, with its placeholders filled in, is remembered in ``run.json``
(``sweep.json``), and whoever is given the folder finds the tables by it. A place belongs to one run. A later start may
name another place only if the run's rows are there already, because somebody copied them.
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.errors import RunError, UserError
from orchestrator.results.parts import read_parts
from orchestrator.results.schemas import TABLES
from orchestrator.results.storage import Folder, Place, folder_at, reason_of
from orchestrator.results_url import RESULTS_KEY, filled_in, shown_url

REMEMBERED_AS = "results_url"
"""The key of ``run.json`` and ``sweep.json`` with the URL; null where the tables lie in the folder itself."""

_DESCRIPTIONS = ("run.json", "sweep.json")
_IN_THE_FOLDER = "results"


def place_of(folder: Place) -> Folder:
    """Where the tables of a run or sweep lie; they need not be there yet.

    Args:
        folder: the run's or sweep's own; need not exist.

    Raises:
        UserError: what describes the run is damaged, or nobody can open the URL it remembers.
        OSError: the folder cannot be read.
    """
    own = folder_at(folder)
    url = _remembered_url(own)
    return own / _IN_THE_FOLDER if url is None else _opened(url)


def has_tables(place: Folder) -> bool:
    """Whether any table is at a place.

    Raises:
        OSError: the storage cannot be reached.
    """
    return any((place / name).exists() for name in TABLES)


def examine_place(folder: Path, url: str | None, described: Mapping[str, Any], run_id: str | None) -> str | None:
    """Find out, by reading alone, whether a run may have its tables where its recipe says.

    Args:
        folder: of the run or sweep; need not exist.
        url: what the recipe says, checked; ``None``: in the folder.
        described: what the folder remembers of the run; empty for a new one.
        run_id: of the run; ``None`` for one that has no id yet.

    Returns:
        The URL with its placeholders filled in.

    Raises:
        UserError: the place belongs to another run, or the run has rows elsewhere; the line names the key.
        RunError: the storage cannot be reached.
    """
    known_as = run_id or uuid.uuid4().hex
    with _naming_the_key():
        wanted = None if url is None else filled_in(url, folder.resolve().name, known_as)
        is_new = not described
        if wanted == (None if is_new else described.get(REMEMBERED_AS)):
            return wanted
        place = folder_at(folder / _IN_THE_FOLDER) if wanted is None else _opened(wanted)
        if is_new:
            _require_unused(place, known_as)
        else:
            _require_moved(folder, described.get(REMEMBERED_AS), place, known_as)
    return wanted


def settle_place(folder: Path, url: str | None, described: Mapping[str, Any], run_id: str) -> str | None:
    """As :func:`examine_place`, and a place that is about to be remembered is shown to take files.

    Raises:
        UserError: as :func:`examine_place`.
        RunError: the storage cannot be reached, or cannot be written to.
    """
    wanted = examine_place(folder, url, described, run_id)
    if wanted is not None and wanted != described.get(REMEMBERED_AS):
        with _naming_the_key():
            place = _opened(wanted)
            try:
                place.try_writing()
            except OSError as error:
                raise RunError(
                    f"{place} cannot be written to ({reason_of(error)}); correct the URL, the credentials or the "
                    f"permissions and run again"
                ) from error
    return wanted


@functools.lru_cache(maxsize=16)
def _opened(url: str) -> Folder:
    """The folder at a URL, opened once: some storages are asked for their region every time."""
    return folder_at(url)


def _remembered_url(folder: Folder) -> str | None:
    for name in _DESCRIPTIONS:
        try:
            with folder.open(name) as file:
                described = json.loads(file.read())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except ValueError as error:
            raise UserError(f"{folder}/{name}: cannot be read ({error}); restore it") from error
        url = described.get(REMEMBERED_AS) if isinstance(described, dict) else None
        return None if url is None else str(url)
    return None


def _require_unused(place: Folder, run_id: str) -> None:
    """A place without rows of other runs, which would be taken for this one's."""
    others = sorted(_runs_at(place) - {run_id})
    if others:
        raise UserError(
            f"found {place}, where the tables of {others[0]} are, expected a place of its own for each run; put "
            f"{{run_id}} into the URL, or name another one"
        )


def _require_moved(folder: Path, old_url: str | None, new: Folder, run_id: str) -> None:
    """A place to which all rows of the run were copied; any unused place, if there are none."""
    try:
        before = _counts(place_of(folder))
    except (RunError, UserError):  # with a storage that is gone nothing can be compared
        lacking = [] if run_id in _runs_at(new) else ["none of this run, as far as can be told"]
    else:
        if not any(before.values()):
            _require_unused(new, run_id)
            return
        found = _counts(new)
        lacking = [f"{name}: {found[name]} of {count}" for name, count in before.items() if found[name] < count]
    if lacking:
        here = folder / _IN_THE_FOLDER if old_url is None else shown_url(old_url)
        raise UserError(
            f"found {new}, but the rows of this run lie in {here}, and not all of them are there ({lacking[0]}); copy "
            f"them there first, or give {old_url or 'null'} as before, or choose another --run-dir"
        )


def _counts(place: Folder) -> dict[str, int]:
    """For each table, how many rows its parts hold."""
    return {name: read_parts(place / name, table, ["run_id"]).num_rows for name, table in TABLES.items()}


def _runs_at(place: Folder) -> set[str]:
    """The runs whose rows are at a place."""
    tables = (read_parts(place / name, table, ["run_id"]) for name, table in TABLES.items())
    return {run_id for rows in tables for run_id in rows.column("run_id").unique().to_pylist()}


@contextmanager
def _naming_the_key() -> Iterator[None]:
    """Put the recipe's key in front of what went wrong with the place it names."""
    try:
        yield
    except RunError as error:
        raise RunError(f"{RESULTS_KEY}: {_without_prefix(error)}") from error
    except OSError as error:
        raise RunError(f"{RESULTS_KEY}: {reason_of(error)}") from error
    except ValueError as error:
        raise UserError(f"{RESULTS_KEY}: {_without_prefix(error)}") from error


def _without_prefix(error: Exception) -> str:
    return str(error).removeprefix("results: ")
