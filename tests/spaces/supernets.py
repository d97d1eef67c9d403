"""What is asked of the supernets of several spaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tests.spaces.microscopic import make_batch


def assert_passes_change_nothing(supernet: Any, value: Any) -> None:
    """Neither weights nor what the next pass says."""
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    with torch.inference_mode():
        first = supernet(value, *make_batch())
        supernet(supernet.largest(), *make_batch())
        assert torch.equal(first, supernet(value, *make_batch()))
    assert all(torch.equal(before[name], tensor) for name, tensor in supernet.state_dict().items())


def assert_padding_says_nothing(supernet: Any, values: Sequence[Any]) -> None:
    """Whatever stands in it, to any architecture."""
    input_ids_BT, mask_BT = make_batch()
    other_BT, valid_BT = torch.where(mask_BT.bool(), input_ids_BT, 77), mask_BT.bool()
    with torch.no_grad():
        for value in values:
            expected, found = supernet(value, input_ids_BT, mask_BT), supernet(value, other_BT, mask_BT.bool())
            assert torch.equal(expected[valid_BT], found[valid_BT])


def assert_models_are_copies(supernet: Any, value: Any) -> None:
    """That can be trained, in the supernet's own mode."""
    model = supernet.eval().extract(value)
    shared = {parameter.data_ptr() for parameter in supernet.parameters()}
    assert not shared & {parameter.data_ptr() for parameter in model.parameters()}
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model.training
    assert supernet.train().extract(value).training
