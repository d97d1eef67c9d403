from __future__ import annotations

import random
from itertools import product

import pytest
import torch

from orchestrator.strategies.enumeration import enumerate_architectures
from spaces.space import Part
from tests.spaces.microscopic import architecture, make_batch, make_space, parameters_of


@pytest.mark.parametrize("projections", ["paper", "supernet"])
@pytest.mark.parametrize("sizes", [(16, 24, 32), (16,), (32,)])
def test_the_parts_of_all_architectures_are_the_space_s(projections, sizes):
    """None is missing from a latency table, and none is measured for nothing."""
    space = make_space(
        projections=projections,
        hidden_sizes=sizes,
        layers_per_block=1,
        operations=("M", "S3"),
        embedding_sizes=(16, 32),
    )
    listed = list(space.parts())
    assert len(listed) == len(set(listed))
    used = {part for value in enumerate_architectures(space) for part in space.parts_of(value)}
    assert used == set(listed)


def test_parts_come_in_the_order_of_the_forward_pass():
    value = architecture("E48|16:M-M|32:S3")
    assert make_space(projections="supernet").parts_of(value) == [
        Part("embeddings", "embeddings", 48),
        Part("projection", "projection", 16, 48),
        Part("operation", "M", 16),
        Part("operation", "M", 16),
        Part("projection", "projection", 32, 16),
        Part("operation", "S3", 32),
    ]


@pytest.mark.parametrize("projections", ["paper", "supernet"])
def test_built_parts_are_all_of_a_model(projections):
    """The parameters of the parts are those of the model, and each part runs on what the one before gives."""
    space, rng = make_space(projections=projections), random.Random(1)
    input_ids_BT, mask_BT = make_batch()
    for _ in range(20):
        value = space.sample(rng)
        parts = space.parts_of(value)
        modules = [space.build_part(part) for part in parts]
        assert sum(map(parameters_of, modules)) == space.cost(value).parameters
        hidden = input_ids_BT
        for part, module in zip(parts, modules, strict=True):
            assert not module.training
            with torch.no_grad():
                hidden = module(hidden, mask_BT.bool())
            assert hidden.shape == (3, 12, part.size)
            assert torch.isfinite(hidden).all()


@pytest.mark.parametrize("projections", ["paper", "supernet"])
@pytest.mark.parametrize("operations", [("M", "F"), ("F", "S5"), ("M", "F1", "S3")])
@pytest.mark.parametrize("units", [1, 2])
def test_the_smallest_architecture_is_smallest(projections, operations, units):
    space = make_space(
        projections=projections, operations=operations, separable_units=units, layers_per_block=2, hidden_sizes=(16, 32)
    )
    smallest = space.smallest()
    assert space.contains(smallest)
    fewest = min(space.cost(value).encoder_parameters for value in enumerate_architectures(space))
    assert space.cost(smallest).encoder_parameters == fewest


def test_blocks_cost_their_operations():
    """The whole is embeddings, linear maps and blocks."""
    space, rng = make_space(), random.Random(2)
    for _ in range(50):
        value = space.sample(rng)
        blocks = [space.block_cost(block, 40) for block in value.blocks]
        maps = [part for part in space.parts_of(value) if part.kind == "projection"]
        whole = space.cost(value, 40)
        assert whole.encoder_parameters == sum(cost.parameters for cost in blocks) + sum(
            (part.input_size + 1) * part.size for part in maps
        )
        assert whole.flops == sum(cost.flops for cost in blocks) + sum(
            2 * part.input_size * part.size * 40 for part in maps
        )


def test_genes_of_a_block():
    space = make_space()
    (block, _) = architecture("E16|24:M-S3-M|16:F").blocks
    assert space.block_genes(block) == {"hidden_size": 24, "layers": 3, "operations": "M-S3-M"}


def test_anchors_are_the_plain_transformers_of_the_space():
    space = make_space()
    anchors = list(space.anchors())
    assert all(space.contains(anchor) for anchor in anchors)
    assert len(anchors) == len(set(anchors)) == 3 * 3 * 2 * 2  # embeddings, widths, feed-forwards, depths 4 and 2
    assert architecture("E32|32:M-F-M-F|32:M-F-M-F") in anchors, "the teacher's own form"
    for anchor in anchors:
        first, second = anchor.blocks
        assert first == second
        assert first.operations in [("M", kind) * pairs for kind, pairs in product(("F", "F1"), (1, 2))]


@pytest.mark.parametrize("options", [{"operations": ("F", "S3")}, {"operations": ("M", "S3")}, {"layers_per_block": 1}])
def test_spaces_without_transformers_have_no_anchors(options):
    assert list(make_space(**options).anchors()) == []
