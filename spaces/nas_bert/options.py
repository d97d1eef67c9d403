"""What defines one instance of NAS-BERT's space, and the presets a recipe can name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spaces.encoder_shape import EncoderShape, check_gelu
from spaces.errors import SpaceError
from spaces.nas_bert.operation_names import ATTENTION, attention_heads, is_attention, is_feed_forward, is_separable
from spaces.option_values import read_mapping, read_values

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "small": {
        "num_blocks": 3,
        "layers_per_block": 4,
        "hidden_sizes": (192, 256, 384),
        "head_size": 32,
        "operations": ("M", "F", "F2", "F1", "S3"),
        "embedding_sizes": (384,),
        "projections": "supernet",
        "type_vocab_size": 2,
        "dropout": 0.0,
    },
    "minilm": {
        "num_blocks": 3,
        "layers_per_block": 4,
        "hidden_sizes": (128, 192, 256, 320, 384),
        "head_size": 32,
        "operations": ("M", "M6", "F", "F2", "F1", "S3", "S5", "S7"),
        "embedding_sizes": (64, 128, 256, 384),
        "projections": "supernet",
        "type_vocab_size": 2,
        "dropout": 0.0,
    },
}
"""Named sets of options. ``paper`` is the paper's space, for a 12-layer, 768-wide teacher. ``small`` and ``minilm``
suit a 6-layer, 384-wide teacher with 12 heads such as all-MiniLM-L6-v2: two of its layers a block, and projections with
which a student inherits the supernet's function. ``small`` has few operations, for short trainings; ``minilm`` has all
of the paper's, narrower ones besides, and embeddings small enough for whole models of 5M parameters."""

_MINILM = EncoderShape(num_layers=6, hidden_size=384, num_heads=12, intermediate_size=1536)
PRESET_SHAPES = {"small": _MINILM, "minilm": _MINILM}
"""The teacher a preset is counted for where none is given; BERT-base for the others."""


@dataclass(frozen=True)
class NasBertOptions:
    """Options of the space; the defaults are the paper's.

    Raises:
        SpaceError: a value is wrong, or two contradict each other; one line that begins with ``space.options.<key>``.

    Attributes:
        num_blocks: B, blocks of the supernet; the teacher's layers are divided evenly among them.
        layers_per_block: layers (sub-layers of a Transformer) a block can have at most.
        hidden_sizes: widths a block can have.
        head_size: width of an attention head, the same everywhere.
        operations: what a layer can be: ``M``, ``M<heads>`` (attention with fewer heads, offered at the hidden sizes
            where that is fewer than ``M`` has), ``F`` (inner size 4H), ``F1`` to ``F9`` (inner size as a multiple of
            H), ``S<odd kernel>``. Identity is always possible, as absence.
        embedding_sizes: widths the embeddings can have.
        separable_units: stacked units of a separable convolution (2 fits the paper's sizes, 1 its text).
        projections: which linear maps a stand-alone model has between parts. ``paper``: only where widths differ, and
            none at the end. ``supernet``: wherever the supernet's path has one, and one back to the teacher's width at
            the end, so that the model inherits the supernet's function exactly.
        dropout: dropout probability of every operation in training mode.
        shape: of the teacher, whose width is the supernet's interface and whose vocabulary the embeddings have.
        type_vocab_size: rows of the segment embedding; 0 for none, as in the paper.
    """

    num_blocks: int = field(default=4, metadata={"ge": 1})
    layers_per_block: int = field(default=6, metadata={"ge": 1})
    hidden_sizes: tuple[int, ...] = (128, 192, 256, 384, 512)
    head_size: int = field(default=64, metadata={"ge": 1})
    operations: tuple[str, ...] = ("M", "F", "S3", "S5", "S7")
    embedding_sizes: tuple[int, ...] = (64, 128, 256, 512)
    separable_units: Literal[1, 2] = 2
    projections: Literal["paper", "supernet"] = "paper"
    dropout: float = field(default=0.1, metadata={"ge": 0, "lt": 1})
    type_vocab_size: int = field(default=0, metadata={"ge": 0})
    shape: EncoderShape = field(default_factory=EncoderShape)

    def __post_init__(self) -> None:
        read_values(self)
        for name in ("hidden_sizes", "embedding_sizes", "operations"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise _problem(name, f"found {list(values)}, expected one or more different values")
        for size in self.hidden_sizes:
            if size < 1 or size % self.head_size:
                raise _problem("hidden_sizes", f"{size} is not a multiple of head_size {self.head_size}")
        for size in self.embedding_sizes:
            if size < 1:
                raise _problem("embedding_sizes", f"found {size}, expected a positive number")
        for operation in self.operations:
            if not (is_attention(operation) or is_feed_forward(operation) or is_separable(operation)):
                expected = "expected M, M with a number of heads, F, F1 to F9, or S with an odd kernel"
                raise _problem("operations", f"found '{operation}', {expected}")
        if {"F", "F4"} <= set(self.operations):
            raise _problem("operations", "F and F4 are the same operation; keep F")
        self._check_heads()

    def operations_at(self, hidden_size: int) -> tuple[str, ...]:
        """The operations of a hidden size: all but attention with more heads than fit it, or with as many as ``M``."""
        room = hidden_size // self.head_size - (1 if ATTENTION in self.operations else 0)
        return tuple(
            operation
            for operation in self.operations
            if operation == ATTENTION
            or not is_attention(operation)
            or attention_heads(operation, hidden_size, self.head_size) <= room
        )

    def _check_heads(self) -> None:
        """Refuse attention that no hidden size has room for, and hidden sizes that no operation is left for."""
        widest = max(self.hidden_sizes)
        for operation in self.operations:
            if operation not in self.operations_at(widest):
                heads = f"the widest hidden size, {widest}, has {widest // self.head_size} heads of {self.head_size}"
                raise _problem("operations", f"found {operation}, but {heads}; expected fewer, or M")
        for size in self.hidden_sizes:
            if not self.operations_at(size):
                raise _problem("hidden_sizes", f"no operation fits {size}; remove it or add M, F or a convolution")

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any], shape: EncoderShape | None = None) -> NasBertOptions:
        """Read a recipe's options: an optional ``preset``, overridden key by key, for a teacher of ``shape``.

        Without a shape it is the preset's.

        Raises:
            SpaceError: a key or value is wrong, or does not fit the teacher; one line for the first problem.
        """
        preset = options.get("preset", "paper")
        fallback = PRESET_SHAPES.get(preset, EncoderShape()) if isinstance(preset, str) else EncoderShape()
        return cls(**read_mapping(cls, options, PRESETS, "paper", shape or fallback))

    def check_teacher(self) -> None:
        """Make sure that the teacher of ``shape`` can be cut into ``num_blocks`` blocks and gives the embeddings.

        Raises:
            SpaceError: the number of blocks does not divide the teacher's layers, or the segment embedding is not the
                teacher's.
        """
        if self.type_vocab_size not in (0, self.shape.type_vocab_size):
            raise SpaceError(
                f"space.options.type_vocab_size: found {self.type_vocab_size}, but the teacher's segment embedding has "
                f"{self.shape.type_vocab_size} rows; set {self.shape.type_vocab_size}, or 0 for none"
            )
        if self.shape.num_layers % self.num_blocks:
            fitting = [str(n) for n in range(1, self.shape.num_layers + 1) if self.shape.num_layers % n == 0]
            raise SpaceError(
                f"space.options.num_blocks: found {self.num_blocks}, which does not divide the teacher's "
                f"{self.shape.num_layers} layers; expected one of {', '.join(fitting)}"
            )

    def check_inheritance(self) -> None:
        """Make sure that what a student inherits from the supernet is counted among its weights.

        Raises:
            SpaceError: it would keep linear maps that ``projections: paper`` does not count.
        """
        sizes = {*self.hidden_sizes, *self.embedding_sizes}
        if self.projections == "paper" and sizes != {self.shape.hidden_size}:
            raise SpaceError(
                "space.options.projections: found paper, but students that inherit from the supernet, or are extracted "
                "from the teacher, keep the supernet's linear maps; set projections: supernet, which counts them, or "
                "distillation.initialisation: scratch"
            )

    def check_start(self, init: str) -> None:
        """Make sure that a supernet of these options can start in the way ``init``.

        Raises:
            SpaceError: ``init`` is ``teacher``, and heads, widths or activation are not the teacher's to give.
        """
        if init != "teacher":
            return
        widest = max(self.hidden_sizes)
        check_gelu(self.shape.activation)
        if any(map(is_attention, self.operations)) and self.head_size != self.shape.head_size:
            raise SpaceError(
                f"space.options.head_size: found {self.head_size}, but init: teacher copies the teacher's heads, "
                f"which are {self.shape.head_size} wide; set head_size: {self.shape.head_size} or init: paper"
            )
        if widest > self.shape.hidden_size:
            raise SpaceError(
                f"space.options.hidden_sizes: found {widest}, but init: teacher cuts blocks out of the teacher, which "
                f"is {self.shape.hidden_size} wide; remove what is wider or set init: paper"
            )


def _problem(key: object, message: str) -> SpaceError:
    return SpaceError(f"space.options.{key}: {message}")
