"""Making a table on this device, and comparing one with whole networks; plain PyTorch, no Ray and no recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from cluster.device import describe_device
from cluster.latency import LatencyMeasurement
from orchestrator.latency_table.agreement import Agreement, agreement
from orchestrator.latency_table.conditions import LatencyConditions
from orchestrator.latency_table.measuring import OnRound, measure_parts_and_networks
from orchestrator.latency_table.remainder import MeasuredNetwork, fit_remainder
from orchestrator.latency_table.sampling import spread_architectures
from orchestrator.latency_table.table import LatencyTable, TableOrigin
from spaces.architecture import Architecture
from spaces.encoder_shape import EncoderShape
from spaces.space import SearchSpace


@dataclass(frozen=True)
class MeasuredSpace:
    """A space with what a table remembers of it.

    Attributes:
        space: the space.
        name: it is registered under.
        options: it was made with.
        shape: of the teacher it fits.
    """

    space: SearchSpace[Any]
    name: str
    options: Mapping[str, Any]
    shape: EncoderShape


@dataclass(frozen=True)
class TimedNetwork:
    """A whole network that was timed.

    Attributes:
        architecture: of the network.
        measured: its latency.
        predicted_ms: what the table says of it.
        additive_ms: the same without the remainder: the plain sum of its parts.
    """

    architecture: Architecture
    measured: LatencyMeasurement
    predicted_ms: float
    additive_ms: float


@dataclass(frozen=True)
class Check:
    """A table against whole networks that its remainder was not fitted to.

    Attributes:
        networks: one by one.
        with_remainder: how well predictions agree.
        without_remainder: how well the plain sums agree.
    """

    networks: Sequence[TimedNetwork]
    with_remainder: Agreement
    without_remainder: Agreement


@dataclass(frozen=True)
class BuiltTable:
    """A table with the networks that were timed on the way.

    Attributes:
        table: with its remainder.
        fitted: networks the remainder was fitted to.
        check: against further networks, if any were asked for.
    """

    table: LatencyTable
    fitted: Sequence[TimedNetwork]
    check: Check | None


def build_table(
    measured_space: MeasuredSpace,
    conditions: LatencyConditions,
    *,
    fit_architectures: int,
    check_architectures: int = 0,
    seed: int = 0,
    on_round: OnRound = lambda done, total: None,
) -> BuiltTable:
    """Measure every part of a space on this device, fit the remainder, and check the result.

    Args:
        measured_space: the space.
        conditions: of every measurement.
        fit_architectures: whole networks behind the remainder; 0 for none.
        check_architectures: further networks to compare with; 0 for none.
        seed: of the networks' draw.
        on_round: follows the work.
    """
    space, length = measured_space.space, conditions.sequence_length
    has_parts = bool(space.parts())
    fitted = spread_architectures(space, fit_architectures if has_parts else 0, f"{seed}/fit", length)
    checked = spread_architectures(
        space, check_architectures if has_parts else 0, f"{seed}/check", length, excluded=fitted
    )
    entries, networks = measure_parts_and_networks(
        space, space.parts(), [*fitted, *checked], conditions, measured_space.shape.vocab_size, on_round
    )
    parts_ms = {part: entry.median_ms for part, entry in entries.items()}
    remainder = fit_remainder(
        parts_ms,
        [
            MeasuredNetwork(space.parts_of(architecture), network.median_ms)
            for architecture, network in zip(fitted, networks, strict=False)
        ],
    )
    table = LatencyTable(entries, remainder, _origin(measured_space, conditions))
    timed = [_timed(table, space, *pair) for pair in zip([*fitted, *checked], networks, strict=True)]
    fit, rest = timed[: len(fitted)], timed[len(fitted) :]
    return BuiltTable(table, fit, _check(rest) if len(rest) > 1 else None)


def check_table(
    table: LatencyTable,
    space: SearchSpace[Any],
    conditions: LatencyConditions,
    vocab_size: int,
    *,
    architectures: int,
    seed: int = 0,
    on_round: OnRound = lambda done, total: None,
) -> Check:
    """Time random networks from small to large, and compare them with a table.

    Args:
        table: to check.
        space: the table's.
        conditions: the table's, with as many repeats as wanted.
        vocab_size: token ids are drawn below it.
        architectures: networks, at least 2.
        seed: of their draw; networks of the fit with the same seed are not drawn again.
        on_round: follows the work.
    """
    length = conditions.sequence_length
    fitted = spread_architectures(space, table.remainder.architectures, f"{seed}/fit", length)
    drawn = spread_architectures(space, architectures, f"{seed}/check", length, excluded=fitted)
    _, networks = measure_parts_and_networks(space, [], drawn, conditions, vocab_size, on_round)
    return _check([_timed(table, space, *pair) for pair in zip(drawn, networks, strict=True)])


def _origin(measured_space: MeasuredSpace, conditions: LatencyConditions) -> TableOrigin:
    return TableOrigin(
        device_name=describe_device(conditions.device).name,
        conditions=conditions,
        space_name=measured_space.name,
        space_options=dict(measured_space.options),
        shape=asdict(measured_space.shape),
        versions={"torch": metadata.version("torch")},
    )


def _timed(
    table: LatencyTable, space: SearchSpace[Any], architecture: Architecture, measured: LatencyMeasurement
) -> TimedNetwork:
    predicted, additive = (table.predict_ms(space, architecture, remainder) for remainder in (True, False))
    return TimedNetwork(architecture, measured, predicted, additive)


def _check(networks: Sequence[TimedNetwork]) -> Check:
    measured = [network.measured.median_ms for network in networks]
    return Check(
        networks,
        agreement([network.predicted_ms for network in networks], measured),
        agreement([network.additive_ms for network in networks], measured),
    )
