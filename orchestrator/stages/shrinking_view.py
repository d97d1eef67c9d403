"""What a person sees of progressive shrinking while it happens: a table with a line for each block."""

from __future__ import annotations

from typing import Any

from orchestrator.formatting import count, plural, significant
from orchestrator.progress import StageProgress

Row = dict[str, Any]
_LATENCY_RULE = 0
"""The number of the round that stands for what the latency rule removed before the training."""


class ShrinkingView:
    """Shows every round as it comes: who lives, and what removed the others.

    A round is told once all its rows are there; of several that come together (a training that goes on sends what it
    has sent before), the last one is a table and the others are a line each.

    Args:
        progress: of the stage that trains.
        keep: architectures that each bin keeps; a block whose bins have no more is done.
    """

    def __init__(self, progress: StageProgress, keep: int) -> None:
        self._progress = progress
        self._keep = keep
        self._blocks: dict[int, dict[int, list[Row]]] = {}
        self._done: set[int] = set()

    def see(self, table: str, rows: list[Row]) -> None:
        """Take new rows of a results table; only those of ``shrinking`` matter."""
        if table != "shrinking" or not rows:
            return
        arrived: dict[tuple[int, int], list[Row]] = {}
        for row in rows:
            arrived.setdefault((row["round"], row["block"]), []).append(row)
        for (number, block), bins in sorted(arrived.items()):
            self._blocks.setdefault(block, {})[number] = sorted(bins, key=lambda row: row["bin"])
        *earlier, last = sorted({number for number, _ in arrived})
        for number in earlier:
            self._progress.message(self._title(number))
            self._tell_done(number)
        self._progress.table(f"{self._title(last)}; alive:", *self._table(last))
        self._tell_done(last)

    def _title(self, number: int) -> str:
        """What a round removed, all blocks together."""
        by_rule = sum(self._removed(block, _LATENCY_RULE) for block in self._blocks)
        if number == _LATENCY_RULE:
            rule = next(iter(self._blocks.values()))[number][0]["latency_rule"]
            if rule == "none":
                return "before shrinking: no latency rule, all architectures live"
            return f"before shrinking: the latency rule {rule} removed {plural(by_rule, 'architecture')}"
        by_bins = sum(self._removed(block, number) for block in self._blocks)
        return (
            f"shrinking round {number}: {count(by_bins)} removed from bins "
            f"(before: {count(self._removed_before(number))} from bins, {count(by_rule)} by the latency rule)"
        )

    def _table(self, number: int) -> tuple[list[str], list[list[str]]]:
        """A line for each block: its newest round up to this one."""
        newest = {block: max(one for one in rounds if one <= number) for block, rounds in sorted(self._blocks.items())}
        bins = self._blocks[next(iter(newest))]
        names = [f"bin {row['bin']}" for row in next(iter(bins.values()))]
        columns = ["block", "alive", *names, "removed: latency", "removed: bins", "best loss", "median loss", ""]
        return columns, [self._line(block, at, number) for block, at in newest.items()]

    def _line(self, block: int, at: int, number: int) -> list[str]:
        bins = self._blocks[block][at]
        best = [row["best_loss"] for row in bins if row.get("best_loss") is not None]
        medians = [row["median_loss"] for row in bins if row.get("median_loss") is not None]
        losses = (min(best, default=None), min(medians, default=None))
        removed = (self._removed(block, _LATENCY_RULE), self._removed(block, number) if number else 0)
        return [
            str(block),
            count(bins[0]["live_total"]),
            *(count(row["live_after"]) for row in bins),
            *(count(one) for one in removed),
            *(significant(loss, 3) for loss in losses),
            "done" if self._is_done(block, at) else "",
        ]

    def _tell_done(self, number: int) -> None:
        """Say of each block whose last round this was that it is done."""
        finished = [
            block
            for block, rounds in sorted(self._blocks.items())
            if number in rounds and self._is_done(block, number) and block not in self._done
        ]
        self._done.update(finished)
        if finished:
            when = f"after round {number}" if number else "before the first round"
            names = ", ".join(map(str, finished))
            which = f"block {names}" if len(finished) == 1 else f"blocks {names}"
            kept = plural(self._keep, "architecture")
            self._progress.message(f"{which}: shrinking is over {when}, no bin has more than {kept}")

    def _is_done(self, block: int, number: int) -> bool:
        return all(row["live_after"] <= self._keep for row in self._blocks[block][number])

    def _removed(self, block: int, number: int) -> int:
        return sum(row["removed"] for row in self._blocks[block].get(number, []))

    def _removed_before(self, number: int) -> int:
        return sum(
            self._removed(block, one) for block, rounds in self._blocks.items() for one in rounds if 0 < one < number
        )
