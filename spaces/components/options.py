"""What defines one instance of the space of components, and the presets a recipe can name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

from spaces.components.architecture import ATTENTION, FEED_FORWARD, ComponentsArchitecture
from spaces.components.sublayers import SublayerChoice, SublayerKind
from spaces.components.text import parse_architecture, parse_sublayer
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
        within: the text of an architecture of which no more is kept than it keeps, such as that of a model that a
            search is to start at. What it drops is dropped; stages are free as far as ``vertical`` says. Everything
            may be kept without one.
        shape: of the teacher, whose components they are.
    """

    feed_forward_slices: int = field(default=8, metadata={"ge": 1})
    query_key_slices: int = field(default=2, metadata={"ge": 1})
    vertical: tuple[str, ...] = KINDS
    drawing: Literal["shares", "architectures"] = "shares"
    dropout: float = field(default=0.1, metadata={"ge": 0, "lt": 1})
    fixed_attention: tuple[str, ...] | None = None
    fixed_feed_forward: tuple[str, ...] | None = None
    within: str | None = None
    shape: EncoderShape = field(default_factory=EncoderShape)

    def __post_init__(self) -> None:
        read_values(self)
        shape = self.shape
        for index, name in enumerate(self.vertical):
            if name not in KINDS or name in self.vertical[:index]:
                raise _problem(f"vertical.{index}", f"found {name!r}, expected {' or '.join(KINDS)}, each once at most")
        self._check_divides("feed_forward_slices", shape.intermediate_size, "the teacher's intermediate_size")
        self._check_divides("query_key_slices", shape.head_size, "the size of the teacher's heads,")
        self._check_within()
        for place, (name, letter) in enumerate(zip(_FIXED, _LETTERS, strict=True)):
            self._check_fixed(name, letter, self.sublayers[place::2])
        if not any(fixed is None or not fixed.is_absent for fixed in self.fixed):
            first, second, *_ = (name for name in (*_FIXED, "within") if getattr(self, name) is not None)
            raise _problem(first, f"nothing is left of any layer, and {second} leaves nothing too")

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
        """What a teacher's attention and feed-forward are made of, all of which may be kept."""
        attention, feed_forward = KINDS
        return (
            SublayerKind(attention, "head", self.shape.num_heads, self.query_key_slices, attention in self.vertical),
            SublayerKind(feed_forward, "slice", self.feed_forward_slices, 0, feed_forward in self.vertical),
        )

    @cached_property
    def sublayers(self) -> tuple[SublayerKind, ...]:
        """The kind of every sublayer, from the first layer's attention to the last layer's feed-forward.

        What :attr:`within` drops is none of their components.
        """
        everything = self.kinds * self.shape.num_layers
        if self.within is None:
            return everything
        limits = _read_architecture(self.within).sublayers
        return tuple(kind.limited(limit) for kind, limit in zip(everything, limits, strict=True))

    @property
    def limit(self) -> ComponentsArchitecture:
        """What :attr:`within` says, or the teacher's own form; what is fixed plays no part."""
        return ComponentsArchitecture.of_sublayers([kind.whole for kind in self.sublayers])

    @cached_property
    def fixed(self) -> tuple[SublayerChoice | None, ...]:
        """For each of :attr:`sublayers` what it is where it is not searched, else ``None``.

        Where :attr:`within` leaves nothing of one, it is absent; the only component of a network is always kept.
        """
        columns = [
            [None] * self.shape.num_layers if texts is None else [_read_sublayer(letter, text) for text in texts]
            for letter, texts in zip(_LETTERS, (getattr(self, name) for name in _FIXED), strict=True)
        ]
        given = (choice for layer in zip(*columns, strict=True) for choice in layer)
        found = [
            kind.whole if choice is None and kind.whole.is_absent else choice
            for choice, kind in zip(given, self.sublayers, strict=True)
        ]
        searched = [place for place, choice in enumerate(found) if choice is None]
        if len(searched) == 1 and all(choice is None or choice.is_absent for choice in found):
            kind = self.sublayers[searched[0]]
            if kind.count == 2:  # that component, or nothing at all
                found[searched[0]] = kind.whole
        return tuple(found)

    def fixing(self, sublayer: int) -> str:
        """The option that fixes a sublayer, which is fixed, by its number from 0."""
        name = _FIXED[sublayer % 2]
        return "within" if getattr(self, name) is None else name

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

    def _check_within(self) -> None:
        if self.within is None:
            return
        try:
            limit = _read_architecture(self.within)
        except SpaceError as error:
            raise _problem("within", str(error)) from None
        layers = self.shape.num_layers
        if len(limit.layers) != layers:
            found = "1 layer" if len(limit.layers) == 1 else f"{len(limit.layers)} layers"
            raise _problem("within", f"found {found} in {self.within!r}, expected {layers}, as many as the teacher has")
        for index, (choice, kind) in enumerate(zip(limit.sublayers, self.kinds * layers, strict=True)):
            problem = kind.misfit(choice)
            if problem is not None:
                raise _problem("within", f"found {self.within!r}: layer {index // 2 + 1}: {problem}")
        if limit.is_empty:
            raise _problem("within", f"found {self.within!r}, of which nothing is left; expected a component at least")

    def _check_fixed(self, key: str, letter: str, kinds: Sequence[SublayerKind]) -> None:
        texts: tuple[str, ...] | None = getattr(self, key)
        if texts is None:
            return
        if len(texts) != self.shape.num_layers:
            expected = f"expected {self.shape.num_layers}, one for each of the teacher's layers"
            raise _problem(key, f"found {len(texts)} entries, {expected}")
        for index, (text, kind) in enumerate(zip(texts, kinds, strict=True)):
            try:
                problem = kind.misfit(_read_sublayer(letter, text))
            except SpaceError as error:
                raise _problem(f"{key}.{index}", str(error)) from None
            if problem is not None:
                raise _problem(f"{key}.{index}", f"found {text!r}: {problem}")


_LETTERS = (ATTENTION, FEED_FORWARD)
_FIXED = ("fixed_attention", "fixed_feed_forward")


@lru_cache(maxsize=1024)
def _read_sublayer(letter: str, text: str) -> SublayerChoice:
    return parse_sublayer(letter, text)


@lru_cache(maxsize=64)
def _read_architecture(text: str) -> ComponentsArchitecture:
    return parse_architecture(text)


def _problem(key: str, message: str) -> SpaceError:
    return SpaceError(f"space.options.{key}: {message}")
