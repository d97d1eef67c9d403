"""Where the rows of a task come from: Parquet folders laid out by task, or data sets as ``datasets`` names them.

Rows of the task ``authors`` come with netsuke (:mod:`trainers.tasks.authors`), wherever the others' are.

A folder holds ``<task's folder>/<split>*.parquet``, such as ``glue/sst2/train.parquet`` or
``squad_v1/validation-00000-of-00001.parquet``, with the columns that the data sets have on the hub.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainers.errors import TrainingInputError
from trainers.tasks import authors
from trainers.tasks.catalogue import Task
from trainers.tasks.named_data import PREFIX, NamedData

HUB = "hub"
TRAIN = "train"
Columns = Mapping[str, list[Any]]
"""The rows of a split, by column."""

_OPTIONAL = ("answer_start_unique", "id")


@dataclass(frozen=True)
class TaskSource:
    """Where task data is.

    Attributes:
        data: a folder; ``hub`` for each task's own data set there; or ``dataset:<name or folder>[:<configuration>]``
            for one data set, of the hub or in a folder that ``datasets`` reads. Without a configuration each task takes
            its own, such as ``rte``, or the only one there is.
        train_data: for tasks whose training rows are elsewhere: task name to a folder within ``data`` (all of its
            Parquet files, or ``folder/prefix`` for those whose names begin so); where ``data`` is no folder of Parquet
            files, to ``<name or folder>[:<configuration>]``.
        key: what the person wrote the folder for, for error messages.
    """

    data: str = HUB
    train_data: Mapping[str, str] = field(default_factory=dict)
    key: str = "data"

    @property
    def is_folder(self) -> bool:
        """Whether the data lies in a folder of Parquet files laid out by task."""
        return self.data != HUB and not self.data.startswith(PREFIX)

    def named(self, task: Task, split: str) -> NamedData:
        """The data set that a split is read from, where the data is no folder of Parquet files."""
        elsewhere = self.train_data.get(task.name) if split == TRAIN else None
        text = elsewhere or ("" if self.data == HUB else self.data.removeprefix(PREFIX))
        name, _, configuration = text.partition(":") if text else (task.hub[0], "", task.hub[1])
        suitable = [name for name in (task.hub[1], task.name) if name]
        return NamedData(name, configuration, suitable, f"{self.key}: task '{task.name}'")

    def has(self, task: Task, split: str) -> bool:
        """Whether there are rows of a split; the tasks' own data sets on the hub are taken to be complete."""
        if task.bundled:
            return split in authors.ROWS_OF_AN_AUTHOR
        if self.is_folder:
            return bool(self._found(task, split))
        return self.data == HUB or split in self.named(task, split).splits()

    def check(self, task: Task, train: bool = True) -> None:
        """Make sure that everything a task needs is there, with its columns, without reading rows.

        Data sets of the hub are not looked up: the network may come later.

        Args:
            task: the task.
            train: whether its training split is needed too.

        Raises:
            TrainingInputError: a folder, split or column is missing.
        """
        if task.bundled:
            if task.name in self.train_data:
                raise TrainingInputError(
                    f"{self._train_key(task, self.train_data[task.name])}: found a folder for a task whose rows come "
                    f"with netsuke, expected none; leave it away"
                )
            return
        splits = [split.name for split in task.dev_splits if split.required] + [TRAIN] * train
        if not self.is_folder:
            for split in splits:
                self._check_named(task, split)
            return
        for split in splits:
            for file in self.files(task, split):
                self._check_columns(task, file, _schema(file, self.key).names)

    def _check_named(self, task: Task, split: str) -> None:
        named = self.named(task, split)
        if not named.is_local:
            return
        if split not in (found := named.splits()):
            raise TrainingInputError(f"{named.where}: '{named.name}' has no split '{split}', it has {', '.join(found)}")
        if columns := named.columns():
            self._check_columns(task, Path(named.name), columns)

    def files(self, task: Task, split: str) -> list[Path]:
        """The Parquet files of a split.

        Raises:
            TrainingInputError: there are none.
        """
        root = Path(self.data).expanduser()
        if not root.is_dir():
            raise TrainingInputError(
                f"{self.key}: '{self.data}' is not a folder; expected a folder of Parquet files laid out as "
                f"glue/sst2/train.parquet, {HUB}, or {PREFIX}<name or folder>"
            )
        found = self._found(task, split)
        if found:
            return found
        elsewhere = self.train_data.get(task.name) if split == TRAIN else None
        folder = root / (elsewhere or task.folder)
        splits = sorted({file.name.split("-")[0].removesuffix(".parquet") for file in folder.glob("*.parquet")})
        if not splits:
            raise TrainingInputError(
                f"{self.key}: task '{task.name}': '{folder}' has no Parquet files; expected {split}*.parquet there"
            )
        hint = f"; name a folder with training rows for it: {self._train_key(task, 'FOLDER')}" if split == TRAIN else ""
        raise TrainingInputError(
            f"{self.key}: task '{task.name}': '{folder}' has no split '{split}', it has {', '.join(splits)}{hint}"
        )

    def _train_key(self, task: Task, folder: str) -> str:
        """How a person says where a task's training rows are."""
        if self.key.startswith("--"):
            return f"--train-data {task.name}={folder}"
        return f"finetuning.train_data.{task.name}: {folder}"

    def _found(self, task: Task, split: str) -> list[Path]:
        root = Path(self.data).expanduser()
        elsewhere = self.train_data.get(task.name) if split == TRAIN else None
        if elsewhere is None:
            return _files_of_split(root / task.folder, split)
        whole = root / elsewhere
        if whole.is_dir():
            return sorted(whole.glob("train*.parquet")) or sorted(whole.glob("*.parquet"))
        return sorted(whole.parent.glob(f"{whole.name}*.parquet"))

    def _check_columns(self, task: Task, file: Path, names: Sequence[str]) -> None:
        for column in needed_columns(task):
            if column not in names:
                raise TrainingInputError(
                    f"{self.key}: task '{task.name}': '{file}' has no column '{column}'; it has {', '.join(names)}"
                )

    def fingerprint(self, task: Task) -> str:
        """A hash that changes with the data of a task; of the hub, its name."""
        if task.bundled:
            return authors.fingerprint_of(task)
        digest = hashlib.sha256(repr((self.data if not self.is_folder else "", task.folder, task.columns)).encode())
        if not self.is_folder:
            digest.update(repr((task.hub, self.train_data.get(task.name))).encode())
            if self.data != HUB:
                digest.update(self.named(task, TRAIN).fingerprint().encode())
                digest.update(self.named(task, task.dev_splits[0].name).fingerprint().encode())
            return digest.hexdigest()[:16]
        for split in (TRAIN, *(split.name for split in task.dev_splits)):
            for file in self._found(task, split):
                digest.update(f"{split}/{file.name}".encode())
                digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    def read(self, task: Task, split: str) -> Columns:
        """The rows of a split, by column.

        Args:
            task: the task.
            split: ``train`` or one of its dev splits.

        Raises:
            TrainingInputError: it cannot be read, or is empty.
        """
        if task.bundled:
            rows = authors.rows_of(task, split)
            return {task.columns[0]: [text for text, _ in rows], "label": [label for _, label in rows]}
        columns = self._read_folder(task, split) if self.is_folder else self._read_named(task, split)
        first = columns[needed_columns(task)[0]]
        if not first:
            raise TrainingInputError(f"{self.key}: task '{task.name}': split '{split}' has no rows")
        return columns

    def _read_folder(self, task: Task, split: str) -> Columns:
        tables = []
        for file in self.files(task, split):
            names = _schema(file, self.key).names
            self._check_columns(task, file, names)
            wanted = [*needed_columns(task), *(name for name in _OPTIONAL if name in names)]
            try:
                tables.append(pq.read_table(file, columns=wanted))
            except (OSError, pa.ArrowException) as error:
                raise TrainingInputError(f"{self.key}: '{file}' is damaged: {error}; write it again") from error
        table = pa.concat_tables(tables, promote_options="permissive")
        return {name: table.column(name).to_pylist() for name in table.column_names}

    def _read_named(self, task: Task, split: str) -> Columns:
        named = self.named(task, split)
        rows = named.rows(split)
        self._check_columns(task, Path(named.name), rows.column_names)
        columns = {name: list(rows[name]) for name in rows.column_names}
        if task.kind == "tagging":
            names = getattr(getattr(rows.features[task.columns[1]], "feature", None), "names", None)
            if names is not None:  # the hub has tags as numbers
                columns[task.columns[1]] = [[names[tag] for tag in tags] for tags in columns[task.columns[1]]]
        return columns


def needed_columns(task: Task) -> tuple[str, ...]:
    """The columns that a task cannot do without."""
    if task.kind == "tagging":
        return task.columns
    return (*task.columns, "answers" if task.kind == "answering" else "label")


def _files_of_split(folder: Path, split: str) -> list[Path]:
    """``train.parquet``, ``train-00000-of-00002.parquet``, ``train_1.parquet``; but no ``validation_matched``."""
    pattern = re.compile(rf"{re.escape(split)}(-.*|[_.]?\d.*)?\.parquet")
    return sorted(file for file in folder.glob(f"{split}*.parquet") if pattern.fullmatch(file.name))


def _schema(file: Path, key: str) -> pa.Schema:
    try:
        return pq.ParquetFile(file).schema_arrow
    except Exception as error:
        raise TrainingInputError(f"{key}: '{file}' is not a readable Parquet file: {error}") from error
