"""A program that writes numbered rows until it is killed or has written enough.

``python -m tests.orchestrator.results.streaming_writer FOLDER RUN_ID ROWS FLUSH_ROWS``: prints how many rows have been
flushed for sure, line by line, and (ROWS = 0) never ends by itself.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from orchestrator.results import ResultsWriter


def main() -> None:
    folder, run_id, rows, flush_rows = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with ResultsWriter(folder, run_id, flush_rows=flush_rows, flush_seconds=60) as writer:
        for number in range(rows) if rows else count():
            writer.append("evaluations", arch_id=f"{number:08d}", proposal=number, loss=number / 7)
            if (number + 1) % flush_rows == 0:
                print(number + 1, flush=True)


if __name__ == "__main__":
    main()
