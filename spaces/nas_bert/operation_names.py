"""The names of operations and the numbers in them; nothing here needs PyTorch.

``M`` is attention, ``F`` feed-forward with an inner size of four times the hidden size, ``F1`` to ``F9`` feed-forward
with that multiple, ``S<odd kernel>`` separable convolution.
"""

from __future__ import annotations

import re

ATTENTION = "M"
OPERATION_PATTERN = r"M|F[1-9]?|S[1-9][0-9]*"
"""A regular expression that every operation name matches as a whole."""


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
