"""Architectures of EfficientBERT's space as values, and their text form.

The text form is ``<hidden size>|<stacked>_<divisor>:<expression>|...`` with one part a block, for example
``540|4_2:tanh(linear2(gelu(linear1(x))))|2_1:elu(linear2(gelu(linear1(x))))``: in the first block 4 feed-forwards of
inner width 540 / 2, one after the other, each of which computes the expression with weights of its own. ``4_2`` is what
the paper calls a linear id (paper notes, section 2.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from spaces.architecture import Architecture
from spaces.efficient_bert.expressions import PLAIN, Expression, parse_within
from spaces.errors import ArchitectureSyntaxError

_HIDDEN_SIZE = re.compile(r"[1-9][0-9]{0,8}")
_LINEAR_ID = re.compile(r"([1-9][0-9]{0,3})_([1-9][0-9]{0,3})")
_EXAMPLE = "540|4_2:tanh(linear2(gelu(linear1(x))))|1_1:linear2(gelu(linear1(x)))"


@dataclass(frozen=True)
class BlockChoice:
    """What one block has in place of BERT's feed-forward.

    Attributes:
        stacked: n, how many feed-forwards stand one after the other.
        divisor: d; the inner width is the base width divided by it, rounded down.
        expression: what each of them computes.
    """

    stacked: int
    divisor: int
    expression: Expression = PLAIN

    def __str__(self) -> str:
        return f"{self.linear_id}:{self.expression}"

    @property
    def linear_id(self) -> str:
        """Both sizes in the paper's notation, such as ``4_2``."""
        return f"{self.stacked}_{self.divisor}"

    @property
    def sizes(self) -> tuple[int, int]:
        """Stacked feed-forwards and divisor."""
        return self.stacked, self.divisor


@dataclass(frozen=True)
class EfficientBertArchitecture(Architecture):
    """A whole encoder: the hidden size of all blocks, and what each block has in place of a feed-forward."""

    hidden_size: int
    blocks: tuple[BlockChoice, ...]

    def __str__(self) -> str:
        return "|".join((str(self.hidden_size), *map(str, self.blocks)))

    @classmethod
    def parse(cls, text: str) -> EfficientBertArchitecture:
        """Read the text form; spaces between its words do not matter.

        Raises:
            ArchitectureSyntaxError: the text is malformed; the message names the column, counted from 1.
        """
        head, *rest = text.split("|")
        if _HIDDEN_SIZE.fullmatch(head.strip()) is None:
            raise _syntax_error(text, _first(text, 0), f"expected the hidden size such as 540, found {head.strip()!r}")
        if not rest:
            raise _syntax_error(text, len(text), "expected at least one block such as |1_1:linear2(gelu(linear1(x)))")
        place = len(head) + 1
        blocks = []
        for part in rest:
            blocks.append(_parse_block(text, place, place + len(part)))
            place += len(part) + 1
        return cls(int(head), tuple(blocks))

    @property
    def linear_ids(self) -> tuple[str, ...]:
        """The sizes of every block, such as ``4_2``."""
        return tuple(block.linear_id for block in self.blocks)

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """The expression of every block."""
        return tuple(block.expression for block in self.blocks)


def architecture_of(
    hidden_size: int, sizes: Iterable[tuple[int, int]], expressions: Iterable[Expression]
) -> EfficientBertArchitecture:
    """Put an architecture together from (stacked, divisor) and expression of every block."""
    pairs = zip(sizes, expressions, strict=True)
    return EfficientBertArchitecture(hidden_size, tuple(BlockChoice(*size, expression) for size, expression in pairs))


def parse_linear_id(text: str) -> tuple[int, int] | None:
    """The stacked feed-forwards and the divisor of a linear id such as ``4_2``; ``None`` if it is none."""
    matched = _LINEAR_ID.fullmatch(text.strip())
    return None if matched is None else (int(matched[1]), int(matched[2]))


def _parse_block(text: str, start: int, end: int) -> BlockChoice:
    """Read the block between two places of an architecture's text."""
    part = text[start:end]
    linear_id, colon, _ = part.partition(":")
    sizes = parse_linear_id(linear_id)
    if sizes is None:
        found = f"expected a block that begins with its linear id such as 4_2, found {linear_id.strip()[:40]!r}"
        raise _syntax_error(text, _first(text, start), found)
    if not colon:
        raise _syntax_error(text, end, f"expected ':' and an expression behind the linear id {linear_id.strip()}")
    return BlockChoice(*sizes, parse_within(text, start + len(linear_id) + 1, end, "architecture"))


def _first(text: str, place: int) -> int:
    """The first place from ``place`` on that is no space."""
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _syntax_error(text: str, place: int, message: str) -> ArchitectureSyntaxError:
    return ArchitectureSyntaxError(f"architecture {text!r}, column {place + 1}: {message}; an example: {_EXAMPLE}")
