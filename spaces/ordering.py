"""A teacher with its components in order of importance, computing exactly what it did.

Shape legend: N valid calibration tokens, D hidden size, A heads, S size of a head, I inner size of a feed-forward.

Nothing in a BERT fixes the order of its heads, of the neurons of a feed-forward, or the coordinates that queries and
keys meet in. A slice of neighbouring neurons or channels is worth dropping only if those that matter little are
neighbours, so before a teacher is taken apart, heads and neurons are sorted by what they add, and queries and keys are
turned so that their first channels carry most of the scores.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

_GREATEST_CONDITION = 1e5
"""Of what is inverted; beyond it the turned weights would say the scores less exactly than float32 does."""


@torch.no_grad()
def in_order_of_importance(teacher: Any, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Any:
    """A copy of a teacher with the same function, the most important of everything first.

    Importance is the variance that a head or a neuron adds to the stream on calibration text; of channels of queries
    and keys it is their share of the scores' second moment.

    Args:
        teacher: a Hugging Face BERT encoder; it is left as it is.
        input_ids_BT: calibration text, int64.
        attention_mask_BT: 1 for valid tokens.
    """
    ordered = copy.deepcopy(teacher).to(input_ids_BT.device).eval()
    with ExitStack() as hooks:
        for layer in ordered.encoder.layer:
            _order_once_run(layer, attention_mask_BT.bool(), hooks)
        ordered(input_ids=input_ids_BT, attention_mask=attention_mask_BT)
    return ordered


def _order_once_run(layer: Any, mask_BT: Tensor, hooks: ExitStack) -> None:
    """Order a layer as soon as a forward pass has left it, while ``hooks`` is open.

    What it was given inside is forgotten then: that of all layers together would be gigabytes of a large teacher.
    """
    inputs: list[Tensor] = []  # of the stream, what heads hand on, and the neurons' activations

    def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs.append(given[0][mask_BT])

    def order(*_: Any) -> None:
        states_ND, context_NH, activations_NI = inputs
        inputs.clear()
        _turn_scores(layer.attention.self, states_ND)
        _sort_heads(layer.attention, _centre_heads(layer.attention, context_NH))
        _sort_neurons(layer, activations_NI)

    for module in (layer.attention.self.query, layer.attention.output.dense, layer.output.dense):
        hooks.callback(module.register_forward_pre_hook(keep).remove)
    hooks.callback(layer.register_forward_hook(order).remove)


def _sort_neurons(layer: Any, activations_NI: Tensor) -> None:
    """Neurons by the second moment of what each adds: a neuron that is dropped takes its mean with it."""
    importance_I = activations_NI.square().mean(0) * layer.output.dense.weight.square().sum(0)
    order_I = importance_I.sort(descending=True, stable=True).indices
    _reorder_outputs(layer.intermediate.dense, order_I)
    _reorder_inputs(layer.output.dense, order_I)


def _centre_heads(attention: Any, context_NH: Tensor) -> Tensor:
    """Move the mean of what heads add from their values to the output's bias, and return what is left of them.

    Rows of attention sum to one, so that a head hands on the bias of its values as it is. A head that is dropped then
    leaves its mean behind.
    """
    mean_H = context_NH.mean(0)
    output: nn.Linear = attention.output.dense
    attention.self.value.bias.sub_(mean_H)
    output.bias.add_(output.weight @ mean_H)
    return context_NH - mean_H


def _sort_heads(attention: Any, context_NH: Tensor) -> None:
    """Heads by the variance that each adds, all of its channels together; what they hand on is centred."""
    size = attention.self.attention_head_size
    output: nn.Linear = attention.output.dense
    parts = zip(context_NH.split(size, -1), output.weight.split(size, -1), strict=True)
    importance_A = torch.stack([(context_NS @ weight_DS.T).square().mean(0).sum() for context_NS, weight_DS in parts])
    order_A = importance_A.sort(descending=True, stable=True).indices
    channels = (order_A[:, None] * size + torch.arange(size, device=order_A.device)).flatten()
    for linear in (attention.self.query, attention.self.key, attention.self.value):
        _reorder_outputs(linear, channels)
    _reorder_inputs(output, channels)


def _turn_scores(attention: Any, states_ND: Tensor) -> None:
    """Turn each head's queries and keys into coordinates in which the first channels matter most.

    A score is ``q(x) k(y)`` with affine ``q`` and ``k``; any invertible map of one and its inverse transpose of the
    other leave it as it is. Those that make ``q(x)`` and ``k(y)`` uncorrelated, with equal second moments, sorted, give
    the best approximation by few channels for tokens that are drawn independently.
    """
    size = attention.attention_head_size
    if len(states_ND) < size:
        return  # so few tokens do not tell channels apart
    inputs_ND = torch.cat([states_ND, torch.ones_like(states_ND[:, :1])], -1).double()
    for head in range(attention.num_attention_heads):
        rows = slice(head * size, (head + 1) * size)
        affine = [
            torch.cat([linear.weight[rows], linear.bias[rows, None]], -1).double()
            for linear in (attention.query, attention.key)
        ]
        roots = [_root(inputs_ND @ affine_SD.T) for affine_SD in affine]
        if not all(torch.linalg.cond(root_SS) < _GREATEST_CONDITION for root_SS in roots):
            continue  # a head of hardly as many dimensions as channels stays as it is
        left_SS, values_S, right_SS = torch.linalg.svd(roots[0] @ roots[1].T)
        scale_S = values_S.sqrt()
        turned = (
            torch.linalg.solve(roots[0], left_SS * scale_S).T @ affine[0],
            torch.linalg.solve(roots[1], right_SS.T * scale_S).T @ affine[1],
        )
        for linear, turned_SD in zip((attention.query, attention.key), turned, strict=True):
            linear.weight[rows] = turned_SD[:, :-1].to(linear.weight)
            linear.bias[rows] = turned_SD[:, -1].to(linear.bias)


def _root(projected_NS: Tensor) -> Tensor:
    """A root ``[S, S]`` of the second moment, ``root.T @ root``."""
    root_SS: Tensor = torch.linalg.qr(projected_NS / len(projected_NS) ** 0.5, mode="r").R
    return root_SS


def _reorder_outputs(linear: nn.Linear, order: Tensor) -> None:
    linear.weight.copy_(linear.weight[order])
    linear.bias.copy_(linear.bias[order])


def _reorder_inputs(linear: nn.Linear, order: Tensor) -> None:
    linear.weight.copy_(linear.weight[:, order])
