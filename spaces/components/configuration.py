"""The Hugging Face configuration of a stand-alone model of components.

This file travels with exported models, next to the modelling code, so it imports nothing of the project.
"""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class ComponentsConfig(PretrainedConfig):
    """Everything needed to build the model without the search space it came from.

    Args:
        architecture: the canonical text form, for people and dashboards.
        hidden_size: width of the model.
        head_size: width of a head.
        blocks: from the first to the last: of attention the number of ``heads`` and the ``key_size`` that is left of
            each one's queries and keys (0: the mean of all tokens), of a feed-forward its ``inner_size``; of both
            whether the map back has a ``bias``, and the ``norm`` behind it (``mean``, ``no_mean`` or None).
        hidden_act: activation of the feed-forwards.
        vocab_size: rows of the token embedding.
        max_position_embeddings: rows of the position embedding.
        type_vocab_size: rows of the segment embedding; 0 for none.
        hidden_dropout_prob: dropout probability in training mode.
        layer_norm_eps: epsilon of the LayerNorms.
        intermediate_size: neurons of a feed-forward of the supermodel, of which slices are left; None where exports of
            earlier versions do not say.
        pad_token_id: token id of padding.
        **kwargs: what every Hugging Face configuration has.
    """

    model_type = "netsuke-components"

    def __init__(
        self,
        architecture: str = "H1.Q1-2.M/F1.M",
        hidden_size: int = 64,
        head_size: int = 64,
        blocks: list[dict[str, Any]] | None = None,
        hidden_act: str = "gelu",
        vocab_size: int = 30522,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        hidden_dropout_prob: float = 0.1,
        layer_norm_eps: float = 1e-12,
        intermediate_size: int | None = None,
        pad_token_id: int | None = 0,
        **kwargs: Any,
    ) -> None:
        plain: list[dict[str, Any]] = [
            {"heads": 1, "key_size": head_size, "bias": True, "norm": "mean"},
            {"inner_size": hidden_size, "bias": True, "norm": "mean"},
        ]
        self.architecture = architecture
        self.hidden_size = self.embedding_size = hidden_size
        self.head_size = head_size
        self.blocks = plain if blocks is None else blocks
        self.num_hidden_layers = len(self.blocks)
        self.hidden_act = hidden_act
        self.vocab_size = vocab_size
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.hidden_dropout_prob = hidden_dropout_prob
        self.layer_norm_eps = layer_norm_eps
        self.intermediate_size = intermediate_size
        self.pad_token_id = pad_token_id
        super().__init__(**kwargs)
