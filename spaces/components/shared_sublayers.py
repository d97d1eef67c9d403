"""Attention and feed-forward of the supermodel: dense weights of which a composition takes what it keeps.

Shape legend: B batch, T tokens, D hidden size, N components, C query-key slices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from spaces.components.blocks import Affine, Norm, affine_of, attend, feed_forward, normalise
from spaces.components.composition import Component, Streams, chain, settle
from spaces.components.gate_gradients import along, gated, of_mean
from spaces.components.gates import SublayerPlan
from spaces.components.gene_weights import LayerWeights
from spaces.components.options import ComponentsOptions
from spaces.components.sublayers import SublayerChoice, SublayerKind

Runs = list[tuple[int, int]]
"""Channels as beginnings and lengths of runs of neighbours."""

Maps = tuple[Affine | None, ...]
"""Linear maps of some components of a sublayer, in the order of :attr:`SharedSublayer.map_names`."""


class SharedSublayer(nn.Module, ABC):
    """One sublayer of the teacher with all its components.

    Args:
        options: of the space.
        kind: of the sublayer: what of it may be kept, and is run with gates or real genes.

    Attributes:
        map_names: its linear maps, which have the same names in the dense blocks that are cut out of it.
    """

    map_names: ClassVar[tuple[str, ...]]
    output: nn.Linear

    def __init__(self, options: ComponentsOptions, kind: SublayerKind) -> None:
        super().__init__()
        self.options, self.kind = options, kind
        self.norm = Norm(options.shape.hidden_size, options.shape.layer_norm_eps)

    @abstractmethod
    def channels(self, components: Sequence[int], query_key: Sequence[int]) -> Sequence[Runs]:
        """What some components have of each linear map: of its outputs, but of the inputs of the last one.

        Args:
            components: numbers from 0, ascending.
            query_key: the query-key slices that are kept, ascending; of attention only.
        """

    def maps(self, components: Sequence[int], query_key: Sequence[int], with_bias: bool) -> Maps:
        """The linear maps of some components, as views where they are neighbours.

        Args:
            components: numbers from 0, ascending.
            query_key: the query-key slices that are kept, ascending; of attention only.
            with_bias: whether the sublayer's output bias goes along.

        Returns:
            One for each of :attr:`map_names`; ``None`` for queries and keys of which no slice is kept.
        """
        *kept, inputs = self.channels(components, query_key)
        pairs = zip(self.map_names[:-1], kept, strict=True)
        taken = (_rows(affine_of(getattr(self, name)), runs) if runs else None for name, runs in pairs)
        return *taken, (_taken(self.output.weight, inputs, 1), self.output.bias if with_bias else None)

    @torch.no_grad()
    def put(self, components: Sequence[int], query_key: Sequence[int], maps: Maps) -> None:
        """Take over the linear maps of some components: the inverse of :meth:`maps`, whose arguments it has.

        Args:
            components: numbers from 0, ascending.
            query_key: the query-key slices that there are, ascending.
            maps: one for each of :attr:`map_names`; the last one has a bias where the sublayer's goes along.
        """
        *kept, inputs = self.channels(components, query_key)
        *given, last = maps
        for name, runs, affine in zip(self.map_names[:-1], kept, given, strict=True):
            for own, values in [] if affine is None else zip(affine_of(getattr(self, name)), affine, strict=True):
                assert own is not None
                assert values is not None
                _put(own, runs, 0, values)
        assert last is not None
        weight, bias = last
        _put(self.output.weight, inputs, 1, weight)
        if bias is not None:
            self.output.bias.copy_(bias)

    @abstractmethod
    def contribution(self, hidden_BTD: Tensor, mask_BT: Tensor, maps: Maps) -> Tensor:
        """What the components that ``maps`` belong to add to the stream, beside each other."""

    @abstractmethod
    def weighted(self, genes: LayerWeights) -> Maps:
        """The maps of all components of the kind, without the output bias, weighted by presences and slices."""

    @property
    def _dropout(self) -> float:
        return self.options.dropout if self.training else 0.0

    def run(self, hidden_BTD: Tensor, mask_BT: Tensor, choice: SublayerChoice) -> Tensor:
        """Run a choice, one stage after the other; an absent sublayer changes nothing."""
        if choice.is_absent:
            return hidden_BTD
        for number, components in enumerate(choice.stages):
            maps = self.maps(components, choice.query_key, with_bias=number == 0)
            hidden_BTD = hidden_BTD + self.contribution(hidden_BTD, mask_BT, maps)
        return self._normalised(hidden_BTD, float(choice.mean))

    def run_weighted(self, hidden_BTD: Tensor, mask_BT: Tensor, genes: LayerWeights) -> Tensor:
        """Run all components of the kind, put together by the operator Psi with real weights.

        The remainder starts at the output bias, and what waits in the end is merged. The sublayer as a whole counts by
        the share ``1 - product(1 - presence)``, which is 0 where all components are dropped, and 1 where one is kept.
        """

        if self.kind.whole.is_absent:
            return hidden_BTD

        def weighted_component(maps: Maps) -> Component:
            return lambda stream_BTD: self.contribution(stream_BTD, mask_BT, maps)

        edges = _picked(genes.edges_N, self.kind.numbers)
        parts = _parts(self.weighted(genes), [1] * len(edges))
        components = ((weighted_component(maps), edge) for maps, edge in zip(parts, edges, strict=True))
        streams = chain(components, Streams(hidden_BTD, self.output.bias))
        normed_BTD = self._normalised(settle(streams), genes.mean)
        return _shared_out(normed_BTD, hidden_BTD, genes.presence_N)

    def run_gated(self, hidden_BTD: Tensor, mask_BT: Tensor, gates: LayerWeights, plan: SublayerPlan) -> Tensor:
        """Run a choice with gates: what :meth:`run_weighted` computes of zeros and ones, in a few dense spans.

        Edges are there in the backward pass alone: a span's input is what the stream is, whether or not what waits
        could be merged before.

        Args:
            hidden_BTD: input.
            mask_BT: bool, True for valid tokens.
            gates: zeros and ones.
            plan: of the same choice.
        """
        if self.kind.whole.is_absent:
            return hidden_BTD
        stream_BTD = input_BTD = hidden_BTD
        waiting_BTD: Tensor | None = None
        lengths = [sum(number in span.components for number in self.kind.numbers) for span in plan.spans]
        parts = _parts(self.weighted(gates), lengths)
        for span, (*maps, output) in zip(plan.spans, parts, strict=True):
            assert output is not None
            with_bias = output[0], self.output.bias if span.components[0] == 0 else None
            added_BTD = self.contribution(input_BTD, mask_BT, (*maps, with_bias))
            waiting_BTD = added_BTD if waiting_BTD is None else waiting_BTD + added_BTD
            if span.merges:
                input_BTD = stream_BTD = stream_BTD + waiting_BTD
            if span.weight:
                last = span.components[-1]
                edge = span.weight * gates.presence_N[last] * gates.edges_N[last]
                input_BTD = gated(input_BTD, edge, along(waiting_BTD))
            waiting_BTD = None if span.merges else waiting_BTD
        normed_BTD = self._normalised(stream_BTD, float(plan.mean))
        normed_BTD = gated(normed_BTD, gates.mean, of_mean(stream_BTD, self.norm.weight, self.norm.eps, plan.mean))
        return _shared_out(normed_BTD, hidden_BTD, gates.presence_N) if plan.may_vanish else normed_BTD

    def _normalised(self, hidden_BTD: Tensor, mean: Tensor | float) -> Tensor:
        return normalise(hidden_BTD, self.norm.weight, self.norm.bias, self.norm.eps, mean)


class SharedAttention(SharedSublayer):
    """All heads of a layer."""

    map_names = ("query", "key", "value", "output")

    def __init__(self, options: ComponentsOptions, kind: SublayerKind) -> None:
        super().__init__(options, kind)
        width = options.shape.hidden_size
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in self.map_names)

    def channels(self, components: Sequence[int], query_key: Sequence[int]) -> Sequence[Runs]:
        """See :meth:`SharedSublayer.channels`."""
        slices, size = self.options.query_key_slices, self.options.query_key_size
        keys = _runs([head * slices + number for head in components for number in query_key], size)
        values = _runs(components, self.options.shape.head_size)
        return keys, keys, values, values

    def contribution(self, hidden_BTD: Tensor, mask_BT: Tensor, maps: Maps) -> Tensor:
        """What the heads add."""
        query, key, value, output = maps
        assert value is not None
        assert output is not None
        head_size = self.options.shape.head_size
        heads = len(value[0]) // head_size
        return attend(hidden_BTD, mask_BT, query, key, value, output, heads, head_size, self._dropout)

    def weighted(self, genes: LayerWeights) -> Maps:
        """See :meth:`SharedSublayer.weighted`; scores are sums over slices, so that queries take the weights."""
        query, *others, output = self.maps(self.kind.numbers, self.kind.slices, with_bias=False)
        if query is not None:
            weights_C = _picked(genes.query_key_C, self.kind.slices)
            weights_S = weights_C.repeat_interleave(self.options.query_key_size).repeat(len(self.kind.numbers))
            weight, bias = query
            query = weight * weights_S.unsqueeze(1), None if bias is None else bias * weights_S
        return query, *others, _weighted(output, _picked(genes.presence_N, self.kind.numbers))


class SharedFeedForward(SharedSublayer):
    """All slices of a layer's feed-forward."""

    map_names = ("inner", "output")

    def __init__(self, options: ComponentsOptions, kind: SublayerKind) -> None:
        super().__init__(options, kind)
        width, inner = options.shape.hidden_size, options.shape.intermediate_size
        self.inner, self.output = nn.Linear(width, inner), nn.Linear(inner, width)

    def channels(self, components: Sequence[int], query_key: Sequence[int]) -> Sequence[Runs]:
        """See :meth:`SharedSublayer.channels`."""
        neurons = _runs(components, self.options.slice_size)
        return neurons, neurons

    def contribution(self, hidden_BTD: Tensor, mask_BT: Tensor, maps: Maps) -> Tensor:
        """What the slices add."""
        inner, output = maps
        assert inner is not None
        assert output is not None
        return feed_forward(hidden_BTD, inner, output, self.options.shape.activation, self._dropout)

    def weighted(self, genes: LayerWeights) -> Maps:
        """See :meth:`SharedSublayer.weighted`; there are no slices of queries and keys."""
        inner, output = self.maps(self.kind.numbers, (), with_bias=False)
        return inner, _weighted(output, _picked(genes.presence_N, self.kind.numbers))


def _runs(units: Iterable[int], size: int) -> Runs:
    """The channels of units that have ``size`` of them each."""
    runs: Runs = []
    for unit in units:
        start = unit * size
        if runs and sum(runs[-1]) == start:
            runs[-1] = (runs[-1][0], runs[-1][1] + size)
        else:
            runs.append((start, size))
    return runs


def _taken(tensor: Tensor, runs: Runs, dimension: int) -> Tensor:
    pieces = [tensor.narrow(dimension, start, length) for start, length in runs]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dimension)


def _put(tensor: Tensor, runs: Runs, dimension: int, values: Tensor) -> None:
    pieces = values.split([length for _, length in runs], dimension)
    for (start, length), piece in zip(runs, pieces, strict=True):
        tensor.narrow(dimension, start, length).copy_(piece)


def _rows(affine: Affine, runs: Runs) -> Affine:
    """The outputs of a linear map that are kept."""
    weight, bias = affine
    return _taken(weight, runs, 0), None if bias is None else _taken(bias, runs, 0)


def _picked(genes_N: Tensor, numbers: Sequence[int]) -> Tensor:
    """The genes at some places, ascending; by slicing, because an accelerator would wait for a list of places."""
    return _taken(genes_N, _runs(numbers, 1), 0)


def _weighted(output: Affine | None, presence_N: Tensor) -> Affine:
    """A last map whose inputs are weighted, which costs less than to weight what comes out for every token."""
    assert output is not None
    weight, _ = output
    return weight * presence_N.repeat_interleave(weight.shape[1] // len(presence_N)), None


def _parts(maps: Maps, lengths: Sequence[int]) -> list[Maps]:
    """The maps of neighbours among all components, so many at a time; gradients are put together at once."""
    if len(lengths) == 1:
        return [maps]
    columns: list[list[Affine | None]] = []
    for affine in maps:
        if affine is None:
            columns.append([None] * len(lengths))
            continue
        weight, bias = affine
        is_last = affine is maps[-1]
        size = weight.shape[is_last] // sum(lengths)
        sizes = [length * size for length in lengths]
        biases = [None] * len(sizes) if bias is None else bias.split(sizes)
        columns.append([*zip(weight.split(sizes, int(is_last)), biases, strict=True)])
    return [*zip(*columns, strict=True)]


def _shared_out(normed_BTD: Tensor, hidden_BTD: Tensor, presence_N: Tensor) -> Tensor:
    """What a sublayer makes of its input, and the input itself as far as nothing is left of the sublayer."""
    share = 1 - (1 - presence_N).prod()
    return share * normed_BTD + (1 - share) * hidden_BTD
