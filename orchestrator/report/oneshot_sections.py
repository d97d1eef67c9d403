"""What the report shows of a one-shot search: its course, and the architectures of components that came of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from pydantic import ValidationError

from orchestrator import formatting as f
from orchestrator.phases import FOUND, FOUND_BY_LAMBDA, LAMBDAS, SUPERNET
from orchestrator.recipe.oneshot import OneShotSettings
from orchestrator.report.composition_sections import pictured
from orchestrator.report.compositions import flops_of, searches_components, space_of
from orchestrator.report.data import RunData
from orchestrator.report.oneshot_figures import PhaseSteps, course
from orchestrator.report.views import Column, Grid, Note, Part, Plot, Plots, Section
from orchestrator.run_directory import RunDirectory
from spaces.components.space import ComponentsSpace

_TITLE = "One-shot search"
_LAST_PART = 0.25
"""The share of the search whose fall of the expected cost is compared with the whole fall."""
_STEEP = 0.01
"""What the expected cost has to fall in that part, as a share of the largest's, to be worth a word."""
_MORE_STEPS = "more steps (supernet.steps, or a larger supernet.oneshot.search_share) or a higher distribution_rate"


def is_one_shot(data: RunData) -> bool:
    """Whether the run's supernet is trained together with a distribution, or will be."""
    return searches_components(data) or len(_course_rows(data)) > 0


def one_shot(data: RunData) -> Section:
    """How supernet and distribution were trained together, what that found, and what the budgets have of it."""
    rows, space = _course_rows(data), space_of(data)
    parts: list[Part] = [_course(data, rows)] if len(rows) else [Note("The supernet has not been trained yet.")]
    parts += [Note(sentence) for sentence in _advice(data, rows, space)]
    parts += _lambdas(data)
    if space is not None:
        parts += pictured(data, space)
    lead = (
        "Supernet and distribution were trained together: in each step architectures are drawn from the distribution, "
        "the supernet learns to do with them what the teacher does (or a task), and the distribution learns which "
        "components to keep, from the error and from what they cost. What is likeliest in the end is what the search "
        "has found."
    )
    return Section("one-shot", _TITLE, lead, tuple(parts))


def _lambdas(data: RunData) -> list[Part]:
    """What the searches with other lambdas have come to, where the run has swept any."""
    settings, record = _settings(data), RunDirectory(data.folder).stage_record(LAMBDAS)
    swept = [] if record is None or settings is None or not settings.sweep else record.outputs[FOUND_BY_LAMBDA]
    if not swept:
        return []
    columns = (
        Column("lambda", is_number=True),
        Column("loss", is_number=True),
        Column(_cost(data), is_number=True),
        Column("architecture"),
    )
    texts = tuple(
        (
            f"{one['cost_weight']:g}",
            "none" if one["loss"] is None else f.significant(one["loss"]),
            f.percent(one["cost_share"]),
            str(one[FOUND]),
        )
        for one in sorted(swept, key=lambda one: float(one["cost_weight"]))
    )
    caption = (
        "What the searches with other lambdas have come to: the loss of each is by the weights it was trained with, on "
        f"held-out text or rows, its {_cost(data)} a share of the largest architecture’s."
    )
    return [Grid(columns, texts, caption)]


def one_shot_sentences(data: RunData) -> list[str]:
    """What a one-shot search has found, and what to do where it was cut short; none for other runs."""
    if not data.found:
        return []
    space = space_of(data)
    found = "The one-shot search found " + data.found
    if space is not None:
        share = flops_of(space.parse(data.found), data, space) / flops_of(space.largest(), data, space)
        found += f", which takes {f.percent(share)} of the largest architecture’s FLOPs"
    return [f"{found}.", *_advice(data, _course_rows(data), space)]


def _course_rows(data: RunData) -> pd.DataFrame:
    """Rows of the training, in the order of steps."""
    rows = data.tables["training"]
    rows = rows[(rows["stage"] == SUPERNET) & rows["entropy"].notna()]
    return rows.sort_values("step", kind="stable")


def _settings(data: RunData) -> OneShotSettings | None:
    """What the recipe says of the search; ``None`` where there is no recipe that can be read."""
    training = data.settings.get("supernet")
    if not isinstance(training, dict):
        return None
    try:
        return OneShotSettings.model_validate(training.get("oneshot") or {})
    except ValidationError:  # a recipe of another version
        return None


def _phases(data: RunData) -> PhaseSteps | None:
    """How long the phases are, by the recipe."""
    settings = _settings(data)
    steps = data.settings["supernet"].get("steps") if settings is not None else None
    if settings is None or not isinstance(steps, int):
        return None
    return PhaseSteps(*settings.phase_steps(steps), steps)


def _cost(data: RunData) -> str:
    """What the search makes cheaper, as people call it."""
    settings = _settings(data)
    return "cost" if settings is None else f.resource_name(settings.cost)


def _course(data: RunData, rows: pd.DataFrame) -> Plots:
    cost = _cost(data)
    figure = course(rows, cost, _phases(data))
    description = "Relative error, expected cost, lambda and entropy of the distribution against steps, with phases"
    by_task = rows["relative_mse"].isna().all()
    error = (
        "Loss: of what was drawn, on the task’s labels and the tuned teacher’s predictions"
        if by_task
        else "Relative error: squared error of the last hidden states of what was drawn, divided by the variance of "
        "the teacher’s"
    )
    caption = (
        f"{error}; it tends to rise while components are given up, and falls once the architecture is frozen. "
        f"Expected {cost}: the mean over the distribution, as a share of the largest architecture’s; dotted, that of "
        "the frozen one. Lambda: what it counts beside the error; it is ramped up, and plays no part outside the "
        "search. Entropy: how much is undecided; one bit is a yes-or-no decision that is as open as the toss of a "
        "coin. It should rise above where it began (dashed) and fall below it before the architecture is frozen."
    )
    return Plots((Plot("one-shot-course", figure, description, "The course of the training"),), caption)


def _advice(data: RunData, rows: pd.DataFrame, space: ComponentsSpace | None) -> list[str]:
    """What to think of the search, once it has ended."""
    if not data.found or rows.empty:
        return []
    problems = [_undecided(rows, space), _falling(data, rows), _unchanged(data, space)]
    found = [problem for problem in problems if problem]
    settled = (
        f"The search had come to rest: when the architecture was frozen, the distribution was more decided than at its "
        f"start, and the expected cost ({_cost(data)}) had settled."
    )
    return found or [settled]


def _undecided(rows: pd.DataFrame, space: ComponentsSpace | None) -> str:
    """A sentence where the distribution was no more decided at its end than at its start."""
    begin, end = (float(rows["entropy"].iloc[place]) / math.log(2) for place in (0, -1))
    if end < begin:
        return ""
    of = "" if space is None else f", of {f.count(len(space.encode(space.largest())))} decisions in all"
    return (
        f"When the architecture was frozen, the distribution was as open as {end:.0f} tosses of a coin{of}, no less "
        f"than when it began ({begin:.0f}): much of what was kept or dropped was not yet decided. What helps: "
        f"{_MORE_STEPS}."
    )


def _falling(data: RunData, rows: pd.DataFrame) -> str:
    """A sentence where the expected cost fell at its end about as fast as before."""
    searched = rows[rows["arch_id"] == ""].dropna(subset=["expected_cost"])
    if len(searched) < 3:
        return ""
    phases = _phases(data)
    begin = searched["step"].iloc[0] if phases is None else phases.warm_up
    late = searched["step"].iloc[-1] - _LAST_PART * (searched["step"].iloc[-1] - begin)
    before = float(np.interp(late, searched["step"], searched["expected_cost"]))
    first, last = searched["expected_cost"].iloc[[0, -1]]
    if before - last < max(_STEEP, _LAST_PART * (first - last)):
        return ""
    return (
        f"The expected cost ({_cost(data)}) was still falling when the search ended, by {100 * (before - last):.1f} "
        f"points of {100 * (first - last):.1f} in its last quarter: how cheap the architecture is was settled by the "
        f"length of the search rather than by lambda. What helps: {_MORE_STEPS}, until the curve is flat at its end; "
        "then another supernet.oneshot.cost_weight (lambda) moves where it ends."
    )


def _unchanged(data: RunData, space: ComponentsSpace | None) -> str:
    """A sentence where nothing was given up."""
    if space is None or data.found != str(space.largest()):
        return ""
    return (
        "The search gave nothing up: what it found is the architecture that it began with. What helps: a larger "
        f"supernet.oneshot.cost_weight (lambda), {_MORE_STEPS}."
    )
