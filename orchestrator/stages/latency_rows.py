"""Rows of the tables ``latency`` and ``latency_terms`` about a latency table and the networks behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from cluster.device import describe_device
from orchestrator.latency_table import LatencyConditions, LatencyTable
from orchestrator.latency_table.building import TimedNetwork
from orchestrator.latency_table.marginals import Marginals
from orchestrator.latency_table.remainder import Remainder

_NO_TERM = {"name": "none", "value": None, "unit": "", "meaning": "the parts add up by themselves"}
"""Stands in the table of terms where nothing was fitted, or nothing had to be."""


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


def check_rows(networks: Sequence[TimedNetwork], kind: str, shared: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of the ``latency`` table about networks that were timed whole.

    Args:
        networks: as timed.
        kind: ``fit`` (the remainder, or prices, were fitted to them) or ``check``.
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


def part_rows(table: LatencyTable, shared: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of the ``latency`` table about each part.

    Args:
        table: with its remainder.
        shared: the columns of :func:`latency_row`.
    """
    for part, measured in table.entries.items():
        yield {
            "kind": part.kind,
            "operation": part.name,
            "hidden_size": part.size,
            "input_size": part.input_size,
            "median_ms": measured.median_ms,
            "spread_ms": measured.spread_ms,
            "repeats": measured.repeats,
            "with_remainder_ms": table.part_ms(part),
            **shared,
        }


def term_rows(table: LatencyTable, shared: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of the ``latency_terms`` table: the terms of the remainder, or the marginal prices.

    Args:
        table: of either kind.
        shared: the columns of :func:`latency_row`.
    """
    found = _remainder_rows(table.remainder) if table.marginals is None else _price_rows(table.marginals)
    return (row | shared for row in found)


def _remainder_rows(remainder: Remainder) -> Iterator[dict[str, Any]]:
    for term in [asdict(term) for term in remainder.terms] or [_NO_TERM]:
        yield {
            **_named(term),
            "architectures": remainder.architectures,
            "error_without": remainder.error_without,
            "error_in_sample": remainder.error_in_sample,
            "error_out_of_sample": remainder.error_out_of_sample,
        }


def _price_rows(marginals: Marginals) -> Iterator[dict[str, Any]]:
    """A row for each price, then one for each thing that can be added to a network."""
    told = marginals.held_out.to_json()
    fit = {
        "architectures": marginals.architectures,
        "error_in_sample": marginals.in_sample.mape,
        "error_out_of_sample": told["mape"],
        **{name: told[name] for name in ("median_error", "r_squared", "spearman", "kendall_tau")},
    }
    for term in marginals.terms:
        yield _named(asdict(term)) | fit
    for cost in marginals.costs:
        both = {"horizontal_ms": cost.horizontal_ms, "vertical_ms": cost.vertical_ms}
        yield {"term": f"one more {cost.name}", "unit": "ms", "meaning": cost.name, **both, **fit}


def _named(term: dict[str, Any]) -> dict[str, Any]:
    """A term's columns, in which its name is called otherwise."""
    return {"term" if key == "name" else key: value for key, value in term.items()}
