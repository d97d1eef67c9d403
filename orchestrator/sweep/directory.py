"""The folder of a sweep: an ordinary run folder for each space, a folder for each member, the sweep's own tables."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cluster.storage import write_atomically
from orchestrator.errors import UserError
from orchestrator.recipe.yaml_text import dump
from orchestrator.results.place import REMEMBERED_AS, examine_place, place_of, settle_place
from orchestrator.results.storage import Folder
from orchestrator.sweep.settings import Sweep

FORMAT_VERSION = 2
"""Raised when older versions could misread a sweep's folder: they would look for tables that lie elsewhere in it."""

_FORMAT_OF_SWEEPS_IN_ONE_FOLDER = 1


@dataclass(frozen=True)
class MemberRecord:
    """What a finished member leaves.

    Attributes:
        seconds: wall-clock time of its search, all starts together.
    """

    seconds: float


class SweepDirectory:
    """The folder of one sweep.

    Args:
        path: the folder; need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @property
    def results(self) -> Folder:
        """The tables ``evaluations`` and ``sweeps``: in this folder, or behind the URL that the sweep started with.

        Raises:
            UserError: ``sweep.json`` is damaged, or nobody can open the URL it remembers.
        """
        return place_of(self.path)

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    def run(self, space: str) -> Path:
        """The run folder in which a space's supernet is trained."""
        return self.path / "spaces" / space

    def member(self, known_as: str) -> Path:
        """The folder of a member: its search's state, and its record once it is finished."""
        return self.path / "members" / known_as

    def check(self, sweep: Sweep) -> None:
        """Make sure that this folder is new, empty, or of the same sweep, whose tables are where that says.

        Raises:
            UserError: it is something else, belongs to another sweep, or was made by a newer version; or the tables
                may not be at the sweep's URL (see :func:`orchestrator.results.place.examine_place`).
            RunError: the storage behind that URL cannot be reached.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--run-dir {self.path}: found a file, expected a folder or a new name")
        described = self._described()
        if described is None:
            entries = list(self.path.iterdir()) if self.path.is_dir() else []
            foreign = sorted(entry.name for entry in entries if not entry.name.startswith("."))
            if foreign:
                raise UserError(
                    f"sweep folder {self.path}: found files of something else ({', '.join(foreign[:3])}), expected a "
                    f"new or empty folder or a sweep; choose another --run-dir"
                )
        elif described["sweep"] != sweep.name:
            raise UserError(
                f"sweep folder {self.path}: it was made by the sweep '{described['sweep']}', not '{sweep.name}'; "
                f"choose another --run-dir"
            )
        examine_place(self.path, sweep.results.url, described or {}, (described or {}).get("sweep_id"))

    def open(self, sweep: Sweep) -> str:
        """Start or continue the sweep: settle where its tables lie, and store its settings; returns its id.

        Raises:
            UserError: as :meth:`check` about the tables' place.
            RunError: the tables' storage cannot be reached or written to; the folder is as it was.
        """
        before = self._described() or {}
        sweep_id = str(before.get("sweep_id") or f"{sweep.name}-{uuid.uuid4().hex[:8]}")
        url = settle_place(self.path, sweep.results.url, before, sweep_id)
        described = {
            "format_version": _FORMAT_OF_SWEEPS_IN_ONE_FOLDER if url is None else FORMAT_VERSION,
            "sweep_id": sweep_id,
            "sweep": sweep.name,
            "netsuke_version": version("netsuke"),
            REMEMBERED_AS: url,
        }
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "sweep.json", json.dumps(described, indent=2) + "\n")
        write_atomically(self.path / "sweep.yaml", dump(sweep.model_dump(mode="json")))
        return sweep_id

    def finished(self, known_as: str) -> MemberRecord | None:
        """The record of a finished member; ``None`` if it has not finished."""
        try:
            return MemberRecord(**json.loads((self.member(known_as) / "finished.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def has_begun(self, known_as: str) -> bool:
        """Whether an unfinished member has a state to go on from."""
        return any(self.member(known_as).glob("state-*.json"))

    def finish(self, known_as: str, seconds: float, keep_experiment: bool = False) -> None:
        """Remember that a member finished; what served to go on with it goes, Ray Tune's experiments if not kept."""
        folder = self.member(known_as)
        write_atomically(folder / "finished.json", json.dumps(asdict(MemberRecord(seconds))) + "\n")
        for left in (*folder.glob("state-*.json"), folder / "seconds.json"):
            left.unlink(missing_ok=True)
        if not keep_experiment:
            shutil.rmtree(folder / "tune", ignore_errors=True)

    def spent(self, known_as: str) -> float:
        """Seconds that earlier starts of an unfinished member took, as far as they could be noted."""
        try:
            return float(json.loads((self.member(known_as) / "seconds.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return 0.0

    def note_spent(self, known_as: str, seconds: float) -> None:
        """Note what an unfinished member took so far."""
        write_atomically(self.member(known_as) / "seconds.json", json.dumps(seconds) + "\n")

    def _described(self) -> Mapping[str, Any] | None:
        file = self.path / "sweep.json"
        if not file.is_file():
            return None
        try:
            described: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            newer = int(str(described["format_version"])) > FORMAT_VERSION
            described["sweep"], described["sweep_id"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}: cannot be read ({error}); restore it, or choose another --run-dir") from error
        if newer:
            made_by = described.get("netsuke_version")
            raise UserError(f"sweep folder {self.path}: netsuke {made_by}, which is newer, made it; upgrade netsuke")
        return described
