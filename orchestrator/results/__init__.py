"""Results: every measurement of a run as Parquet tables which can be read while the run goes on."""

from orchestrator.results.columns import SCHEMA_VERSION
from orchestrator.results.compaction import compact
from orchestrator.results.reader import Results, open, open_results
from orchestrator.results.schemas import TABLES
from orchestrator.results.writer import ResultsWriter

__all__ = ["SCHEMA_VERSION", "TABLES", "Results", "ResultsWriter", "compact", "open", "open_results"]
