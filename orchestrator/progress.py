"""Progress of a run: which stage of how many, how far, how fast, how much longer.

On a terminal a bar moves; in a job log plain lines appear, at most one every few seconds::

    [3/9] supernet  120/200 steps  41 steps/s  2 s left
    [3/9] supernet  done  200/200 steps in 4.9 s

A stage may keep a table below its bar (:meth:`StageProgress.table`); in a log its lines follow each other.

Everything goes to one stream (standard error in the command), so standard output stays free for results.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Literal

from rich.console import Console, RenderableType
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from orchestrator.formatting import NBSP, seconds, significant

Mode = Literal["auto", "bar", "lines", "silent"]

LINE_INTERVAL_SECONDS = 10.0
"""Least time between two plain progress lines of a stage."""
_PATIENCE = 6
"""Intervals after which a plain line that says nothing new is written all the same: the run is alive."""
_RATE_WINDOW_SECONDS = 30.0


class Progress:
    """Tells a person how a run goes. Stages call it from the driver, from any thread.

    Call order: :meth:`begin` once with the names of all stages, then for each of them :meth:`stage` (a context manager
    that yields the stage's own progress) or :meth:`skip`; :meth:`message` at any time.

    Args:
        mode: ``bar`` on a terminal, ``lines`` in a log, ``silent`` for nothing at all; ``auto`` chooses between the
            first two by whether the stream is a terminal.
        stream: where to write; standard error by default.
        interval: least seconds between two plain lines of a stage.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        mode: Mode = "auto",
        stream: IO[str] | None = None,
        interval: float = LINE_INTERVAL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)
        if mode == "auto":
            mode = "bar" if self._console.is_terminal else "lines"
        self.mode: Mode = mode
        self._interval = interval
        self._clock = clock
        self._stages: list[str] = []
        self._lock = threading.RLock()

    def begin(self, stages: Sequence[str]) -> None:
        """Name all stages, in order, so that each knows its place."""
        self._stages = list(stages)

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "steps", done: int = 0) -> Iterator[StageProgress]:
        """Follow one stage from its start to its end.

        Args:
            name: one of :meth:`begin`'s.
            total: units of work; ``None`` where nobody knows, or where :meth:`StageProgress.follow` says it later.
            unit: what is counted, in the plural.
            done: units that an earlier start of the run has done.
        """
        progress = StageProgress(self, name, total, unit, done)
        progress._start()
        try:
            yield progress
        except BaseException:
            progress._stop(finished=False)
            raise
        progress._stop(finished=True)

    def skip(self, name: str, reason: str = "nothing changed since it finished") -> None:
        """Say that a stage has nothing to do."""
        self.write(f"{self.place(name)}  skipped: {reason}")

    def message(self, text: str) -> None:
        """Say something that belongs to no stage."""
        self.write(text)

    def place(self, name: str) -> str:
        """``[3/9] supernet``; the name alone where :meth:`begin` did not name it."""
        if name not in self._stages:
            return name
        return f"[{self._stages.index(name) + 1}/{len(self._stages)}] {name}"

    def write(self, line: str) -> None:
        """Print one plain line (above the bar, where there is one)."""
        if self.mode == "silent":
            return
        with self._lock:
            self._console.print(line.replace(NBSP, " "), markup=False)


class _BarWithTable(Bar):
    """A bar with a table below it, once there is one."""

    below: Table | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then the table."""
        yield from super().get_renderables()
        if self.below is not None:
            yield self.below


class StageProgress:
    """Progress of one stage; made by :meth:`Progress.stage`."""

    def __init__(self, progress: Progress, name: str, total: int | None, unit: str, done: int) -> None:
        self._progress = progress
        self._name = name
        self._total = total
        self._unit = unit
        self._done = done
        self._note = ""
        self._busy = ""
        self._started = self._last_line = progress._clock()
        self._samples: deque[tuple[float, int]] = deque([(self._started, done)])
        self._last_text = ""
        self._bar: _BarWithTable | None = None
        self._task: TaskID | None = None

    @property
    def done(self) -> int:
        """Units done so far."""
        return self._done

    def follow(self, total: int | None, unit: str = "steps", done: int = 0, note: str = "") -> None:
        """Count something else from here on: the next part of a stage that has several (one student after another)."""
        with self._progress._lock:
            self._total, self._unit, self._done, self._note = total, unit, done, note
            self._samples = deque([(self._progress._clock(), done)])
            self._show()

    def advance(self, units: int = 1, note: str | None = None) -> None:
        """Count ``units`` more; ``note`` is shown behind the numbers (a loss, a budget)."""
        with self._progress._lock:
            self.update(self._done + units, note)

    def update(self, done: int, note: str | None = None) -> None:
        """Set the units done; going back (a training that resumed from its checkpoint) starts the rate anew."""
        with self._progress._lock:
            now = self._progress._clock()
            if done < self._done:
                self._samples.clear()
            if done != self._done:
                self._busy = ""
            self._done = done
            self._note = self._note if note is None else note
            self._samples.append((now, done))
            while len(self._samples) > 2 and now - self._samples[0][0] > _RATE_WINDOW_SECONDS:
                self._samples.popleft()
            self._show()

    def note(self, text: str) -> None:
        """Say what the unit of work under way is busy with; shown until the next unit is done."""
        with self._progress._lock:
            self._busy = text
            self._show()

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table of the stage's state, in place of the one before; the first column is aligned to the left.

        On a terminal it stands below the bar and goes with it. In a log its lines are written each time, so call it
        when something has happened, not when a clock ticks.
        """
        with self._progress._lock:
            if self._bar is not None:
                self._bar.below = _as_table(title, columns, rows)
                self._bar.refresh()
            elif self._progress.mode == "lines":
                for line in (title, *_aligned(columns, rows)):
                    self.message(line)

    def message(self, text: str) -> None:
        """Say something about this stage, in a line of its own below it."""
        self._progress.write(f"      {text}")

    def line(self) -> str:
        """The stage's state as plain text."""
        return "  ".join(filter(None, (self._progress.place(self._name), *self._numbers(), self._busy or self._note)))

    def _numbers(self) -> list[str]:
        if self._total is None and not self._done:
            return []
        counted = f"{self._done}/{self._total}" if self._total is not None else str(self._done)
        numbers = [f"{counted} {self._unit}"]
        rate = self._rate()
        if rate:
            numbers.append(f"{significant(rate, 2)} {self._unit}/s")
            if self._total is not None and self._done < self._total:
                numbers.append(f"{_left((self._total - self._done) / rate)} left")
        return numbers

    def _rate(self) -> float | None:
        """Units a second over the last half minute; ``None`` before there is one."""
        (first_time, first), (last_time, last) = self._samples[0], self._samples[-1]
        return (last - first) / (last_time - first_time) if last_time > first_time and last > first else None

    def _show(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=self._total, completed=self._done, text=self._bar_text())
        elif self._progress.mode == "lines":
            now, text = self._progress._clock(), self.line()
            patience = _PATIENCE if text == self._last_text else 1
            if now - self._last_line >= patience * self._progress._interval:
                self._last_line, self._last_text = now, text
                self._progress.write(text)

    def _bar_text(self) -> str:
        return "  ".join(filter(None, (*self._numbers(), self._busy or self._note))).replace(NBSP, " ")

    def _start(self) -> None:
        if self._progress.mode == "bar":
            self._bar = _BarWithTable(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[text]}", markup=False),
                console=self._progress._console,
                transient=True,
            )
            place = self._progress.place(self._name)
            self._task = self._bar.add_task(place, total=self._total, completed=self._done, text=self._bar_text())
            self._bar.start()
        else:
            self._last_text = self.line()
            self._progress.write(self._last_text)

    def _stop(self, finished: bool) -> None:
        with self._progress._lock:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None
            place = self._progress.place(self._name)
            if not finished:
                self._progress.write("  ".join([place, "stopped", *self._numbers()[:1]]))
                return
            took = seconds(self._progress._clock() - self._started)
            work = f"{self._numbers()[0]} in {took}" if self._numbers() else f"in {took}"
            self._progress.write(f"{place}  done  {work}")


def _as_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell.replace(NBSP, " ")) for cell in row))
    return table


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for first, *others in (columns, *rows):
        right = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *right]).rstrip()


def _left(remaining: float) -> str:
    """Time left, no finer than a second: nobody can predict better."""
    return seconds(max(1.0, float(round(remaining)))) if remaining >= 60 else f"{max(1, round(remaining))} s"
