"""Laws of drawing: over architectures, over decisions, over sizes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.objectives import ENCODER_PARAMETERS, LOSS, CheapObjectives, Constraint, Objective
from orchestrator.strategies.drawing import SizeDrawer, place_of, size_range
from orchestrator.strategies.random_search import RandomSearch
from spaces.nas_bert.space import NasBertSpace

SPACE = NasBertSpace.from_options({"preset": "small"})
CHEAP = CheapObjectives(SPACE)
BOTH = (LOSS, ENCODER_PARAMETERS)


def sizes_asked(sampling: str, count: int = 40, limit: float | None = None) -> np.ndarray:
    limits = [] if limit is None else [Constraint("encoder_parameters", limit)]
    asked = RandomSearch(SPACE, BOTH, limits, 1, sampling=sampling).ask(count)
    return np.array([CHEAP.values(architecture)["encoder_parameters"] for architecture in asked])


@given(st.integers(min_value=2, max_value=500))
def test_however_many_places_they_are_spread_evenly(count: int) -> None:
    places = sorted(place_of(number) for number in range(count))
    gaps = np.diff(places)
    assert places[0] == 0
    assert places[-1] == 1
    assert gaps.min() > 0
    assert gaps.max() <= 2 * gaps.min()


def test_sizes_are_met_all_over_the_range() -> None:
    low, high = size_range(SPACE, CHEAP, "encoder_parameters", [], 1)
    found = np.sort((sizes_asked("sizes") - low) / (high - low))
    assert found == pytest.approx(np.linspace(0, 1, 40), abs=0.12)


def test_a_uniform_sample_has_few_small_networks_and_decisions_have_some() -> None:
    smallest = np.quantile(sizes_asked("sizes", 200), 0.15)
    small = {law: (sizes_asked(law, 200) <= smallest).sum() for law in ("architectures", "decisions", "sizes")}
    assert 5 * small["architectures"] < min(small["decisions"], small["sizes"])


def test_a_limit_ends_the_range() -> None:
    limit = float(np.median(sizes_asked("sizes")))
    found = sizes_asked("sizes", limit=limit)
    assert found.max() <= limit
    assert (found > 0.8 * limit).sum() >= 4, "the range is not cut off below the limit"


@pytest.mark.parametrize("objectives", [(LOSS,), (LOSS, Objective("encoder_parameters", "maximise", cheap=True))])
def test_without_a_size_to_be_small_in_the_spaces_own_law_is_kept(objectives: Any) -> None:
    asked = [RandomSearch(SPACE, objectives, (), 1, sampling=law).ask(10) for law in ("sizes", "architectures")]
    assert asked[0] == asked[1]


def test_random_search_is_uniform_unless_asked_otherwise() -> None:
    rng = random.Random(1)
    assert RandomSearch(SPACE, BOTH, (), 1).ask(5) == [SPACE.sample(rng) for _ in range(5)]


def test_equal_sizes_are_drawn_as_different_architectures() -> None:
    low, high = size_range(SPACE, CHEAP, "encoder_parameters", (), 0)
    drawer = SizeDrawer(SPACE, CHEAP, "encoder_parameters", low, high)
    rng = random.Random(2)
    assert len({drawer.draw(2, rng) for _ in range(20)}) >= 18
