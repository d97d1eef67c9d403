"""YAML files that come with netsuke, by name, and those of users, by path: recipes and sweeps are found alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.recipe.keys import nearest
from orchestrator.recipe.problems import describe_value
from orchestrator.recipe.yaml_text import Document, YamlTextError, parse_document

_LARGEST_FILE = 1_000_000
_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe (or sweep) that comes with netsuke: its name and its one-line description."""

    name: str
    description: str


@dataclass(frozen=True)
class FoundFile:
    """A file that was found and parsed.

    Attributes:
        document: its text as values, with the lines of its keys.
        shown: what errors call the file.
        folder: where its relative paths start.
        stem: the default of its name.
    """

    document: Document
    shown: str
    folder: Path
    stem: str


@dataclass(frozen=True)
class YamlShelf:
    """Files of one kind.

    Attributes:
        kind: what errors call one.
        folder: of the shipped ones, below the package.
        example_key: a key that such a file has.
        command: lists the shipped ones.
    """

    kind: str
    folder: tuple[str, ...]
    example_key: str
    command: str

    def shipped(self) -> Mapping[str, Traversable]:
        """The shipped files by name."""
        folder = resources.files("orchestrator").joinpath(*self.folder)
        files = folder.iterdir() if folder.is_dir() else iter(())
        return {file.name.removesuffix(".yaml"): file for file in files if file.name.endswith(".yaml")}

    def described(self) -> list[ShippedRecipe]:
        """The shipped files, sorted by name, with their descriptions."""
        found = []
        for name, file in sorted(self.shipped().items()):
            value = parse_document(file.read_text(encoding="utf-8")).value
            found.append(ShippedRecipe(name, str(value.get("description", ""))))
        return found

    def find(self, name_or_path: str) -> FoundFile:
        """A shipped file by its name, or a file by its path.

        Raises:
            UserError: there is none, or it is no YAML with keys; the message names the line.
        """
        text, shown, folder, stem = self._read(name_or_path)
        try:
            document = parse_document(text)
        except YamlTextError as problem:
            raise UserError(f"{shown}:{problem.line}: {problem}") from problem
        if not isinstance(document.value, dict):
            expected = f"expected keys such as '{self.example_key}:'; see {self.command}"
            raise UserError(f"{shown}:1: found {describe_value(document.value)}, {expected}")
        return FoundFile(document, shown, folder, stem)

    def _read(self, name_or_path: str) -> tuple[str, str, Path, str]:
        """Text, shown name, folder of relative paths, and default name."""
        shipped = self.shipped()
        if name_or_path in shipped:
            text = shipped[name_or_path].read_text(encoding="utf-8")
            return text, f"{name_or_path}.yaml", Path.cwd(), name_or_path
        path = Path(name_or_path).expanduser()
        if not path.exists() and path.suffix not in _ENDINGS and path.name == name_or_path:
            near = nearest(name_or_path, shipped)
            hint = f"did you mean {near!r}? " if near else ""
            expected = f"expected a YAML file or one of the shipped ones: {', '.join(sorted(shipped))}"
            raise UserError(f"no {self.kind} {name_or_path!r}: {hint}{expected}")
        return _text_of(path, name_or_path), name_or_path, path.resolve().parent, path.stem


def _text_of(path: Path, shown: str) -> str:
    """The text of a file.

    Raises:
        UserError: there is no such file, or it is no text of a reasonable size.
    """
    if path.is_dir():
        raise UserError(f"{shown}: found a folder, expected a recipe file (YAML)")
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{shown}: found {path.stat().st_size} bytes, expected a recipe of at most {_LARGEST_FILE}")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{shown}: no such file, expected a recipe file (YAML)") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{shown}: found a byte that is not UTF-8 at {error.start}, expected a YAML text") from None
    except OSError as error:
        raise UserError(f"{shown}: not readable: {error.strerror}") from None
