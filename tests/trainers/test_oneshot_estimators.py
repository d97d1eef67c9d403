"""Estimators of the distribution's gradient, against the exact one by enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch

from spaces.components.distribution import GeneDistribution
from spaces.components.space import ComponentsSpace
from spaces.encoder_shape import EncoderShape
from tests.spaces.components.microscopic import make_space
from trainers.oneshot_estimators import DrawnPath, PathMemory, compared_paths, score_loss

NO_LIMITS = (0.0, float("inf"))
LIMITS = (0.2, 5.0)


@pytest.fixture(scope="module")
def space() -> ComponentsSpace:
    """Eight architectures: one or both of two slices, with or without an edge, with or without the mean."""
    shape = EncoderShape(1, 4, 1, 4, 9, 4, 0)
    return make_space(shape=shape, feed_forward_slices=2, query_key_slices=1, fixed_attention=("0",))


@pytest.fixture(scope="module")
def everything(space):
    (kind,) = space.options.kinds[1:]
    found = [type(space.smallest()).of_sublayers((space.options.fixed[0], kind.at(at))) for at in range(1, kind.count)]
    assert len(found) == space.cardinality() == 8
    return found


def make_distribution(space, seed=0, spread=1.0):
    distribution = GeneDistribution(space.options).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in distribution.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return distribution


def loss_of(space, architecture):
    """A quadratic form of its bits."""
    bits = torch.from_numpy(space.encode(architecture))
    matrix = torch.randn(len(bits), len(bits), generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return float(bits @ matrix @ bits + bits.sum())


def gradient(distribution, value):
    return torch.cat([one.flatten() for one in torch.autograd.grad(value, [*distribution.parameters()])])


def exact(distribution, space, everything):
    """Of the expected loss."""
    losses = torch.tensor([loss_of(space, one) for one in everything], dtype=torch.float64)
    return gradient(distribution, (distribution.log_probability(everything).exp() * losses).sum())


def mean_estimate(distribution, space, everything, count, limits=LIMITS, drawn_from=None):
    """The mean over all that could be drawn, each tuple of paths by its probability: no sampling error."""
    drawn_from = drawn_from or distribution
    likely = dict(zip(everything, drawn_from.log_probability(everything).detach().exp().tolist(), strict=True))
    losses = {one: loss_of(space, one) for one in everything}
    total = 0.0
    for drawn in itertools.product(everything, repeat=count):
        paths = compared_paths(drawn_from, drawn, torch.tensor([losses[one] for one in drawn], dtype=torch.float64))
        probability = torch.tensor([likely[one] for one in drawn]).prod()
        total = total + probability * gradient(distribution, score_loss(distribution, paths, limits))
    return total


@pytest.mark.parametrize("count", [2, 3])
def test_the_score_function_has_no_bias(space, everything, count):
    """Paper notes, test 6, without sampling error: the mean over all pairs, and triples, is the exact gradient."""
    distribution = make_distribution(space)
    expected = exact(distribution, space, everything)
    assert int((expected.abs() > 1e-2).sum()) == len(expected) - 1, "all but the edge of the last slice"
    torch.testing.assert_close(mean_estimate(distribution, space, everything, count), expected, rtol=1e-5, atol=1e-8)


def test_paths_of_another_distribution_count_without_bias_as_far_as_weights_are_not_cut_off(space, everything):
    before, now = make_distribution(space), make_distribution(space, seed=1)
    expected = exact(now, space, everything)
    found = mean_estimate(now, space, everything, 2, NO_LIMITS, drawn_from=before)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)
    cut_off = mean_estimate(now, space, everything, 2, LIMITS, drawn_from=before)
    assert float((cut_off - expected).norm()) > 0.01 * float(expected.norm()), "here the limits matter"
    unweighted = mean_estimate(now, space, everything, 2, (1.0, 1.0), drawn_from=before)
    assert float((cut_off - expected).norm()) < float((unweighted - expected).norm())


def test_draws_agree_with_the_mean_over_all_of_them(space, everything):
    """The estimator as a training uses it: 150 steps of 4 paths, within 4 standard errors."""
    distribution = make_distribution(space)
    generator = torch.Generator().manual_seed(2)
    found = []
    for _ in range(150):
        drawn = [distribution.draw(generator) for _ in range(4)]
        paths = compared_paths(distribution, drawn, torch.tensor([loss_of(space, one) for one in drawn]))
        found.append(gradient(distribution, score_loss(distribution, paths, LIMITS)))
    samples = torch.stack(found)
    errors = (samples.mean(0) - exact(distribution, space, everything)).abs()
    assert (errors <= 4 * samples.std(0) / len(samples) ** 0.5).all()


def test_a_baseline_does_not_know_its_own_path(space, everything):
    distribution = make_distribution(space)
    paths = compared_paths(distribution, everything[:3], torch.tensor([1.0, 2.0, 6.0]))
    assert [path.advantage for path in paths] == pytest.approx([-3.0, -1.5, 4.5])
    assert [path.log_probability for path in paths] == distribution.log_probability(everything[:3]).tolist()


def test_a_memory_forgets_the_oldest_steps_and_survives_a_checkpoint(space, everything):
    memory, other = PathMemory(2), PathMemory(2)
    steps = [
        [DrawnPath(everything[step], 0.1 * step, -0.5), DrawnPath(everything[step + 1], 1.0, -1.0)] for step in range(3)
    ]
    for paths in steps:
        memory.add(paths)
    assert memory.paths == [*steps[1], *steps[2]]
    other.load_state(memory.state(), space.parse)
    assert other.paths == memory.paths
    for one in (memory, other):
        one.add(steps[0])
    assert other.paths == memory.paths == [*steps[2], *steps[0]]
