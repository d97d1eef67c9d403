from __future__ import annotations

import pytest
import torch

from spaces.model_parts.attention import SelfAttention
from spaces.nas_bert.operations import build_operation
from tests.spaces.microscopic import parameters_of, shaken

NAMES = ["M", "M1", "M3", "F", "F1", "F2", "S1", "S3", "S5", "S7"]


def make_operation(name, units=2, dropout=0.1):
    torch.manual_seed(0)
    module = build_operation(name, 16, head_size=4, separable_units=units, dropout=dropout, layer_norm_eps=1e-12)
    return shaken(module).eval()


def make_hidden(seed=0):
    """Three sequences of 9 tokens, two of them with padded tails."""
    torch.manual_seed(seed)
    mask_BT = torch.arange(9)[None, :] < torch.tensor([9, 5, 1])[:, None]
    return torch.randn(3, 9, 16), mask_BT


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("junk", [1.0, 1e4])
def test_padding_never_changes_valid_positions(name, junk):
    operation = make_operation(name)
    hidden_BTH, mask_BT = make_hidden()
    other_BTH = torch.where(mask_BT[..., None], hidden_BTH, junk * torch.randn(3, 9, 16))
    with torch.no_grad():
        expected, found = operation(hidden_BTH, mask_BT), operation(other_BTH, mask_BT)
    assert torch.equal(expected[mask_BT], found[mask_BT])
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_padded_sequence_gives_what_it_gives_alone(name):
    operation = make_operation(name)
    hidden_BTH, mask_BT = make_hidden()
    with torch.no_grad():
        together = operation(hidden_BTH, mask_BT)
        for row, length in enumerate(mask_BT.sum(1).tolist()):
            alone = operation(hidden_BTH[row : row + 1, :length], mask_BT[row : row + 1, :length])
            torch.testing.assert_close(together[row : row + 1, :length], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "reach"), [("F", 0), ("S1", 0), ("S3", 2), ("S5", 4), ("S7", 6), ("M", 8)])
def test_how_far_an_operation_sees(name, reach):
    """Two stacked units of kernel k see k - 1 tokens to each side; attention sees all."""
    operation = make_operation(name)
    hidden_BTH = torch.randn(1, 9, 16, generator=torch.Generator().manual_seed(1))
    changed_BTH = hidden_BTH.clone()
    changed_BTH[0, 0] += 1
    mask_BT = torch.ones(1, 9, dtype=torch.bool)
    with torch.no_grad():
        moved_T = (operation(hidden_BTH, mask_BT) - operation(changed_BTH, mask_BT)).abs().amax(-1)[0] > 1e-7
    assert moved_T.tolist() == [position <= reach for position in range(9)]


def test_separable_units_are_stacked():
    single, double = make_operation("S5", units=1), make_operation("S5", units=2)
    assert 2 * parameters_of(single) == parameters_of(double)
    hidden_BTH, mask_BT = make_hidden()
    first, second = double.units
    with torch.no_grad():
        assert torch.equal(double(hidden_BTH, mask_BT), second(first(hidden_BTH, mask_BT), mask_BT))


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_post_norm_with_a_residual(name):
    """With everything but the last LayerNorm at zero, the output is that norm of the input."""
    operation = make_operation(name, units=1)
    hidden_BTH, mask_BT = make_hidden()
    norms = [module for module in operation.modules() if isinstance(module, torch.nn.LayerNorm)]
    with torch.no_grad():
        for parameter in operation.parameters():
            parameter.zero_()
        torch.nn.init.ones_(norms[-1].weight)
        expected = torch.nn.functional.layer_norm(hidden_BTH, (16,), eps=1e-12)
        torch.testing.assert_close(operation(hidden_BTH, mask_BT), expected)


def test_attention_by_hand():
    attention = make_operation("M")
    assert isinstance(attention, SelfAttention)
    hidden_BTH, mask_BT = make_hidden()
    with torch.no_grad():
        contexts = []
        for head in range(4):
            rows = slice(4 * head, 4 * head + 4)
            query, key, value = (
                hidden_BTH @ linear.weight[rows].T + linear.bias[rows]
                for linear in (attention.query, attention.key, attention.value)
            )
            scores = (query @ key.transpose(1, 2) / 4**0.5).masked_fill(~mask_BT[:, None, :], float("-inf"))
            contexts.append(scores.softmax(-1) @ value)
        expected = torch.cat(contexts, -1) @ attention.output.weight.T + attention.output.bias
        torch.testing.assert_close(attention.contribution(hidden_BTH, mask_BT), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_in_training_only(name):
    operation = make_operation(name, dropout=0.5)
    hidden_BTH, mask_BT = make_hidden()
    with torch.no_grad():
        assert torch.equal(operation(hidden_BTH, mask_BT), operation(hidden_BTH, mask_BT))
        operation.train()
        assert not torch.equal(operation(hidden_BTH, mask_BT), operation(hidden_BTH, mask_BT))


@pytest.mark.parametrize("name", ["I", "S4", "F0", "F10", "m", ""])
def test_unknown_operations(name):
    with pytest.raises(
        ValueError, match=f"operation '{name}' is not known; expected M, M<heads>, F, F<multiple> or S<kernel>"
    ):
        make_operation(name)
