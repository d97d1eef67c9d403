"""What defines one instance of the space of components, and the presets a recipe can name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

from spaces.components.architecture import ATTENTION, FEED_FORWARD
from spaces.components.sublayers import SublayerChoice, SublayerKind
from spaces.components.text import parse_sublayer
from spaces.encoder_shape import EncoderShape
from spaces.errors import SpaceError
from spaces.option_values import read_mapping, read_values

KINDS = ("attention", "feed_forward")
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "parallel_heads": {"vertical": ["feed_forward"]},
    "pruning": {"vertical": []},
}
"""What may stand behind others: everything; feed-forward slices alone, so that a head is a bit (the count of the paper
notes, section 3.4); nothing, which is structured pruning of heads and neurons."""


@dataclass(frozen=True)
class ComponentsOptions:
    """Options of the space; the defaults are the paper's as far as they are known.

    Raises:
        SpaceError: a value is wrong, or does not fit the teacher; one line that begins with ``space.options.<key>``.

    Attributes:
        feed_forward_slices: components of a feed-forward; each has as many of its neurons.
        query_key_slices: slices of the size of a head in queries and keys, which all heads of a layer keep or drop
            together.
        vertical: the kinds of components that may stand behind others of their sublayer: attention (its heads),
            feed_forward (its slices). Those of other kinds are kept beside each other, or dropped.
        drawing: how architectures are drawn. ``shares``: for each one a share is drawn first, then each component and
            each query-key slice is kept with that probability, so that there are small and large ones.
            ``architectures``: all architectures alike, of which nearly all keep about two components in three.
        dropout: dropout probability in training mode.
        fixed_attention: the attention of every layer such as ``H1-12.Q1-2.M``, where it is not searched.
        fixed_feed_forward: the feed-forward of every layer such as ``F1-8.M``, where it is not searched.
        shape: of the teacher, whose components they are.
    """

    feed_forward_slices: int = field(default=8, metadata={"ge": 1})
    query_key_slices: int = field(default=2, metadata={"ge": 1})
    vertical: tuple[str, ...] = KINDS
    drawing: Literal["shares", "architectures"] = "shares"
    dropout: float = field(default=0.1, metadata={"ge": 0, "lt": 1})
    fixed_attention: tuple[str, ...] | None = None
    fixed_feed_forward: tuple[str, ...] | None = None
    shape: EncoderShape = field(default_factory=EncoderShape)

    def __post_init__(self) -> None:
        read_values(self)
        shape = self.shape
        for index, name in enumerate(self.vertical):
            if name not in KINDS or name in self.vertical[:index]:
                raise _problem(f"vertical.{index}", f"found {name!r}, expected {' or '.join(KINDS)}, each once at most")
        self._check_divides("feed_forward_slices", shape.intermediate_size, "the teacher's intermediate_size")
        self._check_divides("query_key_slices", shape.head_size, "the size of the teacher's heads,")
        for name, letter, kind in zip(("fixed_attention", "fixed_feed_forward"), _LETTERS, self.kinds, strict=True):
            self._check_fixed(name, letter, kind)
        if not any(fixed is None or not fixed.is_absent for fixed in self.fixed):
            raise _problem("fixed_attention", "nothing is left of any layer, and fixed_feed_forward leaves nothing too")

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any], shape: EncoderShape | None = None) -> ComponentsOptions:
        """Read a recipe's options: an optional ``preset``, overridden key by key, for a teacher of ``shape``.

        Without a shape it is BERT-base's.

        Raises:
            SpaceError: a key or value is wrong; one line for the first problem.
        """
        return cls(**read_mapping(cls, options, PRESETS, "paper", shape or EncoderShape()))

    @cached_property
    def kinds(self) -> tuple[SublayerKind, SublayerKind]:
        """What there is to choose in attention and in a feed-forward."""
        attention, feed_forward = KINDS
        return (
            SublayerKind(attention, "head", self.shape.num_heads, self.query_key_slices, attention in self.vertical),
            SublayerKind(feed_forward, "slice", self.feed_forward_slices, 0, feed_forward in self.vertical),
        )

    @property
    def sublayers(self) -> tuple[SublayerKind, ...]:
        """The kind of every sublayer, from the first layer's attention to the last layer's feed-forward."""
        return self.kinds * self.shape.num_layers

    @cached_property
    def fixed(self) -> tuple[SublayerChoice | None, ...]:
        """For each of :attr:`sublayers` what it is where it is not searched, else ``None``."""
        columns = [
            [None] * self.shape.num_layers if texts is None else [_read_sublayer(letter, text) for text in texts]
            for letter, texts in zip(_LETTERS, (self.fixed_attention, self.fixed_feed_forward), strict=True)
        ]
        return tuple(choice for layer in zip(*columns, strict=True) for choice in layer)

    @property
    def slice_size(self) -> int:
        """Neurons of one slice of a feed-forward."""
        return self.shape.intermediate_size // self.feed_forward_slices

    @property
    def query_key_size(self) -> int:
        """Channels of one query-key slice of a head."""
        return self.shape.head_size // self.query_key_slices

    def _check_divides(self, key: str, whole: int, name: str) -> None:
        count: int = getattr(self, key)
        if whole % count:
            fitting = ", ".join(str(number) for number in range(1, min(whole, 16) + 1) if whole % number == 0)
            raise _problem(key, f"found {count}, which does not divide {name} {whole}; expected one such as {fitting}")

    def _check_fixed(self, key: str, letter: str, kind: SublayerKind) -> None:
        texts: tuple[str, ...] | None = getattr(self, key)
        if texts is None:
            return
        if len(texts) != self.shape.num_layers:
            expected = f"expected {self.shape.num_layers}, one for each of the teacher's layers"
            raise _problem(key, f"found {len(texts)} entries, {expected}")
        for index, text in enumerate(texts):
            try:
                problem = kind.misfit(_read_sublayer(letter, text))
            except SpaceError as error:
                raise _problem(f"{key}.{index}", str(error)) from None
            if problem is not None:
                raise _problem(f"{key}.{index}", f"found {text!r}: {problem}")


_LETTERS = (ATTENTION, FEED_FORWARD)


@lru_cache(maxsize=1024)
def _read_sublayer(letter: str, text: str) -> SublayerChoice:
    return parse_sublayer(letter, text)


def _problem(key: str, message: str) -> SpaceError:
    return SpaceError(f"space.options.{key}: {message}")
