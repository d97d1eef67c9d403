"""What every blockwise space promises: an order of its blocks, and costs that add up over parts."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.strategies.enumeration import enumerate_architectures
from spaces.errors import ArchitectureSyntaxError, SpaceError
from spaces.nas_bert.space import NasBertSpace
from spaces.space import BlockwiseSpace, Cost
from tests.spaces.microscopic import architecture, block, make_space, parameters_of

PAPER = NasBertSpace()
SEEDS = st.integers(0, 2**32)
SPACES = st.builds(
    make_space,
    num_blocks=st.integers(1, 3),
    layers_per_block=st.integers(1, 4),
    hidden_sizes=st.sampled_from([(32,), (32, 16), (16, 24, 32)]),
    operations=st.sampled_from(
        [("S3",), ("F1", "M"), ("M1", "S3", "M"), ("M", "F1", "M2"), ("M2", "S3", "M3"), ("M", "F", "F1", "S3", "S5")]
    ),
    embedding_sizes=st.sampled_from([(32,), (48, 16)]),
    projections=st.sampled_from(["paper", "supernet"]),
    separable_units=st.sampled_from([1, 2]),
)


def test_the_order_is_hidden_size_depth_operations():
    space = make_space(layers_per_block=2, hidden_sizes=(32, 16), operations=("M", "F"))
    assert " ".join(map(str, space.enumerate_blocks())) == (
        "32:M 32:F 32:M-M 32:M-F 32:F-M 32:F-F 16:M 16:F 16:M-M 16:M-F 16:F-M 16:F-F"
    )


@settings(max_examples=30, deadline=None)
@given(space=SPACES)
def test_places_are_those_of_the_enumeration(space):
    listed = list(space.enumerate_blocks())
    assert len(listed) == space.block_cardinality()
    assert [space.block_at(index) for index in range(len(listed))] == listed
    assert [space.block_index(value) for value in listed] == list(range(len(listed)))


@given(index=st.integers(0, 97_649))
def test_places_of_the_paper_s_blocks_turn_back(index):
    value = PAPER.block_at(index)
    assert PAPER.block_index(value) == index
    assert PAPER.parse_block(str(value)) == value


def test_places_beyond_the_ends():
    for index in (-1, 97_650):
        with pytest.raises(IndexError, match=f"block architecture {index}, expected 0 to 97649"):
            PAPER.block_at(index)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("20:M", "hidden size 20 is not one of 16, 24, 32"),
        ("16:M-M-M-M-M", "5 layers, expected 1 to 4"),
        ("16:M-S7", "operation S7 is not one of M, F, F1, S3, S5"),
    ],
)
def test_blocks_of_other_spaces(text, message):
    space = make_space()
    for ask in (lambda: space.parse_block(text), lambda: space.block_index(block(text))):
        with pytest.raises(SpaceError) as raised:
            ask()
        assert str(raised.value) == f"block '{text}' is not in the space: {message}"


def test_malformed_blocks():
    with pytest.raises(
        ArchitectureSyntaxError, match=r"'16:M-I', column 6: expected operations, found 'I'; identity layers are"
    ):
        make_space().parse_block("16:M-I")


@settings(max_examples=30, deadline=None)
@given(space=SPACES, tokens=st.integers(1, 200))
def test_costs_of_all_blocks_are_those_of_each(space, tokens):
    costs = space.block_costs(tokens)
    assert costs.parameters.dtype == costs.flops.dtype == np.int64
    each = [space.block_cost(value, tokens) for value in space.enumerate_blocks()]
    assert costs.parameters.tolist() == [cost.parameters for cost in each]
    assert costs.flops.tolist() == [cost.flops for cost in each]


@settings(max_examples=20, deadline=None)
@given(space=SPACES)
def test_part_counts_are_those_of_each_block(space):
    parts, counts = space.block_part_counts()
    plain_parts, plain_counts = BlockwiseSpace.block_part_counts(space)
    assert set(parts) == set(plain_parts)
    order = [plain_parts.index(part) for part in parts]
    assert np.array_equal(counts, plain_counts[:, order])


def test_costs_of_the_paper_s_blocks():
    """97,650 of them in a moment, and a few against the arithmetic of one."""
    started = time.perf_counter()
    costs = PAPER.block_costs()
    assert time.perf_counter() - started < 5  # 0.1 s on an idle machine; one by one it is a minute's work
    assert costs.parameters.shape == (97_650,)
    assert costs.parameters.max() == 12_604_416 == PAPER.block_cost(block("512:F-F-F-F-F-F")).parameters
    for index in random.Random(0).sample(range(97_650), 100):
        assert PAPER.block_cost(PAPER.block_at(index)) == Cost(
            costs.parameters[index], costs.parameters[index], costs.flops[index]
        )


@settings(max_examples=40, deadline=None)
@given(space=SPACES, seed=SEEDS, tokens=st.integers(1, 200), rule=st.sampled_from(["encoder", "electra"]))
def test_costs_add_up_over_parts(space, seed, tokens, rule):
    """Of embeddings, links and blocks, of the whole, and of what is built."""
    value = space.sample(random.Random(seed))
    links, width = [], value.embedding_size
    for one in value.blocks:
        links.append(space.link_parts(width, space.block_width(one)))
        width = space.block_width(one)
    parts = [*space.embedding_parts(value.embedding_size)]
    for link, one in zip(links, value.blocks, strict=True):
        parts += [*link, *space.parts_of_block(one)]
    parts += space.link_parts(width, None)
    assert list(space.parts_of(value)) == parts
    costs = [space.part_cost(part, tokens, rule) for part in parts]
    assert space.cost(value, tokens, rule) == Cost(
        sum(cost.parameters for cost in costs),
        sum(cost.encoder_parameters for cost in costs),
        sum(cost.flops for cost in costs),
    )
    with torch.device("meta"):
        model = space.build(value)
    assert sum(cost.parameters for cost in costs) == parameters_of(model)
    assert sum(cost.encoder_parameters for cost in costs) == parameters_of(model) - parameters_of(model.embeddings)


@settings(max_examples=20, deadline=None)
@given(space=SPACES, seed=SEEDS)
def test_networks_are_assembled_from_blocks(space, seed):
    value = space.sample(random.Random(seed))
    assert value.embedding_size in space.embedding_choices()
    assert space.assemble(value.embedding_size, list(value.blocks)) == value


@pytest.mark.parametrize(
    ("embedding_size", "blocks", "message"),
    [
        (20, ["16:M", "16:M"], "embedding size 20 is not one of 16, 32, 48"),
        (16, ["16:M"], "it has 1 block, expected 2"),
        (16, ["16:M", "20:M"], "block 2: hidden size 20 is not one of 16, 24, 32"),
    ],
)
def test_networks_that_cannot_be_assembled(embedding_size, blocks, message):
    with pytest.raises(SpaceError, match=f"is not in the space: {message}"):
        make_space().assemble(embedding_size, [block(text) for text in blocks])


@pytest.mark.parametrize(
    ("millions", "size"),
    [(1, 64), (5, 64), (9.9, 64), (10, 128), (15, 128), (29, 128), (30, 256), (59, 256), (60, 512), (110, 512)],
)
def test_the_paper_s_ladder_of_embedding_sizes(millions, size):
    assert PAPER.embedding_ladder(int(millions * 1e6)) == size


@pytest.mark.parametrize(
    ("choices", "sizes"), [((32, 16, 48), [48] * 4), ((100, 300), [100, 100, 100, 300]), ((384,), [384] * 4)]
)
def test_the_ladder_keeps_to_the_space(choices, sizes):
    space = make_space(embedding_sizes=choices)
    assert [space.embedding_ladder(parameters * 10**6) for parameters in (5, 10, 30, 60)] == sizes


@settings(max_examples=40, deadline=None)
@given(
    space=st.builds(
        make_space,
        num_blocks=st.integers(1, 3),
        layers_per_block=st.just(1),
        hidden_sizes=st.sampled_from([(16,), (32, 16), (16, 24, 32)]),
        operations=st.sampled_from([("S3",), ("F1", "M"), ("M", "F", "S3")]),
        embedding_sizes=st.sampled_from([(32,), (48, 16)]),
        projections=st.sampled_from(["paper", "supernet"]),
    )
)
def test_the_smallest_network_is_smallest(space):
    smallest = space.smallest()
    assert space.contains(smallest)
    fewest = min(space.cost(value).encoder_parameters for value in enumerate_architectures(space))
    assert space.cost(smallest).encoder_parameters == fewest


def test_the_smallest_of_many_blocks_is_found_without_trying_them_all():
    """5^30 combinations of widths."""
    space = make_space(num_blocks=30, hidden_sizes=(8, 16, 24, 32, 40), projections="paper")
    assert space.smallest() == architecture("E16|" + "|".join(["8:F1"] * 30))
