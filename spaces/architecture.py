"""What every architecture is: a frozen value with one canonical text form."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod

ARCH_ID_LENGTH = 12
"""Hexadecimal digits of an ``arch_id``: 48 bits, so 10^6 architectures collide with probability 2e-3."""


class Architecture(ABC):
    """An immutable, hashable description of a network, without any weights.

    Subclasses are frozen dataclasses. ``str(architecture)`` is the canonical text form: equal architectures have equal
    texts, and the space that made the architecture parses the text back (``space.parse(str(a)) == a``).
    """

    @abstractmethod
    def __str__(self) -> str:
        """Return the canonical text form that a person can read and type."""

    @property
    def arch_id(self) -> str:
        """A short, stable name: the first 12 hexadecimal digits of SHA-256 of the canonical text."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:ARCH_ID_LENGTH]
