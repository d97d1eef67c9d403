"""What a sweep found: every member measured by one yardstick, then put together over seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.phases import Phase
from orchestrator.results import ResultsWriter, open_results
from orchestrator.results.hypervolume import hypervolume_curve
from orchestrator.results.pareto import non_dominated
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.loading import LoadedSweep
from orchestrator.sweep.members import Member


@dataclass(frozen=True)
class Finished:
    """A member whose search is done.

    Attributes:
        known_as: the name of its rows.
        member: its places on the axes.
        seconds: wall-clock time of its search.
        supernet_signature: which supernet scored its candidates.
    """

    known_as: str
    member: Member
    seconds: float
    supernet_signature: str


@dataclass(frozen=True)
class Measured:
    """A finished member and how it came along.

    Attributes:
        finished: the member.
        rows: its candidates in the order in which they were asked.
        judged: what each is ranked by, float [rows]; NaN where it failed or was scored at a lower fidelity.
        curve: hypervolume after each of its candidates, float [rows].
        seconds: time on the actors behind its scores up to each candidate, float [rows].
        front: distinct points of its Pareto front.
    """

    finished: Finished
    rows: pd.DataFrame
    judged: NDArray[np.float64]
    curve: NDArray[np.float64]
    seconds: NDArray[np.float64]
    front: int


@dataclass(frozen=True)
class GroupSummary:
    """Members that differ in their seed alone; spreads are standard deviations over seeds, ``None`` with one seed."""

    space: str
    strategy: str
    budget: str
    evaluations: int
    seeds: int
    best_loss: float | None
    best_loss_spread: float | None
    hypervolume: float
    hypervolume_spread: float | None
    seconds: float
    evaluation_seconds: float


@dataclass(frozen=True)
class SweepSummary:
    """What a sweep found.

    Attributes:
        sweep: its name.
        run_dir: its folder.
        objectives: what was minimised.
        box: the best and the worst value of each objective, the corners of the box hypervolumes are shares of.
        groups: means over seeds, the largest hypervolume first within each space, budget and number of evaluations.
        members: the rows of the table ``sweeps``.
        report: path of the page.
        seconds: wall-clock time of this start.
    """

    sweep: str
    run_dir: str
    objectives: tuple[str, ...]
    box: dict[str, tuple[float, float]]
    groups: tuple[GroupSummary, ...]
    members: tuple[dict[str, Any], ...]
    report: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The summary as plain values for JSON."""
        return asdict(self)


def summarise_sweep(
    loaded: LoadedSweep,
    folder: SweepDirectory,
    finished: Sequence[Finished],
    results: ResultsWriter,
    seconds: Callable[[], float],
) -> SweepSummary:
    """Measure all members, write the rows of ``sweeps`` and the page.

    Args:
        loaded: the sweep.
        folder: of the sweep.
        finished: every member.
        results: gets a row a member.
        seconds: wall-clock time so far.
    """
    from orchestrator.report.sweep_page import write_sweep_page  # here, because plotly takes long to load

    results.flush()
    recipe = next(iter(loaded.recipes.values()))
    search = recipe.search
    judged_by = "masked_lm_loss" if search.rank_by == "masked_lm" else "loss"
    measured, box = measure(folder, finished, search.objectives, judged_by, Phase(recipe).fidelity)
    rows = [_row(loaded.sweep.name, one) for one in measured]
    for row in rows:
        results.append("sweeps", **row)
    results.flush()
    groups = _groups(measured, rows)
    write_sweep_page(loaded.sweep, folder.report, measured, groups, box)
    return SweepSummary(
        sweep=loaded.sweep.name,
        run_dir=str(folder.path),
        objectives=search.objectives,
        box=box,
        groups=groups,
        members=tuple(rows),
        report=str(folder.report),
        seconds=seconds(),
    )


def measure(
    folder: SweepDirectory, finished: Iterable[Finished], objectives: Sequence[str], judged_by: str, fidelity: int
) -> tuple[list[Measured], dict[str, tuple[float, float]]]:
    """Measure members by one yardstick.

    Every objective is stretched so that the best value any member has seen is 0 and the worst is 1; the reference
    point is the corner of all the worst. So a hypervolume is the share of that box.

    Args:
        folder: of the sweep.
        finished: the members.
        objectives: what was minimised, the loss among it.
        judged_by: the column that the loss stands for.
        fidelity: of scores that count; those of fewer batches are no losses of the same kind.

    Returns:
        The members, and for each objective its best and worst value.
    """
    names = [judged_by if name == "loss" else name for name in objectives]
    columns = ["member", "proposal", "arch_id", "architecture", "status", "fidelity", "seconds", "pid"]
    wanted = list(dict.fromkeys([*columns, *names]))
    frame = open_results(folder.results).frame("evaluations", wanted).sort_values("proposal", kind="stable")
    frame.loc[(frame["fidelity"] != fidelity) | (frame["status"] != "ok"), names] = np.nan
    by_member = {known_as: rows.reset_index(drop=True) for known_as, rows in frame.groupby("member", sort=False)}
    members = [(one, by_member.get(one.known_as, frame.iloc[:0])) for one in finished]
    values = {one.known_as: rows[names].to_numpy(dtype=np.float64, na_value=np.nan) for one, rows in members}
    everything = np.concatenate(list(values.values()))
    everything = everything[np.isfinite(everything).all(axis=1)]
    best, worst = (everything.min(axis=0), everything.max(axis=0)) if len(everything) else (np.zeros(len(names)),) * 2
    extent = np.where(worst > best, worst - best, 1.0)
    measured = []
    for one, rows in members:
        stretched = (values[one.known_as] - best) / extent
        spent = np.cumsum(rows["seconds"].to_numpy(dtype=np.float64, na_value=0.0))
        front = len(np.unique(stretched[non_dominated(stretched)], axis=0)) if len(rows) else 0
        judged = rows[judged_by].to_numpy(dtype=np.float64, na_value=np.nan)
        measured.append(Measured(one, rows, judged, hypervolume_curve(stretched, np.ones(len(names))), spent, front))
    box = {name: (float(low), float(high)) for name, low, high in zip(objectives, best, worst, strict=True)}
    return measured, box


def _row(sweep: str, one: Measured) -> dict[str, Any]:
    """The row of ``sweeps``."""
    member, rows = one.finished.member, one.rows
    best = int(np.nanargmin(one.judged)) if np.isfinite(one.judged).any() else None
    return {
        "sweep": sweep,
        "member": one.finished.known_as,
        "space": member.space,
        "strategy": member.strategy.called,
        "strategy_name": member.strategy.name,
        "options": json.dumps(member.strategy.options, sort_keys=True),
        "seed": member.seed,
        "budget": member.budget.name if member.budget else "",
        "evaluations": member.evaluations,
        "scored": len(rows),
        "failed": int((rows["status"] != "ok").sum()),
        "reused": int((rows["pid"].isna() & (rows["status"] == "ok")).sum()),
        "best_loss": None if best is None else float(one.judged[best]),
        "best_arch_id": None if best is None else str(rows["arch_id"].iloc[best]),
        "best_architecture": None if best is None else str(rows["architecture"].iloc[best]),
        "front": one.front,
        "hypervolume": float(one.curve[-1]) if len(one.curve) else 0.0,
        "seconds": one.finished.seconds,
        "evaluation_seconds": float(one.seconds[-1]) if len(one.seconds) else 0.0,
        "supernet_signature": one.finished.supernet_signature,
    }


def _groups(measured: Sequence[Measured], rows: Sequence[dict[str, Any]]) -> tuple[GroupSummary, ...]:
    groups: dict[tuple[str, str, str, int], list[dict[str, Any]]] = {}
    for one, row in zip(measured, rows, strict=True):
        groups.setdefault(one.finished.member.group, []).append(row)
    summaries = [_group(group, members) for group, members in groups.items()]
    places = {key: place for place, key in enumerate(dict.fromkeys(_rivals(one) for one in summaries))}
    return tuple(sorted(summaries, key=lambda one: (places[_rivals(one)], -one.hypervolume)))


def _rivals(one: GroupSummary) -> tuple[str, str, int]:
    """What is equal among strategies that compete."""
    return one.space, one.budget, one.evaluations


def _group(group: tuple[str, str, str, int], rows: Sequence[dict[str, Any]]) -> GroupSummary:
    space, strategy, budget, evaluations = group
    losses = [row["best_loss"] for row in rows if row["best_loss"] is not None]
    volumes = [row["hypervolume"] for row in rows]
    return GroupSummary(
        space=space,
        strategy=strategy,
        budget=budget,
        evaluations=evaluations,
        seeds=len(rows),
        best_loss=float(np.mean(losses)) if losses else None,
        best_loss_spread=_spread(losses),
        hypervolume=float(np.mean(volumes)),
        hypervolume_spread=_spread(volumes),
        seconds=float(np.mean([row["seconds"] for row in rows])),
        evaluation_seconds=float(np.mean([row["evaluation_seconds"] for row in rows])),
    )


def _spread(values: Sequence[float]) -> float | None:
    """Standard deviation over seeds; ``None`` of fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
