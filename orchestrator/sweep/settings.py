"""The sweep file: which searches are set side by side, as one validated value."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from orchestrator.recipe.results import ResultsSettings
from orchestrator.recipe.search import Budget
from orchestrator.recipe.section import Count, Label, Objective, Problem, Section, raise_problems, repeated

MOST_MEMBERS = 10_000

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class SweptSpace(Section):
    """One space; its supernet is trained once, whatever searches it."""

    name: str = Field(min_length=1, description="a registered search space (netsuke space list)")
    label: Label | None = Field(None, description="what members and folders call it; where absent: its name")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the space, validated by it")

    @property
    def called(self) -> str:
        """The label, or the name."""
        return self.label or self.name


class SweptStrategy(Section):
    """One strategy; every seed is a search of its own."""

    name: str = Field(min_length=1, description="a registered strategy")
    label: Label | None = Field(None, description="what members and plots call it; where absent: its name")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the strategy, validated by it")

    @property
    def called(self) -> str:
        """The label, or the name."""
        return self.label or self.name


class Sweep(Section):
    """Everything a sweep is told. Its members are all combinations of the axes: spaces, strategies, budgets,
    evaluations and seeds."""

    name: Label = Field(description="name of the sweep; where absent: the sweep file's name without its ending")
    description: str = Field("", max_length=1_000, description="what the sweep is for")
    recipe: str = Field(min_length=1, description="the base: name of a shipped recipe, or path of a YAML file")
    set: dict[str, Any] = Field(
        default_factory=dict, description="keys of the recipe to change, with their dots: {supernet.steps: 200}"
    )
    spaces: tuple[SweptSpace, ...] = Field((), strict=False, description="spaces to search; none: the recipe's")
    strategies: tuple[SweptStrategy, ...] = Field(
        strict=False, min_length=1, description="strategies to compare, each with its options"
    )
    seeds: tuple[Seed, ...] = Field(
        (1,), strict=False, min_length=1, description="seeds of the searches; the supernet's is the recipe's"
    )
    evaluations: tuple[Count, ...] = Field(
        (200,), strict=False, min_length=1, description="how many architectures a search may have scored"
    )
    budgets: tuple[Budget, ...] = Field(
        (),
        strict=False,
        description="limits, each of which gets searches of its own; none: searches keep to what the recipe's budgets "
        "allow together",
    )
    objectives: tuple[Objective, ...] = Field(
        (), strict=False, description="what is minimised, the loss among it; none: as in the recipe"
    )
    results: ResultsSettings = Field(
        default_factory=ResultsSettings,
        description="where the sweep's own tables lie; those of its spaces' runs lie where the recipe's key says",
    )

    @model_validator(mode="after")
    def _check_axes(self) -> Sweep:
        problems: list[Problem] = []
        for axis, key in (("spaces", "name"), ("strategies", "name")):
            labels = [entry.called for entry in getattr(self, axis)]
            for path, message in repeated(f"{axis}.{{}}.{key}", labels):
                problems.append((path, f"{message}; give them different labels with the key 'label'"))
        problems += repeated("seeds.{}", map(str, self.seeds))
        problems += repeated("evaluations.{}", map(str, self.evaluations))
        problems += repeated("budgets.{}.name", (budget.name for budget in self.budgets))
        problems += repeated("objectives.{}", self.objectives)
        if self.objectives and "loss" not in self.objectives:
            found = f"found {', '.join(self.objectives)}, expected 'loss' among them; nothing else judges quality"
            problems.append(("objectives", found))
        if self.size > MOST_MEMBERS:
            problems.append(("", f"found axes with {self.size:,} combinations, expected at most {MOST_MEMBERS:,}"))
        raise_problems(problems)
        return self

    @property
    def size(self) -> int:
        """How many members the axes span."""
        budgets, spaces = max(1, len(self.budgets)), max(1, len(self.spaces))
        return spaces * len(self.strategies) * budgets * len(self.evaluations) * len(self.seeds)
