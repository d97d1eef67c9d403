"""The composition operator Psi (Tsai et al. 2020, Figure 1; paper notes, section 3.1), for any supernet to use.

Two tensors run along a chain of components: the stream X, which is what a component sees, and the remainder R, which is
what has been put out and not yet merged into the stream. A component f with an edge weight w makes of them ::

    U = f(X) + R        X' = X + w U        R' = (1 - w) U

With w = 0 the next component sees the same input (it stands *beside* f, a horizontal connection), with w = 1 it sees
what f and all that waited have added (it stands *behind*, a vertical one). In between the operator is smooth in w, so
that edges can be learned. Whatever w is, X + R grows by f(X) and by nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor

Component = Callable[[Tensor], Tensor]
"""What turns a stream into what is added to it."""

Edge = Tensor | float
"""An edge weight. As the numbers 0 and 1 it costs nothing; as a tensor it can be learned."""


class Streams(NamedTuple):
    """The two running tensors.

    Attributes:
        stream: X, the input of the next component.
        remainder: R, put out and not yet merged; any shape that can be added to the stream.
    """

    stream: Tensor
    remainder: Tensor | float = 0.0


def compose(streams: Streams, output: Tensor, edge: Edge) -> Streams:
    """One step: take up what a component has put out for the stream.

    Args:
        streams: before the component.
        output: the component's, f(X); for a component that is dropped in part a multiple of it.
        edge: w.
    """
    merged = output + streams.remainder
    if not isinstance(edge, Tensor):
        if edge == 0:
            return Streams(streams.stream, merged)
        if edge == 1:
            return Streams(streams.stream + merged)
    return Streams(streams.stream + edge * merged, (1 - edge) * merged)


def psi(component: Component, edge: Edge) -> Callable[[Streams], Streams]:
    """The operator Psi(f, w) as a function of both streams."""
    return lambda streams: compose(streams, component(streams.stream), edge)


def chain(components: Iterable[tuple[Component, Edge]], streams: Streams) -> Streams:
    """Psi of each component in turn, the first one first."""
    for component, edge in components:
        streams = psi(component, edge)(streams)
    return streams


def settle(streams: Streams) -> Tensor:
    """X + R, which closes a chain: what still waits is merged, as if the last edge had been 1."""
    return streams.stream + streams.remainder
