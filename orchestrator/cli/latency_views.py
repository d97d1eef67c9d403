"""How the command line shows latency tables and their checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.cli.output import console, new_table
from orchestrator.formatting import milliseconds, percent, plural

if TYPE_CHECKING:
    from orchestrator.latency_table import LatencyTable, Marginals
    from orchestrator.latency_table.agreement import Agreement
    from orchestrator.latency_table.building import Check

_MEASURES = ("R²", "MAPE", "median error", "bias", "Spearman", "Kendall tau")


def described(table: LatencyTable) -> dict[str, Any]:
    """A table for programs: where it comes from, and what was fitted."""
    assert table.origin is not None
    given = table.origin.conditions
    return {
        "batch_size": given.batch_size,
        "sequence_length": given.sequence_length,
        "device": table.origin.device_name,
        "threads": given.threads if given.device == "cpu" else None,
        "dtype": given.precision,
        "method": given.method,
        "parts": len(table.entries),
        "remainder": table.remainder.to_json(),
        "marginals": None if table.marginals is None else table.marginals.to_json(),
    }


def checked(table: LatencyTable, found: Check, here: str) -> dict[str, Any]:
    """A check for programs."""
    return {
        "table": described(table),
        "device": here,
        "with_remainder": found.with_remainder.to_json(),
        "without_remainder": None if found.without_remainder is None else found.without_remainder.to_json(),
        "networks": [
            {
                "architecture": str(network.architecture),
                "arch_id": network.architecture.arch_id,
                "measured_ms": network.measured.median_ms,
                "spread_ms": network.measured.spread_ms,
                "predicted_ms": network.predicted_ms,
                "additive_ms": network.additive_ms,
            }
            for network in found.networks
        ],
    }


def show_table(table: LatencyTable) -> None:
    """Show what was fitted: the remainder of a sum of parts, or marginal prices."""
    if table.marginals is None:
        _show_remainder(table)
    else:
        _show_marginals(table, table.marginals)


def _show_remainder(table: LatencyTable) -> None:
    assert table.origin is not None
    remainder = table.remainder
    shown = new_table(
        f"{plural(len(table.entries), 'part')}, {table.origin.describe()}", "term", "value", "unit", "meaning"
    )
    for term in remainder.terms:
        shown.add_row(term.name, f"{term.value:.4g}", term.unit, term.meaning)
    if not remainder.terms:
        shown.add_row("none", "", "", "the parts add up by themselves, or no whole network was measured")
    console().print(shown)
    if remainder.error_out_of_sample is not None:
        console().print(
            f"error of whole networks (mean of {remainder.architectures}): {percent(remainder.error_without)} without "
            f"the remainder, {percent(remainder.error_in_sample)} with it, {percent(remainder.error_out_of_sample)} on "
            f"networks left out of the fit",
            soft_wrap=True,
        )


def _show_marginals(table: LatencyTable, marginals: Marginals) -> None:
    from orchestrator.latency_table.reliability import reliability_warning

    assert table.origin is not None
    conditions = table.origin.describe()
    columns = ("beside others", "behind them")
    shown = new_table(f"what one more costs, {conditions}", "", *columns, right=columns)
    for cost in marginals.costs:
        shown.add_row(cost.name, milliseconds(cost.horizontal_ms), milliseconds(cost.vertical_ms))
    console().print(shown)
    prices = new_table(f"{plural(len(marginals.terms), 'price')}, {conditions}", "term", "price", "unit", "meaning")
    for term in marginals.terms:
        prices.add_row(term.name, f"{term.value:.4g}", term.unit, term.meaning)
    console().print(prices)
    title = f"predictions of {plural(marginals.architectures, 'network')}"
    compared = {"fitted to them": marginals.in_sample, "left out of the fit": marginals.held_out}
    if marginals.checked is not None:
        compared["other networks"] = marginals.checked
    _show_agreements(title, compared)
    if (warning := reliability_warning(table)) is not None:
        console().print(warning, style="bold red", soft_wrap=True)


def show_check(table: LatencyTable, found: Check, here: str) -> None:
    """Show how well a table agrees with whole networks.

    Args:
        table: that was checked.
        found: the networks.
        here: the device they were timed on.
    """
    assert table.origin is not None
    measured = [network.measured.median_ms for network in found.networks]
    title = (
        f"{plural(len(measured), 'network')} of {milliseconds(min(measured))} to {milliseconds(max(measured))}, "
        f"{table.origin.describe()}"
    )
    compared = {"prices" if table.marginals is not None else "with remainder": found.with_remainder}
    if found.without_remainder is not None:
        compared["without"] = found.without_remainder
    _show_agreements(title, compared)
    if here != table.origin.device_name:
        console().print(f"note: the table was measured on {table.origin.device_name}, the networks on {here}")


def _show_agreements(title: str, compared: dict[str, Agreement]) -> None:
    shown = new_table(title, "prediction", *_MEASURES, right=_MEASURES)
    for name, one in compared.items():
        errors = (percent(one.mape), percent(one.median_error), f"{100 * one.bias:+.2f} %")
        shown.add_row(name, f"{one.r_squared:.3f}", *errors, f"{one.spearman:.3f}", f"{one.kendall_tau:.3f}")
    console().print(shown)
