from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spaces.extraction import fit_linear, leading, neuron_importance, uniform_layers


def test_importance_is_the_variance_a_neuron_adds():
    activations_NI = torch.tensor([[0.0, 5.0, 1.0], [2.0, 5.0, -1.0]])
    output_weight_DI = torch.tensor([[1.0, 9.0, 0.0], [2.0, 9.0, 0.5]])
    # variances 2, 0, 2; squared columns 5, 162, 0.25
    assert neuron_importance(activations_NI, output_weight_DI).tolist() == [10.0, 0.0, 0.5]
    contributions = activations_NI[:, None, :] * output_weight_DI[None]
    torch.testing.assert_close(contributions.var(0).sum(0), neuron_importance(activations_NI, output_weight_DI))


def test_leading_are_ascending_and_ties_go_to_the_lower_index():
    importance = torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0])
    assert leading(importance, 2).tolist() == [1, 3]
    assert leading(importance, 3).tolist() == [1, 2, 3]
    assert leading(torch.ones(5), 2).tolist() == [0, 1]
    assert leading(importance, 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("layers", "kept", "expected"),
    [(12, 6, [1, 3, 5, 7, 9, 11]), (12, 4, [2, 5, 8, 11]), (6, 6, [0, 1, 2, 3, 4, 5]), (6, 1, [5]), (3, 2, [1, 2])],
)
def test_uniform_layers(layers, kept, expected):
    assert uniform_layers(layers, kept) == expected


@given(st.integers(1, 48), st.data())
def test_uniform_layers_are_different_ascend_and_end_with_the_last(layers, data):
    kept = data.draw(st.integers(1, layers))
    chosen = uniform_layers(layers, kept)
    assert len(chosen) == kept
    assert chosen == sorted(set(chosen))
    assert chosen[0] >= 0
    assert chosen[-1] == layers - 1


def test_a_linear_map_is_found_again():
    torch.manual_seed(0)
    inputs_NH, truth = torch.randn(200, 6) + 3, torch.nn.Linear(6, 9)
    fitted = torch.nn.Linear(6, 9)
    with torch.no_grad():
        fit_linear(fitted, inputs_NH, truth(inputs_NH), ridge=1e-9)
    torch.testing.assert_close(fitted.weight, truth.weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fitted.bias, truth.bias, rtol=1e-3, atol=1e-3)


def test_the_ridge_keeps_inputs_without_variance_harmless():
    torch.manual_seed(0)
    inputs_NH = torch.randn(50, 4)
    inputs_NH[:, 2] = 1.0
    inputs_NH[:, 3] = inputs_NH[:, 0]
    fitted = torch.nn.Linear(4, 2)
    with torch.no_grad():
        fit_linear(fitted, inputs_NH, inputs_NH[:, :2])
        error = (fitted(inputs_NH) - inputs_NH[:, :2]).abs().max()
    assert float(error) < 0.02
    assert float(fitted.weight.detach().abs().max()) < 2
