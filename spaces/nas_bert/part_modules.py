"""The modules of a space's parts, for whoever wants to measure them alone.

Shape legend: B batch, T tokens, H hidden size.
"""

from __future__ import annotations

from torch import Tensor, nn

from spaces.model_parts.embeddings import SummedEmbeddings
from spaces.nas_bert.operations import build_operation
from spaces.nas_bert.options import NasBertOptions
from spaces.nas_bert.parts import OPERATION, PROJECTION
from spaces.space import Part


class _WithoutMask(nn.Module):
    """Lets a part that needs no mask be called like one that does."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, hidden: Tensor, mask_BT: Tensor) -> Tensor:
        """Apply the part; the mask is not used."""
        output: Tensor = self.part(hidden)
        return output


def build_part(part: Part, options: NasBertOptions) -> nn.Module:
    """The module of a part, in evaluation mode."""
    shape = options.shape
    if part.kind == OPERATION:
        return build_operation(
            part.name,
            part.size,
            head_size=options.head_size,
            separable_units=options.separable_units,
            dropout=0.0,
            layer_norm_eps=shape.layer_norm_eps,
        ).eval()
    if part.kind == PROJECTION:
        assert part.input_size is not None
        return _WithoutMask(nn.Linear(part.input_size, part.size)).eval()
    embeddings = SummedEmbeddings(
        part.size,
        shape.vocab_size,
        shape.max_positions,
        options.type_vocab_size,
        shape.pad_token_id,
        0.0,
        shape.layer_norm_eps,
    )
    return _WithoutMask(embeddings).eval()
