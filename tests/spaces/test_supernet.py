from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.spaces.microscopic import SHAPE, architecture, block, largest_difference, make_batch, make_space, shaken

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def supernet():
    torch.manual_seed(0)
    return shaken(make_space().supernet()).eval()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), lengths=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_extracted_models_equal_their_paths(supernet, seed, lengths):
    value = supernet.space.sample(random.Random(seed))
    input_ids_BT, mask_BT = make_batch(lengths)
    with torch.no_grad():
        path_BTD = supernet(value, input_ids_BT, mask_BT)
        model = supernet.extract(value)
        alone_BTD = model(input_ids=input_ids_BT, attention_mask=mask_BT).last_hidden_state
    assert path_BTD.shape == (2, 12, SHAPE.hidden_size)
    assert largest_difference(path_BTD, alone_BTD) <= TOLERANCE * max(1.0, float(path_BTD.abs().max()))
    assert torch.isfinite(path_BTD).all()


@pytest.mark.parametrize("embedding_size", [16, 32, 48])
@pytest.mark.parametrize("sizes", [(16, 16), (16, 32), (32, 16), (32, 32), (24, 16)])
def test_every_combination_of_widths_is_extracted(supernet, embedding_size, sizes):
    value = architecture(f"E{embedding_size}|{sizes[0]}:M-F1|{sizes[1]}:S3-F")
    input_ids_BT, mask_BT = make_batch()
    with torch.no_grad():
        path_BTD = supernet(value, input_ids_BT, mask_BT)
        alone_BTD = supernet.extract(value)(input_ids=input_ids_BT, attention_mask=mask_BT).last_hidden_state
    assert largest_difference(path_BTD, alone_BTD) <= TOLERANCE * max(1.0, float(path_BTD.abs().max()))


@pytest.mark.parametrize("projections", ["paper", "supernet"])
def test_attention_with_fewer_heads_is_a_path_and_extracted(projections):
    torch.manual_seed(0)
    space = make_space(operations=("M", "M1", "F1"), projections=projections)
    supernet = shaken(space.supernet()).eval()
    input_ids_BT, mask_BT = make_batch()
    value = space.parse("E48|32:M1-M-M1|16:M1-F1")
    shared = supernet.block(0)
    assert shared.operation(0, 32, "M1").query.weight.shape == (8, 32)
    assert shared.operation(0, 32, "M1").output.weight.shape == (32, 8)
    with torch.no_grad():
        path_BTD = supernet(value, input_ids_BT, mask_BT)
        model = supernet.extract(value)
        alone_BTD = model(input_ids=input_ids_BT, attention_mask=mask_BT).last_hidden_state
        all_heads_BTD = supernet(space.parse("E48|32:M-M-M1|16:M1-F1"), input_ids_BT, mask_BT)
    assert largest_difference(path_BTD, alone_BTD) <= TOLERANCE * max(1.0, float(path_BTD.abs().max()))
    assert largest_difference(path_BTD, all_heads_BTD, mask_BT) > 0.01, "they are weights of their own"
    names = [name.removeprefix("blocks.0.0.") for name in model.state_dict() if name.startswith("blocks.0.0.")]
    assert names == [
        f"{part}.{kind}" for part in ("query", "key", "value", "output", "norm") for kind in ("weight", "bias")
    ]


def test_extraction_of_a_space_with_the_paper_s_projections(supernet):
    """Its stand-alone models have no way back to the teacher's width, but an inherited function needs one."""
    paper = make_space(projections="paper")
    other = paper.supernet().eval()
    other.load_state_dict(supernet.state_dict())
    value = architecture("E16|16:M|16:F")
    batch = make_batch()
    model = other.extract(value)
    with torch.no_grad():
        path_BTD, alone_BTD = supernet(value, *batch), model(*batch).last_hidden_state
    assert largest_difference(path_BTD, alone_BTD) <= TOLERANCE * max(1.0, float(path_BTD.abs().max()))
    assert paper.build(value).config.hidden_size == 16
    assert model.config.hidden_size == 32


def test_extracted_weights_are_copies(supernet):
    value = architecture("E32|32:M|32:F")
    model = supernet.extract(value)
    shared = {parameter.data_ptr() for parameter in supernet.parameters()}
    assert not shared & {parameter.data_ptr() for parameter in model.parameters()}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_extraction_keeps_the_mode(supernet):
    value = architecture("E32|32:M|32:F")
    assert not supernet.extract(value).training
    assert supernet.train().extract(value).training
    supernet.eval()


def used_by(supernet, index, text):
    """Names of the weights that the gradient of a path reaches."""
    supernet.zero_grad(set_to_none=True)
    hidden_BTD = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3))
    supernet.forward_block(index, block(text), hidden_BTD, torch.ones(2, 5, dtype=torch.bool)).square().sum().backward()
    used = {name for name, parameter in supernet.named_parameters() if parameter.grad is not None}
    supernet.zero_grad(set_to_none=True)
    return used


def test_paths_share_the_same_layer_operation_and_size_and_nothing_else(supernet):
    first, second = used_by(supernet, 0, "16:M-F-S3"), used_by(supernet, 0, "16:M-F1-S3")
    maps = {f"blocks.0.{kind}.16.{part}" for kind in ("entries", "exits") for part in ("weight", "bias")}
    shared = {name for name in first | second if ".layers.0.16_M." in name or ".layers.2.16_S3." in name}
    assert first & second == shared | maps
    assert not used_by(supernet, 0, "16:M") & used_by(supernet, 0, "24:M"), "other hidden sizes are other weights"
    assert used_by(supernet, 0, "16:M-F") & used_by(supernet, 0, "16:F-M") == maps, "so are other layers"
    assert not used_by(supernet, 0, "16:M") & used_by(supernet, 1, "16:M"), "and other blocks"


def test_a_path_uses_its_own_weights_only(supernet):
    prefixes = ("blocks.1.layers.0.24_S5.", "blocks.1.layers.1.24_M.", "blocks.1.entries.24.", "blocks.1.exits.24.")
    used = used_by(supernet, 1, "24:S5-M")
    assert used == {name for name, _ in supernet.named_parameters() if name.startswith(prefixes)}


def test_blocks_share_nothing(supernet):
    ids = [{id(parameter) for parameter in supernet.block_module(index).parameters()} for index in (0, 1)]
    embeddings = [{id(p) for p in module.parameters()} for module in supernet.embedding_modules().values()]
    everything = [*ids, *embeddings]
    assert sum(map(len, everything)) == len(set().union(*everything))
    assert set(supernet.embedding_modules()) == {16, 48}, "at the teacher's own width the embeddings are the teacher's"


def test_a_path_through_the_whole_chains_its_blocks(supernet):
    value = architecture("E48|16:M-F|24:S3")
    input_ids_BT, mask_BT = make_batch()
    with torch.no_grad():
        hidden_BTD = supernet.embed(48, input_ids_BT)
        for index, part in enumerate(value.blocks):
            hidden_BTD = supernet.forward_block(index, part, hidden_BTD, mask_BT.bool())
        assert torch.equal(hidden_BTD, supernet(value, input_ids_BT, mask_BT))


def test_padding_never_changes_valid_positions_of_a_path(supernet):
    input_ids_BT, mask_BT = make_batch()
    other_BT = torch.where(mask_BT.bool(), input_ids_BT, 77)
    rng = random.Random(6)
    with torch.no_grad():
        for value in (supernet.space.sample(rng) for _ in range(20)):
            expected, found = supernet(value, input_ids_BT, mask_BT), supernet(value, other_BT, mask_BT)
            assert torch.equal(expected[mask_BT.bool()], found[mask_BT.bool()])


def test_a_forward_pass_changes_nothing(supernet):
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    batch = make_batch()
    with torch.inference_mode():
        first = supernet(architecture("E16|16:M-S3|24:F"), *batch)
        supernet(architecture("E48|32:F|16:S5"), *batch)
        assert torch.equal(first, supernet(architecture("E16|16:M-S3|24:F"), *batch))
    assert all(torch.equal(before[name], tensor) for name, tensor in supernet.state_dict().items())


def test_the_supernet_of_the_paper_has_its_size():
    """9.61M a layer, and for each block and hidden size a pair of linear maps (9.1M in all; notes, section 3.3)."""
    from spaces.nas_bert.space import NasBertSpace

    with torch.device("meta"):
        supernet = NasBertSpace().supernet()
    layers = sum(p.numel() for name, p in supernet.blocks.named_parameters() if ".layers." in name)
    maps = sum(p.numel() for name, p in supernet.blocks.named_parameters() if ".layers." not in name)
    assert round(layers / 24 / 1e6, 2) == 9.61
    assert round(maps / 1e6, 1) == 9.1
