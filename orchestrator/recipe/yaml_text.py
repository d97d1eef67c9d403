"""YAML as recipes use it: plain values only, each with the line it stands on.

The rules are those of YAML 1.2, because 1.1 (what PyYAML resolves by default) surprises people: ``1e-3`` is a number
here, and ``no``, ``on``, ``12:30`` and ``2024-01-01`` are text. Duplicate keys, tags and key names that are not text
are errors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys of mappings and indices of lists, from the top."""

_TAG = "tag:yaml.org,2002:"
_DIGITS = "[0-9]+(?:_[0-9]+)*"
_SCALARS = {
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "null": ("~|null|Null|NULL|", ["~", "n", "N", ""]),
    "int": (f"[-+]?{_DIGITS}", "-+0123456789"),
    "float": (rf"[-+]?(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
}
_MOST_VALUES = 10_000


class YamlTextError(ValueError):
    """The text cannot be read as a recipe; ``line`` counts from 1."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class Document:
    """A parsed YAML text.

    Attributes:
        value: mappings, lists, text, numbers, booleans and ``None``.
        lines: the line, counted from 1, on which the key (or list entry) of each path stands.
    """

    value: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own shape


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either set of rules would read as something other than text."""


for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"^(?:{_pattern})$"), list(_first))
    _Dumper.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def parse_document(text: str) -> Document:
    """Read one YAML document.

    Raises:
        YamlTextError: a syntax error, a duplicate key, a tag, or a document of absurd size or depth.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(error.problem or error.context).split())
        raise YamlTextError(f"not readable as YAML: {problem}", mark.line + 1 if mark else 1) from error
    except yaml.YAMLError as error:
        raise YamlTextError(f"not readable as YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise YamlTextError("nested too deeply") from error
    document = Document(None)
    if root is not None:
        document.value = _Converter(document.lines).convert(root, ())
    return document


def parse_value(text: str) -> Any:
    """Read one value, as after ``key: ``.

    Raises:
        YamlTextError: as :func:`parse_document`.
    """
    return parse_document(text).value


def dump(value: Any) -> str:
    """Write plain values as YAML text that :func:`parse_document` reads back unchanged."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


class _Converter:
    """Turns PyYAML's nodes into plain values and notes their lines."""

    def __init__(self, lines: dict[KeyPath, int]) -> None:
        self.lines = lines
        self.open: set[int] = set()
        self.values = 0

    def convert(self, node: yaml.Node, path: KeyPath) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.values += 1
        if self.values > _MOST_VALUES:
            raise YamlTextError(f"more than {_MOST_VALUES} values (aliases counted as often as they are used)", line)
        if id(node) in self.open:
            raise YamlTextError("a value contains itself through an alias", line)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return self._sequence(node, path)
            return _scalar(node, line)
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        _require_tag(node, "map")
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != f"{_TAG}str":
                found = getattr(key_node, "value", "a collection")
                raise YamlTextError(f"found {found!r} as a key, expected text; put it in quotes if it is a name", line)
            key = str(key_node.value)
            if key in mapping:
                dotted = ".".join(map(str, (*path, key)))
                first = self.lines[(*path, key)]
                raise YamlTextError(f"{dotted}: duplicate key, first given on line {first}; remove one of them", line)
            self.lines[(*path, key)] = line
            mapping[key] = self.convert(value_node, (*path, key))
        return mapping

    def _sequence(self, node: yaml.SequenceNode, path: KeyPath) -> list[Any]:
        _require_tag(node, "seq")
        return [self.convert(entry, (*path, index)) for index, entry in enumerate(node.value)]


def _require_tag(node: yaml.Node, expected: str) -> None:
    if node.tag != f"{_TAG}{expected}":
        raise YamlTextError(f"found the tag {node.tag!r}, expected plain values without tags", node.start_mark.line + 1)


def _scalar(node: yaml.Node, line: int) -> Any:
    kind = node.tag.removeprefix(_TAG)
    text = str(node.value)
    try:
        match kind:
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return {"true": True, "false": False}[text.lower()]
            case "int":
                return int(text)
            case "float":
                return float(text)
    except (ValueError, KeyError) as error:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise YamlTextError(f"found {shown!r}, which is no usable {kind}", line) from error
    raise YamlTextError(f"found the tag {node.tag!r}, expected plain values without tags", line)
