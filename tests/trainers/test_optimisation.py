from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainers.meters import IntervalMeter
from trainers.optimisation import OptimiserSettings, apply_step, make_optimiser
from trainers.precision import autocast, resolve_precision


def test_the_schedule_by_hand():
    settings = OptimiserSettings(learning_rate=1.0, warmup_steps=4, total_steps=14)
    rates = [settings.learning_rate_at(step) for step in range(15)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[5:] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])


@given(st.integers(0, 50), st.integers(1, 100))
def test_the_schedule_rises_then_falls_and_every_step_learns(warmup, total):
    settings = OptimiserSettings(learning_rate=3e-4, warmup_steps=warmup, total_steps=total)
    rates = [settings.learning_rate_at(step) for step in range(total)]
    assert all(0 < rate <= 3e-4 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    if warmup < total:
        assert max(rates) == 3e-4
    assert settings.learning_rate_at(total) == 0.0


def test_only_matrices_decay():
    """Without gradient there is no step; with a zero gradient all that moves is what decays."""
    module = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    settings = OptimiserSettings(learning_rate=0.1, warmup_steps=0, total_steps=10, weight_decay=0.5)
    optimiser = make_optimiser(module, settings)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    apply_step(optimiser, settings, 0, [module])
    for name, parameter in module.named_parameters():
        expected = before[name] * (1 - 0.1 * 0.5) if name == "0.weight" else before[name]
        torch.testing.assert_close(parameter.detach(), expected)
        assert parameter.grad is None


def test_frozen_parameters_are_not_the_optimiser_s():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[0].requires_grad_(False)
    optimiser = make_optimiser(module, OptimiserSettings(0.1, 0, 10))
    owned = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    assert owned == {id(parameter) for parameter in module[1].parameters()}


@pytest.mark.parametrize("listed", [False, True])
def test_parts_are_clipped_on_their_own(listed):
    parts = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)])
    settings = OptimiserSettings(learning_rate=1.0, warmup_steps=0, total_steps=10, gradient_clip=1.0)
    optimiser = torch.optim.SGD(parts.parameters(), lr=1.0)
    with torch.no_grad():
        for part in parts:
            part.weight.zero_()
    parts[0].weight.grad = torch.full((2, 2), 100.0)
    parts[1].weight.grad = torch.full((2, 2), 0.1)
    apply_step(optimiser, settings, 0, [[*part.parameters()] for part in parts] if listed else parts)
    torch.testing.assert_close(parts[0].weight.detach(), torch.full((2, 2), -0.5))
    torch.testing.assert_close(parts[1].weight.detach(), torch.full((2, 2), -0.1))


def test_no_clip_at_zero():
    part = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(part.weight)
    part.weight.grad = torch.full((2, 2), 100.0)
    settings = OptimiserSettings(learning_rate=1.0, warmup_steps=0, total_steps=10, gradient_clip=0.0)
    apply_step(torch.optim.SGD(part.parameters(), lr=1.0), settings, 0, [part])
    torch.testing.assert_close(part.weight.detach(), torch.full((2, 2), -100.0))


def test_meters_average_over_an_interval():
    meter = IntervalMeter()
    for value in (1.0, 2.0, 6.0):
        meter.add(("a", 1), value)
    meter.add("b", 5.0)
    time.sleep(0.02)
    means, seconds = meter.read()
    assert means == {("a", 1): 3.0, "b": 5.0}
    assert 0.02 <= seconds < 5
    meter.add("b", 7.0)
    means, shorter = meter.read()
    assert means == {"b": 7.0}
    assert shorter < seconds
    assert meter.read()[0] == {}


def test_precision():
    cpu = torch.device("cpu")
    assert resolve_precision("float32", cpu) == "float32"
    assert resolve_precision("bfloat16", cpu) == "bfloat16"
    assert resolve_precision("auto", cpu) in ("float32", "bfloat16")
    linear, inputs = nn.Linear(4, 4), torch.randn(2, 4)
    with autocast("bfloat16", cpu):
        assert linear(inputs).dtype == torch.bfloat16
    with autocast("float32", cpu):
        assert linear(inputs).dtype == torch.float32
