"""The stage that makes the latency table: measured on this device, or read from a file that another device made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.device import describe_device
from cluster.storage import sha256_of_file
from orchestrator.errors import UserError
from orchestrator.formatting import percent, plural
from orchestrator.latency_table import LatencyConditions, LatencyTable
from orchestrator.latency_table.agreement import Agreement
from orchestrator.latency_table.building import Check, MeasuredSpace, TimedNetwork, build_table, check_table
from orchestrator.latency_table.files import choose_table, read_tables, require_same_parts
from orchestrator.latency_table.marginals import fewest_architectures, predicts_latency, priced
from orchestrator.latency_table.reliability import reliability_warning, warn_if_unreliable
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Recipe
from orchestrator.recipe.latency import LatencySettings
from orchestrator.run_space import space_shape, start_folder
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.latency_rows import check_rows, latency_row, part_rows, term_rows
from spaces.space import SearchSpace

_SECONDS_A_PART, _SECONDS_A_NETWORK = 0.04, 0.12
"""What plans assume of one repeat; only an order of magnitude."""
_EMPTY = LatencyTable({})
"""Of a space whose latencies do not add up."""


def measuring_device(name: str) -> str:
    """The device that a recipe's ``tables.latency.device`` means here, as PyTorch names it.

    Raises:
        UserError: this process does not see that GPU.
    """
    import torch

    found = torch.cuda.device_count()
    if name == "auto":
        return "cuda" if found else "cpu"
    if name.startswith("cuda") and int(name.partition(":")[2] or 0) >= found:
        has = f"{plural(found, 'GPU')}, numbered from 0" if found else "no GPU"
        raise UserError(f"tables.latency.device: found {name}, but this process sees {has}; expected cpu or auto")
    return name


def conditions_of(settings: LatencySettings, repeats: int | None = None) -> LatencyConditions:
    """The recipe's conditions of latency measurements.

    Args:
        settings: the recipe's.
        repeats: instead of the recipe's.

    Raises:
        UserError: the device is not there.
    """
    return LatencyConditions(
        batch_size=settings.batch_size,
        sequence_length=settings.sequence_length,
        threads=settings.threads,
        warm_up=settings.warm_up,
        repeats=settings.repeats if repeats is None else repeats,
        device=measuring_device(settings.device),
        precision=settings.precision,
        method=settings.method,
    )


def latency_conditions(context: RunContext, repeats: int | None = None) -> LatencyConditions:
    """The conditions of latency measurements in a run, on the driver's device."""
    return conditions_of(context.recipe.tables.latency, repeats)


def check_length(recipe: Recipe, max_positions: int, length: int | None = None, key: str = "") -> None:
    """Make sure that the measured sequences fit the teacher's positions.

    Args:
        recipe: names the length, unless another is given.
        max_positions: of the teacher.
        length: instead of the recipe's.
        key: where that length was found.

    Raises:
        UserError: they do not.
    """
    found = recipe.tables.latency.sequence_length if length is None else length
    if found > max_positions:
        raise UserError(
            f"{key or 'tables.latency.sequence_length'}: found {found}, but the teacher has only {max_positions} "
            f"positions; set it to {max_positions} or less"
        )


def table_from_file(plan: RunPlan) -> LatencyTable:
    """The table that the recipe names instead of measuring, checked against its space.

    Raises:
        UserError: there is no such file, it is damaged, of another space, or of other batch shapes.
    """
    settings = plan.recipe.tables.latency
    assert settings.table is not None
    path = Path(settings.table)
    try:
        table = choose_table(read_tables(path), settings.batch_size, settings.sequence_length, path)
        require_same_parts(table, plan.space, path)
    except UserError as error:
        raise UserError(f"tables.latency.table: {error}") from error
    return table


class LatencyStage(Stage):
    """Makes the latency table of the space, fits what networks cost, and checks it against whole networks if asked."""

    name = "latency"
    inputs = ("teacher",)
    version = 2

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's space and conditions, the seed of the networks, and the device or the file of the table.

        Where a one-shot search starts at a student, its sizes too: slices of its feed-forwards are as wide as they say.
        """
        recipe = plan.recipe
        settings = recipe.tables.latency
        # A table of another device needs none here, but its check does.
        device = None if settings.table is not None and not settings.check_architectures else _device_name(settings)
        file = None if settings.table is None else sha256_of_file(Path(settings.table))
        with_prices = priced(plan.space)
        terms = [] if with_prices is None else [list(with_prices.latency_terms())]
        sizes = [] if start_folder(recipe) is None else [asdict(space_shape(recipe, plan.shape, plan.folder))]
        return [recipe.space, settings, recipe.seed, device, file, *terms, *sizes]

    def check(self, plan: RunPlan) -> None:
        """The measured sequences fit the teacher's positions; the device is there, or the table's file is right."""
        check_length(plan.recipe, plan.shape.max_positions)
        settings = plan.recipe.tables.latency
        measuring_device(settings.device)
        if settings.table is None:
            require_enough_architectures(settings, plan.space)
        elif predicts_latency(plan.space):
            table_from_file(plan)

    def planned(self, plan: RunPlan) -> PlannedStage:
        """One measurement a part and a whole network; or the device of the file."""
        settings, space = plan.recipe.tables.latency, plan.space
        measured = measurements(settings, space)
        if (nothing := _nothing(settings, space)) is not None:
            return PlannedStage(self.name, "run", f"measure nothing: {nothing}", seconds=0.0)
        if settings.table is not None:
            table = table_from_file(plan)
            assert table.origin is not None
            work = f"read {_contents(table)} from {settings.table}, measured with {table.origin.describe()}"
            parts, networks = 0, settings.check_architectures
        else:
            parts, networks = len(space.parts()), measured.fit_architectures + settings.check_architectures
            threads = f", {plural(settings.threads, 'thread')}" if measured.conditions.device == "cpu" else ""
            fitted = "" if (terms := priced(space)) is None else f", to fit {len(terms.latency_terms()) + 1} prices to"
            counted = f"{parts} parts and {networks}" if parts else f"{networks}"
            work = (
                f"measure {counted} whole networks{fitted}, batch {settings.batch_size} × "
                f"{settings.sequence_length} tokens on {_device_name(settings)}{threads}, "
                f"{measured.conditions.repeats} repeats"
            )
        seconds = measured.conditions.repeats * (parts * _SECONDS_A_PART + networks * _SECONDS_A_NETWORK)
        return PlannedStage(self.name, "run", work, seconds=seconds)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Measure or read, record, and say how well whole networks agree."""
        settings, space = context.recipe.tables.latency, context.space
        if (nothing := _nothing(settings, space)) is not None:
            return StageResult(f"nothing to measure: {nothing}", {"latency_table": _EMPTY.to_json()})
        measured = measurements(settings, space)
        progress.follow(measured.conditions.repeats, "rounds")

        def follow(done: int, total: int) -> None:
            if done == 1:
                progress.follow(total, "rounds")
            progress.update(done)

        check: Check | None = None
        fitted: Sequence[TimedNetwork] = ()
        if settings.table is None:
            built = build_table(
                measured_space(context.plan),
                measured.conditions,
                fit_architectures=measured.fit_architectures,
                check_architectures=settings.check_architectures,
                seed=context.recipe.seed,
                on_round=follow,
            )
            table, fitted, check = built.table, built.fitted, built.check
        else:
            table = table_from_file(context.plan)
            if settings.check_architectures:
                check = check_table(
                    table,
                    space,
                    measured.conditions,
                    context.plan.shape.vocab_size,
                    architectures=settings.check_architectures,
                    seed=context.recipe.seed,
                    on_round=follow,
                )
        self._record(context, table, fitted, check)
        warn_if_unreliable(table, progress.message)
        return StageResult(_detail(table, check), {"latency_table": table.to_json()})

    @staticmethod
    def _record(context: RunContext, table: LatencyTable, fitted: Sequence[TimedNetwork], check: Check | None) -> None:
        assert table.origin is not None
        shared = latency_row(table.origin.conditions, table.origin.device_name)
        here = latency_row(conditions_of(context.recipe.tables.latency))
        context.results.extend("latency", part_rows(table, shared))
        context.results.extend("latency", check_rows(fitted, "fit", shared))
        context.results.extend("latency", check_rows(check.networks if check else (), "check", here))
        context.results.extend("latency_terms", term_rows(table, shared))


@dataclass(frozen=True)
class Measurements:
    """How a space's table is measured.

    Attributes:
        conditions: with the repeats behind each median.
        fit_architectures: whole networks behind the remainder, or behind marginal prices.
    """

    conditions: LatencyConditions
    fit_architectures: int


def measurements(settings: LatencySettings, space: SearchSpace[Any]) -> Measurements:
    """What the recipe says about measuring a space, which hangs on whether its networks are sums of parts.

    Raises:
        UserError: the device is not there.
    """
    if priced(space) is None:
        return Measurements(conditions_of(settings), settings.fit_architectures)
    return Measurements(conditions_of(settings, settings.marginal_repeats), settings.marginal_architectures)


def require_enough_architectures(settings: LatencySettings, space: SearchSpace[Any], may_be_none: bool = True) -> None:
    """Make sure that marginal prices, where a space has them, are fitted to enough networks.

    Args:
        settings: the recipe's.
        space: to measure.
        may_be_none: whether 0 will do, which measures nothing.

    Raises:
        UserError: they are not.
    """
    with_prices, found = priced(space), settings.marginal_architectures
    if with_prices is None or (may_be_none and not found) or found >= (fewest := fewest_architectures(with_prices)):
        return
    otherwise = ", or to 0 to predict no latency" if may_be_none else ""
    raise UserError(
        f"tables.latency.marginal_architectures: found {found}, expected {fewest} or more to fit the "
        f"{len(with_prices.latency_terms()) + 1} prices of the space '{space.name}' to; set it to {fewest} or, as by "
        f"default, to {LatencySettings().marginal_architectures}{otherwise}"
    )


def measured_space(plan: RunPlan) -> MeasuredSpace:
    """The space of a run, with what its table remembers of it."""
    settings, shape = plan.recipe.space, space_shape(plan.recipe, plan.shape, plan.folder)
    return MeasuredSpace(plan.space, settings.name, settings.options, shape)


def _nothing(settings: LatencySettings, space: SearchSpace[Any]) -> str | None:
    """Why there is nothing to measure or read; ``None`` where there is something."""
    if not predicts_latency(space):
        return f"the space '{space.name}' names no parts whose latencies add up, so none are predicted"
    if priced(space) is not None and settings.table is None and not settings.marginal_architectures:
        return "tables.latency.marginal_architectures is 0, so no latency is predicted"
    return None


def _device_name(settings: LatencySettings) -> str:
    return describe_device(measuring_device(settings.device)).name


def _contents(table: LatencyTable) -> str:
    marginals = table.marginals
    return f"{len(table.entries)} parts" if marginals is None else f"{len(marginals.terms)} prices"


def _detail(table: LatencyTable, check: Check | None) -> str:
    assert table.origin is not None
    told = [f"{_contents(table)} on {table.origin.device_name}"]
    remainder, marginals = table.remainder, table.marginals
    if remainder.error_out_of_sample is not None and remainder.error_without is not None:
        told.append(
            f"off by {percent(remainder.error_out_of_sample)} on unseen networks "
            f"({percent(remainder.error_without)} without the remainder of {len(remainder.terms)} terms)"
        )
    if marginals is not None:
        told.append(f"fitted to {plural(marginals.architectures, 'network')}, on those left out of the fit:")
        told[-1] += f" {_agreement(marginals.held_out)}"
    if check is not None:
        found = check.with_remainder
        shown = f"MAPE {percent(found.mape)}, tau {found.kendall_tau:.2f}" if marginals is None else _agreement(found)
        told.append(f"check: {shown}")
    if reliability_warning(table) is not None:
        told.append("NOT RELIABLE: it orders networks badly")
    return "; ".join(told)


def _agreement(found: Agreement) -> str:
    return f"R² {found.r_squared:.3f}, MAPE {percent(found.mape)}, Spearman {found.spearman:.3f}"
