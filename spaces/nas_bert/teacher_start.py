"""Starting a supernet at the teacher: exact where widths agree, extracted in a PCA basis where they do not.

Shape legend: N calibration tokens, B batch, T tokens, D teacher's width, H hidden size of a block, I inner size.

A block of H < D works in the basis of the H leading principal components of the teacher's states within that block.
Its operations keep the heads and neurons that contribute most (variance of what they add to the residual stream), the
mean of what is left out goes into the bias, and every LayerNorm is refitted, since normalisation does not commute with
a change of basis. At H = D with all heads and neurons nothing is approximated: the teacher's block is a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertModel

from spaces.extraction import TeacherImportance, fit_linear, leading, neuron_importance
from spaces.model_parts.attention import SelfAttention
from spaces.model_parts.plain_feed_forward import FeedForward
from spaces.nas_bert.operation_names import feed_forward_multiple
from spaces.nas_bert.operations import SeparableConvolution
from spaces.nas_bert.supernet import NasBertSupernet, SupernetBlock
from spaces.teacher_layers import Basis, calibrate, fit_norm, head_context, head_importance

_START_OF_SEPARABLE = 0.1
"""Factor on the pointwise weights of separable convolutions, so that their units start close to the identity."""


def start_at_teacher(
    supernet: NasBertSupernet,
    teacher: BertModel,
    input_ids_BT: Tensor,
    attention_mask_BT: Tensor,
    importance: TeacherImportance | None = None,
) -> None:
    """Set every weight of a supernet from its teacher.

    Args:
        supernet: of a space that fits the teacher.
        teacher: in evaluation mode.
        input_ids_BT: calibration text, int64; a few thousand tokens do.
        attention_mask_BT: 1 for valid tokens.
        importance: which heads and neurons are kept; ``None``: those that add most variance to the residual stream.

    Raises:
        SpaceError: the teacher's activation is not GELU, or heads or hidden sizes are not the teacher's to give.
    """
    options = supernet.space.options
    options.check_start("teacher")
    calibration = calibrate(teacher, input_ids_BT, attention_mask_BT)
    start_embeddings(supernet, teacher, input_ids_BT, attention_mask_BT)
    operations_per_block = len(calibration.operations) // options.num_blocks
    scores = _scores_of_operations(importance, len(calibration.operations))
    with torch.no_grad():
        for index in range(options.num_blocks):
            first = index * operations_per_block
            states = calibration.states_NTD[first : first + operations_per_block + 1]
            pooled_ND = torch.cat([state[calibration.mask_NT] for state in states])
            for size in options.hidden_sizes:
                width = options.shape.hidden_size
                basis = Basis.identity(width) if size == width else Basis.of_states(pooled_ND, size)
                starter = _BlockStarter(
                    supernet.block(index),
                    size,
                    basis,
                    calibration.operations[first : first + operations_per_block],
                    scores[first : first + operations_per_block],
                    states,
                    calibration.mask_NT,
                )
                starter.start(options.operations_at(size))


def start_embeddings(
    supernet: NasBertSupernet, teacher: BertModel, input_ids_BT: Tensor, attention_mask_BT: Tensor
) -> None:
    """Give the supernet the teacher's embeddings: copied at the teacher's width, in a PCA basis at smaller sizes."""
    source: Any = teacher.embeddings
    mask_BT = attention_mask_BT.to(torch.bool)
    with torch.no_grad():
        target_ND = source(input_ids=input_ids_BT)[mask_BT]
        for size in supernet.space.options.embedding_sizes:
            embeddings: Any = supernet.embeddings[str(size)]
            segment_D = source.token_type_embeddings.weight[0]
            if size == source.word_embeddings.weight.shape[1]:
                directions_DE = torch.eye(size)
            elif size > source.word_embeddings.weight.shape[1]:
                continue  # wider than the teacher's: nothing to extract, the random start stays
            else:
                directions_DE = Basis.of_states(source.word_embeddings.weight, size).directions_DH
            embeddings.token.weight.copy_(source.word_embeddings.weight @ directions_DE)
            embeddings.position.weight.copy_(source.position_embeddings.weight @ directions_DE)
            if embeddings.segment is None:
                embeddings.position.weight.add_(segment_D @ directions_DE)
            else:
                embeddings.segment.weight.copy_(source.token_type_embeddings.weight @ directions_DE)
            leaving = supernet.embedding_exits[str(size)]
            if isinstance(leaving, nn.Linear):
                embedded_NE = embeddings(input_ids_BT)[mask_BT]
                fit_linear(leaving, embedded_NE, target_ND)
            else:
                embeddings.norm.load_state_dict(source.LayerNorm.state_dict())


class _BlockStarter:
    """Sets one block at one hidden size."""

    def __init__(
        self,
        block: SupernetBlock,
        size: int,
        basis: Basis,
        teacher_operations: Sequence[SelfAttention | FeedForward],
        scores: Sequence[Tensor | None],
        states_NTD: Sequence[Tensor],
        mask_NT: Tensor,
    ) -> None:
        self.block = block
        self.size = size
        self.basis = basis
        self.teacher_operations = teacher_operations
        self.scores = scores
        self.states_NTD = states_NTD
        self.mask_NT = mask_NT

    def start(self, operations: Sequence[str]) -> None:
        """Set the linear maps and all operations of every layer."""
        entry, leaving = self.block.entries[str(self.size)], self.block.exits[str(self.size)]
        if isinstance(entry, nn.Linear) and isinstance(leaving, nn.Linear):
            entry.weight.copy_(self.basis.directions_DH.T)
            entry.bias.copy_(-self.basis.mean_D @ self.basis.directions_DH)
            leaving.weight.copy_(self.basis.directions_DH)
            leaving.bias.copy_(self.basis.mean_D)
        for operation in operations:
            started: dict[int, nn.Module] = {}
            for layer in range(len(self.block.layers)):
                module = self.block.operation(layer, self.size, operation)
                position = self._source_of(module, layer)
                if position in started:  # two layers stand in for the same operation of the teacher
                    module.load_state_dict(started[position].state_dict())
                else:
                    self._start_operation(module, position, operation)
                    started[position] = module

    def _source_of(self, module: nn.Module, layer: int) -> int:
        """The position in the teacher's block of the operation that ``module`` at ``layer`` starts from."""
        if isinstance(module, SelfAttention):
            return self._nearest_operation(2 * ((layer + 1) // 2))
        if isinstance(module, FeedForward):
            return self._nearest_operation(2 * (layer // 2) + 1)
        return self._nearest_operation(layer)

    def _start_operation(self, module: nn.Module, position: int, operation: str) -> None:
        if isinstance(module, SelfAttention):
            self._start_attention(module, position)
        elif isinstance(module, FeedForward):
            self._start_feed_forward(module, position, feed_forward_multiple(operation))
        elif isinstance(module, SeparableConvolution):
            self._start_separable(module, position)

    def _nearest_operation(self, position: int) -> int:
        """The position of the teacher's operation of the same kind that a layer of the supernet stands in for.

        Attention stands at even positions of a teacher's block, feed-forward at odd ones. A layer at which the teacher
        has the other kind takes the next attention (it is reached by dropping a feed-forward) or the feed-forward
        before it. The supernet may have more layers than the teacher's block: the last of the kind serves them.
        """
        last = len(self.teacher_operations) - 1
        return position if position <= last else last - (last - position) % 2

    def _start_norm(
        self, module: SelfAttention | FeedForward, source: SelfAttention | FeedForward, position: int
    ) -> None:
        """Copy the teacher's LayerNorm, or refit it to give the teacher's state in the block's basis."""
        if self.basis.is_identity:
            module.norm.load_state_dict(source.norm.state_dict())
            return
        contribution_NTH = module.eval().contribution(self._inputs(position), self.mask_NT)
        inputs_NH = (self._inputs(position) + contribution_NTH)[self.mask_NT]
        target_NH = self.basis.to_block(self.states_NTD[position + 1])[self.mask_NT]
        fit_norm(module.norm, inputs_NH, target_NH)

    def _inputs(self, position: int) -> Tensor:
        return self.basis.to_block(self.states_NTD[position])

    def _start_attention(self, module: SelfAttention, position: int) -> None:
        source = self.teacher_operations[position]
        assert isinstance(source, SelfAttention)
        directions_DH, mean_D = self.basis.directions_DH, self.basis.mean_D
        state_NTD = self.states_NTD[position]
        scores_N = self.scores[position]
        if scores_N is None:
            scores_N = head_importance(source, state_NTD, self.mask_NT)
        heads = leading(scores_N, module.num_heads)
        rows = (heads[:, None] * source.head_size + torch.arange(source.head_size)).flatten()
        for mine, theirs in (
            (module.query, source.query),
            (module.key, source.key),
            (module.value, source.value),
        ):
            mine.weight.copy_(theirs.weight[rows] @ directions_DH)
            mine.bias.copy_(theirs.bias[rows] + theirs.weight[rows] @ mean_D)
        exact = self.basis.is_identity and len(heads) == source.num_heads
        missing_D = source.output.bias
        if not exact:
            full_ND = source.contribution(state_NTD, self.mask_NT)[self.mask_NT]
            kept = nn.Linear(len(rows), full_ND.shape[1])
            kept.weight.copy_(source.output.weight[:, rows])
            kept.bias.zero_()
            missing_D = full_ND.mean(0) - kept(
                head_context(source, state_NTD, self.mask_NT)[self.mask_NT][:, rows]
            ).mean(0)
        module.output.weight.copy_(directions_DH.T @ source.output.weight[:, rows])
        module.output.bias.copy_(missing_D @ directions_DH)
        self._start_norm(module, source, position)

    def _start_feed_forward(self, module: FeedForward, position: int, multiple: int) -> None:
        source = self.teacher_operations[position]
        assert isinstance(source, FeedForward)
        directions_DH, mean_D = self.basis.directions_DH, self.basis.mean_D
        state_ND = self.states_NTD[position][self.mask_NT]
        activations_NI = nn.functional.gelu(source.inner(state_ND))
        importance_I = self.scores[position]
        if importance_I is None:
            importance_I = neuron_importance(activations_NI, source.output.weight)
        count = min(multiple * self.size, source.inner.out_features)
        kept = leading(importance_I, count)
        dropped = torch.ones(source.inner.out_features, dtype=torch.bool)
        dropped[kept] = False
        module.inner.weight[:count] = source.inner.weight[kept] @ directions_DH
        module.inner.bias[:count] = source.inner.bias[kept] + source.inner.weight[kept] @ mean_D
        module.output.weight[:, :count] = directions_DH.T @ source.output.weight[:, kept]
        module.output.weight[:, count:] = 0.0  # neurons the teacher does not have start silent
        missing_D = source.output.bias + source.output.weight[:, dropped] @ activations_NI.mean(0)[dropped]
        module.output.bias.copy_(missing_D @ directions_DH)
        self._start_norm(module, source, position)

    def _start_separable(self, module: SeparableConvolution, position: int) -> None:
        state_NTH = self._inputs(position)
        units: Any = module.units
        for unit in units:
            unit.eval()
            unit.pointwise.weight.mul_(_START_OF_SEPARABLE)
            fit_norm(unit.norm, state_NTH[self.mask_NT], state_NTH[self.mask_NT])


def _scores_of_operations(importance: TeacherImportance | None, count: int) -> list[Tensor | None]:
    """Given scores of the teacher's operations, in the order of :attr:`Calibration.operations`."""
    if importance is None:
        return [None] * count
    pairs = zip(importance.heads, importance.neurons, strict=True)
    return [scores for pair in pairs for scores in pair]
