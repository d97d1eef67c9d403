"""What defines one instance of EfficientBERT's space, and the presets a recipe can name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from spaces.efficient_bert.architecture import parse_linear_id
from spaces.efficient_bert.expressions import Expression
from spaces.efficient_bert.rules import MOST_NODES, TreeLimits, Widths, broken_rule
from spaces.encoder_shape import EncoderShape
from spaces.errors import SpaceError
from spaces.option_values import read_mapping, read_values

PRESETS: dict[str, dict[str, Any]] = {
    "base": {},
    "tiny": {"hidden_size": 360},
    "plus_plus": {"hidden_size": 360, "layers": 12, "inner_width": 540},
}
"""The paper's backbones: EfficientBERT, EfficientBERT-TINY, and EfficientBERT++, whose published size needs inner
widths of 540 at a hidden size of 360 (paper notes, section 4.2)."""


@dataclass(frozen=True)
class EfficientBertOptions:
    """Options of the space; the defaults are the paper's.

    Raises:
        SpaceError: a value is wrong, or two contradict each other; one line that begins with ``space.options.<key>``.

    Attributes:
        hidden_size: width of all blocks.
        layers: blocks; each is compared with one of the teacher's layers.
        heads: attention heads of every block, as many as the teacher has.
        inner_width: base of the feed-forwards' inner widths; ``None`` for the hidden size.
        embedding_size: width of the token table; three neighbours make the embedding of a token.
        stacked: how many feed-forwards a block can have.
        divisors: by what the base inner width can be divided.
        min_height: least height of an expression's tree.
        max_height: greatest height.
        max_nodes: most nodes of an expression, a linear map counting two; ``None`` for as many as there are places in
            the encoding, 20.
        parallel: whether linear2 may also stand beside linear1 instead of above it; such trees run only where the inner
            width is the hidden size.
        width_rule: what becomes of operands of two widths: the wider one is cropped, or the narrower one padded.
        projection: whether models keep the linear map to the teacher's width that distillation needs, as the published
            sizes do.
        dropout: dropout probability in training mode.
        layer_norm_eps: epsilon of the LayerNorms.
        parameter_window: least and most parameters of a network, with that linear map and without a pooler; ``None``
            for any.
        fixed_linear_ids: the sizes of every block such as ``4_2``, where they are not searched.
        fixed_expressions: the expression of every block, where they are not searched.
        mutation: how candidates are drawn and varied. ``uniform``: drawn so that all architectures are alike, varied by
            one step. ``proposal``: as the paper's code does it, by mutating base expressions until one is valid.
        base_expressions: for each block an expression that proposals start from besides the plain feed-forward.
        base_linear_ids: for each block the sizes that proposals have twice as often as others.
        shape: of the teacher, whose width the linear map leads to and whose vocabulary the embeddings have.
    """

    hidden_size: int = field(default=540, metadata={"ge": 1})
    layers: int = field(default=6, metadata={"ge": 1})
    heads: int = field(default=12, metadata={"ge": 1})
    inner_width: int | None = field(default=None, metadata={"ge": 1})
    embedding_size: int = field(default=128, metadata={"ge": 1})
    stacked: tuple[int, ...] = (1, 2, 3, 4)
    divisors: tuple[int, ...] = (1, 2, 3, 4)
    min_height: int = field(default=3, metadata={"ge": 2})
    max_height: int = field(default=7, metadata={"ge": 2})
    max_nodes: int | None = field(default=9, metadata={"ge": 6, "le": MOST_NODES})
    parallel: bool = False
    width_rule: Literal["crop", "pad"] = "crop"
    projection: bool = True
    dropout: float = field(default=0.1, metadata={"ge": 0, "lt": 1})
    layer_norm_eps: float = field(default=1e-5, metadata={"ge": 0})
    parameter_window: tuple[int, int] | None = None
    fixed_linear_ids: tuple[str, ...] | None = None
    fixed_expressions: tuple[str, ...] | None = None
    mutation: Literal["uniform", "proposal"] = "uniform"
    base_expressions: tuple[str, ...] | None = None
    base_linear_ids: tuple[str, ...] | None = None
    shape: EncoderShape = field(default_factory=EncoderShape)

    def __post_init__(self) -> None:
        read_values(self)
        if self.hidden_size % self.heads:
            raise _problem("heads", f"found {self.heads}, which does not divide hidden_size {self.hidden_size}")
        for name in ("stacked", "divisors"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values) or min(values) < 1:
                raise _problem(name, f"found {list(values)}, expected one or more different numbers from 1 on")
        if self.inner_size(max(self.divisors)) < 1:
            raise _problem("divisors", f"found {max(self.divisors)}, which leaves nothing of {self.base_width}")
        if self.min_height > self.max_height:
            raise _problem("min_height", f"found {self.min_height}, expected at most max_height {self.max_height}")
        if self.parameter_window is not None and self.parameter_window[0] > self.parameter_window[1]:
            found = f"found {list(self.parameter_window)}"
            raise _problem("parameter_window", f"{found}, expected the least parameters before the most")
        self._check_linear_ids("fixed_linear_ids")
        self._check_linear_ids("base_linear_ids")
        self._check_expressions("fixed_expressions")
        self._check_expressions("base_expressions")

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any], shape: EncoderShape | None = None) -> EfficientBertOptions:
        """Read a recipe's options: an optional ``preset``, overridden key by key, for a teacher of ``shape``.

        Without a shape it is BERT-base's.

        Raises:
            SpaceError: a key or value is wrong; one line for the first problem.
        """
        return cls(**read_mapping(cls, options, PRESETS, "base", shape or EncoderShape()))

    @property
    def base_width(self) -> int:
        """What divisors divide: ``inner_width``, or the hidden size."""
        return self.hidden_size if self.inner_width is None else self.inner_width

    @property
    def limits(self) -> TreeLimits:
        """How large expressions may be, and of which kind."""
        most = MOST_NODES if self.max_nodes is None else self.max_nodes
        return TreeLimits(self.min_height, self.max_height, most, self.parallel)

    @property
    def all_sizes(self) -> tuple[tuple[int, int], ...]:
        """Every (stacked, divisor), in the order of the options."""
        return tuple((stacked, divisor) for stacked in self.stacked for divisor in self.divisors)

    def inner_size(self, divisor: int) -> int:
        """The inner width of a feed-forward."""
        return self.base_width // divisor

    def widths(self, divisor: int) -> Widths:
        """What an expression works on."""
        return Widths(self.hidden_size, self.inner_size(divisor), self.width_rule)

    def sizes_of_block(self, block: int) -> tuple[tuple[int, int], ...]:
        """The (stacked, divisor) that a block, counted from 0, can have."""
        return (
            self.all_sizes if self.fixed_linear_ids is None else _read_sizes(self.fixed_linear_ids[block : block + 1])
        )

    @property
    def base_sizes(self) -> tuple[tuple[int, int], ...] | None:
        """The (stacked, divisor) of every block that proposals have twice as often as others."""
        return None if self.base_linear_ids is None else _read_sizes(self.base_linear_ids)

    def fixed_expression(self, block: int) -> Expression | None:
        """The expression of a block, counted from 0, where expressions are not searched."""
        return None if self.fixed_expressions is None else _read_expression(self.fixed_expressions[block])

    def check_teacher(self) -> None:
        """Make sure that every block can be compared with a layer of the teacher, and every head with one of its heads.

        Raises:
            SpaceError: the number of blocks does not divide that of the teacher's layers, or heads differ.
        """
        if self.shape.num_layers % self.layers:
            raise _problem(
                "layers",
                f"found {self.layers}, which does not divide the teacher's {self.shape.num_layers} layers; every block "
                "imitates one at equal distances",
            )
        if self.heads != self.shape.num_heads:
            raise _problem(
                "heads",
                f"found {self.heads}, but the teacher has {self.shape.num_heads}, and each head imitates one of them; "
                f"set heads: {self.shape.num_heads}, and a hidden_size which that divides",
            )

    def _check_linear_ids(self, key: str) -> None:
        texts: tuple[str, ...] | None = getattr(self, key)
        if texts is None:
            return
        self._check_count(key, texts)
        for index, text in enumerate(texts):
            if parse_linear_id(text) not in self.all_sizes:
                expected = ", ".join(f"{stacked}_{divisor}" for stacked, divisor in self.all_sizes)
                raise _problem(f"{key}.{index}", f"found {text!r}, expected a linear id, one of {expected}")

    def _check_expressions(self, key: str) -> None:
        texts: tuple[str, ...] | None = getattr(self, key)
        if texts is None:
            return
        self._check_count(key, texts)
        for index, text in enumerate(texts):
            try:
                broken = broken_rule(Expression.parse(text), self.limits)
            except SpaceError as error:
                raise _problem(f"{key}.{index}", str(error)) from None
            if broken is not None:
                raise _problem(f"{key}.{index}", f"found {text!r}; {broken[1]} (rule {broken[0]})")

    def _check_count(self, key: str, entries: tuple[str, ...]) -> None:
        if len(entries) != self.layers:
            raise _problem(key, f"found {len(entries)} entries, expected {self.layers}, one for each of layers")


@lru_cache(maxsize=1024)
def _read_sizes(linear_ids: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """The (stacked, divisor) of linear ids that were checked before."""
    return tuple(sizes for sizes in map(parse_linear_id, linear_ids) if sizes is not None)


@lru_cache(maxsize=1024)
def _read_expression(text: str) -> Expression:
    return Expression.parse(text)


def _problem(key: str, message: str) -> SpaceError:
    return SpaceError(f"space.options.{key}: {message}")
