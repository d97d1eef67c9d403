"""The names of operations and the numbers in them; nothing here needs PyTorch.

``M`` is attention with as many heads as fit the hidden size, ``M<heads>`` attention with fewer of them, ``F``
feed-forward with an inner size of four times the hidden size, ``F1`` to ``F9`` feed-forward with that multiple, ``S<odd
kernel>`` separable convolution.
"""

from __future__ import annotations

import re
from functools import cache

ATTENTION = "M"
OPERATION_PATTERN = r"M([1-9][0-9]{0,2})?|F[1-9]?|S[1-9][0-9]*"
"""A regular expression that every operation name matches as a whole."""


@cache
def is_attention(operation: str) -> bool:
    """Whether a name is attention's, with all heads or with fewer."""
    return re.fullmatch(r"M([1-9][0-9]{0,2})?", operation) is not None


def attention_heads(operation: str, hidden_size: int, head_size: int) -> int:
    """Heads of an attention: ``M`` fills the hidden size with them, ``M2`` has 2."""
    return int(operation[1:] or hidden_size // head_size)


def is_feed_forward(operation: str) -> bool:
    """Whether a name is a feed-forward's."""
    return re.fullmatch(r"F[1-9]?", operation) is not None


def is_separable(operation: str) -> bool:
    """Whether a name is a separable convolution's, whose kernel is odd."""
    return re.fullmatch(r"S([1-9][0-9]*)?[13579]", operation) is not None


def feed_forward_multiple(operation: str) -> int:
    """The inner size of a feed-forward as a multiple of its hidden size: ``F`` is 4, ``F2`` is 2."""
    return int(operation[1:] or 4)


def kernel_size(operation: str) -> int:
    """The kernel of a separable convolution: ``S7`` is 7."""
    return int(operation[1:])
