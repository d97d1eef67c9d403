"""What is told of progressive shrinking while it happens."""

from __future__ import annotations

import io

import pytest

from orchestrator.progress import Progress
from orchestrator.stages.shrinking_view import ShrinkingView


def rows_of(number: int, counts: dict[int, list[tuple[int, int]]]) -> list[dict]:
    """The rows of a round; for each block and bin, how many lived before it and how many it removed."""
    return [
        {
            "round": number,
            "block": block,
            "bin": place,
            "latency_rule": "upper (table)",
            "live_before": before,
            "removed": removed,
            "live_after": before - removed,
            "live_total": sum(live - gone for live, gone in bins),
            **({"best_loss": 0.25, "median_loss": 0.5} if number else {}),
        }
        for block, bins in counts.items()
        for place, (before, removed) in enumerate(bins, start=1)
    ]


LATENCY = rows_of(0, {0: [(6, 1), (9, 3)], 1: [(6, 1), (9, 3)]})
FIRST = rows_of(1, {0: [(5, 1), (6, 3)], 1: [(5, 0), (6, 2)]})
SECOND = rows_of(2, {0: [(4, 0), (3, 0)], 1: [(5, 1), (4, 0)]})


@pytest.fixture
def told():
    """Shows batches of rows, and gives what was written."""
    stream = io.StringIO()
    with Progress("lines", stream).stage("supernet") as progress:
        view = ShrinkingView(progress, keep=4)

        def tell(*batches: list[dict]) -> str:
            for batch in batches:
                view.see("training", [{"step": 1}])
                view.see("shrinking", batch)
            return stream.getvalue()

        yield tell


def test_each_round_says_what_removed_how_many(told):
    lines = [line.split() for line in told(LATENCY, FIRST, SECOND).splitlines()]
    text = [" ".join(line) for line in lines]
    assert "before shrinking: the latency rule upper (table) removed 8 architectures; alive:" in text
    assert "shrinking round 1: 6 removed from bins (before: 0 from bins, 8 by the latency rule); alive:" in text
    assert "shrinking round 2: 1 removed from bins (before: 6 from bins, 8 by the latency rule); alive:" in text
    assert "block alive bin 1 bin 2 removed: latency removed: bins best loss median loss" in text
    assert "0 7 4 3 4 4 0.250 0.500 done" in text
    assert "1 9 5 4 4 2 0.250 0.500" in text
    assert "1 8 4 4 4 1 0.250 0.500 done" in text


def test_it_says_when_a_block_is_done_and_only_once(told):
    text = told(LATENCY, FIRST, SECOND)
    assert text.count("shrinking is over") == 2
    assert "block 0: shrinking is over after round 1, no bin has more than 4 architectures" in text
    assert "block 1: shrinking is over after round 2, no bin has more than 4 architectures" in text


def test_rounds_that_come_together_are_all_told(told):
    """As the first two do of a quick training, and all of one that goes on after it was interrupted."""
    text = told([*LATENCY, *FIRST])
    assert "removed 8 architectures\n" in text
    assert "shrinking round 1: 6 removed" in text
    assert text.count("bin 1") == 1, "one table is enough"
    assert "(before: 6 from bins, 8 by" in told([*LATENCY, *FIRST], [*LATENCY, *FIRST, *SECOND])
