"""The run folder: where everything of a run lies, and what says how far it is."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cluster.storage import write_atomically
from orchestrator.errors import UserError
from orchestrator.recipe import Recipe, resolved_yaml, signature
from orchestrator.results.place import REMEMBERED_AS, examine_place, place_of, settle_place
from orchestrator.results.storage import Folder

FORMAT_VERSION = 2
"""Raised when older versions could misread a run folder: they would look for tables that lie elsewhere in it."""

SUPERNET_FILE, DISTRIBUTION_FILE = "supernet.safetensors", "distribution.safetensors"

_FORMAT_OF_RUNS_IN_ONE_FOLDER = 1


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage leaves behind.

    Attributes:
        signature: of what it depended on.
        detail: what it did, in one line.
        seconds: wall-clock time.
        outputs: plain values that later stages read.
    """

    signature: str
    detail: str
    seconds: float
    outputs: Mapping[str, Any] = field(default_factory=dict)


class RunDirectory:
    """The folder of one run.

    Args:
        path: the folder; need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @property
    def results(self) -> Folder:
        """The Parquet tables: in this folder, or behind the URL that the run was started with.

        Raises:
            UserError: ``run.json`` is damaged, or nobody can open the URL it remembers.
        """
        return place_of(self.path)

    @property
    def teacher(self) -> Path:
        """The teacher as a Hugging Face folder."""
        return self.path / "teacher"

    @property
    def corpus(self) -> Path:
        """Packed training text."""
        return self.path / "corpus" / "train"

    @property
    def validation(self) -> Path:
        """Packed held-out text."""
        return self.path / "corpus" / "validation"

    @property
    def supernet_weights(self) -> Path:
        """Weights of the trained supernet."""
        return self.path / "supernet" / SUPERNET_FILE

    @property
    def start(self) -> Path:
        """What the student was like that a one-shot search started at: its configuration, without weights."""
        return self.path / "start"

    @property
    def distribution(self) -> Path:
        """What a one-shot search has learned of which paths to draw: log-odds by name."""
        return self.path / "supernet" / DISTRIBUTION_FILE

    def lambda_folder(self, number: int) -> Path:
        """What the one-shot search with one of the recipe's other lambdas left: weights and distribution."""
        return self.path / "lambdas" / str(number)

    def phase_supernet(self, phase: str) -> Path:
        """Weights of the supernet that a phase of the search trained for itself."""
        return self.path / f"supernet.{phase}" / SUPERNET_FILE

    def tuned_supernet(self, phase: str) -> Path:
        """Weights of a phase's supernet after its tuning on tasks."""
        return self.path / f"tuning.{phase}" / SUPERNET_FILE

    def tuned_heads(self, phase: str) -> Path:
        """Weights of the tasks' heads that were tuned with it."""
        return self.path / f"tuning.{phase}" / "heads.safetensors"

    @property
    def alive(self) -> Path:
        """Which architectures of each block survived progressive shrinking."""
        return self.path / "supernet" / "alive.npz"

    @property
    def training(self) -> Path:
        """Checkpoints of the trainings."""
        return self.path / "training"

    def search(self, stage_signature: str) -> Path:
        """State files of a search."""
        return self.path / "search" / stage_signature

    def student(self, label: str) -> Path:
        """A student before its distillation."""
        return self.path / "students" / label

    @property
    def models(self) -> Path:
        """The finished models, a folder each."""
        return self.path / "models"

    def model(self, label: str) -> Path:
        """A finished model."""
        return self.models / label

    @property
    def finetuned(self) -> Path:
        """Models tuned on tasks, as far as they are kept: a folder a model, task and seed."""
        return self.path / "finetuned"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    def check(self, recipe: Recipe) -> None:
        """Make sure that this folder is new, empty, or a run of the same recipe, whose tables are where that says.

        Raises:
            UserError: it is something else, belongs to another recipe, or was made by a newer version; or the tables
                may not be at the recipe's URL (see :func:`orchestrator.results.place.examine_place`).
            RunError: the storage behind that URL cannot be reached.
        """
        described = self.read()
        if described is None:
            foreign = [path.name for path in self._entries() if not path.name.startswith(".")]
            if foreign:
                raise UserError(
                    f"run folder {self.path}: found files of something else ({', '.join(sorted(foreign)[:3])}), "
                    f"expected a new or empty folder or a run; choose another --run-dir"
                )
            described = {}
        elif described["recipe"] != recipe.name:
            raise UserError(
                f"run folder {self.path}: it was made by the recipe '{described['recipe']}', not '{recipe.name}'; "
                f"choose another --run-dir"
            )
        examine_place(self.path, recipe.results.url, described, described.get("run_id"))

    def read(self) -> dict[str, Any] | None:
        """What ``run.json`` says; ``None`` for a folder that has none.

        Raises:
            UserError: it is damaged, or of a newer format.
        """
        file = self.path / "run.json"
        if not file.is_file():
            return None
        try:
            described: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            format_version = int(described["format_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(file, error) from error
        if format_version > FORMAT_VERSION:
            raise UserError(
                f"run folder {self.path}: it was made by netsuke {described.get('netsuke_version')} (format "
                f"{format_version}), newer than this one (format {FORMAT_VERSION}); upgrade netsuke or choose another "
                f"--run-dir"
            )
        missing = [name for name in ("run_id", "recipe", "attempt") if name not in described]
        if missing or not isinstance(described["attempt"], int):
            raise _damaged(file, f"no {missing[0]}" if missing else f"attempt: {described['attempt']!r}")
        return described

    def open(self, recipe: Recipe) -> dict[str, Any]:
        """Start or continue the run: settle where its tables lie, count the attempt and store the resolved recipe.

        Returns:
            What ``run.json`` says now.

        Raises:
            UserError: as :meth:`check` about the tables' place.
            RunError: the tables' storage cannot be reached or written to; the folder is as it was.
        """
        before = self.read() or {}
        run_id = before.get("run_id") or f"{recipe.name}-{uuid.uuid4().hex[:8]}"
        url = settle_place(self.path, recipe.results.url, before, run_id)
        described = {
            "format_version": _FORMAT_OF_RUNS_IN_ONE_FOLDER if url is None else FORMAT_VERSION,
            "run_id": run_id,
            "recipe": recipe.name,
            "recipe_signature": signature(recipe),
            "teacher": recipe.teacher.source,
            "attempt": before.get("attempt", 0) + 1,
            "netsuke_version": version("netsuke"),
            REMEMBERED_AS: url,
        }
        self.path.mkdir(parents=True, exist_ok=True)
        # First what makes the folder a run's: one that holds anything else without it counts as somebody else's.
        write_atomically(self.path / "run.json", json.dumps(described, indent=2) + "\n")
        write_atomically(self.path / "recipe.yaml", resolved_yaml(recipe))
        return described

    def stage_record(self, name: str) -> StageRecord | None:
        """What the stage left when it finished; ``None`` if it has not."""
        file = self._stage_file(name)
        if not file.is_file():
            return None
        try:
            return StageRecord(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            return None

    def write_stage_record(self, name: str, record: StageRecord) -> None:
        """Remember that a stage finished."""
        write_atomically(self._stage_file(name), json.dumps(asdict(record), indent=2) + "\n")

    def forget_stage_record(self, name: str) -> None:
        """The stage begins anew: what it left before is not to be relied on from here on."""
        self._stage_file(name).unlink(missing_ok=True)

    def _stage_file(self, name: str) -> Path:
        return self.path / "stages" / f"{name}.json"

    def _entries(self) -> list[Path]:
        return list(self.path.iterdir()) if self.path.is_dir() else []


def _damaged(file: Path, problem: object) -> UserError:
    return UserError(f"{file}: cannot be read ({problem}); restore it, or choose another --run-dir")
