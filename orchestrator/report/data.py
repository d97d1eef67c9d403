"""What a report is made from: the run's tables as tidy frames, and the two files that describe the run.

Everything may be missing or half done, because a report can be asked for at any time. Here, and only here, that is put
in order: every table is there (perhaps without rows), has all its columns, numbers are floats (NaN: not measured) and
texts are strings (empty: not given).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml

from orchestrator.errors import RunError, UserError
from orchestrator.phases import FOUND, SUPERNET
from orchestrator.recipe.selection import RANK_FIDELITY
from orchestrator.results import open_results
from orchestrator.results.columns import Table
from orchestrator.results.place import has_tables, place_of
from orchestrator.results.schemas import TABLES
from orchestrator.results.storage import Folder, reason_of
from orchestrator.run_directory import RunDirectory

WINNER = "winner"
UNIFORM = "uniform"
TEACHER = "teacher"
LIMIT_COLUMNS = ("max_encoder_parameters", "max_parameters", "max_flops", "max_latency_ms")
"""Columns of ``selections`` with the limits of budgets."""


@dataclass(frozen=True)
class Budget:
    """One budget of the run: its name, its limits (None: no such limit), and who is chosen (the recipe's word)."""

    name: str
    max_encoder_parameters: float | None = None
    max_latency_ms: float | None = None
    max_parameters: float | None = None
    max_flops: float | None = None
    choose: str = "loss"


@dataclass(frozen=True)
class Student:
    """One model in training: its label, the budget it belongs to and its role (either may be unknown: empty)."""

    label: str
    budget: str
    role: str


@dataclass(frozen=True)
class RunData:
    """One run, as far as it has come.

    Attributes:
        folder: the run folder.
        run_id: the run's id, or the folder's name where the run has not written one.
        recipe: the recipe's name; empty if unknown.
        teacher: the teacher's name; empty if unknown.
        netsuke_version: the version that made the run; empty if unknown.
        recipe_text: the resolved recipe as YAML; empty if there is none.
        budget_order: names of the budgets as the recipe lists them; empty if unknown.
        tables: every table of the schema by name, tidied as :func:`tidy` says.
        task_names: the tasks that the recipe compares models on; empty if unknown.
        phases: what the recipe says of each phase of its search, in order; empty where there are none, or if unknown.
        settings: the resolved recipe as plain values; empty if there is none.
        found: the text of the architecture that a one-shot training has come to; empty if there is none yet.
    """

    folder: Path
    run_id: str
    recipe: str
    teacher: str
    netsuke_version: str
    recipe_text: str
    budget_order: Sequence[str]
    tables: Mapping[str, pd.DataFrame]
    task_names: Sequence[str] = ()
    phases: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    found: str = ""

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """Whole networks that were scored, by the supernet that scored last; of a search in phases, those of the last.

        Losses of different supernets cannot be compared, so after a supernet was trained again the old ones are out.
        """
        return self.candidates_of(_name(self.phases[-1].get("name"))) if self.phases else self.candidates_of()

    def candidates_of(self, phase: str | None = None) -> pd.DataFrame:
        """Whole networks that were scored in a phase, or in all (``None``), by what scored last there."""
        rows = self.tables["evaluations"]
        rows = rows[(rows["scope"] == "network") & (rows["status"] == "ok") & rows["loss"].notna()]
        return _of_latest_supernet(rows if phase is None else rows[rows["phase"] == phase])

    @cached_property
    def block_losses(self) -> pd.DataFrame:
        """Architectures of single blocks that were scored, by the supernet that scored last, each once.

        The one on the most batches counts where an architecture was scored on several numbers of them.
        """
        rows = self.tables["block_losses"]
        latest = _of_latest_supernet(rows[rows["block"].notna() & rows["relative_loss"].notna()])
        return latest.sort_values("fidelity", kind="stable").drop_duplicates(["block", "architecture"], keep="last")

    @cached_property
    def signals(self) -> pd.DataFrame:
        """What the losses of the supernet that scored last can tell apart."""
        rows = self.tables["signals"]
        return _of_latest_supernet(rows[rows["signal"].notna()])

    @cached_property
    def selections(self) -> pd.DataFrame:
        """The candidates that selections ranked for the recipe's budgets."""
        rows = self.tables["selections"]
        return rows[rows["budget"] != RANK_FIDELITY]

    @cached_property
    def ranked_sample(self) -> pd.DataFrame:
        """The architectures that were distilled for the rank fidelity."""
        rows = self.tables["selections"]
        return rows[(rows["budget"] == RANK_FIDELITY) & (rows["proxy"] == "")]

    @cached_property
    def agreements(self) -> pd.DataFrame:
        """How well each proxy ranked, one row a proxy."""
        rows = self.tables["selections"]
        return rows[(rows["budget"] == RANK_FIDELITY) & (rows["proxy"] != "")]

    @cached_property
    def budgets(self) -> list[Budget]:
        """The budgets that selections or models name: in the recipe's order, where it has none the largest first."""
        selections = self.selections
        choices = _budget_choices(self.settings)
        limits = {
            str(name): Budget(
                str(name),
                **{column: _largest(rows[column]) for column in LIMIT_COLUMNS},
                choose=choices.get(str(name), Budget.choose),
            )
            for name, rows in selections.groupby("budget", sort=False)
        }
        for name in self.tables["models"]["budget"]:
            if name:
                limits.setdefault(name, Budget(name, choose=choices.get(name, Budget.choose)))
        places = {name: place for place, name in enumerate(self.budget_order)}
        return sorted(
            limits.values(), key=lambda budget: (places.get(budget.name, len(places)), *_largest_first(budget))
        )

    @cached_property
    def students(self) -> dict[str, Student]:
        """Every student that has a model or a training curve, by label."""
        models, selections = self.tables["models"], self.selections
        known = {
            row["model"]: Student(row["model"], row["budget"], row["role"])
            for row in records(models)
            if row["role"] != TEACHER
        }
        chosen = selections[selections["chosen"]]
        winners = dict(zip(chosen["arch_id"], chosen["budget"], strict=True))
        training = self.tables["training"]
        trained = training[training["stage"] == "distillation"].drop_duplicates("subject")
        for row in records(trained):
            known.setdefault(row["subject"], self._guess_student(row["subject"], row["arch_id"], winners))
        return known

    def _guess_student(self, label: str, arch_id: str, winners: Mapping[str, str]) -> Student:
        """A student in training has no row in ``models`` yet: its label and its architecture tell what it is."""
        if UNIFORM not in label and arch_id in winners:
            return Student(label, winners[arch_id], WINNER)
        named = [budget.name for budget in self.budgets if budget.name in label]
        budget = max(named, key=len, default="")
        return Student(label, budget, UNIFORM if UNIFORM in label else "")


def load(run_dir: Path) -> RunData:
    """Read what there is of a run.

    Raises:
        UserError: there is no such folder, or a file in it cannot be understood.
        RunError: the storage of its tables cannot be reached.
    """
    if not run_dir.is_dir():
        found = "a file" if run_dir.exists() else "nothing"
        raise UserError(f"run folder {run_dir}: found {found} there, expected a folder written by `netsuke run`")
    about = _read_about(run_dir / "run.json")
    recipe_path = run_dir / "recipe.yaml"
    recipe_text = recipe_path.read_text(encoding="utf-8") if recipe_path.is_file() else ""
    recipe = _parse_recipe(recipe_path, recipe_text)
    return RunData(
        folder=run_dir,
        run_id=_name(about.get("run_id")) or run_dir.resolve().name,
        recipe=_name(about.get("recipe")) or _name(recipe.get("name")),
        teacher=_teacher_name(_name(about.get("teacher")) or _name(recipe.get("teacher"))),
        netsuke_version=_name(about.get("netsuke_version")),
        recipe_text=recipe_text,
        budget_order=_budget_order(recipe),
        tables=_read_tables(place_of(run_dir)),
        task_names=_task_names(recipe),
        phases=_phases(recipe),
        settings=recipe,
        found=_found(run_dir),
    )


def tidy(frame: pd.DataFrame, table: Table) -> pd.DataFrame:
    """``frame`` with the columns of ``table``, in few kinds: numbers, texts, flags and times.

    Args:
        frame: rows of the table; columns may be missing.
        table: what the columns mean.

    Returns:
        A new frame with a fresh index: numbers are float64 with NaN for "not measured" (also for infinities, which no
        axis can show), texts are str with "" for "not given", flags are bool, times are as they were, and maps are left
        out.
    """
    columns: dict[str, Any] = {}
    for column in table.columns:
        if pa.types.is_map(column.type):
            continue
        values = frame[column.name] if column.name in frame else pd.Series([None] * len(frame), dtype=object)
        values = values.reset_index(drop=True)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            numbers = pd.to_numeric(values, errors="coerce").astype("float64")
            columns[column.name] = numbers.where(numbers.abs() != float("inf"))
        elif pa.types.is_boolean(column.type):
            columns[column.name] = values.fillna(False).astype(bool)
        elif pa.types.is_string(column.type):
            columns[column.name] = values.fillna("").astype(str)
        else:
            columns[column.name] = values
    return pd.DataFrame(columns)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dictionaries, by column."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _read_tables(place: Folder) -> dict[str, pd.DataFrame]:
    """Every table of the run; one that has not got that far has empty ones."""
    try:
        results = open_results(place) if has_tables(place) else None
    except OSError as error:
        raise RunError(f"results: {place} cannot be reached ({reason_of(error)})") from error
    frames = {}
    for name, table in TABLES.items():
        # Maps (the genes) are shown nowhere, and cost more to read than all other columns together.
        columns = [column.name for column in table.columns if not pa.types.is_map(column.type)]
        frames[name] = tidy(results.frame(name, columns) if results is not None else pd.DataFrame(), table)
    return frames


def _read_about(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path}: expected JSON, found something else ({error}); restore the file or delete it"
        ) from error
    return about if isinstance(about, dict) else {}


def _parse_recipe(path: Path, text: str) -> dict[str, Any]:
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: expected YAML, found something else ({reason}); restore the file") from error
    return recipe if isinstance(recipe, dict) else {}


def _found(run_dir: Path) -> str:
    """What the stage of the supernet has left of a one-shot search."""
    record = RunDirectory(run_dir).stage_record(SUPERNET)
    return "" if record is None else _name(record.outputs.get(FOUND))


def _named_budgets(recipe: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    budgets = recipe.get("budgets")
    if not isinstance(budgets, list):
        return []
    return [budget for budget in budgets if isinstance(budget, dict) and "name" in budget]


def _budget_order(recipe: Mapping[str, Any]) -> list[str]:
    return [str(budget["name"]) for budget in _named_budgets(recipe)]


def _budget_choices(recipe: Mapping[str, Any]) -> dict[str, str]:
    """How the winner of each budget is chosen."""
    return {str(budget["name"]): _name(budget.get("choose")) or Budget.choose for budget in _named_budgets(recipe)}


def _task_names(recipe: Mapping[str, Any]) -> list[str]:
    section = recipe.get("finetuning")
    names = section.get("tasks") if isinstance(section, dict) else None
    return list(map(str, names)) if isinstance(names, list) else []


def _phases(recipe: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed = recipe.get("phases")
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _name(value: object) -> str:
    """A name, whether it is given as text or as a section that contains one."""
    if isinstance(value, dict):
        keys = ("name", "model", "source", "id", "path", "package")
        return next((str(value[key]) for key in keys if value.get(key)), "")
    return "" if value is None else str(value)


def _teacher_name(source: str) -> str:
    """A teacher's source without what only says where it lies: "package:" or the folders above it."""
    source = source.removeprefix("package:")
    return Path(source).name if Path(source).is_absolute() else source


def _of_latest_supernet(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that belong to the supernet whose rows were recorded last."""
    if rows.empty:
        return rows
    rows = rows.sort_values("recorded_at", kind="stable")
    latest: pd.DataFrame = rows[rows["supernet_signature"] == rows["supernet_signature"].iloc[-1]]
    return latest.reset_index(drop=True)


def _largest(values: pd.Series) -> float | None:
    present = values.dropna()
    return None if present.empty else float(present.max())


def _largest_first(budget: Budget) -> tuple[Any, ...]:
    """Sorts by parameters, then the other limits, all falling; budgets without a limit come first."""
    limits = (getattr(budget, column) for column in LIMIT_COLUMNS)
    return (*(float("-inf") if limit is None else -limit for limit in limits), budget.name)
