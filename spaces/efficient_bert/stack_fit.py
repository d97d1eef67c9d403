"""Fitting a block's stack of feed-forwards to one layer of a teacher, part after part, least squares each.

Shape legend: N calibration tokens, D hidden size of the teacher, H hidden size of the blocks, I inner size, J inner
size of the teacher's feed-forward.

Each feed-forward of a stack ends with a residual and a LayerNorm, and a path uses the first n of them and the first
inner channels of each. So every beginning of the stack has to say by itself what the teacher's layer says. Part after
part gets neurons of the teacher, the most important first, and an output map fitted to what is still missing, for all
divisors at once: a neuron's weights have to serve the paths that stop behind it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from spaces.efficient_bert.feed_forward import ACTIVATIONS, FeedForwardWeights
from spaces.extraction import correct_linear, neuron_importance
from spaces.model_parts.plain_feed_forward import FeedForward
from spaces.teacher_layers import Basis, fit_norm

_ROUNDS = 2
"""How often an output map and the LayerNorm behind it are fitted in turn."""

_READING_RIDGE = 0.1
"""Trust in the basis where neurons learn to read, see :func:`~spaces.extraction.correct_linear`."""
_RIDGE = 0.3
"""Trust in the teacher's own output weights, as a share of the mean square of what they read."""


@dataclass(frozen=True)
class StackTarget:
    """What a stack shall say, and what it is made of.

    Attributes:
        source: the teacher's feed-forward.
        before_ND: its input.
        sum_ND: its input and output added up, before the LayerNorm.
        after_ND: behind it.
        basis: coordinates of the blocks.
        importance_J: of the teacher's neurons; ``None``: the variance that they add.
    """

    source: FeedForward
    before_ND: Tensor
    sum_ND: Tensor
    after_ND: Tensor
    basis: Basis
    importance_J: Tensor | None = None

    def order(self) -> Tensor:
        """The teacher's neurons, the most important first."""
        importance_J = self.importance_J
        if importance_J is None:
            activations_NJ = F.gelu(self.source.inner(self.before_ND))
            importance_J = neuron_importance(activations_NJ, self.source.output.weight)
        return torch.sort(importance_J, descending=True, stable=True).indices


class StackFit:
    """Sets the feed-forwards of one stack.

    Args:
        stack: of full width.
        widths: inner widths that paths can have.
        target: what the stack shall say.
    """

    def __init__(self, stack: Sequence[FeedForwardWeights], widths: Sequence[int], target: StackTarget) -> None:
        self.stack, self.widths, self.target = stack, sorted(widths, reverse=True), target
        self._after_NH = target.basis.to_block(target.after_ND)

    def fit(self, states_NH: Tensor) -> Tensor:
        """Set all weights; returns what the widest path makes of ``states_NH``, the stack's input."""
        order_J = self.target.order()
        states = [states_NH] * len(self.widths)
        for number, part in enumerate(self.stack):
            kept = order_J.roll(-number * part.inner_size)[
                : part.inner_size
            ]  # once all are taken, the first ones again
            self._take_neurons(part, kept, states, first=number == 0)
            states = self._fit_outputs(part, len(kept), states, first=number == 0)
        return states[0]

    def _take_neurons(self, part: FeedForwardWeights, kept: Tensor, states: Sequence[Tensor], first: bool) -> None:
        """Give a part neurons of the teacher, which read from its own input what they read from the teacher's."""
        source, basis, count = self.target.source, self.target.basis, len(kept)
        seen_NH, before_ND = torch.cat([*states]), self.target.before_ND.repeat(len(states), 1)
        reading = basis.reading()
        correct_linear(reading, seen_NH, before_ND, _READING_RIDGE)
        width = min(basis.directions_DH.shape)
        part.linear1.weight[:count, :width] = (source.inner.weight[kept] @ reading.weight)[:, :width]
        part.linear1.bias[:count] = source.inner.bias[kept] + source.inner.weight[kept] @ reading.bias
        part.linear2.weight.zero_()  # neurons that the teacher does not have start silent
        part.linear2.bias.zero_()
        if first:
            part.linear2.weight[:, :count] = basis.directions_DH.T @ source.output.weight[:, kept]
            part.linear2.bias.copy_(source.output.bias @ basis.directions_DH)

    def _fit_outputs(self, part: FeedForwardWeights, count: int, states: Sequence[Tensor], first: bool) -> list[Tensor]:
        """Fit output map and LayerNorm in turn from one start or two, and keep the best; returns the next states."""
        regression = _PrefixRegression(part, [min(width, count) for width in self.widths], states)
        best: tuple[float, dict[str, Tensor]] | None = None
        for sums in [self._sums_of_teacher(states, first)] if first else [self._sums_of_teacher(states, first), None]:
            wanted = sums or self._with_norm_of_nothing(part, states)
            for _ in range(_ROUNDS):
                regression.solve([sum_NH - state_NH for sum_NH, state_NH in zip(wanted, states, strict=True)])
                reached = regression.sums()
                fit_norm(part.norm, torch.cat(reached), self._after_NH.repeat(len(states), 1))
                error = sum(float((part.norm(sum_NH) - self._after_NH).square().mean()) for sum_NH in reached)
                if best is None or error < best[0]:
                    best = (error, {name: tensor.clone() for name, tensor in part.state_dict().items()})
                wanted = [before_norm(part.norm, sum_NH, self._after_NH) for sum_NH in reached]
        assert best is not None
        part.load_state_dict(best[1])
        return [part.norm(sum_NH) for sum_NH in regression.sums()]

    def _sums_of_teacher(self, states: Sequence[Tensor], first: bool) -> list[Tensor]:
        """The teacher's sum before its LayerNorm; of a later part normalised, at the scale of the part's input."""
        directions_DH = self.target.basis.directions_DH
        if first:
            return [self.target.basis.to_block(self.target.sum_ND)] * len(states)
        normalised_NH = F.layer_norm(self.target.sum_ND, self.target.sum_ND.shape[-1:]) @ directions_DH
        centred_NH = normalised_NH - normalised_NH.mean(0)
        sums = []
        for state_NH in states:
            mean_H = state_NH.mean(0)
            scale = ((state_NH - mean_H) * centred_NH).sum() / centred_NH.square().sum()
            sums.append(scale * centred_NH + mean_H)
        return sums

    def _with_norm_of_nothing(self, part: FeedForwardWeights, states: Sequence[Tensor]) -> list[Tensor]:
        """What the sums should be behind a LayerNorm that is as near to the identity as one can be."""
        fit_norm(part.norm, torch.cat([*states]), self._after_NH.repeat(len(states), 1))
        return [before_norm(part.norm, state_NH, self._after_NH) for state_NH in states]


class _PrefixRegression:
    """Least squares for an output map of which paths use the first columns only: one solution for all of them."""

    def __init__(self, part: FeedForwardWeights, widths: Sequence[int], states: Sequence[Tensor]) -> None:
        self.part, self.widths, self.states = part, widths, states
        inner = {id(state_NH): ACTIVATIONS["gelu"](part.linear1(state_NH)) for state_NH in states}
        self.inner = [inner[id(state_NH)] for state_NH in states]
        size = max(widths) + 1  # with the bias
        gram = torch.zeros(size, size, dtype=torch.float64)
        grams: dict[int, Tensor] = {}
        for width, inner_NI in zip(widths, self.inner, strict=True):
            if id(inner_NI) not in grams:
                with_bias = self._with_bias(inner_NI, max(widths))
                grams[id(inner_NI)] = (with_bias.T @ with_bias).double()
            gram[: width + 1, : width + 1] += grams[id(inner_NI)][: width + 1, : width + 1]
        self._start = part.linear2.weight[:, : size - 1].clone(), part.linear2.bias.clone()
        ridge = torch.full((size,), float(gram.diagonal()[1:].mean()) * _RIDGE, dtype=torch.float64)
        ridge[0] = 0.0
        self._factor = torch.linalg.cholesky(gram + ridge.diag())

    @staticmethod
    def _with_bias(inner_NI: Tensor, width: int) -> Tensor:
        return torch.cat([torch.ones(len(inner_NI), 1), inner_NI[:, :width]], 1)

    def solve(self, wanted: Sequence[Tensor]) -> None:
        """Fit the map to what each path's feed-forward shall add."""
        weight, bias = self._start
        right = torch.zeros(len(self._factor), wanted[0].shape[1], dtype=torch.float64)
        for width, inner_NI, wanted_NH in zip(self.widths, self.inner, wanted, strict=True):
            missing_NH = wanted_NH - F.linear(inner_NI[:, :width], weight[:, :width], bias)
            right[: width + 1] += (self._with_bias(inner_NI, width).T @ missing_NH).double()
        solution = torch.cholesky_solve(right, self._factor).float()
        self.part.linear2.bias.copy_(bias + solution[0])
        self.part.linear2.weight[:, : weight.shape[1]] = weight + solution[1:].T

    def sums(self) -> list[Tensor]:
        """Input and output of each path's feed-forward, added up."""
        weight, bias = self.part.linear2.weight, self.part.linear2.bias
        return [
            state_NH + F.linear(inner_NI[:, :width], weight[:, :width], bias)
            for width, inner_NI, state_NH in zip(self.widths, self.inner, self.states, strict=True)
        ]


def before_norm(norm: nn.LayerNorm, sums_NH: Tensor, target_NH: Tensor) -> Tensor:
    """What a LayerNorm would map to its target, at the mean and scale that each token's sum has.

    Dimensions that the LayerNorm nearly silences can be anything: they stay as they are.
    """
    weight_H, bias_H = norm.weight, norm.bias
    heard_H = weight_H.abs() > 0.05 * weight_H.abs().mean()
    mean_N1 = sums_NH.mean(-1, keepdim=True)
    scale_N1 = (sums_NH.square().mean(-1, keepdim=True) - mean_N1.square() + norm.eps).sqrt()
    normalised_NH = (target_NH - bias_H) / torch.where(heard_H, weight_H, 1.0)
    return torch.where(heard_H, normalised_NH * scale_N1 + mean_N1, sums_NH)
