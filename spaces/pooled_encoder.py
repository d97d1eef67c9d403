"""Any Hugging Face encoder with the same head on one vector a sequence: what fair comparisons need.

Shape legend: B batch, T tokens, D width of the encoder, C classes (or 1 for a regression).

Every architecture of Hugging Face has a classification head of its own (BERT's is a pooler of which many checkpoints
have no weights, DistilBERT's has a hidden layer). A comparison of encoders under their own heads compares the heads
too. This model gives all of them the head that models of the project have: dropout and one linear map on
the first token, or on the mean of all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from spaces.model_parts.task_heads import AnswerOutput, answers_of, pool


class PooledEncoderConfig(PretrainedConfig):
    """The encoder's configuration as a mapping, and the head's.

    Args:
        encoder: what the encoder's configuration holds, ``model_type`` among it.
        classifier_pooling: ``first`` or ``mean``.
        classifier_dropout: dropout probability before the linear map.
        **kwargs: what every Hugging Face configuration has.
    """

    model_type = "netsuke-pooled-encoder"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        classifier_pooling: str = "first",
        classifier_dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        self.encoder = encoder or {"model_type": "bert"}
        self.classifier_pooling = classifier_pooling
        self.classifier_dropout = classifier_dropout
        super().__init__(**kwargs)

    def encoder_config(self) -> Any:
        """The encoder's configuration as its own class."""
        values = dict(self.encoder)
        return AutoConfig.for_model(values.pop("model_type"), **values)

    @property
    def max_position_embeddings(self) -> int | None:
        """Longest sequence, where the encoder has a limit."""
        return self.encoder.get("max_position_embeddings")


class _EncoderWithHead(PreTrainedModel):
    """An encoder, dropout and a linear map.

    Args:
        config: sizes.
    """

    config_class = PooledEncoderConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"

    def __init__(self, config: PooledEncoderConfig) -> None:
        super().__init__(config)
        own = config.encoder_config()
        options: dict[str, Any] = {"add_pooling_layer": False} if own.model_type in ("bert", "roberta") else {}
        self.encoder = AutoModel.from_config(own, **options)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(own.hidden_size, int(config.num_labels or 0))
        self._add_maps(own.hidden_size)
        self.post_init()

    def _add_maps(self, hidden_size: int) -> None:
        """What else the head has."""

    def _init_weights(self, module: nn.Module) -> None:
        """Start the head; the encoder starts itself."""
        if any(module is part for part in (getattr(self, "classifier", None), getattr(self, "answerability", None))):
            with torch.no_grad():
                module.weight.normal_(std=0.02)  # type: ignore[operator]
                module.bias.zero_()  # type: ignore[operator]

    def _states(self, input_ids: Tensor, mask_BT: Tensor, inputs: dict[str, Any]) -> Tensor:
        hidden_BTD: Tensor = self.encoder(input_ids=input_ids, attention_mask=mask_BT, **inputs).last_hidden_state
        return hidden_BTD


class PooledEncoderForSequenceClassification(_EncoderWithHead):
    """An encoder, a pooled vector, dropout and a linear map.

    Args:
        config: sizes.
    """

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **inputs: Any) -> Any:
        """Predict.

        Args:
            input_ids: int64 ``[B, T]``.
            attention_mask: 1 for valid tokens; all valid by default.
            **inputs: what else the encoder takes, such as ``token_type_ids``.

        Returns:
            ``logits`` of shape ``[B, C]``.
        """
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        pooled_BD = pool(self._states(input_ids, mask_BT, inputs), mask_BT, self.config.classifier_pooling)
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(pooled_BD)))


class PooledEncoderForQuestionAnswering(_EncoderWithHead):
    """An encoder, dropout, a linear map to starts and ends, and one on the first token: is there an answer at all?

    Args:
        config: sizes; ``num_labels`` is 2.
    """

    def _add_maps(self, hidden_size: int) -> None:
        self.answerability = nn.Linear(hidden_size, 1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **inputs: Any,
    ) -> AnswerOutput:
        """Predict.

        Args:
            input_ids: int64 ``[B, T]``.
            attention_mask: 1 for valid tokens; all valid by default.
            start_positions: int64 ``[B]``, the answers' first tokens; with ``end_positions`` asks for the loss.
            end_positions: int64 ``[B]``, the answers' last tokens.
            **inputs: what else the encoder takes, such as ``token_type_ids``.

        Returns:
            ``start_logits`` and ``end_logits`` of shape ``[B, T]``, ``answerable_logits`` of shape ``[B]``.
        """
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states_BTD = self.dropout(self._states(input_ids, mask_BT, inputs))
        return answers_of(states_BTD, self.classifier, self.answerability, (start_positions, end_positions))
