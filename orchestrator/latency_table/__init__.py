"""Latency tables: measuring parts and whole networks, the additive prediction, what is fitted to it, and its files."""

from orchestrator.latency_table.conditions import LatencyConditions
from orchestrator.latency_table.marginals import Marginals
from orchestrator.latency_table.measuring import measure_part
from orchestrator.latency_table.remainder import Remainder
from orchestrator.latency_table.table import LatencyTable, TableOrigin

__all__ = ["LatencyConditions", "LatencyTable", "Marginals", "Remainder", "TableOrigin", "measure_part"]
