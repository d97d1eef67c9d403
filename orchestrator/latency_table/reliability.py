"""Telling people, before they search by predicted latencies, that those order networks badly."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.latency_table.table import LatencyTable

LEAST_SPEARMAN = 0.9
"""Below this rank correlation on networks left out of the fit, prices are no guide for a search."""


def reliability_warning(table: LatencyTable) -> str | None:
    """One line where a table's prices order networks badly; ``None`` where they do not, or where it has none."""
    marginals = table.marginals
    if marginals is None or marginals.spearman() >= LEAST_SPEARMAN:
        return None
    return (
        f"WARNING: predicted latencies are not to be trusted: on networks left out of the fit they have a Spearman "
        f"correlation of {marginals.spearman():.2f} with measured ones, expected {LEAST_SPEARMAN} or more, so that a "
        f"search by latency_ms may prefer slow networks; measure on a quiet machine, and raise "
        f"tables.latency.marginal_repeats and marginal_architectures (found {marginals.architectures})"
    )


def warn_if_unreliable(table: LatencyTable, tell: Callable[[str], None]) -> None:
    """Tell whoever is about to search by a table that it orders networks badly, where it does.

    Args:
        table: with marginal prices or without.
        tell: takes one line for people, such as :meth:`~orchestrator.progress.StageProgress.message`.
    """
    if (warning := reliability_warning(table)) is not None:
        tell(warning)
