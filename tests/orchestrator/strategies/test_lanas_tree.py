"""The trees of LaNAS: who is good, which way leads down, and what classifiers are taken."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.strategies.lanas_classifiers import (
    ClassifierSettings,
    Indicators,
    Split,
    allowed_error,
    fit_boundary,
    fit_classifier,
)
from orchestrator.strategies.lanas_tree import (
    Node,
    better_child,
    greedy_leaf,
    grow_greedy,
    grow_uct,
    height_for,
    split_at_median,
    uct_leaf,
    uct_score,
)

GROWTH = (400, 800, 1600, 3200)
NUMBERS = st.lists(st.sampled_from([0.0, 0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=60)


def first_feature(features: np.ndarray) -> np.ndarray:
    return features[:, 0]


def perfect(features: np.ndarray, is_good: np.ndarray) -> Split | None:
    """The fitness itself is the only feature; the boundary is that of the samples."""
    return Split(first_feature, float(features[is_good, 0].min()))


def exact(features: np.ndarray, fitness: np.ndarray) -> Split | None:
    return Split(first_feature, float(np.mean(fitness)))


def data(samples: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ten features, two of which say which class it is."""
    generator = np.random.default_rng(seed)
    features = generator.integers(0, 3, size=(samples, 10)).astype(np.float64)
    return features, features[:, 2] + features[:, 5] >= 2


# --- the authors' tree -----------------------------------------------------------------------------------------------


def test_the_tree_grows_at_400_800_1600_3200() -> None:
    sizes = [80, 400, 401, 800, 801, 1600, 1601, 3200, 3201, 99_999]
    assert [height_for(size, GROWTH) for size in sizes] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@given(NUMBERS, st.integers(1, 5))
def test_the_greedy_way_is_all_left(numbers: list[float], height: int) -> None:
    fitness = np.array(numbers)
    root = grow_greedy(fitness[:, None], fitness, height, perfect)
    leaf = greedy_leaf(root)
    assert set(leaf.name) <= {"L"}
    assert leaf.name == "L" * min(height, len(leaf.name))
    assert (fitness[leaf.members] == fitness.max()).all() or len(leaf.name) == height
    for node in root.way_to(leaf.name)[:-1]:
        good, bad = node.children
        assert good.value >= bad.value
        assert len(good.members)
        assert len(bad.members)
        assert sorted([*good.members, *bad.members]) == node.members.tolist()


@given(NUMBERS)
def test_who_reaches_the_median_is_good_and_where_all_do_who_exceeds_it(numbers: list[float]) -> None:
    fitness = np.array(numbers)
    is_good = split_at_median(fitness)
    if is_good is None:
        assert len(set(numbers)) == 1
        return
    assert is_good.any()
    assert not is_good.all()
    assert fitness[is_good].min() > fitness[~is_good].max()
    if (fitness < np.median(fitness)).any():
        assert (is_good == (fitness >= np.median(fitness))).all()


def test_of_equal_halves_the_good_one_is_better_and_an_empty_one_never() -> None:
    fitness = np.array([1.0, 1.0, 0.0])
    node = Node.of("", np.arange(3), fitness)
    node.divide(Split(first_feature, 0.5), np.array([True, False, False]), np.ones(3))
    assert better_child(node).name == "L"
    node.divide(Split(first_feature, 0.5), np.zeros(3, dtype=bool), fitness)
    assert better_child(node).name == "R"


def test_where_no_classifier_is_found_the_way_ends() -> None:
    fitness = np.arange(20.0)
    assert greedy_leaf(grow_greedy(fitness[:, None], fitness, 3, lambda *_: None)).name == ""
    assert not split_at_median(np.array([]))


# --- the tree of LaNAS -----------------------------------------------------------------------------------------------


def test_a_full_tree_has_sixteen_leaves_with_means_that_fall() -> None:
    fitness = np.random.default_rng(0).permutation(np.arange(64) / 63)
    root = grow_uct(fitness[:, None], fitness, 4, exact)
    assert len(list(root.nodes())) == 31
    assert [len(leaf.members) for leaf in root.leaves()] == [4] * 16
    means = [leaf.total / leaf.told for leaf in root.leaves()]
    assert means == sorted(means, reverse=True)
    assert root.regions_of(fitness[:, None])[int(fitness.argmax())] == "LLLL"
    assert root.regions_of(fitness[:, None])[int(fitness.argmin())] == "RRRR"
    assert root.regions_of(np.zeros((0, 1))) == []


@settings(deadline=None)
@given(NUMBERS, st.integers(0, 100))
def test_without_cp_the_way_is_that_of_the_greater_means(numbers: list[float], seed: int) -> None:
    """Greedy on means, and members go by their true fitness: all left, as in the authors' tree."""
    fitness = np.array(numbers)
    root = grow_uct(fitness[:, None], fitness, 4, exact)
    leaf = uct_leaf(root, 0.0, random.Random(seed), ())
    assert leaf is not None
    for node, taken in zip(root.way_to(leaf.name), root.way_to(leaf.name)[1:], strict=False):
        assert taken.total / taken.told == max(child.total / child.told for child in node.children)
    assert set(leaf.name) <= {"L"}


def visited(node: Node, visits: int, mean: float) -> None:
    node.visits, node.told, node.total = visits, visits, visits * mean


def two_leaves() -> tuple[Node, Node, Node]:
    fitness = np.array([1.0, 0.0])
    root = grow_uct(fitness[:, None], fitness, 1, exact)
    return root, *root.children  # type: ignore[return-value]


def test_scores_are_those_of_uct() -> None:
    root, good, bad = two_leaves()
    visited(root, 100, 0.7)
    visited(good, 90, 0.8)
    visited(bad, 10, 0.3)
    assert uct_score(good, root, 0.1) == pytest.approx(0.8 + 0.2 * math.sqrt(2 * math.log(100) / 90))
    assert uct_score(bad, root, 0.0) == pytest.approx(0.3)
    rng = random.Random(0)
    assert uct_leaf(root, 0.1, rng, ()) is good
    assert uct_leaf(root, 2.0, rng, ()) is bad, "seldom visited"
    assert uct_leaf(root, 0.1, rng, {"L"}) is bad, "the good one is closed"
    assert uct_leaf(root, 0.1, rng, {"L", "R"}) is None


def test_who_was_never_visited_comes_first_and_ties_are_broken_at_random() -> None:
    root, good, bad = two_leaves()
    visited(bad, 0, 0.0)
    assert uct_leaf(root, 0.0, random.Random(0), ()) is bad
    bad.visits = 1  # asked, not told: its mean is its parent's
    assert uct_score(bad, root, 0.0) == root.total / root.told
    assert uct_leaf(root, 0.0, random.Random(0), ()) is good
    visited(good, 5, 0.5)
    visited(bad, 5, 0.5)
    assert {id(uct_leaf(root, 0.1, random.Random(seed), ())) for seed in range(20)} == {id(good), id(bad)}


def test_equally_fit_samples_and_sides_without_any_leave_leaves() -> None:
    assert not grow_uct(np.arange(9.0)[:, None], np.ones(9), 4, exact).children
    everybody = lambda features, fitness: Split(first_feature, -1.0)  # noqa: E731
    root = grow_uct(np.arange(4.0)[:, None], np.arange(4.0), 1, everybody)
    assert [leaf.visits for leaf in root.leaves()] == [4, 0]
    assert uct_leaf(root, 0.1, random.Random(0), ()) is root.children[1]


def test_statistics_come_back() -> None:
    root, good, _ = two_leaves()
    visited(good, 7, 0.1)
    again, *_ = two_leaves()
    again.load_statistics(root.statistics())
    assert again.statistics() == root.statistics()


# --- classifiers and regressors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["lightgbm", "linear"])
@pytest.mark.parametrize("tuning", [0, 3])
def test_a_classifier_tells_the_classes_apart_the_same_way_again(model: str, tuning: int) -> None:
    features, is_good = data(200)
    asked, truth = data(300, seed=1)
    settings = ClassifierSettings(model, tuning, 100)  # type: ignore[arg-type]
    first, second = (fit_classifier(features, is_good, settings, random.Random(5)) for _ in range(2))
    assert first is not None
    assert second is not None
    assert (first(asked) == truth).mean() > 0.85
    assert np.array_equal(first.predict(asked), second.predict(asked))


@pytest.mark.parametrize("model", ["lightgbm", "linear"])
def test_nothing_to_tell_apart_divides_nothing(model: str) -> None:
    settings = ClassifierSettings(model, 0, 30)  # type: ignore[arg-type]
    features, _ = data(30)
    for good in (0, 1, 29, 30):
        assert fit_classifier(features, np.arange(30) < good, settings, random.Random(0)) is None
    equal = np.ones((30, 4))
    assert fit_classifier(equal, np.arange(30) < 15, settings, random.Random(0)) is None
    assert fit_boundary(equal, np.arange(30.0), model, 0) is None  # type: ignore[arg-type]


def test_small_nodes_are_divided_too() -> None:
    features, is_good = data(12)
    settings = ClassifierSettings("lightgbm", 0, 50)
    split = fit_classifier(features, is_good, settings, random.Random(0))
    assert split is not None
    assert 0 < split(features).sum() < 12


def test_the_error_allowed_grows_beyond_a_hundred_refits() -> None:
    assert [allowed_error(refits) for refits in (0, 100, 101, 1100)] == pytest.approx([0.5, 0.5, 0.5003, 0.8])


@pytest.mark.parametrize("model", ["lightgbm", "linear"])
def test_a_boundary_is_the_mean_prediction(model: str) -> None:
    features, _ = data(150)
    fitness = features[:, 2] + 0.5 * features[:, 5]
    split = fit_boundary(features, fitness, model, 3)  # type: ignore[arg-type]
    assert split is not None
    assert split.boundary == pytest.approx(np.mean(split.predict(features)))
    assert split.boundary == pytest.approx(fitness.mean(), abs=0.02)
    assert (split(features) == (fitness >= fitness.mean())).mean() > 0.9


def test_linear_models_take_numbered_choices_for_names() -> None:
    """Of a choice of five that is numbered, the third is the good one: no line through the numbers says so."""
    features = np.tile(np.arange(5.0), 12)[:, None]
    fitness = (features[:, 0] == 2.0).astype(np.float64)
    split = fit_boundary(features, fitness, "linear", 0)
    assert split is not None
    assert np.array_equal(split(np.arange(5.0)[:, None]), [False, False, True, False, False])
    classifier = fit_classifier(features, fitness > 0, ClassifierSettings("linear", 0, 50), random.Random(0))
    assert classifier is not None
    assert np.array_equal(classifier(np.arange(5.0)[:, None]), [False, False, True, False, False])
    assert not classifier(np.array([[7.0]])).any(), "a value that no sample had"


def test_indicators_leave_yes_and_no_and_long_ranges_as_they_are() -> None:
    features = np.column_stack([np.arange(60) % 2, np.arange(60), np.arange(60) % 3]).astype(np.float64)
    indicators = Indicators.of(features)
    assert indicators.columns == (2,)
    assert indicators(features[:4]).tolist() == [[0, 0, 1, 0, 0], [1, 1, 0, 1, 0], [0, 2, 0, 0, 1], [1, 3, 1, 0, 0]]
    assert np.array_equal(Indicators.of(features[:, :2])(features[:, :2]), features[:, :2])
