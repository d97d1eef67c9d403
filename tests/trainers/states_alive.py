"""How many states of a supernet are alive while it runs, as Python sees it, not as an evaluator says."""

from __future__ import annotations

import weakref

import pytest
from torch import Tensor

from spaces.supernet import BlockwiseSupernet


def watch_states(monkeypatch: pytest.MonkeyPatch, supernet: BlockwiseSupernet) -> list[int]:
    """A list that gets a number for every step that is run: of all states of steps so far, those still alive."""
    born: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    run_step = supernet.run_step

    def watched(*arguments: object) -> Tensor:
        state = run_step(*arguments)
        born.append(weakref.ref(state))
        alive.append(sum(reference() is not None for reference in born))
        return state

    monkeypatch.setattr(supernet, "run_step", watched)
    return alive
