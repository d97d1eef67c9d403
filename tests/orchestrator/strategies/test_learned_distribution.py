"""What losses teach a distribution, against exact gradients; and the model that they are compared with."""

from __future__ import annotations

import random

import pytest
import torch

from orchestrator.strategies.enumeration import enumerate_architectures
from orchestrator.strategies.learned_distribution import LearnedDistribution, LearningOptions
from orchestrator.strategies.told_losses import LEAST, ToldLosses
from spaces.encoder_shape import EncoderShape
from tests.orchestrator.strategies.component_searches import additive_loss, make_two_layers
from tests.spaces.components.microscopic import make_space


def test_a_model_knows_an_additive_loss_after_some_of_it() -> None:
    space = make_two_layers(vertical=())
    loss, rng, told = additive_loss(space, 0), random.Random(0), ToldLosses(space)
    drawn = [space.sample(rng) for _ in range(150)]
    for one in drawn:
        told.add(one, loss(one))
    model = told.model(without=())
    assert model is not None
    new = [space.sample(rng) for _ in range(50)]
    truth = torch.tensor([loss(one) for one in new], dtype=torch.float64)
    assert float((model(new) - truth).square().mean()) < 0.05 * float(truth.var())


def test_a_model_knows_neither_failures_nor_what_it_shall_not() -> None:
    space = make_two_layers()
    rng, told = random.Random(0), ToldLosses(space)
    drawn = list(dict.fromkeys(space.sample(rng) for _ in range(LEAST + 2)))
    assert len(drawn) == LEAST + 2
    for number, one in enumerate(drawn):
        told.add(one, None if number == 0 else 1.0)
    assert told.model(without=drawn[1:3]) is None, "nine are left"
    told.add(drawn[1], 1e9)
    model = told.model(without=drawn[1:2])
    assert model is not None
    assert model(drawn).tolist() == pytest.approx([1.0] * len(drawn)), "the huge loss is not known"


def test_what_a_model_predicts_is_averaged_without_bias() -> None:
    """Means over 300 seeds, within 4 standard errors of the exact gradient over all eight architectures."""
    space = make_space(
        shape=EncoderShape(1, 4, 1, 4, 9, 4, 0), feed_forward_slices=2, query_key_slices=1, fixed_attention=("0",)
    )
    everything = list(enumerate_architectures(space))
    values = torch.linspace(-1, 2, len(everything), dtype=torch.float64)
    model = lambda asked: torch.stack([values[everything.index(one)] for one in asked])  # noqa: E731
    learned = LearnedDistribution(space.distribution(0.7), 0.0, LearningOptions(), seed=5)
    odds = list(learned.distribution.parameters())

    def gradient(value: torch.Tensor) -> torch.Tensor:
        found = torch.autograd.grad(value, odds, allow_unused=True)
        pairs = zip(found, odds, strict=True)
        return torch.cat([(torch.zeros_like(one) if it is None else it).flatten() for it, one in pairs])

    exact = gradient((learned.distribution.log_probability(everything).exp() * values).sum())
    samples = []
    for step in range(300):
        learned.steps = step
        samples.append(gradient(learned._expected_prediction(model)))
    found = torch.stack(samples)
    errors = (found.mean(0) - exact).abs()
    assert float(exact.norm()) > 0.1
    assert (errors <= 4 * found.std(0) / len(found) ** 0.5 + 1e-12).all()
