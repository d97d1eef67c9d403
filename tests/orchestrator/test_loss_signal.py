"""Spread against noise: on losses whose spread and noise are known."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.loss_signal import (
    SizeSignal,
    explained_by_group,
    signal_of_batches,
    signal_of_seeds,
    warnings_about,
)

ARCHITECTURES, SPLITS = 400, 6


def measured(spread: float, noise: float, common: float = 1.0, seed: int = 1) -> np.ndarray:
    """Losses with an own part, a part common to a batch, and noise."""
    rng = np.random.default_rng(seed)
    own = spread * rng.standard_normal((ARCHITECTURES, 1))
    return own + common * rng.standard_normal((1, SPLITS)) + noise * rng.standard_normal((ARCHITECTURES, SPLITS))


@pytest.mark.parametrize(("spread", "noise", "batches"), [(0.3, 0.1, 1), (0.1, 0.3, 2), (0.02, 0.02, 4)])
def test_noise_is_that_of_differences_between_architectures(spread, noise, batches):
    (found,) = signal_of_batches({64: measured(spread, noise)}, batches)
    assert found.noise == pytest.approx(noise / np.sqrt(batches), rel=0.1)
    assert found.spread == pytest.approx(np.sqrt(spread**2 + noise**2 / SPLITS), rel=0.1)
    assert found.signal == pytest.approx(found.spread / found.noise)
    assert (found.architectures, found.batches) == (ARCHITECTURES, batches)


def test_a_batch_that_is_hard_for_all_is_no_noise():
    calm, rough = measured(0.2, 0.1, common=0.0), measured(0.2, 0.1, common=50.0)
    assert signal_of_batches({64: rough}, 2)[0].noise == pytest.approx(signal_of_batches({64: calm}, 2)[0].noise)


def test_nothing_but_noise_has_a_signal_of_one_and_no_agreement():
    (found,) = signal_of_batches({64: measured(0.0, 0.1)}, SPLITS)
    assert found.signal == pytest.approx(1.0, abs=0.1)
    assert abs(found.kendall_tau) < 0.1
    assert found.is_weak


def test_clear_differences_have_a_strong_signal_and_agreeing_halves():
    (found,) = signal_of_batches({64: measured(1.0, 0.01)}, 2)
    assert found.signal > 50
    assert found.kendall_tau > 0.9
    assert not found.is_weak


def test_one_batch_or_one_architecture_tells_no_noise():
    (one_batch,) = signal_of_batches({64: measured(1.0, 0.1)[:, :1]}, 1)
    (one_architecture,) = signal_of_batches({64: measured(1.0, 0.1)[:1]}, 1)
    for found in (one_batch, one_architecture):
        assert (found.noise, found.signal, found.kendall_tau, found.is_weak) == (None, None, None, False)


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_noise_of_seeds_is_that_of_one_run(noise):
    rng = np.random.default_rng(3)
    own = 0.3 * rng.standard_normal(ARCHITECTURES)
    first, second = (own + noise * rng.standard_normal(ARCHITECTURES) + shift for shift in (0.0, 5.0))
    (found,) = signal_of_seeds({64: first}, {64: second}, 2)
    assert found.noise == pytest.approx(noise, rel=0.1)
    assert found.spread == pytest.approx(np.sqrt(0.3**2 + noise**2), rel=0.1)


def test_share_that_sizes_explain():
    far = [np.array([1.0, 1.1]), np.array([5.0, 5.1])]
    near = [np.array([1.0, 5.0]), np.array([5.1, 1.1])]
    assert explained_by_group(far) > 0.99
    assert explained_by_group(near) < 0.01
    assert explained_by_group([np.ones(3), np.ones(2)]) is None
    assert explained_by_group([]) is None
    values = np.concatenate(far)
    within = sum(((group - group.mean()) ** 2).sum() for group in far)
    assert explained_by_group(far) == pytest.approx(1 - within / ((values - values.mean()) ** 2).sum())


def test_weak_signals_are_named_with_what_would_help():
    def one(size: int, spread: float) -> SizeSignal:
        return SizeSignal(size, 10, 2, spread, 0.1, 0.5, 0.9)

    lines = warnings_about({0: [one(64, 0.15), one(128, 0.9)], 1: [one(64, 0.9)], 2: [one(64, 0.01), one(128, 0.1)]})
    assert [line.partition(":")[0] for line in lines] == ["block 0", "block 2"]
    assert "hidden size 64 (signal 1.5) is mostly noise" in lines[0]
    assert "64 (signal 0.1), 128 (signal 1.0)" in lines[1]
    assert all("supernet steps" in line and "validation data" in line for line in lines)
