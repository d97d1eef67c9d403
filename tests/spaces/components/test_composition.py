"""The operator Psi: its test vectors, what it conserves, and that binary edges group components into stages."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spaces.components.composition import Streams, chain, compose, psi, settle
from spaces.components.sublayers import Gene, stages_of

FUNCTIONS = (lambda x: 2 * x, lambda x: x + 1, lambda x: x.square())
EDGES = st.floats(-3, 3)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def random_components(count: int, width: int = 5) -> list:
    """Each a linear map and a bend, so that order and inputs matter."""
    generator = torch.Generator().manual_seed(3)
    matrices = torch.randn(count, width, width, generator=generator, dtype=torch.float64) / width
    return [lambda x, matrix=matrix: torch.tanh(x @ matrix) for matrix in matrices]


@pytest.mark.parametrize(("edges", "expected"), [((0, 0, 1), 6), ((1, 1, 1), 56), ((0, 1, 1), 30)])
@pytest.mark.parametrize("as_tensors", [False, True])
def test_vectors(edges, expected, as_tensors):
    """Worked out by hand in the paper notes (section 3.1), for 2x, x + 1 and x squared from X = 1."""
    weights = [number(edge) if as_tensors else edge for edge in edges]
    streams = chain(zip(FUNCTIONS, weights, strict=True), Streams(number(1.0)))
    assert float(streams.stream) == expected
    assert float(streams.remainder) == 0
    assert float(settle(streams)) == expected


@given(st.lists(EDGES, min_size=1, max_size=6), EDGES, EDGES)
def test_what_is_put_out_is_conserved(edges, stream, remainder):
    """X + R grows by f(X) with every real edge, and by nothing else."""
    components = random_components(len(edges))
    streams = Streams(torch.full((5,), stream, dtype=torch.float64), torch.full((5,), remainder, dtype=torch.float64))
    for component, edge in zip(components, edges, strict=True):
        before, output = settle(streams), component(streams.stream)
        streams = psi(component, edge)(streams)
        torch.testing.assert_close(settle(streams), before + output, rtol=1e-12, atol=1e-10)


def test_binary_edges_make_stages():
    """All 64 patterns of six components: those of a stage share an input, and the next stage sees their sum."""
    components, start = random_components(6), torch.linspace(-1, 1, 5, dtype=torch.float64)
    seen = set()
    for edges in product((0, 1), repeat=6):
        streams = chain(zip(components, edges, strict=True), Streams(start))
        expected = start
        for stage in stages_of(Gene.VERTICAL if edge else Gene.HORIZONTAL for edge in edges):
            expected = expected + sum(components[index](expected) for index in stage)
        torch.testing.assert_close(settle(streams), expected, rtol=1e-12, atol=1e-12)
        seen.add(round(float(expected.sum()), 9))
        if edges[-1]:
            assert float(torch.as_tensor(streams.remainder).abs().max()) == 0
    assert len(seen) == 32, "what the last edge is makes no difference, and every other one does"


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2), st.sampled_from([0, 1]))
def test_binary_edges_are_exact(stream, remainder, output, edge):
    """No rounding, whether the edge is a number or a tensor."""
    streams = Streams(number(stream), number(remainder))
    merged = number(output) + number(remainder)
    expected = (number(stream) + edge * merged, (1 - edge) * merged)
    for weight in (edge, float(edge), number(edge)):
        assert compose(streams, number(output), weight) == Streams(*expected)


def test_a_wire_costs_nothing():
    """An edge of 0 leaves the very stream, an edge of 1 an empty remainder."""
    streams = Streams(number(1.0), number(2.0))
    assert compose(streams, number(3.0), 0).stream is streams.stream
    assert compose(streams, number(3.0), 1).remainder == 0.0


def test_edges_can_be_learned():
    """Gradients are those of finite differences, at binary edges too."""
    components = random_components(4)
    start = torch.linspace(-1, 1, 5, dtype=torch.float64, requires_grad=True)

    def run(edges, stream):
        return settle(chain(zip(components, edges, strict=True), Streams(stream)))

    for edges in ((0.0, 1.0, 0.0, 1.0), (0.3, 0.9, -0.2, 0.5)):
        weights = torch.tensor(edges, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(run, (weights, start))
