"""Making a table on this device, and comparing one with whole networks; plain PyTorch, no Ray and no recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any

from cluster.device import describe_device
from cluster.latency import LatencyMeasurement
from orchestrator.latency_table.agreement import Agreement, agreement
from orchestrator.latency_table.conditions import LatencyConditions
from orchestrator.latency_table.marginals import fit_marginals, predicts_latency, priced
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
        additive_ms: the same without the remainder: the plain sum of its parts; ``None`` where it has no parts.
    """

    architecture: Architecture
    measured: LatencyMeasurement
    predicted_ms: float
    additive_ms: float | None


@dataclass(frozen=True)
class Check:
    """A table against whole networks that nothing in it was fitted to.

    Attributes:
        networks: one by one.
        with_remainder: how well predictions agree.
        without_remainder: how well the plain sums agree; ``None`` where networks have no parts.
    """

    networks: Sequence[TimedNetwork]
    with_remainder: Agreement
    without_remainder: Agreement | None


@dataclass(frozen=True)
class BuiltTable:
    """A table with the networks that were timed on the way.

    Attributes:
        table: with its remainder, or its marginal prices.
        fitted: networks that these were fitted to.
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

    Where a space names no parts, but what latency is a sum over, prices are fitted to the networks instead.

    Args:
        measured_space: the space.
        conditions: of every measurement.
        fit_architectures: whole networks behind the remainder, or behind the prices; 0 for none, without which there is
            no remainder, and there are no prices.
        check_architectures: further networks to compare with; 0 for none.
        seed: of the networks' draw.
        on_round: follows the work.

    Raises:
        UserError: the space has hardly any networks to fit prices to.
    """
    space, length = measured_space.space, conditions.sequence_length
    if not predicts_latency(space) or (priced(space) is not None and not fit_architectures):
        fit_architectures = check_architectures = 0
    fitted = _networks_of_fit(space, fit_architectures, seed, length)
    checked = spread_architectures(space, check_architectures, f"{seed}/check", length, excluded=fitted)
    entries, networks = measure_parts_and_networks(
        space, space.parts(), [*fitted, *checked], conditions, measured_space.shape.vocab_size, on_round
    )
    table = LatencyTable(entries, origin=_origin(measured_space, conditions))
    table = _fitted_to(table, space, fitted, [network.median_ms for network in networks[: len(fitted)]])
    timed = [_timed(table, space, *pair) for pair in zip([*fitted, *checked], networks, strict=True)]
    fit, rest = timed[: len(fitted)], timed[len(fitted) :]
    check = _check(rest) if len(rest) > 1 else None
    if table.marginals is not None and check is not None:
        table = replace(table, marginals=replace(table.marginals, checked=check.with_remainder))
    return BuiltTable(table, fit, check)


def _networks_of_fit(space: SearchSpace[Any], count: int, seed: int, sequence_length: int) -> list[Architecture]:
    """The networks that a table is fitted to; of prices, well-known ones are among them.

    Random networks are hardly ever as regular as the teacher, which a search begins at.
    """
    anchors = [] if priced(space) is None else list(space.anchors())[:count]
    drawn = spread_architectures(space, count - len(anchors), f"{seed}/fit", sequence_length, excluded=anchors)
    return [*anchors, *drawn]


def _fitted_to(
    table: LatencyTable, space: SearchSpace[Any], architectures: Sequence[Architecture], milliseconds: Sequence[float]
) -> LatencyTable:
    """The table with its remainder, or its marginal prices."""
    with_prices = priced(space)
    if with_prices is not None:
        return (
            replace(table, marginals=fit_marginals(with_prices, architectures, milliseconds)) if milliseconds else table
        )
    parts_ms = {part: entry.median_ms for part, entry in table.entries.items()}
    pairs = zip(architectures, milliseconds, strict=True)
    return table.with_remainder(
        fit_remainder(parts_ms, [MeasuredNetwork(space.parts_of(one), ms) for one, ms in pairs])
    )


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
    behind = table.remainder.architectures if table.marginals is None else table.marginals.architectures
    fitted = _networks_of_fit(space, behind, seed, length)
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
    additive = None if table.marginals is not None else table.predict_ms(space, architecture, remainder=False)
    return TimedNetwork(architecture, measured, table.predict_ms(space, architecture), additive)


def _check(networks: Sequence[TimedNetwork]) -> Check:
    measured = [network.measured.median_ms for network in networks]
    predicted = agreement([network.predicted_ms for network in networks], measured)
    additive = [network.additive_ms for network in networks if network.additive_ms is not None]
    return Check(networks, predicted, agreement(additive, measured) if additive else None)
