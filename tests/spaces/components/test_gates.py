"""Architectures with gates: the same output, and the gradients that real genes would have, in a few dense spans."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.components.distribution import GeneDistribution
from spaces.components.gates import Gates
from spaces.components.gene_weights import GeneWeights, SublayerWeights, later_kept
from tests.spaces.components.microscopic import TEXT, make_space, make_supernet
from tests.spaces.microscopic import largest_difference, make_batch

TEXTS = (TEXT, "H1-4.Q1-2.M/F1-8.M|H2/F3|H1>2>3>4.Q1/F1>2-5>7.M|H3-4.Q2.M")
PROBED = 7
"""As many turns probe every edge: a sublayer has 7 horizontal ones at most."""


@pytest.fixture(scope="module")
def supernet():
    return make_supernet().double()


def leaves_of(architecture):
    """Its genes, each of which wants a gradient."""
    genes = GeneWeights.of(architecture, make_space().options, torch.zeros((), dtype=torch.float64))
    return genes.map(torch.Tensor.requires_grad_)


def gradients(supernet, value, leaves):
    """Of a loss that looks at everything, by each gene."""
    states_BTD = supernet(value, *make_batch())
    weights_BTD = torch.randn(states_BTD.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    tensors = [one for half in leaves.halves for one in half.tensors]
    found = torch.autograd.grad((states_BTD * weights_BTD).sum(), tensors, materialize_grads=True, allow_unused=True)
    return GeneWeights(SublayerWeights(*found[:4]), SublayerWeights(*found[4:]))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_gates_put_out_what_their_architecture_does(supernet, seed):
    distribution = GeneDistribution(supernet.options, keep=0.1 + 0.85 * random.Random(seed).random(), vertical=0.3)
    gates = distribution.draw_gates(torch.Generator().manual_seed(seed), 0.5)
    gates = dataclasses.replace(gates, weights=gates.weights.map(torch.Tensor.double))
    with torch.no_grad():
        path_BTD, gated_BTD = (supernet(way, *make_batch()) for way in (gates.architecture, gates))
    assert largest_difference(path_BTD, gated_BTD) <= 1e-9 * max(1.0, float(path_BTD.abs().max()))


def by_psi(supernet, architecture):
    """The gradients when every component runs by itself, with the edges that :class:`Gates` describes.

    What is dropped has no edge, and what was dropped behind the last component that is kept is offered beside it.
    """
    leaves = leaves_of(architecture)
    last = [later_kept(half.presence_LN.detach()) > 0 for half in leaves.halves]
    pairs = zip(leaves.halves, last, strict=True)
    halves = (
        dataclasses.replace(half, edges_LN=half.presence_LN * half.edges_LN * followed_LN)
        for half, followed_LN in pairs
    )
    return gradients(supernet, GeneWeights(*halves), leaves)


@pytest.mark.parametrize("text", TEXTS)
def test_gradients_are_those_of_real_genes(supernet, text):
    """Presences, slices, means and vertical edges at once; a horizontal one when it is probed, times their number."""
    architecture = make_space().parse(text)
    expected, leaves = by_psi(supernet, architecture), leaves_of(architecture)
    inner = [[one for stage in choice.stages for one in stage[:-1]] for choice in architecture.sublayers]
    scale = max(float(one.abs().max()) for half in expected.halves for one in half.tensors if one.numel())
    for turn in range(PROBED):
        probes = tuple(one[turn % len(one)] if one else None for one in inner)
        found = gradients(supernet, Gates(architecture, leaves, probes), leaves)
        wanted = expected.map(torch.clone)
        for number, (horizontal, probe) in enumerate(zip(inner, probes, strict=True)):
            edges_N = wanted.halves[number % 2].edges_LN[number // 2]
            for place in horizontal:
                edges_N[place] *= len(horizontal) if place == probe else 0
        for ours, theirs in zip(found.halves, wanted.halves, strict=True):
            torch.testing.assert_close(ours.tensors, theirs.tensors, rtol=1e-6, atol=1e-9 * scale)
    assert any(half.edges_LN.any() for half in expected.halves)


def test_within_a_student_only_what_it_has_is_computed(supernet):
    """With the output and the gradients that there are where the whole teacher is."""
    limit = "H1-2>4.Q2.M/F1,3>4-5>8|H1-3.M/F2-4.M|F1|H1-4.Q1-2/F1-8.M"
    limited = make_space(within=limit).supernet().double().eval()
    limited.load_state_dict(supernet.state_dict())
    architecture, most = make_space().parse("H1>4.Q2/F1>4-5|H2-3.M/F3|0|H1-2.Q1/F1-8"), limited.largest()
    leaves = leaves_of(architecture)
    for way in (Gates(architecture, leaves, (None, 3, 1, None, None, None, 0, 5)), leaves):
        with torch.no_grad():
            assert largest_difference(limited(way, *make_batch()), supernet(way, *make_batch())) <= 1e-9
        ours, theirs = gradients(limited, way, leaves), gradients(supernet, way, leaves)
        free = GeneWeights.of(most, limited.options)
        for one, other, bits in zip(ours.halves, theirs.halves, free.halves, strict=True):
            has = (bits.presence_LN, bits.presence_LN, bits.query_key_LC, bits.mean_L)
            for found, expected, kept in zip(one.tensors, other.tensors, has, strict=True):
                torch.testing.assert_close(found * kept, expected * kept, rtol=1e-6, atol=1e-7)
        assert all(half.presence_LN.any() for half in ours.halves)
    halves = [limited.sublayer(number).weighted(leaves.halves[number % 2].of_layer(number // 2)) for number in range(4)]
    widths = [[None if one is None else tuple(one[0].shape) for one in maps] for maps in halves]
    assert widths[0] == [(12, 32), (12, 32), (24, 32), (32, 24)], "three heads with a slice of queries and keys each"
    assert widths[1] == [(80, 32), (32, 80)]
    assert widths[2] == [None, None, (24, 32), (32, 24)]


def test_probes_are_drawn_evenly_among_horizontal_edges():
    architecture = make_space().parse("H1-3>4/F1,3>4,5-6>8|0|H1>2|F1-2")
    leaves = leaves_of(architecture)
    probed = [Gates.of(architecture, leaves, torch.Generator().manual_seed(seed)).probes for seed in range(300)]
    found = [{one[number] for one in probed} for number in range(8)]
    assert found == [{0, 1}, {0, 3, 4}, {None}, {None}, {None}, {None}, {None}, {0}]
    assert all(70 <= [one[1] for one in probed].count(place) <= 130 for place in (0, 3, 4))


def test_everything_that_may_be_kept_is_computed_in_few_spans():
    architecture = make_space().parse("H1-4/F1,3>4,5-6>7|0|H1>2|F1-8")
    gates = dataclasses.replace(Gates.of(architecture, leaves_of(architecture), torch.Generator()), probes=(None,) * 8)
    plans = [gates.plan(number) for number in range(8)]
    spans = [[(span.components.start, span.components.stop) for span in plan.spans] for plan in plans]
    assert spans[0] == [(0, 4)]
    assert spans[1] == [(0, 3), (3, 6), (6, 8)], "the dropped ones among them"
    assert spans[2:4] == [[(0, 4)], [(0, 8)]], "also of what is absent"
    assert spans[4] == [(0, 1), (1, 4)]
    assert [plan.may_vanish for plan in plans] == [False, False, True, True, False, True, True, False]


def test_only_what_is_searched_has_gates():
    """Neither fixed halves nor edges that cannot be vertical; those are not probed either."""
    space = make_space(vertical=(), fixed_feed_forward=("F1-3",) * 4)
    distribution = space.distribution()
    gates = distribution.draw_gates(torch.Generator().manual_seed(0), 0.5)
    assert gates.probes == (None,) * 8
    wants = [[one.requires_grad for one in half.tensors] for half in gates.weights.halves]
    assert wants == [[True, False, True, True], [False] * 4]
    states_BTD = space.supernet()(gates, *make_batch())
    assert states_BTD.dtype == torch.float32
    states_BTD.square()[..., 0].sum().backward()
    assert all(parameter.grad.any() for parameter in distribution.parameters())
