"""What a person sees of progressive shrinking while it happens: a table with a line for each block."""

from __future__ import annotations

from typing import Any

from orchestrator.formatting import count, significant
from orchestrator.progress import StageProgress

Row = dict[str, Any]


class ShrinkingView:
    """Shows the newest round of each block.

    Args:
        progress: of the stage that trains.
    """

    def __init__(self, progress: StageProgress) -> None:
        self._progress = progress
        self._blocks: dict[int, list[Row]] = {}

    def see(self, table: str, rows: list[Row]) -> None:
        """Take new rows of a results table; only those of ``shrinking`` matter."""
        if table != "shrinking" or not rows:
            return
        newest: dict[tuple[int, int], list[Row]] = {}
        for row in rows:
            newest.setdefault((row["round"], row["block"]), []).append(row)
        for (_, block), bins in sorted(newest.items()):
            self._blocks[block] = sorted(bins, key=lambda row: row["bin"])
        first = next(iter(self._blocks.values()))
        last = max(bins[0]["round"] for bins in self._blocks.values())
        what = f"shrinking round {last}" if last else f"latency rule {first[0]['latency_rule']}"
        columns = ["block", "alive", *(f"bin {row['bin']}" for row in first), "best loss", "median loss"]
        lines = [self._line(block, bins) for block, bins in sorted(self._blocks.items())]
        self._progress.table(f"{what}: architectures alive", columns, lines)

    @staticmethod
    def _line(block: int, bins: list[Row]) -> list[str]:
        best = [row["best_loss"] for row in bins if row.get("best_loss") is not None]
        medians = [row["median_loss"] for row in bins if row.get("median_loss") is not None]
        losses = (min(best, default=None), min(medians, default=None))
        counts = [count(row["live_after"]) for row in bins]
        return [str(block), count(bins[0]["live_total"]), *counts, *(significant(loss, 3) for loss in losses)]
