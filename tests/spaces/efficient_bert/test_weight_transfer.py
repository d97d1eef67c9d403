"""Weights of one supernet in another one's: narrower, deeper, or both."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from spaces.efficient_bert.weight_transfer import copy_leading
from spaces.errors import SpaceError
from tests.spaces.efficient_bert.microscopic import architecture, make_supernet
from tests.spaces.microscopic import SHAPE, largest_difference, make_batch

PLAIN = "linear2(gelu(linear1(x)))"


@pytest.fixture(scope="module")
def source():
    return make_supernet(layers=2)


def parameters(supernet):
    return {name: parameter.detach() for name, parameter in supernet.named_parameters()}


def test_a_narrower_supernet_keeps_leading_slices(source):
    """540 to 360: the token table whole, and of every hidden dimension the leading two thirds (item 14)."""
    target = make_supernet(hidden_size=16)
    target.inherit(source)
    have, given = parameters(target), parameters(source)
    assert torch.equal(have["embeddings.token.weight"], given["embeddings.token.weight"])
    assert torch.equal(have["embeddings.transform.weight"], given["embeddings.transform.weight"][:16])
    assert torch.equal(have["embeddings.position.weight"], given["embeddings.position.weight"][:, :16])
    assert torch.equal(have["projection.weight"], given["projection.weight"][:, :16])
    assert torch.equal(have["projection.bias"], given["projection.bias"])
    for index in (0, 1):
        prefix = f"blocks.{index}."
        query, norm = f"{prefix}attention.query.weight", f"{prefix}attention.norm.weight"
        assert torch.equal(have[query], given[query][:16, :16])
        assert torch.equal(have[norm], given[norm][:16])
        last = f"{prefix}feed_forwards.3.linear1.weight"
        assert torch.equal(have[last], given[last][:16, :16])
    assert all(
        torch.equal(tensor, given[name][tuple(slice(length) for length in tensor.shape)])
        for name, tensor in have.items()
    )


def test_a_deeper_supernet_has_every_block_twice(source):
    """6 to 12: block j becomes blocks 2j and 2j + 1, counted from 0 (item 14)."""
    target = make_supernet(hidden_size=16, layers=4)
    target.inherit(source)
    have, given = parameters(target), parameters(source)
    names = [name.removeprefix("blocks.0.") for name in have if name.startswith("blocks.0.")]
    for index in range(4):
        for name in names:
            tensor = have[f"blocks.{index}.{name}"]
            expected = given[f"blocks.{index // 2}.{name}"][tuple(slice(length) for length in tensor.shape)]
            assert torch.equal(tensor, expected)


def test_a_wider_base_of_inner_widths_is_kept(source):
    """EfficientBERT++ of the published size: hidden 360, but all 540 inner channels."""
    target = make_supernet(hidden_size=16, inner_width=24)
    target.inherit(source)
    name = "blocks.1.feed_forwards.0.linear1.weight"
    assert torch.equal(parameters(target)[name], parameters(source)[name][:, :16])
    assert parameters(target)[name].shape == (24, 16)


def test_equal_sizes_inherit_everything(source):
    target = make_supernet(layers=2)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    target.inherit(source)
    value = architecture(f"24|3_2:{PLAIN}|1_4:elu({PLAIN})")
    with torch.no_grad():
        assert largest_difference(target(value, *make_batch()), source(value, *make_batch())) == 0
    shared = {parameter.data_ptr() for parameter in source.parameters()}
    assert not shared & {parameter.data_ptr() for parameter in target.parameters()}, "copies"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 3}, "layers: found 3, expected 2 or a multiple of it"),
        ({"layers": 1}, "layers: found 1, expected 2 or a multiple of it"),
        (
            {"hidden_size": 28},
            r"weights of embeddings.transform.weight: found \[24, 24\] to inherit from, expected \[28",
        ),
        ({"inner_width": 48}, r"weights of blocks.0.feed_forwards.0.linear1.weight: found \[24, 24\]"),
        ({"embedding_size": 4}, "embedding_size: found 4, expected 8 as in the supernet"),
        ({"shape": dataclasses.replace(SHAPE, vocab_size=98)}, "the teacher's vocabulary: found 98, expected 99"),
        ({"shape": dataclasses.replace(SHAPE, hidden_size=28)}, "the teacher's hidden size: found 28, expected 32"),
        ({"stacked": (1, 5)}, "weights of blocks.0.feed_forwards.4.linear1.weight: found nothing to inherit from"),
    ],
)
def test_what_cannot_be_cut_out_is_refused(source, changes, message):
    target = make_supernet(**{"layers": 2, **changes})
    with pytest.raises(SpaceError, match=message):
        target.inherit(source)


def test_nothing_is_overwritten_if_something_is_missing(source):
    target = make_supernet(layers=2, stacked=(1, 5))
    before = {name: tensor.clone() for name, tensor in parameters(target).items()}
    with pytest.raises(SpaceError):
        copy_leading(source, target)
    assert all(torch.equal(before[name], tensor) for name, tensor in parameters(target).items())
