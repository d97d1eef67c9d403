from __future__ import annotations

import copy

import pytest
import torch

from spaces.errors import SpaceError
from spaces.nas_bert.space import NasBertSpace
from tests.spaces.microscopic import architecture, block, largest_difference, make_batch, make_bert, make_space
from trainers.losses import masked_mse, masked_variance

TOLERANCE = 1e-5
FULL_DEPTH = ("192:M-F-M-F", "384:M-F2-M-F2")
TEXTS = [
    "The quick brown fox jumps over the lazy dog near the bank of the river, where nobody has seen it before.",
    "Mr. Harding was not a happy man as he walked down the palace pathway, and stepped out into the close.",
    "A search for small and fast encoders begins with a large and slow one.",
    "Rain fell.",
    "When the two had gone, the old lady put down her needles and looked for a long while into the fire.",
    "It was the best of the seven islands, and the only one with a harbour deep enough for the mail steamer.",
]


def path_of(shape, blocks):
    """The architecture that is the teacher itself: M-F for each of its layers."""
    layers = "-".join(["M-F"] * (shape.num_layers // blocks))
    return architecture("|".join([f"E{shape.hidden_size}", *[f"{shape.hidden_size}:{layers}"] * blocks]))


def states_of(model, input_ids_BT, mask_BT, blocks):
    with torch.no_grad():
        states = model(input_ids=input_ids_BT, attention_mask=mask_BT, output_hidden_states=True).hidden_states
    return states[:: (len(states) - 1) // blocks]


def start(space, model, batch, init="teacher", seed=0):
    torch.manual_seed(seed)
    supernet = space.supernet().eval()
    supernet.start(model, *batch, init=init)
    return supernet


def relative_error(supernet, index, text, states, mask_BT):
    with torch.no_grad():
        output_BTD = supernet.forward_block(index, block(text), states[index], mask_BT.bool())
    target_BTD = states[index + 1]
    return float(masked_mse(output_BTD, target_BTD, mask_BT) / masked_variance(target_BTD, mask_BT))


# --- exact at the teacher's own width --------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("lengths", [(12, 12, 12), (12, 7, 1)])
def test_the_teacher_is_a_path(blocks, lengths):
    model = make_bert()
    space = make_space(num_blocks=blocks, layers_per_block=8 // blocks, hidden_sizes=(32,))
    supernet = start(space, model, make_batch(seed=9))
    value = path_of(space.options.shape, blocks)
    input_ids_BT, mask_BT = make_batch(lengths)
    states = states_of(model, input_ids_BT, mask_BT, blocks)
    with torch.no_grad():
        assert largest_difference(supernet.embed(32, input_ids_BT), states[0]) <= TOLERANCE
        for index, part in enumerate(value.blocks):
            output_BTD = supernet.forward_block(index, part, states[index], mask_BT.bool())
            assert largest_difference(output_BTD, states[index + 1], mask_BT) <= TOLERANCE
        whole_BTD = supernet.extract(value)(input_ids_BT, mask_BT).last_hidden_state
        assert largest_difference(whole_BTD, states[-1], mask_BT) <= TOLERANCE


def test_it_is_a_path_without_a_segment_table_too():
    """The segment every token has is added to the positions."""
    model, batch = make_bert(), make_batch()
    supernet = start(make_space(type_vocab_size=0), model, batch)
    with torch.no_grad():
        difference = largest_difference(supernet.embed(32, batch[0]), states_of(model, *batch, 1)[0])
    assert difference <= TOLERANCE


def test_spare_layers_stand_in_for_the_nearest_of_their_kind():
    """A block of the supernet may be deeper than the teacher's, or start with the feed-forward."""
    model, batch = make_bert(), make_batch()
    supernet = start(make_space(num_blocks=4, layers_per_block=4, hidden_sizes=(32,)), model, batch)
    for index in range(4):
        shared = supernet.block(index)
        for layer in range(4):
            for operation in "MF":
                mine = shared.operation(layer, 32, operation).state_dict()
                teachers = shared.operation("MF".index(operation), 32, operation).state_dict()
                assert all(torch.equal(mine[name], teachers[name]) for name in mine)


@pytest.fixture(scope="module")
def real_batch(real_teacher):
    encoded = real_teacher.tokenizer(TEXTS, padding=True, return_tensors="pt")
    return encoded["input_ids"], encoded["attention_mask"]


@pytest.mark.parametrize("blocks", [1, 2, 3, 6])
def test_the_real_teacher_is_a_path(real_teacher, real_batch, blocks):
    """all-MiniLM-L6-v2: M-F-M-F at width 384 equals its hidden states to 1e-5 in every block, and the whole does."""
    options = {"num_blocks": blocks, "layers_per_block": 12 // blocks, "hidden_sizes": [384], "operations": ["M", "F"]}
    space = NasBertSpace.from_options({"preset": "small", **options}, real_teacher.shape)
    supernet = start(space, real_teacher.model, tuple(tensor[:1] for tensor in real_batch))
    input_ids_BT, mask_BT = real_batch
    assert not mask_BT.all(), "padding is part of the test"
    states = states_of(real_teacher.model, *real_batch, blocks)
    value = path_of(real_teacher.shape, blocks)
    with torch.no_grad():
        for index, part in enumerate(value.blocks):
            output_BTD = supernet.forward_block(index, part, states[index], mask_BT.bool())
            assert largest_difference(output_BTD, states[index + 1], mask_BT) <= TOLERANCE
        whole_BTD = supernet(value, input_ids_BT, mask_BT)
        assert largest_difference(whole_BTD, states[-1], mask_BT) <= TOLERANCE


# --- close at other widths -------------------------------------------------------------------------------------------


def test_narrower_paths_start_much_closer_to_the_real_teacher_than_random_ones(real_teacher, real_batch):
    options = {"hidden_sizes": [192, 384], "operations": ["M", "F", "F2", "S3"]}
    space = NasBertSpace.from_options({"preset": "small", **options}, real_teacher.shape)
    extracted = start(space, real_teacher.model, real_batch)
    random = start(space, real_teacher.model, real_batch, init="paper")
    states = states_of(real_teacher.model, *real_batch, 3)
    for index in range(3):
        for text in (*FULL_DEPTH, "384:M-F", "384:M-F-S3"):
            close, far = (relative_error(s, index, text, states, real_batch[1]) for s in (extracted, random))
            assert close < 0.5 * far, f"block {index}, {text}: {close:.3f} against {far:.3f}"
            assert close < 1.0 or text not in FULL_DEPTH, f"block {index}, {text}: no better than the teacher's mean"


def test_separable_convolutions_start_close_to_doing_nothing():
    model, batch = make_bert(), make_batch()
    states = states_of(model, *batch, 2)
    extracted, random = (start(make_space(), model, batch, init=init) for init in ("teacher", "paper"))
    for text in ("32:S3", "32:S5"):
        close, far = (relative_error(s, 0, text, [states[0], states[0]], batch[1]) for s in (extracted, random))
        assert close < 0.15, f"{text}: {close:.3f}"
        assert far > 3 * close, f"{text}: {close:.3f} against {far:.3f}"


def test_the_paper_s_start_has_the_teacher_s_embeddings_and_random_blocks():
    model, batch = make_bert(), make_batch()
    paper, extracted = (start(make_space(), model, batch, init=init) for init in ("paper", "teacher"))
    fresh = make_space()
    torch.manual_seed(0)
    untouched = fresh.supernet().state_dict()
    for name, tensor in paper.state_dict().items():
        same_as = extracted.state_dict() if name.startswith("embedding") else untouched
        assert torch.equal(tensor, same_as[name]), name


def test_narrower_embeddings_are_fitted_and_wider_ones_stay_random():
    model, batch = make_bert(), make_batch((12,) * 8)
    supernet = start(make_space(), model, batch)
    target_BTD = states_of(model, *batch, 1)[0]
    errors = {}
    with torch.no_grad():
        for size in (16, 48):
            error = masked_mse(supernet.embed(size, batch[0]), target_BTD, batch[1])
            errors[size] = float(error / masked_variance(target_BTD, batch[1]))
    assert errors[16] < 0.7
    assert errors[48] > 1.0


def test_the_fit_does_not_depend_on_dropout():
    model, batch = make_bert(), make_batch()
    torch.manual_seed(0)
    started = [make_space(dropout=0.5).supernet().train()]
    started.append(copy.deepcopy(started[0]))
    for seed, supernet in enumerate(started):
        torch.manual_seed(seed)
        supernet.start(model, *batch, init="teacher")
        assert all(module.training for module in supernet.modules()), "the mode is the caller's"
    first, second = (supernet.state_dict() for supernet in started)
    assert all(torch.equal(first[name], second[name]) for name in first)


# --- what is kept ----------------------------------------------------------------------------------------------------


def plant(model, kind):
    """Make half of the inner neurons useless: silent, or constant whatever the token."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for layer in model.encoder.layer:
            useless = torch.randperm(128, generator=generator)[:96]
            if kind == "silent":
                layer.output.dense.weight[:, useless] = 0
            else:
                layer.intermediate.dense.weight[useless] = 0
    return model


@pytest.mark.parametrize("kind", ["silent", "constant"])
def test_useless_neurons_are_dropped_and_their_mean_is_kept(kind):
    """A quarter of the neurons is all that varies, so a feed-forward of a quarter's width is exact."""
    model, batch = plant(make_bert(), kind), make_batch()
    supernet = start(make_space(num_blocks=4, layers_per_block=2, hidden_sizes=(32,)), model, batch)
    states = states_of(model, *batch, 4)
    with torch.no_grad():
        for index in range(4):
            output_BTD = supernet.forward_block(index, block("32:M-F1"), states[index], batch[1].bool())
            assert largest_difference(output_BTD, states[index + 1], batch[1]) <= TOLERANCE


def test_dead_heads_are_dropped():
    model, batch = make_bert(), make_batch()
    alive = torch.cat([torch.arange(8, 16), torch.arange(24, 32)])  # heads 1 and 3 of 4, each 8 wide
    with torch.no_grad():
        for layer in model.encoder.layer:
            output = layer.attention.output.dense.weight
            output[:, [column for column in range(32) if column not in alive]] = 0
    supernet = start(make_space(num_blocks=4, layers_per_block=2, hidden_sizes=(16,)), model, batch)
    for index in range(4):
        shared = supernet.block(index)
        directions_DH = shared.entries["16"].weight.T
        attention = model.encoder.layer[index].attention
        mine = shared.operation(0, 16, "M")
        for kept, theirs in ((mine.query, attention.self.query), (mine.value, attention.self.value)):
            torch.testing.assert_close(kept.weight, theirs.weight[alive] @ directions_DH)
        expected = directions_DH.T @ attention.output.dense.weight[:, alive]
        torch.testing.assert_close(mine.output.weight, expected)


def heads_of(tensor, heads):
    """The rows or columns of heads, each 8 wide."""
    return tensor[torch.cat([torch.arange(8 * head, 8 * head + 8) for head in heads])]


@pytest.mark.parametrize("kind", ["silent", "constant"])
def test_attention_with_fewer_heads_is_exact_where_the_others_are_useless(kind):
    """Heads 0 and 2 of 4 add nothing, or the same to every token: that mean goes into the bias."""
    model, batch = make_bert(), make_batch()
    with torch.no_grad():
        for layer in model.encoder.layer:
            for head in (0, 2):
                rows = slice(8 * head, 8 * head + 8)
                if kind == "silent":
                    layer.attention.output.dense.weight[:, rows] = 0
                else:
                    layer.attention.self.value.weight[rows] = 0
    space = make_space(num_blocks=4, layers_per_block=2, hidden_sizes=(32,), operations=("M", "M2", "M1", "F"))
    supernet = start(space, model, batch)
    states = states_of(model, *batch, 4)
    with torch.no_grad():
        for index in range(4):
            output_BTD = supernet.forward_block(index, block("32:M2-F"), states[index], batch[1].bool())
            assert largest_difference(output_BTD, states[index + 1], batch[1]) <= TOLERANCE
            fewer_BTD = supernet.forward_block(index, block("32:M1-F"), states[index], batch[1].bool())
            assert largest_difference(fewer_BTD, states[index + 1], batch[1]) > TOLERANCE


@pytest.mark.parametrize("size", [16, 32])
def test_attention_with_fewer_heads_keeps_those_that_add_most(size):
    """Of 4 heads, 2 is the loudest and 1 the next; they are taken whole, at the teacher's width and below."""
    model, batch = make_bert(), make_batch()
    with torch.no_grad():
        for layer in model.encoder.layer:
            weight = layer.attention.output.dense.weight
            for head, factor in ((0, 0.01), (1, 3.0), (2, 10.0), (3, 0.1)):
                weight[:, 8 * head : 8 * head + 8] *= factor
    space = make_space(num_blocks=4, layers_per_block=2, hidden_sizes=(size,), operations=("M1", "M2"))
    supernet = start(space, model, batch)
    for index in range(4):
        shared, attention = supernet.block(index), model.encoder.layer[index].attention
        directions_DH = torch.eye(32) if size == 32 else shared.entries["16"].weight.T
        for operation, heads in (("M1", [2]), ("M2", [1, 2])):
            mine = shared.operation(0, size, operation)
            kept_AD = heads_of(attention.self.query.weight, heads)
            torch.testing.assert_close(mine.query.weight, kept_AD @ directions_DH)
            kept_DA = heads_of(attention.output.dense.weight.T, heads).T
            torch.testing.assert_close(mine.output.weight, directions_DH.T @ kept_DA)


def test_the_narrow_basis_is_the_leading_principal_components():
    model, batch = make_bert(), make_batch()
    supernet = start(make_space(hidden_sizes=(16,)), model, batch)
    entry, leaving = supernet.block(0).entries["16"], supernet.block(0).exits["16"]
    with torch.no_grad():
        torch.testing.assert_close(entry.weight @ leaving.weight, torch.eye(16), rtol=1e-5, atol=1e-5)
        middle_H = entry(leaving.bias[None])
        torch.testing.assert_close(middle_H, torch.zeros(1, 16), rtol=1e-5, atol=1e-4)
        states = states_of(model, *batch, 4)
        through_BTD = leaving(entry(states[1]))
        error = masked_mse(through_BTD, states[1], batch[1]) / masked_variance(states[1], batch[1])
        directions = torch.linalg.qr(torch.randn(32, 16, generator=torch.Generator().manual_seed(0)))[0]
        centred_BTD = states[1] - leaving.bias
        blind = masked_mse(centred_BTD @ directions @ directions.T, centred_BTD, batch[1])
    assert float(error) < 0.5 * float(blind / masked_variance(states[1], batch[1]))


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "model", "message"),
    [
        (
            {},
            {"hidden_act": "relu"},
            "supernet.init: teacher needs a teacher with GELU, found hidden_act 'relu'; use init: paper",
        ),
        (
            {"head_size": 4},
            {},
            "space.options.head_size: found 4, but init: teacher copies the teacher's heads, which are 8 wide; "
            "set head_size: 8 or init: paper",
        ),
        (
            {"hidden_sizes": (16, 64)},
            {},
            "space.options.hidden_sizes: found 64, but init: teacher cuts blocks out of the teacher, which is 32 wide; "
            "remove what is wider or set init: paper",
        ),
    ],
)
def test_what_cannot_be_started_at_the_teacher(space, model, message):
    supernet = make_space(**space).supernet()
    with pytest.raises(SpaceError) as raised:
        supernet.start(make_bert(**model), *make_batch(), init="teacher")
    assert str(raised.value) == message
    supernet.start(make_bert(**model), *make_batch(), init="paper")


def test_heads_of_another_size_cannot_be_taken_for_any_attention():
    supernet = make_space(head_size=4, operations=("M2", "F")).supernet()
    with pytest.raises(SpaceError, match=r"space\.options\.head_size: found 4, but init: teacher copies"):
        supernet.start(make_bert(), *make_batch(), init="teacher")


def test_other_head_sizes_do_not_matter_without_attention():
    model = make_bert()
    supernet = start(make_space(head_size=4, operations=("F", "S3")), model, make_batch())
    mine = supernet.block(0).operation(0, 32, "F").inner.weight
    theirs = model.encoder.layer[0].intermediate.dense.weight
    assert torch.equal(mine.sort(0).values, theirs.sort(0).values)
