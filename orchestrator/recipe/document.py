"""The page about recipes, written from their models: ``python -m orchestrator.recipe.document > docs/recipe.md``.

A test compares the page in the repository with this module's, so the two cannot drift apart.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import yaml
from pydantic import BaseModel, BeforeValidator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from orchestrator.recipe.budgets import Size, parse_latency_ms
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.section import HowItRuns, as_before
from orchestrator.strategies.registry import strategy_class, strategy_names
from spaces.registry import space_class, space_names

_NO_LIMIT = 1_000_000_000
"""The largest of the recipe's counts; it only keeps typing mistakes out."""

COMMAND = "python -m orchestrator.recipe.document > docs/recipe.md"

_INTRODUCTION = """\
<!-- Written by `{command}`; change the models in orchestrator/recipe/ instead. -->

# Recipes

A recipe is one YAML file that says everything a run is told. It is validated as a whole before anything runs. Every
key but a budget's and a strategy's `name` has a default, so a recipe only says what differs. `netsuke run RECIPE` takes
the name of a shipped recipe (`netsuke run --list`) or the path of a file; `--set supernet.steps=200` changes a key, and
an entry of a list by its number from 0: `--set budgets.0.encoder_parameters=40%`. `--dry-run` checks everything and
tells what would happen.

* Relative paths in a file start at the file's own folder, those in `--set` at the working folder.
* YAML's rules are those of version 1.2: `1e-3` is a number; `no`, `on` and `2024-01-01` are text.
* The run folder keeps the recipe with every default written out, in `recipe.yaml`.
* Keys marked † change how a run is carried out, not what it computes: a run may be continued with other values. A
  change of any other key makes the stages that depend on it run again, and only those.
"""

_PLUGINS = """\
# Options of spaces and strategies

`space.options` and `search.strategies.<n>.options` are validated by the space and the strategy they belong to. Below
are those that come with netsuke; other packages document their own.
"""


def document() -> str:
    """The page as Markdown."""
    introduction = _INTRODUCTION.format(command=COMMAND)
    plugins = [*map(_space, space_names()), *map(_strategy, strategy_names())]
    return "\n".join([introduction, *sections_of(Recipe), _PLUGINS, *filter(None, plugins)])


def sections_of(root: type[BaseModel]) -> list[str]:
    """A table of keys for each section below a model, as Markdown."""
    return [_section(path, model) for path, model in _sections(root, "")]


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section of a recipe with its dotted path, each before the ones inside it."""
    yield path, model
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is not None:
            entry = ".<n>" if typing.get_origin(field.annotation) is tuple else ""
            yield from _sections(inner, f"{path}.{name}{entry}".lstrip("."))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The section behind a field: its own type, or that of its list's entries."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _section(path: str, model: type[BaseModel]) -> str:
    title = f"`{path}`" if path else "The whole"
    meanings = {name: _escaped(field.description or "") for name, field in model.model_fields.items()}
    return f"## {title}\n\n{_first_sentence(model)}\n\n{_table(model, meanings)}"


def _space(name: str) -> str:
    found = space_class(name)
    options = found.options_class
    if options is None or not found.__module__.startswith("spaces."):
        return ""
    presets = "\n".join(
        f"* `{preset}`: {_flow(values) if values else 'the defaults below'}" for preset, values in found.presets.items()
    )
    meanings = {key: text for key, text in _attributes(options).items() if key != "shape"}
    introduction = f"{_first_sentence(options)} `preset` names a set of options, which the other keys override:"
    return f"## Space `{name}`\n\n{introduction}\n\n{presets}\n\n{_table(options, meanings)}"


def _strategy(name: str) -> str:
    found = strategy_class(name)
    if not found.__module__.startswith("orchestrator."):
        return ""
    options = found.options_class
    return f"## Strategy `{name}`\n\n{_first_sentence(found)}\n\n{_table(options, _attributes(options))}"


@lru_cache(maxsize=256)
def _fields(model: type) -> Mapping[str, FieldInfo]:
    """The fields of a section, or of the plain dataclass that a space's options are."""
    return model.model_fields if issubclass(model, BaseModel) else dataclass(model, frozen=True).__pydantic_fields__


def _table(model: type, meanings: Mapping[str, str]) -> str:
    """A table of the fields that have a meaning."""
    rows = [
        f"| `{name}`{' †' if _only_how_it_runs(field) else ''} | {_cell(_type(field))} | {_cell(_default(field))} "
        f"| {_cell(meanings[name])} |"
        for name, field in _fields(model).items()
        if name in meanings
    ]
    return "\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""])


def _only_how_it_runs(field: FieldInfo) -> bool:
    return any(isinstance(mark, HowItRuns) for mark in field.metadata)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "the file's name" if "file's name" in (field.description or "") else "required"
    if _model_in(field.annotation) is not None and isinstance(value, BaseModel):
        return "the section's defaults"
    return f"`{_flow(value)}`"


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(_plain(value), default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        shown = value.model_dump(mode="json", exclude_none=True)
        return {name: _plain(one) for name, one in shown.items() if not as_before(fields[name], getattr(value, name))}
    if isinstance(value, (tuple, list)):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value


def _type(field: FieldInfo) -> str:
    return _named(field.annotation, field.metadata)


def _named(annotation: Any, metadata: Sequence[Any]) -> str:
    """What people call a type, with the limits of its values."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _named(arguments[0], (*arguments[1:], *metadata))
    if origin in (typing.Union, types.UnionType):
        others = [argument for argument in arguments if argument is not type(None)]
        named = " or ".join(_named(argument, metadata) for argument in others)
        return f"{named}, or null" if len(others) < len(arguments) else named
    if origin is typing.Literal:
        return "one of " + ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"list of {count}{_named_entries(arguments[0])}"
    if origin is dict:
        return "mapping"
    if any(isinstance(mark, BeforeValidator) and mark.func is parse_latency_ms for mark in metadata):
        return "latency"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names: dict[Any, str] = {bool: "`true` or `false`", int: "whole number", float: "number", str: "text", Size: "size"}
    return f"{names[annotation]}{_limits(metadata)}"


def _named_entries(annotation: Any) -> str:
    if _model_in(annotation) is not None:
        return "sections"
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    name, comma, limits = _named(annotation, ()).partition(",")
    return f"{name}s{comma}{limits}".replace("texts", "names")


def _limits(metadata: Sequence[Any]) -> str:
    """The limits of a number, such as ``, above 0, at most 1``; a billion is as good as none."""
    marks = [part for mark in metadata for part in getattr(mark, "metadata", [mark])]
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = [(word, getattr(mark, name)) for name, word in words.items() for mark in marks if hasattr(mark, name)]
    return "".join(f", {word} {_number(limit)}" for word, limit in limits if limit != _NO_LIMIT)


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def _first_sentence(described: type) -> str:
    text = inspect.getdoc(described) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _attributes(model: type) -> dict[str, str]:
    """The meanings of a model's fields from the docstrings of its class and the classes it extends."""
    meanings: dict[str, str] = {}
    for ancestor in reversed(model.__mro__):
        text = inspect.cleandoc(ancestor.__doc__ or "").partition("\nAttributes:\n")[2]
        block = text.partition("\n\n")[0]
        for name, meaning in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", block, flags=re.MULTILINE):
            if name in _fields(model):
                meanings[name] = _as_markdown(" ".join(meaning.split()).removesuffix("."), ancestor.__module__)
    return meanings


def _as_markdown(text: str, module: str) -> str:
    """A docstring's text with Markdown's code marks; a reference to a table of names becomes the names."""

    def names(match: re.Match[str]) -> str:
        return ", ".join(f"`{name}`" for name in getattr(sys.modules[module], match[1]))

    return re.sub(r":data:`(\w+)`", names, text.replace("``", "`"))


def _escaped(text: str) -> str:
    """Plain text for Markdown, which would take ``<name>`` for HTML."""
    return text.replace("<", "&lt;")


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    print(document(), end="")
