"""An orderly stop: what SIGTERM (a pod's eviction, `ray job stop`) and SIGINT (Ctrl-C) do to a run.

The first signal ends the run in order: the current block unwinds as after Ctrl-C, so that files are closed and Ray is
shut down; the command can then be given again and goes on. A second signal ends the process at once.

Ray Tune and Ray Train meddle with signals while they run, each in its own way, and leave handlers behind that have
lost their purpose. `while_ray_runs` is put around ``Tuner.fit()`` and ``Trainer.fit()`` for that reason.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cluster.environment import variables

_STOPPING = (signal.SIGINT, signal.SIGTERM)
#: Tune's own handler for SIGUSR1 lets running trials go and saves the experiment; there is none on Windows.
_TUNE_SIGNAL: signal.Signals | None = getattr(signal, "SIGUSR1", None)
_TUNE_SWITCH = "TUNE_DISABLE_SIGINT_HANDLER"


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, by the signal it names. Not an error: the same command goes on from here."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(f"stopped by {received.name}")
        self.signal = received


class StopRequest:
    """Whether a stop was asked for; handed out by `orderly_stop`."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.ray_runs = False

    def raise_if_requested(self) -> None:
        """End the current block by `Interrupted` if a signal has arrived; for loops between two pieces of work."""
        if self.received is not None:
            raise Interrupted(self.received)


_current: StopRequest | None = None


@contextmanager
def orderly_stop() -> Iterator[StopRequest]:
    """Turn the first SIGTERM or SIGINT of the block into `Interrupted`; let a second one end the process at once.

    Handlers are put back afterwards. Outside the main thread, where Python allows no handlers, signals stay as they
    are.
    """
    global _current
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if request.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        request.received = signal.Signals(number)
        if not (request.ray_runs and _tune_takes_over()):
            raise Interrupted(request.received)

    outer, _current = _current, request
    try:
        with _kept_handlers():
            for number in _STOPPING:
                signal.signal(number, stop)
            yield request
    except KeyboardInterrupt as error:
        if request.received is None or isinstance(error, Interrupted):
            raise
        raise Interrupted(request.received) from error  # `ray.get` replaces what a handler raises by its own
    finally:
        _current = outer


@contextmanager
def while_ray_runs() -> Iterator[None]:
    """Put around ``Tuner.fit()`` or ``Trainer.fit()``: a stop reaches Tune in the way Tune saves its state.

    Within the block the first signal is passed to Tune's own handler, where Tune runs: ``fit()`` ends its loop and
    returns, and `Interrupted` is raised at the end of the block. Afterwards the handlers that Tune or Train left
    behind are gone.
    """
    request = _current
    if request is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        # The switch makes Ctrl-C come to `orderly_stop` first, as SIGTERM does.
        with _kept_handlers(), variables({_TUNE_SWITCH: "1"}, replace=True):
            if _TUNE_SIGNAL is not None:
                signal.signal(_TUNE_SIGNAL, signal.SIG_DFL)
            request.ray_runs = True
            yield
    except SystemExit as error:  # how Train's own SIGINT handler leaves
        request.received = signal.SIGINT
        raise Interrupted(signal.SIGINT) from error
    finally:
        request.ray_runs = False
    request.raise_if_requested()


def _tune_takes_over() -> bool:
    """Pass the stop on to Tune's handler, if Tune has installed one; returns whether it had."""
    if _TUNE_SIGNAL is None or not callable(signal.getsignal(_TUNE_SIGNAL)):
        return False
    signal.raise_signal(_TUNE_SIGNAL)
    return True


@contextmanager
def _kept_handlers() -> Iterator[None]:
    """Put back, after the block, the handlers of every signal that a run or Ray may touch."""
    numbers = [*_STOPPING, *([_TUNE_SIGNAL] if _TUNE_SIGNAL is not None else [])]
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: a handler that was not installed from Python
                signal.signal(number, handler)
