from __future__ import annotations

import random
from collections import Counter
from itertools import product

import pytest
import torch
from scipy.stats import chisquare

from spaces.model_parts.attention import SelfAttention
from spaces.nas_bert.architecture import BlockArchitecture
from spaces.nas_bert.operations import FeedForward, SeparableConvolution
from spaces.nas_bert.options import NasBertOptions
from spaces.nas_bert.space import NasBertSpace
from tests.spaces.microscopic import architecture, block, make_space

PAPER = NasBertSpace()


def test_the_paper_s_blocks_are_97_650_each_once():
    blocks = list(PAPER.enumerate_blocks())
    assert len(blocks) == len(set(blocks)) == PAPER.block_cardinality() == 97_650
    assert len(set(map(str, blocks))) == 97_650


def test_free_identities_canonicalise_to_the_space_and_five_empty_blocks():
    with_identities = [
        (size, layers)
        for size in PAPER.options.hidden_sizes
        for layers in product((None, *PAPER.options.operations), repeat=PAPER.options.layers_per_block)
    ]
    assert len(with_identities) == 233_280
    canonical = {
        BlockArchitecture(size, tuple(operation for operation in layers if operation is not None))
        for size, layers in with_identities
    }
    members = set(PAPER.enumerate_blocks())
    assert len(canonical) == 97_650 + 5
    assert canonical - members == {BlockArchitecture(size, ()) for size in PAPER.options.hidden_sizes}


def test_the_paper_s_whole_space():
    assert PAPER.cardinality() == 4 * 97_650**4
    no_choice_of_embedding = NasBertSpace(NasBertOptions(embedding_sizes=(512,)))
    assert no_choice_of_embedding.cardinality() == 90_926_189_348_006_250_000


def test_the_paper_s_26_operations():
    """25 with weights, which differ in name, hidden size and shapes, and the identity, which has none."""
    operations = [part for part in PAPER.parts() if part.kind == "operation"]
    assert {part.size for part in operations} == {128, 192, 256, 384, 512}
    assert {part.name for part in operations} == {"M", "F", "S3", "S5", "S7"}
    with torch.device("meta"):
        modules = {part: PAPER.build_part(part) for part in operations}
    for part, module in modules.items():
        if isinstance(module, SelfAttention):
            assert (module.num_heads, module.head_size) == (part.size // 64, 64)
        elif isinstance(module, FeedForward):
            assert module.inner.weight.shape == (4 * part.size, part.size)
        elif isinstance(module, SeparableConvolution):
            kernels = [unit.depthwise.kernel_size for unit in module.units]
            assert kernels == [({"S3": 3, "S5": 5, "S7": 7}[part.name],)] * 2
    kinds = {
        (part.name, tuple(parameter.shape for parameter in module.parameters())) for part, module in modules.items()
    }
    assert len(kinds) + 1 == 26


def test_identity_layers_change_nothing():
    """They are absent: a block of 2 operations in a supernet of 4 layers gives what its 2 modules give, to the bit."""
    torch.manual_seed(0)
    supernet = make_space().supernet().eval()
    hidden_BTD = torch.randn(2, 5, 32)
    mask_BT = torch.ones(2, 5, dtype=torch.bool)
    shared = supernet.block(0)
    with torch.no_grad():
        inner = shared.operation(1, 32, "S3")(shared.operation(0, 32, "M")(hidden_BTD, mask_BT), mask_BT)
        assert torch.equal(supernet.forward_block(0, block("32:M-S3"), hidden_BTD, mask_BT), inner)


def _is_uniform(counts: Counter, expected: list, draws: int) -> float:
    assert set(counts) <= set(expected)
    return chisquare([counts[value] for value in expected], [draws / len(expected)] * len(expected)).pvalue


def test_architectures_are_drawn_uniformly():
    space = make_space(num_blocks=1, layers_per_block=3, hidden_sizes=(16, 32), operations=("M", "F", "S3"))
    rng = random.Random(0)
    expected = [(size, block) for size in space.options.embedding_sizes for block in space.enumerate_blocks()]
    draws = 50 * len(expected)
    counts = Counter((drawn.embedding_size, drawn.blocks[0]) for drawn in (space.sample(rng) for _ in range(draws)))
    assert len(expected) == space.cardinality() == 234
    assert _is_uniform(counts, expected, draws) > 1e-3


def test_blocks_of_a_network_are_drawn_independently():
    space = make_space(layers_per_block=1, hidden_sizes=(16,), operations=("M", "F", "S3"), embedding_sizes=(16,))
    rng = random.Random(1)
    counts = Counter(space.sample(rng).blocks for _ in range(4500))
    assert _is_uniform(counts, list(product(space.enumerate_blocks(), repeat=2)), 4500) > 1e-3


def test_sampling_by_operation_draws_each_layer_uniformly_identity_included():
    space = make_space(layers_per_block=2, operations=("M", "F"), hidden_sizes=(16, 32))
    rng = random.Random(2)
    draws = 8000
    counts = Counter(space.sample_block(rng, law="operations") for _ in range(draws))
    # Of 9 pairs of layers, the one of two identities is drawn again; one operation comes from two pairs.
    shares = {block: (2 if len(block.operations) == 1 else 1) / 16 for block in space.enumerate_blocks()}
    assert sum(shares.values()) == 1
    expected = [share * draws for share in shares.values()]
    assert chisquare([counts[block] for block in shares], expected).pvalue > 1e-3


def test_the_two_laws_differ():
    space = make_space()
    depths = {}
    for law in ("architectures", "operations"):
        rng = random.Random(3)
        depths[law] = sum(len(space.sample_block(rng, law).operations) for _ in range(500)) / 500
    assert depths["architectures"] > depths["operations"] + 0.2


def test_an_unknown_law():
    with pytest.raises(ValueError, match="law of sampling 'architecture', expected 'architectures' or 'operations'"):
        make_space().sample_block(random.Random(0), "architecture")


def test_genes_and_encoding_say_what_the_architecture_is():
    space = make_space()
    value = architecture("E48|16:M-S3-M|32:F1")
    assert space.genes(value) == {
        "embedding_size": 48,
        "layers": 4,
        "count_M": 2,
        "count_F": 0,
        "count_F1": 1,
        "count_S3": 1,
        "count_S5": 0,
        "block_1_hidden_size": 16,
        "block_1_operations": "M-S3-M",
        "block_2_hidden_size": 32,
        "block_2_operations": "F1",
    }
    vector = space.encode(value)
    assert vector.shape == (3 + 2 * (3 + 4 * 6),)
    assert vector.sum() == 1 + 2 * (1 + 4)  # one-hot: embedding; per block width and each layer or its absence


@pytest.mark.parametrize("parents", [("E16|16:M|16:M", "E48|32:F-F|32:F-F")])
def test_crossover_takes_whole_genes_from_either_parent(parents):
    space, rng = make_space(), random.Random(4)
    first, second = map(architecture, parents)
    children = {space.crossover(first, second, rng) for _ in range(200)}
    assert len(children) == 2**3
    for child in children:
        assert child.embedding_size in (16, 48)
        assert all(block in pair for block, *pair in zip(child.blocks, first.blocks, second.blocks, strict=True))


def test_mutation_changes_one_gene():
    space, rng = make_space(), random.Random(5)
    start = architecture("E16|16:M-F|32:S3")
    for _ in range(300):
        neighbour = space.mutate(start, rng)
        changed = [a != b for a, b in zip(start.blocks, neighbour.blocks, strict=True)]
        assert sum(changed) + (neighbour.embedding_size != 16) == 1
        for before, after in zip(start.blocks, neighbour.blocks, strict=True):
            assert abs(len(before.operations) - len(after.operations)) <= 1
            assert before.hidden_size == after.hidden_size or before.operations == after.operations
