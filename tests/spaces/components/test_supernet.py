"""The supermodel: the teacher is a path of it, genes may be real, and models equal their paths with nothing besides."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.components.gates import Gates
from spaces.components.gene_weights import GeneWeights, SublayerWeights
from spaces.components.modeling import ComponentsModel
from spaces.components.space import ComponentsSpace
from spaces.encoder_shape import EncoderShape
from spaces.errors import SpaceError
from tests.spaces.components.microscopic import TEXT, make_space, make_started, make_supernet
from tests.spaces.components.test_exam import TINY
from tests.spaces.microscopic import SHAPE, largest_difference, make_batch, make_bert, parameters_of
from tests.spaces.supernets import (
    assert_models_are_copies,
    assert_padding_says_nothing,
    assert_passes_change_nothing,
)
from tests.spaces.test_teacher_start import TEXTS

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def supernet():
    return make_supernet()


@pytest.fixture(scope="module")
def started():
    return make_started()


def parse(text):
    return make_space().parse(text)


def weights_of(architecture, options, wants_gradient=False, dtype=torch.float32):
    """The genes of an architecture as numbers, and these as a list of tensors."""
    genes = GeneWeights.of(architecture, options, torch.zeros((), dtype=dtype))
    tensors = [tensor for half in (genes.attention, genes.feed_forward) for tensor in dataclasses.astuple(half)]
    if wants_gradient:
        for tensor in tensors:
            tensor.requires_grad_()
        genes = GeneWeights(SublayerWeights(*tensors[:4]), SublayerWeights(*tensors[4:]))
    return genes, tensors


# --- the teacher as components ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(12, 12, 12), (12, 7, 1)])
def test_the_teacher_is_the_path_of_all_components(started, lengths):
    """w = (0, ..., 0, 1) in every sublayer: every hidden state to 1e-5, as a path, by Psi, and extracted."""
    supernet, teacher = started
    batch = make_batch(lengths)
    with torch.no_grad():
        expected = teacher(*batch, output_hidden_states=True).hidden_states
        genes = GeneWeights.of(supernet.largest(), supernet.options)
        for value in (supernet.largest(), genes):
            states = supernet.hidden_states(value, *batch)
            assert len(states) == len(expected) == 5
            assert max(map(largest_difference, states, expected, [batch[1]] * 5)) <= TOLERANCE
        alone_BTD = supernet.extract(supernet.largest())(*batch).last_hidden_state
        assert largest_difference(alone_BTD, expected[-1], batch[1]) <= TOLERANCE
    assert genes.attention.edges_LN.tolist() == [[0, 0, 0, 1]] * 4
    assert genes.feed_forward.edges_LN.tolist() == [[0] * 7 + [1]] * 4


def test_pairs_of_texts_come_with_segments(started):
    """As the teacher reads them, in a path, by Psi, with gates, and extracted; 0 by default."""
    supernet, teacher = started
    input_ids_BT, mask_BT = make_batch()
    segments_BT = (torch.arange(12) >= 4).long() * mask_BT
    whole = supernet.largest()
    genes = GeneWeights.of(whole, supernet.options, torch.zeros(()))
    ways = (whole, genes, Gates.of(whole, genes, torch.Generator().manual_seed(0)))
    with torch.no_grad():
        expected_BTD = teacher(input_ids_BT, mask_BT, token_type_ids=segments_BT).last_hidden_state
        alone_BTD = supernet.extract(whole)(input_ids_BT, mask_BT, segments_BT).last_hidden_state
        found = [supernet(way, input_ids_BT, mask_BT, segments_BT) for way in ways]
        states = supernet.hidden_states(whole, input_ids_BT, mask_BT, segments_BT)
        plain_BTD = supernet(whole, input_ids_BT, mask_BT)
        zeros_BTD = supernet(whole, input_ids_BT, mask_BT, torch.zeros_like(segments_BT))
    for one_BTD in (*found, states[-1], alone_BTD):
        assert largest_difference(one_BTD, expected_BTD, mask_BT) <= TOLERANCE
    assert torch.equal(plain_BTD, zeros_BTD)
    assert largest_difference(plain_BTD, expected_BTD, mask_BT) > 1e-2


@pytest.mark.parametrize("changes", [{"feed_forward_slices": 2, "query_key_slices": 8}, {"query_key_slices": 1}])
def test_however_it_is_cut(changes):
    supernet, teacher = make_started(**changes)
    batch = make_batch()
    with torch.no_grad():
        expected_BTD = teacher(*batch).last_hidden_state
        for value in (supernet.largest(), GeneWeights.of(supernet.largest(), supernet.options)):
            assert largest_difference(supernet(value, *batch), expected_BTD, batch[1]) <= TOLERANCE


def test_a_teacher_with_another_activation_and_epsilon():
    shape = dataclasses.replace(TINY, vocab_size=99, max_positions=12, layer_norm_eps=0.1)
    teacher = make_bert(shape, hidden_act="relu", layer_norm_eps=0.1)
    supernet = make_space(shape=shape).supernet().eval()
    supernet.start(teacher)
    with torch.no_grad():
        expected_BTD = teacher(*make_batch()).last_hidden_state
        assert largest_difference(supernet(supernet.largest(), *make_batch()), expected_BTD) <= TOLERANCE


def test_the_real_teacher_is_a_path(real_teacher):
    """all-MiniLM-L6-v2 as 12 heads, 2 query-key slices and 8 feed-forward slices a layer."""
    space = ComponentsSpace.from_options({}, real_teacher.shape)
    supernet = space.supernet().eval()
    supernet.start(real_teacher.model)
    encoded = real_teacher.tokenizer(TEXTS, padding=True, return_tensors="pt")
    batch = (encoded["input_ids"], encoded["attention_mask"])
    assert not batch[1].all(), "padding is part of the test"
    with torch.no_grad():
        expected = real_teacher.model(*batch, output_hidden_states=True).hidden_states
        for value in (supernet.largest(), GeneWeights.of(supernet.largest(), supernet.options)):
            states = supernet.hidden_states(value, *batch)
            assert max(map(largest_difference, states, expected, [batch[1]] * 7)) <= TOLERANCE
        alone_BTD = supernet.extract(supernet.largest())(*batch).last_hidden_state
        assert largest_difference(alone_BTD, expected[-1], batch[1]) <= TOLERANCE


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"num_layers": 3}, "teacher: its num_hidden_layers is 4, expected 3, for which the space was made; make the"),
        ({"activation": "relu"}, "teacher: its hidden_act is gelu, expected relu, for which"),
        ({"vocab_size": 98}, "teacher: its vocab_size is 99, expected 98"),
        ({"layer_norm_eps": 0.1}, "teacher: its layer_norm_eps is 1e-12, expected 0.1"),
    ],
)
def test_teachers_of_other_sizes_are_refused(shape, message):
    supernet = make_space(shape=dataclasses.replace(SHAPE, **shape)).supernet()
    before = supernet.embeddings.position.weight.clone()
    with pytest.raises(SpaceError) as raised:
        supernet.start(make_bert())
    assert str(raised.value).startswith(message)
    assert torch.equal(before, supernet.embeddings.position.weight)


# --- paths, and what is folded out of them ---------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), lengths=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_extracted_models_and_psi_equal_the_path(supernet, seed, lengths):
    space = make_space()
    value = space.mutate(space.sample(random.Random(seed)), random.Random(seed))
    batch = make_batch(lengths)
    with torch.no_grad():
        path_BTD = supernet(value, *batch)
        model = supernet.extract(value)
        alone_BTD = model(*batch).last_hidden_state
        psi_BTD = supernet(GeneWeights.of(value, supernet.options), *batch)
    assert path_BTD.shape == (2, 12, 32)
    assert torch.isfinite(path_BTD).all()
    scale = max(1.0, float(path_BTD.abs().max()))
    assert largest_difference(path_BTD, alone_BTD) <= TOLERANCE * scale
    assert largest_difference(path_BTD, psi_BTD) <= TOLERANCE * scale
    assert parameters_of(model) == space.cost(value).parameters
    assert model.config.architecture == str(value)


def test_an_extracted_model_is_a_plain_stack_of_blocks(supernet):
    """Beside each other in one dense block, behind others in one of their own; absent halves leave nothing."""
    model = supernet.extract(parse("H1-2>4.Q2.M/F1,3>4-5>8|H2-3.M|0|H1-4.Q1-2/F1-8.M"))
    assert model.config.blocks == [
        {"heads": 2, "key_size": 4, "bias": True, "norm": None},
        {"heads": 1, "key_size": 4, "bias": False, "norm": "mean"},
        {"inner_size": 32, "bias": True, "norm": None},
        {"inner_size": 32, "bias": False, "norm": None},
        {"inner_size": 16, "bias": False, "norm": "no_mean"},
        {"heads": 2, "key_size": 0, "bias": True, "norm": "mean"},
        {"heads": 4, "key_size": 8, "bias": True, "norm": "no_mean"},
        {"inner_size": 128, "bias": True, "norm": "mean"},
    ]
    first, wide = model.blocks[0], model.blocks[2]
    shared = supernet.attentions[0], supernet.feed_forwards[0]
    rows = [4, 5, 6, 7, 12, 13, 14, 15]  # the second half of heads 1 and 2
    assert torch.equal(first.query.weight, shared[0].query.weight[rows])
    assert torch.equal(first.value.bias, shared[0].value.bias[:16])
    assert torch.equal(first.output.weight, shared[0].output.weight[:, :16])
    assert torch.equal(wide.inner.weight, torch.cat([shared[1].inner.weight[:16], shared[1].inner.weight[32:48]]))
    assert model.blocks[5].query is model.blocks[5].key is None
    names = {name.split(".")[-2] for name, _ in model.named_parameters()}
    assert names == {"token", "position", "segment", "norm", "query", "key", "value", "output", "inner"}


def test_layers_that_vanish_do_nothing(supernet):
    batch = make_batch()
    with torch.no_grad():
        states = supernet.hidden_states(parse("F1|0|0|H2"), *batch)
        weighted = supernet.hidden_states(GeneWeights.of(parse("F1|0|0|H2"), supernet.options), *batch)
    for one in (states, weighted):
        assert torch.equal(one[1], one[2])
        assert torch.equal(one[2], one[3])
    assert not torch.equal(states[0], states[1])
    assert len(supernet.extract(parse("F1|0|0|H2")).blocks) == 2


def test_stages_see_what_earlier_ones_have_added(supernet):
    """Depth and width are not the same function, and the order of numbers is not one of stages."""
    texts = ("F1-8", "F1>2>3>4>5>6>7>8", "F1-4>5-8", "F1>2-8")
    with torch.no_grad():
        outputs = [supernet(parse(f"{text}|0|0|0"), *make_batch()) for text in texts]
    assert all(largest_difference(one, two) > 1e-3 for one in outputs for two in outputs if one is not two)


def test_a_dropped_component_has_no_part_in_anything():
    """Neither in the output, nor in a gradient, by either way of running it; nor in the model."""
    supernet, value = make_supernet().double(), parse(TEXT)
    taken = {}
    for name, way in (("path", value), ("psi", weights_of(value, supernet.options, dtype=torch.float64)[0])):
        supernet.zero_grad(set_to_none=True)
        supernet(way, *make_batch()).square().sum().backward()
        taken[name] = {
            key: torch.zeros_like(one) if one.grad is None else one.grad.clone()
            for key, one in supernet.named_parameters()
        }
    supernet.zero_grad(set_to_none=True)
    for name, gradient in taken["path"].items():
        torch.testing.assert_close(taken["psi"][name], gradient, rtol=1e-6, atol=1e-9)
    path = taken["path"]
    assert not path["attentions.0.value.weight"][16:24].any(), "head 3 is dropped"
    assert path["attentions.0.value.weight"][:16].any(1).all()
    assert not path["attentions.0.query.weight"][[0, 1, 2, 3, 24, 25, 26, 27]].any(), "slice 1 is dropped"
    assert path["attentions.0.query.weight"][[4, 5, 6, 7, 28, 29, 30, 31]].any(1).all()
    assert not path["feed_forwards.0.output.weight"][:, 16:32].any(), "slice 2 is dropped"
    assert not path["attentions.1.key.weight"].any(), "attention without queries and keys"
    for name in ("attentions.2.value.weight", "attentions.2.norm.weight", "feed_forwards.1.norm.bias"):
        assert not path[name].any(), "the sublayer is absent"
    other = make_supernet().double()
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if not name.startswith("embeddings") and not name.endswith("key.bias"):  # which never has a gradient
                parameter[path[name] == 0] = 100.0
        assert not torch.equal(supernet(supernet.largest(), *make_batch()), other(other.largest(), *make_batch()))
        expected_BTD = supernet(value, *make_batch())
        assert torch.equal(expected_BTD, other(value, *make_batch()))
        assert torch.equal(expected_BTD, other.extract(value).double()(*make_batch()).last_hidden_state)


def test_the_output_bias_is_added_once(supernet):
    """A sublayer's, whatever the stages: with the first one, so that later ones see it."""
    twin = make_supernet()
    with torch.no_grad():
        bias_D = twin.feed_forwards[0].output.bias.clone()
        for text in ("F1-8", "F1>2-8", "F2>8"):
            twin.feed_forwards[0].output.bias.copy_(bias_D)
            model = twin.extract(parse(f"{text}|0|0|0"))
            twin.feed_forwards[0].output.bias.zero_()
            without_BTD = twin(parse(f"{text}|0|0|0"), *make_batch())
            biased = [block.output.bias for block in model.blocks if block.output.bias is not None]
            assert len(biased) == 1
            assert torch.equal(biased[0], bias_D)
            biased[0].zero_()
            assert largest_difference(model(*make_batch()).last_hidden_state, without_BTD) <= TOLERANCE


# --- real genes ------------------------------------------------------------------------------------------------------


def test_genes_have_gradients_everywhere(started):
    """At the teacher, where a search begins, every gene that makes a difference says so; edges of the last ones do not.

    Binary edges behind components that are dropped do, too: opened, they would merge what waits.
    """
    supernet, _ = started
    genes, tensors = weights_of(supernet.largest(), supernet.options, wants_gradient=True)
    supernet(genes, *make_batch()).square()[..., 0].sum().backward()
    presence, edges, slices, mean = tensors[:4]
    assert presence.grad.all()
    assert slices.grad.all()
    assert mean.grad.all()
    assert edges.grad[:, :-1].all()
    assert edges.grad[:, -1].abs().max() < 1e-4 * edges.grad.abs().max(), "what waits in the end is merged anyhow"
    assert tensors[4].grad.all()
    assert tensors[7].grad.all()


def test_gradients_of_real_genes_are_those_of_finite_differences():
    shape = EncoderShape(1, 4, 2, 4, 9, 4, 0)
    supernet = make_supernet(shape=shape, feed_forward_slices=2, query_key_slices=2).double()
    input_ids_BT, mask_BT = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    _, tensors = weights_of(supernet.largest(), supernet.options, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    given_ones = [torch.rand(one.shape, generator=generator, dtype=torch.float64) for one in tensors]

    def run(*values):
        genes = GeneWeights(SublayerWeights(*values[:4]), SublayerWeights(*values[4:]))
        return supernet(genes, input_ids_BT, mask_BT)

    assert torch.autograd.gradcheck(run, [one.requires_grad_() for one in given_ones])


def test_between_two_architectures_there_is_no_leap(supernet):
    """From a layer to none: with presences that fall to 0 the output goes over into that without the layer."""
    whole, without = parse("F1-2.M|0|0|H1"), parse("0|0|0|H1")
    ends = [GeneWeights.of(one, supernet.options) for one in (whole, without)]

    def between(share):
        halves = [
            [torch.lerp(one, two, share) for one, two in zip(*map(dataclasses.astuple, pair), strict=True)]
            for pair in ((end.attention for end in ends), (end.feed_forward for end in ends))
        ]
        with torch.no_grad():
            return supernet(GeneWeights(*(SublayerWeights(*half) for half in halves)), *make_batch())

    path = [between(share) for share in (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)]
    with torch.no_grad():
        assert largest_difference(path[0], supernet(whole, *make_batch())) <= TOLERANCE
        assert largest_difference(path[-1], supernet(without, *make_batch())) <= TOLERANCE
    assert largest_difference(path[-2], path[-1]) < 0.05 * largest_difference(path[0], path[-1])


def test_genes_take_the_place_and_kind_they_are_given(supernet):
    genes = GeneWeights.of(parse(TEXT), supernet.options, torch.zeros((), dtype=torch.float16))
    assert {one.dtype for one in dataclasses.astuple(genes.attention)} == {torch.float16}
    assert genes.attention.presence_LN.tolist()[0] == [1, 1, 0, 1]
    assert genes.attention.edges_LN.tolist()[0] == [0, 1, 0, 1]
    assert genes.attention.query_key_LC.tolist() == [[0, 1], [0, 0], [0, 0], [1, 1]]
    assert genes.feed_forward.mean_L.tolist() == [0, 0, 0, 1]
    assert genes.feed_forward.query_key_LC.shape == (4, 0)


# --- what every supernet owes ----------------------------------------------------------------------------------------


def test_a_forward_pass_changes_nothing(supernet):
    assert_passes_change_nothing(supernet, parse(TEXT))


def test_padding_never_changes_valid_positions_of_a_path(supernet):
    rng = random.Random(6)
    assert_padding_says_nothing(supernet, [parse("H1-4|H1-3.Q1|0|F1"), *(make_space().sample(rng) for _ in range(10))])


def test_models_are_copies_in_the_same_mode():
    supernet = make_supernet()
    assert isinstance(supernet.extract(parse(TEXT)), ComponentsModel)
    assert_models_are_copies(supernet, parse(TEXT))


def test_dropout_only_in_training():
    supernet = make_supernet(dropout=0.5)
    ways = (parse(TEXT), GeneWeights.of(parse(TEXT), supernet.options))
    with torch.no_grad():
        for way in ways:
            assert torch.equal(supernet.eval()(way, *make_batch()), supernet(way, *make_batch()))
            assert not torch.equal(supernet.train()(way, *make_batch()), supernet(way, *make_batch()))


def test_the_largest_path_uses_all_weights(supernet):
    assert str(supernet.largest()) == "|".join(["H1-4.Q1-2.M/F1-8.M"] * 4)
    assert parameters_of(supernet) == parameters_of(supernet.extract(supernet.largest()))
    supernet.zero_grad(set_to_none=True)
    supernet(supernet.largest(), *make_batch((12, 12))).square().sum().backward()
    assert all(parameter.grad is not None for parameter in supernet.parameters())
    supernet.zero_grad(set_to_none=True)
    fixed = make_space(fixed_attention=("0", "H1", "H1>2", "H1.M")).supernet()
    assert [str(layer) for layer in fixed.largest().layers] == ["F1-8.M", "H1/F1-8.M", "H1>2/F1-8.M", "H1.M/F1-8.M"]
