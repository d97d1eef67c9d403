"""EfficientBERT's supernet: stacks of full-width feed-forwards, cropped at run time, and one map to the teacher.

Shape legend: B batch, T tokens, H hidden size of the blocks, N attention heads, D hidden size of the teacher.

Of each block's stack a path takes the first n feed-forwards, and of each of them the first inner channels. What they
compute is not part of the weights: every expression reuses the same two linear maps. So paths that agree in n and
inner width share all their weights, and every other pair shares what the smaller one has.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from spaces.efficient_bert.architecture import BlockChoice, EfficientBertArchitecture
from spaces.efficient_bert.expressions import PLAIN
from spaces.efficient_bert.feed_forward import ExpressionFunction, FeedForwardWeights, compile_expression
from spaces.efficient_bert.modeling import EfficientBertModel, Layer, SelfAttention, TrigramEmbeddings, walk
from spaces.efficient_bert.options import EfficientBertOptions
from spaces.efficient_bert.stand_alone import configuration_of
from spaces.efficient_bert.weight_transfer import copy_leading, transfer
from spaces.extraction import TeacherImportance
from spaces.layer_states import LayerStates, LayerwiseSupernet
from spaces.model_parts.initialisation import initialise


class SharedBlock(nn.Module):
    """All paths of one block: its attention, and a stack of full-width feed-forwards.

    Args:
        options: of the space.
    """

    def __init__(self, options: EfficientBertOptions) -> None:
        super().__init__()
        width, heads = options.hidden_size, options.heads
        dropout, eps = options.dropout, options.layer_norm_eps
        self.attention = SelfAttention(width, width // heads, dropout, eps, heads)
        full_width = options.inner_size(min(options.divisors))
        self.feed_forwards = nn.ModuleList(
            FeedForwardWeights(width, full_width, dropout, eps) for _ in range(max(options.stacked))
        )

    def run_stack(self, hidden_BTH: Tensor, function: ExpressionFunction, stacked: int, inner: int) -> Tensor:
        """Run the first feed-forwards of the stack.

        Args:
            hidden_BTH: input.
            function: what each of them computes.
            stacked: how many are run.
            inner: how many of their inner channels are used.
        """
        for feed_forward in self.feed_forwards[:stacked]:
            assert isinstance(feed_forward, FeedForwardWeights)
            hidden_BTH = feed_forward.compute(hidden_BTH, function, inner)
        return hidden_BTH


class EfficientBertSupernet(LayerwiseSupernet[EfficientBertArchitecture]):
    """The supernet. Its random start is N(0, 0.02) without biases, as a stand-alone model's is.

    Args:
        options: of the space whose architectures are its paths.
    """

    def __init__(self, options: EfficientBertOptions) -> None:
        super().__init__()
        self.options = options
        shape = options.shape
        self.embeddings = TrigramEmbeddings(
            options.embedding_size,
            options.hidden_size,
            shape.vocab_size,
            shape.max_positions,
            shape.type_vocab_size,
            options.dropout,
            options.layer_norm_eps,
        )
        self.blocks = nn.ModuleList(SharedBlock(options) for _ in range(options.layers))
        self.projection = nn.Linear(options.hidden_size, shape.hidden_size)
        initialise(self)

    def _layers(self, architecture: EfficientBertArchitecture) -> Iterator[Layer]:
        for shared, choice in zip(self.blocks, architecture.blocks, strict=True):
            assert isinstance(shared, SharedBlock)
            function = compile_expression(choice.expression.nested(), self.options.width_rule)
            inner = self.options.inner_size(choice.divisor)
            yield (
                shared.attention,
                functools.partial(shared.run_stack, function=function, stacked=choice.stacked, inner=inner),
            )

    def forward(
        self,
        architecture: EfficientBertArchitecture,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor,
        token_type_ids_BT: Tensor | None = None,
    ) -> Tensor:
        """Run one architecture; see :class:`~spaces.layer_states.LayerwiseSupernet`. Returns ``hidden_BTD``."""
        mask_BT = attention_mask_BT.bool()
        hidden_BTH = self.embeddings(input_ids_BT, mask_BT, token_type_ids_BT)
        for state_BTH, _scores in walk(hidden_BTH, mask_BT, self._layers(architecture)):
            hidden_BTH = state_BTH
        return self.projection(hidden_BTH)

    def layer_states(
        self,
        architecture: EfficientBertArchitecture,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor,
        token_type_ids_BT: Tensor | None = None,
    ) -> LayerStates:
        """Run one architecture and return its states in the teacher's width, and its attention scores."""
        mask_BT = attention_mask_BT.bool()
        hidden_BTH = self.embeddings(input_ids_BT, mask_BT, token_type_ids_BT)
        states = list(walk(hidden_BTH, mask_BT, self._layers(architecture), with_scores=True))
        return LayerStates(
            embeddings_BTD=self.projection(hidden_BTH),
            hidden_BTD=tuple(self.projection(state_BTH) for state_BTH, _ in states),
            scores_BHTT=tuple(scores for _, scores in states if scores is not None),
        )

    def largest(self) -> EfficientBertArchitecture:
        """As many plain feed-forwards as there are, at full width, in every block."""
        block = BlockChoice(max(self.options.stacked), min(self.options.divisors), PLAIN)
        return EfficientBertArchitecture(self.options.hidden_size, (block,) * self.options.layers)

    def extract(self, architecture: EfficientBertArchitecture) -> EfficientBertModel:
        """The stand-alone model of a path, always with the map to the teacher's width that the path ends with."""
        model = EfficientBertModel(configuration_of(architecture, self.options, projection=True))
        copy_leading(self, model)
        return model.train(self.training)

    def start(
        self,
        teacher: Any,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor,
        init: str,
        importance: TeacherImportance | None = None,
    ) -> None:
        """Start at the teacher, or stay at the random start that a new supernet has (``paper``)."""
        from spaces.efficient_bert.teacher_start import start_at_teacher

        if init == "paper":
            return
        training = self.training
        self.eval()  # what is fitted reads states without dropout
        start_at_teacher(self, teacher, input_ids_BT, attention_mask_BT, importance)
        self.train(training)

    def inherit(self, other: EfficientBertSupernet) -> None:
        """Start at the weights of a wider or shallower supernet, see :func:`~.weight_transfer.transfer`."""
        transfer(other, self)
