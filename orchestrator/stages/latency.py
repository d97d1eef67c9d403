"""The stage that makes the latency table: measured on this device, or read from a file that another device made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.device import describe_device
from cluster.storage import sha256_of_file
from orchestrator.errors import UserError
from orchestrator.formatting import percent, plural
from orchestrator.latency_table import LatencyConditions, LatencyTable
from orchestrator.latency_table.building import Check, MeasuredSpace, TimedNetwork, build_table, check_table
from orchestrator.latency_table.files import choose_table, read_tables, require_same_parts
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Recipe
from orchestrator.recipe.latency import LatencySettings
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult

_SECONDS_A_PART, _SECONDS_A_NETWORK = 0.04, 0.12
"""What plans assume of one repeat; only an order of magnitude."""
_EMPTY = LatencyTable({})
"""Of a space whose latencies do not add up."""
_NO_TERM = {"name": "none", "value": None, "unit": "", "meaning": "the parts add up by themselves"}
"""Stands in the table of terms where nothing was fitted, or nothing had to be."""


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


def latency_row(conditions: LatencyConditions, device_name: str = "") -> dict[str, Any]:
    """The columns of the ``latency`` table that say how a latency was measured.

    Args:
        conditions: of the measurement.
        device_name: as the device names itself; "" for the device here.
    """
    return {
        "batch_size": conditions.batch_size,
        "sequence_length": conditions.sequence_length,
        "device": device_name or describe_device(conditions.device).name,
        "threads": conditions.threads if conditions.device == "cpu" else None,
        "dtype": conditions.precision,
    }


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


def check_rows(networks: Sequence[TimedNetwork], kind: str, shared: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of the ``latency`` table about networks that were timed whole.

    Args:
        networks: as timed.
        kind: ``fit`` (the remainder was fitted to them) or ``check``.
        shared: the columns of :func:`latency_row`.
    """
    for network in networks:
        yield {
            "kind": kind,
            "arch_id": network.architecture.arch_id,
            "architecture": str(network.architecture),
            "median_ms": network.measured.median_ms,
            "spread_ms": network.measured.spread_ms,
            "repeats": network.measured.repeats,
            "predicted_ms": network.predicted_ms,
            "additive_ms": network.additive_ms,
            **shared,
        }


class LatencyStage(Stage):
    """Makes the latency table of the space, fits its remainder, and checks it against whole networks if asked."""

    name = "latency"
    inputs = ("teacher",)
    version = 2

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's space and conditions, the seed of the networks, and the device or the file of the table."""
        recipe = plan.recipe
        settings = recipe.tables.latency
        # A table of another device needs none here, but its check does.
        device = None if settings.table is not None and not settings.check_architectures else _device_name(settings)
        file = None if settings.table is None else sha256_of_file(Path(settings.table))
        return [recipe.space, settings, recipe.seed, device, file]

    def check(self, plan: RunPlan) -> None:
        """The measured sequences fit the teacher's positions; the device is there, or the table's file is right."""
        check_length(plan.recipe, plan.shape.max_positions)
        settings = plan.recipe.tables.latency
        measuring_device(settings.device)
        if settings.table is not None and plan.space.parts():
            table_from_file(plan)

    def planned(self, plan: RunPlan) -> PlannedStage:
        """One measurement a part and a whole network; or the device of the file."""
        settings, parts = plan.recipe.tables.latency, len(plan.space.parts())
        conditions = conditions_of(settings)
        if not plan.space.parts():
            return PlannedStage(self.name, "run", f"measure nothing: {_no_parts(plan)}", seconds=0.0)
        if settings.table is not None:
            origin = table_from_file(plan).origin
            assert origin is not None
            work = f"read {parts} parts from {settings.table}, measured with {origin.describe()}"
            networks, parts = settings.check_architectures, 0
        else:
            networks = settings.fit_architectures + settings.check_architectures
            threads = f", {plural(settings.threads, 'thread')}" if conditions.device == "cpu" else ""
            work = (
                f"measure {parts} parts and {networks} whole networks, batch {settings.batch_size} × "
                f"{settings.sequence_length} tokens on {_device_name(settings)}{threads}, {settings.repeats} repeats"
            )
        seconds = settings.repeats * (parts * _SECONDS_A_PART + networks * _SECONDS_A_NETWORK)
        return PlannedStage(self.name, "run", work, seconds=seconds)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Measure or read, record, and say how well whole networks agree."""
        settings = context.recipe.tables.latency
        if not context.space.parts():
            return StageResult(f"nothing to measure: {_no_parts(context.plan)}", {"latency_table": _EMPTY.to_json()})
        progress.follow(settings.repeats, "rounds")

        def follow(done: int, total: int) -> None:
            if done == 1:
                progress.follow(total, "rounds")
            progress.update(done)

        check: Check | None = None
        fitted: Sequence[TimedNetwork] = ()
        if settings.table is None:
            built = build_table(
                measured_space(context.plan),
                conditions_of(settings),
                fit_architectures=settings.fit_architectures,
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
                    context.space,
                    conditions_of(settings),
                    context.plan.shape.vocab_size,
                    architectures=settings.check_architectures,
                    seed=context.recipe.seed,
                    on_round=follow,
                )
        self._record(context, table, fitted, check)
        return StageResult(_detail(table, check), {"latency_table": table.to_json()})

    @staticmethod
    def _record(context: RunContext, table: LatencyTable, fitted: Sequence[TimedNetwork], check: Check | None) -> None:
        assert table.origin is not None
        shared = latency_row(table.origin.conditions, table.origin.device_name)
        for part, measured in table.entries.items():
            context.results.append(
                "latency",
                kind=part.kind,
                operation=part.name,
                hidden_size=part.size,
                input_size=part.input_size,
                median_ms=measured.median_ms,
                spread_ms=measured.spread_ms,
                repeats=measured.repeats,
                with_remainder_ms=table.part_ms(part),
                **shared,
            )
        for row in check_rows(fitted, "fit", shared):
            context.results.append("latency", **row)
        here = latency_row(conditions_of(context.recipe.tables.latency))
        for row in check_rows(check.networks if check else (), "check", here):
            context.results.append("latency", **row)
        remainder = table.remainder
        terms = [asdict(term) for term in remainder.terms] or [_NO_TERM]
        for term in terms:
            context.results.append(
                "latency_terms",
                term=term["name"],
                value=term["value"],
                unit=term["unit"],
                meaning=term["meaning"],
                architectures=remainder.architectures,
                error_without=remainder.error_without,
                error_in_sample=remainder.error_in_sample,
                error_out_of_sample=remainder.error_out_of_sample,
                **shared,
            )


def measured_space(plan: RunPlan) -> MeasuredSpace:
    """The space of a run, with what its table remembers of it."""
    settings = plan.recipe.space
    return MeasuredSpace(plan.space, settings.name, settings.options, plan.shape)


def _no_parts(plan: RunPlan) -> str:
    return f"the space '{plan.space.name}' names no parts whose latencies add up, so none are predicted"


def _device_name(settings: LatencySettings) -> str:
    return describe_device(measuring_device(settings.device)).name


def _detail(table: LatencyTable, check: Check | None) -> str:
    assert table.origin is not None
    told = [f"{len(table.entries)} parts on {table.origin.device_name}"]
    remainder = table.remainder
    if remainder.error_out_of_sample is not None and remainder.error_without is not None:
        told.append(
            f"off by {percent(remainder.error_out_of_sample)} on unseen networks "
            f"({percent(remainder.error_without)} without the remainder of {len(remainder.terms)} terms)"
        )
    if check is not None:
        told.append(f"check: MAPE {percent(check.with_remainder.mape)}, tau {check.with_remainder.kendall_tau:.2f}")
    return "; ".join(told)
