from __future__ import annotations

import io
import threading

import pytest

from orchestrator.progress import Progress


class Clock:
    """Seconds that only pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_plain_lines_say_place_rate_and_time_left_at_most_every_interval(clock):
    stream = io.StringIO()
    progress = Progress("lines", stream, interval=10, clock=clock)
    progress.begin(["teacher", "corpus", "supernet"])
    with progress.stage("supernet", total=200) as stage:
        for _ in range(100):
            clock.now += 0.25
            stage.advance(2, note="loss 0.5")
        assert stage.done == 200
    assert lines(stream) == [
        "[3/3] supernet  0/200 steps",
        "[3/3] supernet  80/200 steps  8.0 steps/s  15 s left  loss 0.5",
        "[3/3] supernet  160/200 steps  8.0 steps/s  5 s left  loss 0.5",
        "[3/3] supernet  done  200/200 steps in 25.0 s",
    ]


def test_a_line_without_news_is_repeated_once_a_minute(clock):
    stream = io.StringIO()
    progress = Progress("lines", stream, interval=10, clock=clock)
    with progress.stage("supernet", total=40) as stage:
        for _ in range(130):
            clock.now += 1
            stage.update(0)
        clock.now += 10
        stage.update(1)
    assert [line.split("  ")[1] for line in lines(stream)][:4] == ["0/40 steps"] * 3 + ["1/40 steps"]


def test_the_rate_of_a_resumed_stage_counts_only_what_was_done_now(clock):
    stream = io.StringIO()
    progress = Progress("lines", stream, interval=10, clock=clock)
    with progress.stage("supernet", total=200, done=150) as stage:
        clock.now += 10
        stage.update(160)
    assert "supernet  160/200 steps  1.0 steps/s  40 s left" in lines(stream)


def test_a_stage_that_falls_back_to_its_checkpoint_starts_its_rate_anew(clock):
    stream = io.StringIO()
    progress = Progress("lines", stream, interval=0, clock=clock)
    with progress.stage("supernet", total=100) as stage:
        clock.now += 1
        stage.update(50)
        clock.now += 1
        stage.update(20)
        clock.now += 10
        stage.update(30)
        assert "30/100 steps  1.0 steps/s" in stage.line()


def test_a_stage_may_count_several_things_one_after_another(clock):
    stream = io.StringIO()
    progress = Progress("lines", stream, interval=0, clock=clock)
    with progress.stage("distillation") as stage:
        stage.follow(total=10, unit="steps", note="half")
        clock.now += 1
        stage.advance(5)
        stage.message("half: checkpoint at step 5")
    assert lines(stream) == [
        "distillation",
        "distillation  0/10 steps  half",
        "distillation  5/10 steps  5.0 steps/s  1 s left  half",
        "      half: checkpoint at step 5",
        "distillation  done  5/10 steps in 1.00 s",
    ]


def test_a_stage_that_fails_is_not_called_done(clock):
    stream = io.StringIO()
    progress = Progress("lines", stream, clock=clock)

    def fail() -> None:
        with progress.stage("search", total=5, unit="candidates") as stage:
            stage.advance(2)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert lines(stream)[-1] == "search  stopped  2/5 candidates"


def test_skipped_stages_and_messages(clock):
    stream = io.StringIO()
    progress = Progress("lines", stream, clock=clock)
    progress.begin(["a", "b"])
    progress.skip("a")
    progress.message("Ray 2.60 [local], 2 cores")
    assert lines(stream) == ["[1/2] a  skipped: nothing changed since it finished", "Ray 2.60 [local], 2 cores"]


def test_silence_is_silent(clock):
    stream = io.StringIO()
    progress = Progress("silent", stream, clock=clock)
    progress.begin(["a"])
    progress.skip("a")
    with progress.stage("a", total=3) as stage:
        clock.now += 60
        stage.advance()
        stage.message("x")
    assert stream.getvalue() == ""


def test_a_stream_that_is_no_terminal_gets_lines():
    assert Progress(stream=io.StringIO()).mode == "lines"


def test_a_terminal_gets_a_bar_that_leaves_one_line_behind(clock):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = Progress(stream=stream, clock=clock)
    assert progress.mode == "bar"
    with progress.stage("supernet", total=4) as stage:
        clock.now += 1
        stage.advance(4, note="loss [0.5]")
    assert "loss [0.5]" in stream.getvalue()
    assert stream.getvalue().rstrip().endswith("supernet  done  4/4 steps in 1.00 s")


def test_many_threads_count_together(clock):
    progress = Progress("silent", io.StringIO(), clock=clock)
    with progress.stage("search", total=4000) as stage:
        threads = [threading.Thread(target=lambda: [stage.advance() for _ in range(1000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stage.done == 4000


COLUMNS = ("block", "alive", "best loss")
ROWS = (("0", "46,770", "0.1"), ("1", "10", "0.25"))


def test_a_table_in_a_log_is_aligned_lines(clock):
    stream = io.StringIO()
    progress = Progress("lines", stream, clock=clock)
    with progress.stage("supernet", total=4) as stage:
        stage.table("round 1", COLUMNS, ROWS)
        stage.table("round 2", COLUMNS, ROWS[:1])
    assert lines(stream)[1:-1] == [
        "      round 1",
        "      block   alive  best loss",
        "      0      46,770        0.1",
        "      1          10       0.25",
        "      round 2",
        "      block   alive  best loss",
        "      0      46,770        0.1",
    ]


def test_a_table_on_a_terminal_stands_below_the_bar_and_goes_with_it(clock):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = Progress(stream=stream, clock=clock)
    with progress.stage("supernet", total=4) as stage:
        stage.table("round [1]", COLUMNS, ROWS)
        stage.table("round [2]", COLUMNS, ROWS[:1])
        shown = stream.getvalue()
        stage.advance(4)
    assert shown.index("round [1]") < shown.index("46,770") < shown.index("round [2]")
    assert "0.25" not in shown[shown.index("round [2]") :], "the older table was left below the newer"
    assert stream.getvalue().rstrip().endswith("supernet  done  4/4 steps in 0 s")


def test_silence_has_no_tables(clock):
    stream = io.StringIO()
    with Progress("silent", stream, clock=clock).stage("a") as stage:
        stage.table("round 1", COLUMNS, ROWS)
        stage.note("busy")
    assert stream.getvalue() == ""


def test_what_a_long_unit_is_busy_with_is_shown_until_it_is_done(clock):
    progress = Progress("lines", io.StringIO(), clock=clock)
    with progress.stage("supernet", total=9) as stage:
        stage.update(3, note="relative error 0.5")
        stage.note("shrinking round 1")
        stage.update(3)
        assert stage.line().endswith("shrinking round 1")
        clock.now += 1
        stage.update(4)
        assert stage.line().endswith("relative error 0.5")
