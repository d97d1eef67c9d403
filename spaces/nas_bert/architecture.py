"""Architectures of NAS-BERT's space as values, and their text form.

The text form is ``E<embedding size>|<hidden size>:<operations>|...`` with one part a block, for example
``E64|192:S3-S7-M|192:S7-S7-M|192:S3-M-S7|192:S5-M-S3``. Identity layers are simply absent (the paper, section 3.2.1,
keeps them only as a suffix of a block, so their number says it all).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from spaces.architecture import Architecture
from spaces.errors import ArchitectureSyntaxError
from spaces.nas_bert.operation_names import OPERATION_PATTERN

_EMBEDDING = re.compile(r"E([1-9][0-9]{0,8})")
_BLOCK = re.compile(r"([1-9][0-9]{0,8}):(.+)")
_OPERATION = re.compile(OPERATION_PATTERN)
_EXAMPLE = "E128|384:S3-S5-M|384:M-F"


@dataclass(frozen=True)
class BlockArchitecture(Architecture):
    """One block: a hidden size that all its layers share, and the operations in order.

    Attributes:
        hidden_size: width of the block's layers.
        operations: one to ``layers_per_block`` operation names such as ``M`` (attention), ``M2`` (attention with two
            heads), ``F`` (feed-forward with four times the hidden size inside), ``F2`` (with two times), ``S5``
            (separable convolution of kernel 5).
    """

    hidden_size: int
    operations: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.hidden_size}:{'-'.join(self.operations)}"

    @classmethod
    def parse(cls, text: str) -> BlockArchitecture:
        """Read a block's text form such as ``192:S3-S7-M``.

        Raises:
            ArchitectureSyntaxError: the text is malformed.
        """
        return _parse_block(text, text, 0)


@dataclass(frozen=True)
class NasBertArchitecture(Architecture):
    """A whole encoder: embedding size and blocks."""

    embedding_size: int
    blocks: tuple[BlockArchitecture, ...]

    def __str__(self) -> str:
        return "|".join((f"E{self.embedding_size}", *map(str, self.blocks)))

    @classmethod
    def parse(cls, text: str) -> NasBertArchitecture:
        """Read the text form.

        Raises:
            ArchitectureSyntaxError: the text is malformed; the message names the column, counted from 1.
        """
        head, *rest = text.split("|")
        matched = _EMBEDDING.fullmatch(head)
        if matched is None:
            raise _syntax_error(text, 0, f"expected the embedding size such as E128, found {head!r}")
        if not rest:
            raise _syntax_error(text, len(text), "expected at least one block such as |384:M-F")
        column = len(head) + 1
        blocks = []
        for part in rest:
            blocks.append(_parse_block(part, text, column))
            column += len(part) + 1
        return cls(int(matched[1]), tuple(blocks))

    def layers(self) -> Iterator[tuple[int, int, str]]:
        """Yield (block, layer within the block, operation), both counted from 0."""
        for block_index, block in enumerate(self.blocks):
            for layer_index, operation in enumerate(block.operations):
                yield block_index, layer_index, operation


def _parse_block(part: str, text: str, column: int) -> BlockArchitecture:
    matched = _BLOCK.fullmatch(part)
    if matched is None:
        raise _syntax_error(text, column, f"expected a block such as 384:M-F, found {part!r}")
    operations = tuple(matched[2].split("-"))
    column += len(matched[1]) + 1
    for operation in operations:
        if _OPERATION.fullmatch(operation) is None:
            raise _syntax_error(text, column, _not_an_operation(operation))
        column += len(operation) + 1
    return BlockArchitecture(int(matched[1]), operations)


def _not_an_operation(found: str) -> str:
    if found.casefold() in ("i", "id", "identity"):
        return f"expected operations, found {found!r}; identity layers are simply left out"
    if ":" in found:
        return f"expected one hidden size a block, found a second one in {found!r}; blocks are joined by '|'"
    return f"expected an operation such as M, F, F2 or S3, joined by '-', found {found!r}"


def _syntax_error(text: str, column: int, message: str) -> ArchitectureSyntaxError:
    return ArchitectureSyntaxError(f"architecture {text!r}, column {column + 1}: {message}; an example: {_EXAMPLE}")
