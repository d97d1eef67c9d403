"""First-order Taylor importance of a teacher's heads and neurons (Extract Then Distill, DynaBERT).

Shape legend: B batch, T tokens, A attention heads, S size of a head, I inner size of the feed-forward.

What a part is worth is how much the loss would change, to first order, were it left out: ``|<a, dL/da>|`` for what
a gate multiplies, ``|sum(theta * dL/dtheta)|`` for weights. Absolute values are summed over batches.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spaces.extraction import TeacherImportance
from trainers.losses import masked_lm_loss, masked_mse, masked_variance
from trainers.masking import MaskedBatch, Masking
from trainers.teacher import Teacher


def masked_calibration(teacher: Teacher, input_ids_BT: Tensor, mask_BT: Tensor, seed: int) -> list[MaskedBatch]:
    """Calibration text as batches of four sequences with masked tokens, for :func:`taylor_importance`."""
    masking = Masking.of_tokenizer(teacher.tokenizer, 0.15)
    batches = zip(input_ids_BT.split(4), mask_BT.split(4), strict=True)
    return [masking.mask(*batch, seed=hash((seed, number))) for number, batch in enumerate(batches)]


def taylor_importance(teacher: Teacher, batches: Sequence[MaskedBatch]) -> TeacherImportance:
    """Score every part of a teacher by gradients.

    The loss is the masked-LM loss where the teacher has that head. Elsewhere it is the error of the states that it
    finds in masked text, relative to those of the text without masks: a distillation of the teacher from itself, whose
    gradient does not vanish because the inputs differ.

    Args:
        teacher: is left as it is.
        batches: a small sample of text with masked tokens.
    """
    model, head = copy.deepcopy((teacher.model, teacher.masked_lm_head))  # together: the output table stays tied
    for module in (model, head):
        if module is not None:
            module.requires_grad_(True).eval()
    gates = _Gates(model)
    config: Any = model.config
    heads = [torch.zeros_like(gate) for gate in gates.heads]
    neurons = [torch.zeros(config.intermediate_size) for _ in gates.heads]
    for batch in batches:
        model.zero_grad(set_to_none=True)
        if head is not None:
            head.zero_grad(set_to_none=True)
        gates.forget()
        _loss(model, head, teacher, batch).backward()
        for index, layer in enumerate(_layers(model)):
            heads[index] += _gradient(gates.heads[index]).abs()
            neurons[index] += _neuron_scores(layer)
    return TeacherImportance(tuple(score.detach() for score in heads), tuple(score.detach() for score in neurons))


class _Gates:
    """Vectors of ones that multiply what heads hand on."""

    def __init__(self, model: nn.Module) -> None:
        config: Any = model.config
        kind = next(model.parameters()).dtype
        size = config.hidden_size // config.num_attention_heads
        self.heads = [torch.ones(config.num_attention_heads, dtype=kind, requires_grad=True) for _ in _layers(model)]
        for gate_A, layer in zip(self.heads, _layers(model), strict=True):
            layer.attention.output.dense.register_forward_pre_hook(_gate_heads(gate_A, size))

    def forget(self) -> None:
        """Drop the gradients of the last batch."""
        for gate in self.heads:
            gate.grad = None


def _gate_heads(gate_A: Tensor, size: int) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
    return lambda _, inputs: (inputs[0] * gate_A.repeat_interleave(size),)


def _loss(model: nn.Module, head: nn.Module | None, teacher: Teacher, batch: MaskedBatch) -> Tensor:
    mask_BT = batch.attention_mask_BT
    state_BTD = model(input_ids=batch.input_ids_BT, attention_mask=mask_BT).last_hidden_state
    if head is not None:
        return masked_lm_loss(head(state_BTD[batch.positions()]), batch.labels())
    (plain_BTD,) = teacher.states(batch.labels_BT, mask_BT, [teacher.shape.num_layers])
    return masked_mse(state_BTD, plain_BTD, mask_BT) / masked_variance(plain_BTD, mask_BT)


def _neuron_scores(layer: Any) -> Tensor:
    inner, output = layer.intermediate.dense, layer.output.dense
    incoming_I = (inner.weight.detach() * _gradient(inner.weight)).sum(1) + inner.bias.detach() * _gradient(inner.bias)
    outgoing_I = (output.weight.detach() * _gradient(output.weight)).sum(0)
    scores_I: Tensor = incoming_I.abs() + outgoing_I.abs()
    return scores_I


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _layers(model: Any) -> Any:
    return model.encoder.layer
