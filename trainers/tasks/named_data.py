"""Task data as the library ``datasets`` names it: a data set of the Hugging Face hub, or a folder that it can read.

A name or folder may offer several configurations (GLUE has one a task). The one that is named counts, then that of the
task, then the only one there is. Without a network the hub is given up after seconds, and the copy in the cache is
taken if there is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.hub import look_up, only_the_cache
from trainers.errors import TrainingInputError

PREFIX = "dataset:"


@dataclass(frozen=True)
class NamedData:
    """One configuration of a data set.

    Attributes:
        name: on the hub, or a folder.
        configuration: as the person wrote it; empty for what suits the task.
        suitable: configurations that suit the task, best first.
        where: how messages begin: the key and the task.
    """

    name: str
    configuration: str
    suitable: Sequence[str]
    where: str

    @property
    def is_local(self) -> bool:
        """Whether it is a folder on this machine."""
        return self.name.startswith((".", "~", "/")) or Path(self.name).is_dir()

    @property
    def _source(self) -> str:
        return str(Path(self.name).expanduser()) if self.is_local else self.name

    def splits(self) -> list[str]:
        """Names of its splits."""
        from datasets import get_dataset_split_names

        with self._reached():
            return list(map(str, get_dataset_split_names(self._source, self.chosen())))

    def columns(self) -> list[str]:
        """Names of its columns, without reading rows; empty where they are known only from the rows."""
        from datasets import load_dataset_builder

        with self._reached():
            return list(load_dataset_builder(self._source, self.chosen()).info.features or ())

    def rows(self, split: str) -> Any:
        """The rows of a split, a ``datasets.Dataset``.

        Raises:
            TrainingInputError: there is no such data set, configuration or split, or it cannot be read.
        """
        from datasets import load_dataset

        found = self.splits()
        if split not in found:
            raise TrainingInputError(
                f"{self.where}: the data set '{self.name}' has no split '{split}', it has {', '.join(found)}"
            )
        with self._reached():
            return load_dataset(self._source, self.chosen(), split=split)

    def chosen(self) -> str:
        """The configuration that is read.

        Raises:
            TrainingInputError: it is not there, or the task has none of its own among several.
        """
        offered = self._offered()
        if self.configuration:
            if self.configuration in offered:
                return self.configuration
            raise TrainingInputError(
                f"{self.where}: the data set '{self.name}' has no configuration '{self.configuration}', it has "
                f"{', '.join(offered)}"
            )
        for name in self.suitable:
            if name in offered:
                return name
        if len(offered) == 1:
            return offered[0]
        raise TrainingInputError(
            f"{self.where}: the data set '{self.name}' has the configurations {', '.join(offered)}; name one: "
            f"{PREFIX}{self.name}:{offered[0]}"
        )

    def _offered(self) -> list[str]:
        from datasets import get_dataset_config_names

        with self._reached():
            return list(map(str, get_dataset_config_names(self._source)))

    def fingerprint(self) -> str:
        """A hash that changes with the files of a folder; of the hub, the name."""
        digest = hashlib.sha256(repr((self.name if not self.is_local else "", self.configuration)).encode())
        if self.is_local:
            root = Path(self._source)
            for file in sorted(file for file in root.rglob("*") if file.is_file()):
                inside = file.relative_to(root)
                if not any(part.startswith(".") for part in inside.parts):
                    digest.update(str(inside).encode())
                    digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """What the library needs to read the data set, and its errors as lines for a person."""
        from datasets.utils import disable_progress_bars

        disable_progress_bars()
        if self.is_local and not Path(self._source).is_dir():
            raise TrainingInputError(
                f"{self.where}: '{self.name}' is not a folder; expected one that datasets.load_dataset reads, or a "
                f"name on the hub such as nyu-mll/glue"
            )
        answer = "" if self.is_local else look_up(self.name, "dataset")
        if answer == "absent":
            raise TrainingInputError(
                f"{self.where}: the hub has no data set '{self.name}' (or it is private); check its name, such as "
                f"nyu-mll/glue, or name a folder"
            )
        try:
            with only_the_cache(answer == "unreachable"):
                yield
        except TrainingInputError:
            raise
        except Exception as error:
            if answer == "unreachable":
                raise TrainingInputError(
                    f"{self.where}: the data set '{self.name}' cannot be loaded: the hub cannot be reached and the "
                    f"cache has no copy; check name and network, or name a folder"
                ) from error
            line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
            kind = "folder" if self.is_local else "data set"
            raise TrainingInputError(
                f"{self.where}: the {kind} '{self.name}' cannot be loaded: {line}; expected what "
                f"datasets.load_dataset reads, such as Parquet, CSV or JSON files named after their splits"
            ) from error
