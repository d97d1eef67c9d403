"""The size of a trial: long enough for Tune, short enough for the strategy, the same on every machine."""

from __future__ import annotations

import pytest

from orchestrator.evaluation.trial_size import LARGEST_TRIAL, candidates_per_trial
from spaces.encoder_shape import EncoderShape
from spaces.nas_bert.space import NasBertSpace

TEACHER = EncoderShape(num_layers=6, hidden_size=384, num_heads=12, intermediate_size=1536, vocab_size=1000)
SPACE = NasBertSpace.from_options({"preset": "small"}, TEACHER)


def size(sequences: int = 1, evaluations: int = 20_000, cpus: float = 1, gpus: float = 0) -> int:
    return candidates_per_trial(SPACE, sequences, 64, evaluations, 4, cpus, gpus)


def test_cheap_candidates_travel_in_crowds_and_dear_ones_alone() -> None:
    sizes = [size(sequences) for sequences in (1, 4, 16, 64, 256, 4096)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 30
    assert sizes[-1] == 1


def test_twice_the_work_halves_a_trial() -> None:
    assert size(4) == pytest.approx(2 * size(8), abs=2)


def test_faster_actors_take_more() -> None:
    assert size(16, cpus=4) > size(16)
    assert size(16, gpus=0.5) > size(16, cpus=4)
    assert size(1, gpus=4) == LARGEST_TRIAL


def test_a_strategy_learns_before_half_of_its_evaluations_are_asked() -> None:
    assert size(evaluations=80) * 4 <= 40
    assert size(evaluations=3) == 1


def test_the_same_recipe_gives_the_same_trials() -> None:
    assert len({size(8) for _ in range(3)}) == 1
