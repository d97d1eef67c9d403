"""What a faithful NAS-BERT must do (section 8 of the paper notes), where no test of a single module says it."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spaces.encoder_shape import EncoderShape
from spaces.nas_bert.options import NasBertOptions
from spaces.nas_bert.space import NasBertSpace
from tests.spaces.microscopic import SHAPE, block, make_batch, make_space, parameters_of, shaken
from tests.spaces.test_nas_bert_cost import NER, TABLE_10

PAPER = NasBertSpace()
SMALL_VOCABULARY = NasBertSpace(NasBertOptions(shape=EncoderShape(vocab_size=99, max_positions=16)))
MASKS = {"full": (12, 12, 12), "padded tails": (12, 7, 1), "a sequence of padding alone": (12, 7, 0)}


def test_encodings_of_all_blocks_differ_and_identities_are_a_suffix():
    space = make_space(num_blocks=1, embedding_sizes=(32,))
    blocks = list(space.enumerate_blocks())
    vectors = np.stack([space.encode(space.assemble(32, [value])) for value in blocks])
    assert len(np.unique(vectors, axis=0)) == len(blocks) == 3 * (5 + 25 + 125 + 625)
    sizes, layers = vectors[:, 1:4], vectors[:, 4:].reshape(len(blocks), 4, 6)
    assert (sizes.sum(1) == 1).all(), "one hidden size a block"
    absent = layers[:, :, 0]
    assert (np.diff(absent, axis=1) >= 0).all(), "after an identity come identities only"
    assert (absent.sum(1) < 4).all(), "no block is empty"


@pytest.mark.parametrize("hidden_size", [128, 192, 256, 384, 512])
def test_bert_itself_is_reachable(hidden_size):
    """Attention and feed-forward in turn, one width throughout: BERT-base's form is an anchor, found by choices too."""
    layers = "|".join([f"{hidden_size}:M-F-M-F-M-F"] * 4)
    value = PAPER.parse(f"E64|{layers}")
    assert value in PAPER.anchors()
    assert PAPER.from_decisions(PAPER.to_decisions(value)) == value


@pytest.mark.parametrize("lengths", MASKS.values(), ids=MASKS.keys())
def test_every_width_of_a_block_ends_in_the_teacher_s_and_no_padding_makes_nan(lengths):
    torch.manual_seed(0)
    supernet = shaken(make_space(operations=("M", "M1", "F", "S3", "S5")).supernet())
    _, mask_BT = make_batch(lengths)
    hidden_BTD = torch.randn(3, 12, SHAPE.hidden_size)
    for size in (16, 24, 32):
        output_BTD = supernet.forward_block(1, block(f"{size}:M-S3-M1-F"), hidden_BTD, mask_BT.bool())
        assert output_BTD.shape == (3, 12, SHAPE.hidden_size)
        assert torch.isfinite(output_BTD).all()
        output_BTD[mask_BT.bool()].square().mean().backward()
    gradients = [parameter.grad for parameter in supernet.parameters() if parameter.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", ["60M", "30M", "10M", "5M"])
def test_padded_content_never_changes_valid_positions_of_a_stand_alone_model(name):
    torch.manual_seed(0)
    model = SMALL_VOCABULARY.build(SMALL_VOCABULARY.parse(TABLE_10[name])).eval()
    input_ids_BT, mask_BT = make_batch((12, 7, 1))
    visible_BT = mask_BT.bool()
    with torch.no_grad():
        expected_BTD = model(input_ids_BT, mask_BT).last_hidden_state
        found_BTD = model(torch.where(visible_BT, input_ids_BT, 77), mask_BT).last_hidden_state
    assert torch.equal(expected_BTD[visible_BT], found_BTD[visible_BT])
    assert not torch.equal(expected_BTD, found_BTD), "the padded positions themselves did change"


@pytest.mark.parametrize("text", [*TABLE_10.values(), NER, "E64|512:F|128:M|128:S3|384:F-M"])
def test_the_final_model_has_no_way_to_the_teacher_s_width(text):
    """Linear maps stand only where widths change, and none leads from or to 768."""
    value = PAPER.parse(text)
    with torch.device("meta"):
        model = PAPER.build(value)
    widths = [value.embedding_size, *(part.hidden_size for part in value.blocks)]
    changes = [(a, b) for a, b in pairwise(widths) if a != b]
    maps = [module for module in model.projections if isinstance(module, nn.Linear)]
    assert [(module.in_features, module.out_features) for module in maps] == changes
    assert model.config.hidden_size == widths[-1]
    norms = [module.normalized_shape for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert (768,) not in norms


def test_the_final_model_starts_at_random():
    """Built twice it has other weights, with one seed the same; a supernet's it has not seen."""
    value = SMALL_VOCABULARY.parse(TABLE_10["5M"])

    def built(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return SMALL_VOCABULARY.build(value)

    first, again, other = (built(seed).state_dict() for seed in (0, 0, 1))
    weights = [name for name, tensor in first.items() if tensor.ndim > 1]
    assert all(torch.equal(first[name], again[name]) for name in weights)
    assert not any(torch.equal(first[name], other[name]) for name in weights)


def test_sizes_of_all_blocks_fall_into_the_bins_of_the_notes():
    """Section 3.5: ten bins of parameters, and FLOPs in the place of latency for the two rules."""
    costs = PAPER.block_costs()
    bins = -(-costs.parameters * 10 // costs.parameters.max())
    counts = np.bincount(bins, minlength=11)
    assert counts[0] == 0
    assert (counts[1], counts[2], counts[3], counts[10], counts.sum()) == (46_770, 17_364, 13_028, 7, 97_650)
    latency_bins = -(-costs.flops * 10 // costs.flops.max())
    assert (latency_bins == bins).sum() == 91_562
    assert (latency_bins <= bins).sum() == 91_577


def test_samples_cover_the_paper_s_space_evenly():
    """Half of all draws lie in the first half of the order, a tenth in each tenth."""
    rng = random.Random(0)
    places = [PAPER.block_index(PAPER.sample_block(rng)) for _ in range(4000)]
    counts = np.bincount(np.array(places) * 10 // 97_650, minlength=10)
    assert counts.min() > 330
    assert counts.max() < 470


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), vocabulary=st.sampled_from([30_522, 50_265]), units=st.sampled_from([1, 2]))
def test_sizes_of_random_networks_are_those_of_the_built_module(seed, vocabulary, units):
    space = NasBertSpace(NasBertOptions(shape=EncoderShape(vocab_size=vocabulary), separable_units=units))
    value = space.sample(random.Random(seed))
    with torch.device("meta"):
        model = space.build(value)
    cost = space.cost(value)
    assert cost.parameters == parameters_of(model)
    assert cost.encoder_parameters == parameters_of(model) - parameters_of(model.embeddings)
