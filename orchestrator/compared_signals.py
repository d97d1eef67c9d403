"""Signals of runs that exist: the recorded ones of a run, and those against a run with another seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError
from orchestrator.loss_signal import SizeSignal, signal_of_seeds
from orchestrator.results import open_results
from orchestrator.run_directory import RunDirectory

if TYPE_CHECKING:
    import pandas as pd


def recorded_signals(run_dir: Path) -> dict[int, list[SizeSignal]]:
    """The signals of the supernet that was scored last, by block.

    Raises:
        UserError: none is recorded.
    """
    frame = _of_latest_supernet(RunDirectory(run_dir), "signals")
    if frame.empty:
        raise UserError(
            f"{run_dir}: found no signal, expected a run past the stage 'block_losses' with "
            f"tables.signal_architectures above 0; go on with it: netsuke run ... --run-dir {run_dir}"
        )
    signals: dict[int, list[SizeSignal]] = {}
    for row in frame.sort_values(["block", "hidden_size"]).itertuples():
        numbers: Any = row
        signals.setdefault(int(numbers.block), []).append(
            SizeSignal(
                int(numbers.hidden_size),
                int(numbers.architectures),
                int(numbers.batches),
                float(numbers.spread),
                _known(numbers.noise),
                _known(numbers.kendall_tau),
                _known(numbers.explained_by_size),
            )
        )
    return signals


def signals_against(run_dir: Path, other_dir: Path) -> dict[int, list[SizeSignal]]:
    """Signals whose noise is the disagreement of two runs about the architectures that both scored.

    Raises:
        UserError: they scored nothing in common, or with different numbers of batches only, or are one run.
    """
    first, second = (_of_latest_supernet(RunDirectory(folder), "block_losses") for folder in (run_dir, other_dir))
    if set(first["supernet_signature"]) & set(second["supernet_signature"]):
        raise UserError(f"--other {other_dir}: found the supernet of {run_dir} itself, expected one of another seed")
    key = ["block", "hidden_size", "architecture", "fidelity"]
    both = first.merge(second, on=key, suffixes=("", "_other"))
    if both.empty:
        raise UserError(
            f"--other {other_dir}: found no architecture that both runs scored on as many batches, expected runs of "
            f"one recipe with different seeds; score the same ones first: netsuke score {other_dir} --architectures all"
        )
    both = both[both["fidelity"] == both["fidelity"].max()]
    signals: dict[int, list[SizeSignal]] = {}
    for block, rows in both.groupby("block"):
        own, others = (
            {int(size): _losses(part, name) for size, part in rows.groupby("hidden_size")} for name in _NAMES
        )
        signals[int(block)] = signal_of_seeds(own, others, int(rows["fidelity"].iloc[0]))
    return signals


_NAMES = ("loss", "loss_other")


def _losses(rows: pd.DataFrame, name: str) -> NDArray[np.float64]:
    return rows[name].to_numpy(dtype=np.float64)


def _of_latest_supernet(folder: RunDirectory, table: str) -> pd.DataFrame:
    """The rows of the supernet that was scored last."""
    frame = open_results(folder.results).frame(table)
    if frame.empty:
        return frame
    latest: pd.DataFrame = frame[frame["supernet_signature"] == frame["supernet_signature"].iloc[-1]]
    return latest


def _known(value: Any) -> float | None:
    number = float(value) if value is not None else float("nan")
    return None if number != number else number
