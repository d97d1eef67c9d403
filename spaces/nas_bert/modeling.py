"""The stand-alone NAS-BERT encoder as an ordinary Hugging Face model.

Shape legend: B batch, T tokens.

This file and the modules it imports from its own folder travel with exported models, so that they load with
``trust_remote_code`` where netsuke is not installed (transformers refuses to load a file that imports an absent
package, be it inside a function); where it is, ``import spaces.huggingface`` registers the class.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from spaces.model_parts.embeddings import SummedEmbeddings
from spaces.model_parts.encoder import Encoder

from .configuration import NasBertConfig
from .operations import build_operation, initialise_like_the_paper


class NasBertModel(Encoder):
    """The encoder: embeddings, blocks of layers with linear maps between widths, last hidden state.

    Args:
        config: sizes and operations.
    """

    config_class = NasBertConfig
    _no_split_modules = ["SelfAttention", "FeedForward", "SeparableConvolution"]  # noqa: RUF012 - as in the base class

    def __init__(self, config: NasBertConfig) -> None:
        super().__init__(config)
        self.embeddings = SummedEmbeddings.of_config(config)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                build_operation(
                    operation,
                    hidden_size,
                    head_size=config.head_size,
                    separable_units=config.separable_units,
                    dropout=config.hidden_dropout_prob,
                    layer_norm_eps=config.layer_norm_eps,
                )
                for operation in operations
            )
            for hidden_size, operations in zip(config.block_hidden_sizes, config.block_operations, strict=True)
        )
        self.projections = nn.ModuleList(
            nn.Identity() if widths is None else nn.Linear(widths[0], widths[1]) for widths in config.projections
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Hugging Face's hook for weights that a checkpoint lacks: as the paper starts them, module by module."""
        initialise_like_the_paper(module)

    def _states(self, input_ids: Tensor, mask_BT: Tensor, token_type_ids: Tensor | None) -> Iterator[Tensor]:
        """The embeddings' output and the state after every block, of the last one behind its linear map."""
        hidden = self.embeddings(input_ids, token_type_ids)
        yield hidden
        for number, block in enumerate(self.blocks, start=1):
            hidden = self.projections[number - 1](hidden)
            for operation in block:  # type: ignore[attr-defined]
                hidden = operation(hidden, mask_BT)
            yield self.projections[number](hidden) if number == len(self.blocks) else hidden
