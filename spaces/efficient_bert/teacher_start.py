"""Starting EfficientBERT's supernet at the teacher, so that the plain network says about what the teacher says.

Shape legend: N calibration tokens, B batch, T tokens, D teacher's width, H hidden size of the blocks, S size of a
head, A width of all heads, E width of the token table, F = 3 E, V vocabulary, J inner size of the teacher's
feed-forward.

All blocks share one linear map to the teacher's width, so all work in one basis: the teacher's own coordinates at
H = D, padded with silent ones at H > D, and the principal components of the states that are compared at H < D.
Attention keeps the scores of the teacher's layer that its block learns from: copied where heads and coordinates are
the teacher's, else by the best maps of lower rank. What writes to the residual stream starts at the teacher's weights
and is corrected by least squares *for what the pieces before it say*, which makes good for a part of their errors. The
stacks of feed-forwards are :mod:`.stack_fit`'s.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertModel

from spaces.efficient_bert.modeling import TrigramEmbeddings
from spaces.efficient_bert.stack_fit import StackFit, StackTarget, before_norm
from spaces.efficient_bert.supernet import EfficientBertSupernet, SharedBlock
from spaces.extraction import TeacherImportance, correct_linear, fit_linear
from spaces.model_parts.attention import SelfAttention
from spaces.model_parts.plain_feed_forward import FeedForward
from spaces.teacher_layers import Basis, Calibration, calibrate, fit_norm, head_context

_READING_RIDGE = 0.1
"""Trust in the basis where heads of a later layer learn to read, see :func:`~spaces.extraction.correct_linear`."""
_OUTPUT_RIDGE = 1.0
"""Trust in the teacher's own output map of the attention.

Measured on held-out text, all-MiniLM at H = D from 4,096 tokens: error of the last state 0.63 with 0.01 for this, the
stacks and the readings, 0.53 with 0.1, 0.52 with 1 here and 0.1 there; 0.68 where nothing is trusted."""
_ROUNDS = 2
"""How often a linear map and the LayerNorm behind it are fitted in turn."""


@torch.no_grad()
def start_at_teacher(
    supernet: EfficientBertSupernet,
    teacher: BertModel,
    input_ids_BT: Tensor,
    attention_mask_BT: Tensor,
    importance: TeacherImportance | None = None,
) -> None:
    """Set every weight of a supernet from its teacher.

    Args:
        supernet: of a space that fits the teacher, in evaluation mode.
        teacher: in evaluation mode.
        input_ids_BT: calibration text, int64; ten thousand tokens do.
        attention_mask_BT: 1 for valid tokens.
        importance: which neurons come first; ``None``: those that add most variance to the residual stream.
    """
    options = supernet.options
    calibration = calibrate(teacher, input_ids_BT, attention_mask_BT)
    interval = options.shape.num_layers // options.layers
    basis = _basis(calibration, options.hidden_size, interval)
    supernet.projection.weight.copy_(basis.directions_DH)
    supernet.projection.bias.copy_(basis.mean_D)
    embeddings = _EmbeddingsStart(supernet.embeddings, teacher, basis, calibration.mask_NT)
    states_BTH = embeddings.start(input_ids_BT, calibration.states_NTD[0])
    widths = [options.inner_size(divisor) for divisor in options.divisors]
    for number, block in enumerate(supernet.blocks):
        layer = interval * (number + 1) - 1
        assert isinstance(block, SharedBlock)
        neurons_J = None if importance is None else importance.neurons[layer]
        states_BTH = _BlockStart(block, basis, calibration, layer, interval).start(states_BTH, widths, neurons_J)


def _basis(calibration: Calibration, size: int, interval: int) -> Basis:
    """Coordinates for all blocks, chosen for the states that blocks are compared with."""
    width = calibration.states_NTD[0].shape[-1]
    if size >= width:
        return Basis(torch.eye(width, size), torch.zeros(width))
    compared = calibration.states_NTD[:: 2 * interval]
    return Basis.of_states(torch.cat([states[calibration.mask_NT] for states in compared]), size)


class _EmbeddingsStart:
    """Sets the embeddings: principal components of the token table, and the map of three neighbours fitted to text."""

    def __init__(self, mine: TrigramEmbeddings, teacher: BertModel, basis: Basis, mask_BT: Tensor) -> None:
        self.mine, self.basis, self.mask_BT = mine, basis, mask_BT
        self.source: Any = teacher.embeddings

    def start(self, input_ids_BT: Tensor, target_BTD: Tensor) -> Tensor:
        """Set all weights; returns what the embeddings say (``states_BTH``)."""
        mine, source, directions_DH = self.mine, self.source, self.basis.directions_DH
        size, width = mine.token.weight.shape[1], directions_DH.shape[0]
        words_VD, mean_D = source.word_embeddings.weight, torch.zeros(width)
        if size < width:
            words_VD, mean_D = self._words(input_ids_BT, size)
        mine.token.weight.zero_()
        mine.token.weight[:, : words_VD.shape[1]] = words_VD
        mine.position.weight.copy_(source.position_embeddings.weight @ directions_DH)
        if mine.segment is None:
            mine.position.weight.add_(source.token_type_embeddings.weight[0] @ directions_DH)
        else:
            mine.segment.weight.copy_(source.token_type_embeddings.weight @ directions_DH)
        mine.transform.weight.zero_()
        mine.transform.bias.copy_((mean_D - self.basis.mean_D) @ directions_DH)
        if size >= width:
            mine.transform.weight[:, size : size + width] = directions_DH.T
        if size >= width and self.basis.is_identity:
            mine.norm.load_state_dict(source.LayerNorm.state_dict())
        else:
            self._fit(input_ids_BT, target_BTD)
        return mine(input_ids_BT, self.mask_BT)

    def _words(self, input_ids_BT: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The token table in its principal components, and its mean; tokens weigh as often as text has them.

        A token that the text lacks still counts: all of them together half as much as the text.
        """
        words_VD = self.source.word_embeddings.weight
        counts_V = torch.bincount(input_ids_BT[self.mask_BT], minlength=len(words_VD)).double()
        weights_V = counts_V / counts_V.sum() + 1.0 / len(words_VD)
        weights_V /= weights_V.sum()
        mean_D = weights_V @ words_VD.double()
        centred_VD = words_VD.double() - mean_D
        _, vectors_DD = torch.linalg.eigh((centred_VD * weights_V[:, None]).T @ centred_VD)
        directions_DE = vectors_DD[:, -size:].flip(1)
        return (centred_VD @ directions_DE).to(words_VD.dtype), mean_D.to(words_VD.dtype)

    def _fit(self, input_ids_BT: Tensor, target_BTD: Tensor) -> None:
        """Fit the map of three neighbours and the LayerNorm in turn."""
        mine, mask_BT = self.mine, self.mask_BT
        target_NH = self.basis.to_block(target_BTD)[mask_BT]
        words_BTD = self.source.word_embeddings(input_ids_BT) - self.basis.mean_D
        wanted_NH = (words_BTD @ self.basis.directions_DH)[mask_BT]
        inputs_NF, rest_NH = self._inputs_and_rest(input_ids_BT)
        for _ in range(_ROUNDS):
            fit_linear(mine.transform, inputs_NF, wanted_NH, ridge=1e-4)
            sums_NH = mine.transform(inputs_NF) + rest_NH
            fit_norm(mine.norm, sums_NH, target_NH)
            wanted_NH = before_norm(mine.norm, sums_NH, target_NH) - rest_NH

    def _inputs_and_rest(self, input_ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        """What the map of three neighbours reads, and what is added to it."""
        captured: list[Tensor] = []
        hooks = [
            self.mine.transform.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0])),
            self.mine.transform.register_forward_hook(lambda _, __, output: captured.append(output)),
            self.mine.norm.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0])),
        ]
        self.mine(input_ids_BT, self.mask_BT)
        for hook in hooks:
            hook.remove()
        inputs_BTF, mapped_BTH, sums_BTH = captured
        return inputs_BTF[self.mask_BT], (sums_BTH - mapped_BTH)[self.mask_BT]


class _BlockStart:
    """Sets one block from the teacher's layer that it learns from (counted from 0)."""

    def __init__(self, block: SharedBlock, basis: Basis, calibration: Calibration, layer: int, interval: int) -> None:
        self.skips_layers = interval > 1
        self.block, self.basis, self.mask_NT = block, basis, calibration.mask_NT
        attention, feed_forward = calibration.operations[2 * layer : 2 * layer + 2]
        assert isinstance(attention, SelfAttention)
        assert isinstance(feed_forward, FeedForward)
        self.attention, self.feed_forward = attention, feed_forward
        self.before_NTD, self.between_NTD, self.after_NTD = calibration.states_NTD[2 * layer : 2 * layer + 3]

    def start(self, states_NTH: Tensor, widths: list[int], importance_J: Tensor | None) -> Tensor:
        """Set all weights; returns what the widest path makes of ``states_NTH``."""
        self._set_heads(states_NTH[self.mask_NT])
        self._fit_output(states_NTH)
        mask_NT = self.mask_NT
        attended_NTH = self.block.attention(states_NTH, mask_NT)
        between_ND = self.between_NTD[mask_NT]
        target = StackTarget(
            self.feed_forward,
            between_ND,
            between_ND + self.feed_forward.contribution(between_ND, mask_NT),
            self.after_NTD[mask_NT],
            self.basis,
            importance_J,
        )
        stack: Any = list(self.block.feed_forwards)
        result_NTH = torch.zeros_like(attended_NTH)
        result_NTH[mask_NT] = StackFit(stack, widths, target).fit(attended_NTH[mask_NT])
        return result_NTH

    def _set_heads(self, states_NH: Tensor) -> None:
        """Queries, keys and values, and a first guess of the output map."""
        mine, theirs = self.block.attention, self.attention
        reading = self._reading(states_NH)
        maps = [_composed(linear, reading) for linear in (theirs.query, theirs.key, theirs.value)]
        moments = Moments(states_NH) if mine.head_size < theirs.head_size else None
        mine.output.weight.zero_()
        mine.output.bias.copy_(theirs.output.bias @ self.basis.directions_DH)
        scale = (mine.head_size / theirs.head_size) ** 0.25  # scores are divided by the root of the head's size
        for head in range(mine.num_heads):
            rows = slice(head * theirs.head_size, (head + 1) * theirs.head_size)
            query, key, value = (linear[rows] for linear in maps)
            leaving = self.basis.directions_DH.T @ theirs.output.weight[:, rows]
            if moments is not None:
                query, key = moments.product(query, key, mine.head_size)
                leaving, value = moments.leading(leaving @ value, mine.head_size)
            self._write_head(head, scale * query, scale * key, value, leaving)

    def _write_head(self, head: int, query: Tensor, key: Tensor, value: Tensor, leaving: Tensor) -> None:
        """Write a head: query, key and value ``[S, H + 1]`` with the bias behind the weights, output ``[H, S]``.

        Where heads are wider than the teacher's, spare channels of query and output are silent and those of key and
        value stay random: they add nothing, and can learn. So it is with dimensions beyond the teacher's width.
        """
        mine = self.block.attention
        width, first = min(self.basis.directions_DH.shape), head * mine.head_size
        mine.query.weight[first : first + mine.head_size].zero_()
        for linear, written in ((mine.query, query), (mine.key, key), (mine.value, value)):
            rows = slice(first, first + len(written))
            linear.weight[rows, :width] = written[:, :width]
            linear.bias[first : first + mine.head_size].zero_()
            linear.bias[rows] = written[:, -1]
        mine.output.weight[:, first : first + leaving.shape[1]] = leaving

    def _reading(self, states_NH: Tensor) -> nn.Linear:
        """What the teacher's layer reads, as an affine map of the block's own input.

        Where the block stands for several layers of the teacher, its input is that of the first one.
        """
        reading = self.basis.reading()
        if self.skips_layers:
            correct_linear(reading, states_NH, self.before_NTD[self.mask_NT], _READING_RIDGE)
        return reading

    def _fit_output(self, states_NTH: Tensor) -> None:
        """Fit the output map and the LayerNorm in turn."""
        mine, mask_NT = self.block.attention, self.mask_NT
        context_NA = head_context(mine, states_NTH, mask_NT)[mask_NT]
        states_NH = states_NTH[mask_NT]
        target_NH = self.basis.to_block(self.between_NTD)[mask_NT]
        sums_NTD = self.before_NTD + self.attention.contribution(self.before_NTD, mask_NT)
        wanted_NH = self.basis.to_block(sums_NTD)[mask_NT]
        guess = {name: tensor.clone() for name, tensor in mine.output.state_dict().items()}
        for _ in range(_ROUNDS):
            mine.output.load_state_dict(guess)
            correct_linear(mine.output, context_NA, wanted_NH - states_NH, _OUTPUT_RIDGE)
            sums_NH = states_NH + mine.output(context_NA)
            fit_norm(mine.norm, sums_NH, target_NH)
            wanted_NH = before_norm(mine.norm, sums_NH, target_NH)


class Moments:
    """Second moments of a block's input, with a one behind it: what maps of lower rank are best for.

    Args:
        states_NH: the input.
    """

    def __init__(self, states_NH: Tensor) -> None:
        with_one = torch.cat([states_NH, torch.ones(len(states_NH), 1)], 1).double()
        values, vectors = torch.linalg.eigh(with_one.T @ with_one / len(with_one))
        values = values.clamp_min(values.max() * 1e-9)
        self.root = (vectors * values.sqrt()) @ vectors.T
        self.inverse_root = (vectors / values.sqrt()) @ vectors.T

    def product(self, first: Tensor, second: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """Maps of fewer rows, ``[rank, H + 1]`` each, whose products are nearest to those of the given ones."""
        # QR first: the product has a rank of a head's size, and a decomposition of that size is all there is to do
        first_basis, first_rest = torch.linalg.qr((first.double() @ self.root).T)
        second_basis, second_rest = torch.linalg.qr((second.double() @ self.root).T)
        left, values, right = torch.linalg.svd(first_rest @ second_rest.T)
        roots = values[:rank].sqrt()
        shortened = (first_basis @ left[:, :rank] * roots).T, (second_basis @ right[:rank].T * roots).T
        return (shortened[0] @ self.inverse_root).float(), (shortened[1] @ self.inverse_root).float()

    def leading(self, linear: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """The map of lower rank that is nearest to a given one, as ``[H, rank]`` times ``[rank, H + 1]``."""
        left, values, right = torch.linalg.svd(linear.double() @ self.root, full_matrices=False)
        return (left[:, :rank] * values[:rank]).float(), (right[:rank] @ self.inverse_root).float()


def _composed(linear: nn.Linear, reading: nn.Linear) -> Tensor:
    """Weights of ``linear(reading(x))``, with the bias as one more column."""
    weight = linear.weight @ reading.weight
    return torch.cat([weight, (linear.bias + linear.weight @ reading.bias)[:, None]], 1)
