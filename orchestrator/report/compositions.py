"""The architectures of components that a report pictures: what was found and chosen, beside what it began with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.report.data import TEACHER, RunData
from orchestrator.run_directory import RunDirectory
from orchestrator.run_space import shape_at
from spaces.components.architecture import ComponentsArchitecture
from spaces.components.space import ComponentsSpace
from spaces.errors import SpaceError
from spaces.registry import load_space
from trainers.errors import TrainingInputError

_USUAL_LENGTH = 128
"""Tokens of a sequence where the run's recipe is not there."""


@dataclass(frozen=True)
class Composition:
    """One architecture of components of a run.

    Attributes:
        names: what it is: the largest, what was found, a budget's winner; several where they are the same.
        architecture: which.
        latency_ms: of a batch, as the latency table predicts it; ``None`` where it was not predicted.
    """

    names: tuple[str, ...]
    architecture: ComponentsArchitecture
    latency_ms: float | None = None

    @property
    def title(self) -> str:
        """All its names, as a heading."""
        text = ", ".join(self.names)
        return text[:1].upper() + text[1:]


def searches_components(data: RunData) -> bool:
    """Whether the run's recipe names the space of components."""
    return _space_section(data).get("name") == ComponentsSpace.name


def space_of(data: RunData) -> ComponentsSpace | None:
    """The run's space, fitted to its teacher; ``None`` where it is another one, or the run has no teacher yet.

    Raises:
        SpaceError: the recipe in the run folder was changed to options that are wrong.
    """
    from trainers.teacher import TeacherSource  # costs seconds, and most reports do without

    folder = RunDirectory(data.folder).teacher
    if not searches_components(data) or not folder.is_dir():
        return None
    try:
        shape = TeacherSource(str(folder)).shape()
    except TrainingInputError:  # it is being copied
        return None
    start = _start(data)
    shape = shape_at(None if start is None else Path(start), shape, RunDirectory(data.folder))
    space = load_space(ComponentsSpace.name, _space_section(data).get("options") or {}, shape)
    assert isinstance(space, ComponentsSpace)
    return space


def compositions(data: RunData, space: ComponentsSpace) -> list[Composition]:
    """The largest architecture first, then what the one-shot training has found, then every budget's winner.

    Equal architectures are told once, by all their names.
    """
    found: dict[ComponentsArchitecture, list[str]] = {}
    for name, architecture in _named(data, space):
        found.setdefault(architecture, []).append(name)
    return [Composition(tuple(names), one, _latency(data, one, space)) for one, names in found.items()]


def is_teachers_form(space: ComponentsSpace) -> bool:
    """Whether the largest architecture has the form of a whole BERT; it has not where options leave some of it out."""
    return space.options.within is None and all(fixed is None for fixed in space.options.fixed)


def flops_of(architecture: ComponentsArchitecture, data: RunData, space: ComponentsSpace) -> int:
    """Floating-point operations for a sequence as long as those of the run's text."""
    corpus = data.settings.get("corpus")
    length = corpus.get("sequence_length") if isinstance(corpus, dict) else None
    return space.cost(architecture, length or _USUAL_LENGTH).flops


def _named(data: RunData, space: ComponentsSpace) -> Iterator[tuple[str, ComponentsArchitecture]]:
    own = is_teachers_form(space) and _start(data) is None
    yield "the teacher’s own form" if own else "the largest architecture", space.largest()
    chosen = data.selections[data.selections["chosen"]]
    winners = dict(zip(chosen["budget"], chosen["architecture"], strict=True))
    texts = {"found by one-shot": data.found}
    texts |= {f"winner of “{budget.name}”": winners.get(budget.name, "") for budget in data.budgets}
    for name, text in texts.items():
        if (architecture := _parsed(space, text)) is not None:
            yield name, architecture


def _parsed(space: ComponentsSpace, text: str) -> ComponentsArchitecture | None:
    """``None`` for what is not there yet, and for what an earlier attempt has left of another space."""
    try:
        return space.parse(text) if text else None
    except SpaceError:
        return None


def _latency(data: RunData, architecture: ComponentsArchitecture, space: ComponentsSpace) -> float | None:
    """The prediction of the last evaluation, or of the finished model; that of the teacher is of the largest too."""
    models, rows = data.tables["models"], data.tables["evaluations"]
    own = models["arch_id"] == architecture.arch_id
    if is_teachers_form(space) and _start(data) is None and architecture == space.largest():
        own |= models["role"] == TEACHER
    known = [
        *rows.loc[rows["arch_id"] == architecture.arch_id, "latency_ms"].dropna(),
        *models.loc[own, "predicted_latency_ms"].dropna(),
    ]
    return float(known[-1]) if known else None


def _start(data: RunData) -> str | None:
    """The student that the search started at; ``None`` for the teacher."""
    supernet = data.settings.get("supernet")
    section = supernet.get("oneshot") if isinstance(supernet, dict) else None
    return section.get("start") if isinstance(section, dict) else None


def _space_section(data: RunData) -> Mapping[str, Any]:
    section = data.settings.get("space")
    return section if isinstance(section, dict) else {}
