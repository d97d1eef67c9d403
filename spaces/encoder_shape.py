"""The shape of a BERT-type encoder: what a space has to know of a teacher."""

from __future__ import annotations

from dataclasses import dataclass

from spaces.errors import SpaceError


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of a BERT-type encoder, without weights.

    Attributes:
        num_layers: Transformer layers (attention and feed-forward each).
        hidden_size: width of the residual stream.
        num_heads: attention heads a layer.
        intermediate_size: inner width of the feed-forward.
        vocab_size: rows of the token embedding.
        max_positions: rows of the position embedding, the longest sequence in tokens.
        type_vocab_size: rows of the segment embedding; 0 for none.
        pad_token_id: token id of padding.
        layer_norm_eps: epsilon of the layer normalisations.
        activation: of the feed-forward, as Hugging Face calls it.
    """

    num_layers: int = 12
    hidden_size: int = 768
    num_heads: int = 12
    intermediate_size: int = 3072
    vocab_size: int = 30522
    max_positions: int = 512
    type_vocab_size: int = 2
    pad_token_id: int = 0
    layer_norm_eps: float = 1e-12
    activation: str = "gelu"

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def encoder_parameters(self) -> int:
        """Weights behind the embeddings: 4D²+4D for attention, 2DI+I+D for the feed-forward, 4D for two norms."""
        hidden, inner = self.hidden_size, self.intermediate_size
        attention = 4 * hidden * hidden + 4 * hidden
        feed_forward = 2 * hidden * inner + inner + hidden
        return self.num_layers * (attention + feed_forward + 4 * hidden)

    @property
    def embedding_parameters(self) -> int:
        """Token, position and segment embeddings with their layer normalisation."""
        return (self.vocab_size + self.max_positions + self.type_vocab_size + 2) * self.hidden_size


def check_gelu(activation: str) -> None:
    """Make sure that a student with GELU can start at a teacher's feed-forwards.

    Args:
        activation: the teacher's, by Hugging Face's name.

    Raises:
        SpaceError: it is another one.
    """
    if activation != "gelu":
        raise SpaceError(
            f"supernet.init: teacher needs a teacher with GELU, found hidden_act '{activation}'; use init: paper"
        )
