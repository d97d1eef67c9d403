"""The latency table of a device: what every part of a space costs, and what a whole architecture should."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cluster.latency import LatencyMeasurement
from orchestrator.errors import UserError
from orchestrator.formatting import plural
from orchestrator.latency_table.conditions import LatencyConditions
from orchestrator.latency_table.marginals import Marginals
from orchestrator.latency_table.remainder import Remainder
from spaces.architecture import Architecture
from spaces.sampled_space import SampledSpace
from spaces.space import BlockwiseSpace, Part, SearchSpace

if TYPE_CHECKING:
    from spaces.sampling_distribution import ExpectedCost

FORMAT_VERSION = 1


@dataclass(frozen=True)
class TableOrigin:
    """Where a table comes from.

    Attributes:
        device_name: the processor or accelerator, as it names itself.
        conditions: batch, threads and the like.
        space_name: the registered space whose parts were measured.
        space_options: the options it was made with.
        shape: the teacher's shape, as the space got it.
        versions: of the packages that ran the forward passes.
    """

    device_name: str
    conditions: LatencyConditions
    space_name: str
    space_options: Mapping[str, Any]
    shape: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """The conditions in a few words."""
        given = self.conditions
        threads = f", {plural(given.threads, 'thread')}" if given.device == "cpu" else ""
        return f"batch {given.batch_size} × {given.sequence_length} tokens on {self.device_name}{threads}"


@dataclass(frozen=True)
class LatencyTable:
    """Additive latency: a network costs the sum of its parts (NAS-BERT, section 3.3), corrected by a fitted remainder.

    With the remainder and without it, the prediction of a network is ::

        constant_ms + the sum of part_ms over its parts
        == constant_ms + part_ms(embeddings) + link_ms(e, w1) + block_ms(b1) + link_ms(w1, w2) + ... + link_ms(wN, None)

    (see :class:`~spaces.space.BlockwiseSpace` for the terms). The order of layers within a network does not matter,
    identity layers are absent and cost nothing, and no operation costs less than nothing.

    A space that names no parts, but says what latency is a sum over, has a table of marginal prices instead (paper
    notes on Finding Fast Transformers, section 3.3); what this class says of single parts does not apply to it.

    Attributes:
        entries: what each part of the space was measured at.
        remainder: what whole networks cost besides.
        origin: device and conditions; ``None`` for a table that was not measured.
        marginals: prices fitted to whole networks, of a space without parts; ``None`` elsewhere.
    """

    entries: Mapping[Part, LatencyMeasurement]
    remainder: Remainder = field(default_factory=Remainder)
    origin: TableOrigin | None = None
    marginals: Marginals | None = None

    def predict_ms(self, space: SearchSpace[Any], architecture: Architecture, remainder: bool = True) -> float:
        """Milliseconds of one batch of the table's shape.

        Args:
            space: the architecture's.
            architecture: a member of the space.
            remainder: whether to add the fitted remainder, or only the measured parts; prices have none.

        Raises:
            UserError: it is a table of marginal prices, and the space names no terms that have any.
        """
        if self.marginals is not None:
            return self._cost_in(space).of(architecture)
        constant_ms = self.constant_ms if remainder else 0.0
        return constant_ms + self.parts_ms(space.parts_of(architecture), remainder)

    def known_ms(self, space: SearchSpace[Any], architecture: Architecture) -> float | None:
        """:meth:`predict_ms`; ``None`` where the table predicts nothing, as that of a space which names no parts."""
        return self.predict_ms(space, architecture) if self.predicts else None

    def objectives(self, space: SearchSpace[Any]) -> dict[str, Callable[[Any], float]]:
        """The cheap objective ``latency_ms`` of a space, for :class:`~orchestrator.objectives.CheapObjectives`.

        Empty where the table predicts nothing.
        """
        if self.marginals is not None:
            return {"latency_ms": self._cost_in(space).of}
        return {"latency_ms": lambda architecture: self.predict_ms(space, architecture)} if self.entries else {}

    def expected_cost(self, space: SearchSpace[Any]) -> ExpectedCost | None:
        """Predicted latencies in a form whose expectation over a distribution is known, to learn a distribution by.

        Args:
            space: the table's, or one narrowed from it.

        Returns:
            A cost called ``latency_ms``; ``None`` for a table without marginal prices.
        """
        return None if self.marginals is None else self._cost_in(space)

    def _cost_in(self, space: SearchSpace[Any]) -> ExpectedCost:
        assert self.marginals is not None
        if not isinstance(space, SampledSpace):
            raise UserError(
                f"latency table: found marginal prices, but the space '{space.name}' has no terms to price; build the "
                f"table of this space"
            )
        return self.marginals.cost(space)

    @property
    def predicts(self) -> bool:
        """Whether the table says anything of networks."""
        return bool(self.entries) or self.marginals is not None

    @property
    def constant_ms(self) -> float:
        """Milliseconds that each network costs once, whatever its parts."""
        return self.remainder.constant_ms

    def part_ms(self, part: Part, remainder: bool = True) -> float:
        """Milliseconds of one part within a network.

        Raises:
            UserError: the table does not know the part.
        """
        try:
            return self._parts_ms[remainder][part]
        except KeyError:
            raise UserError(
                f"latency table: no entry for {describe_part(part)}; build the table of this space"
            ) from None

    def parts_ms(self, parts: Iterable[Part], remainder: bool = True) -> float:
        """The sum of :meth:`part_ms` over some parts."""
        return sum((self.part_ms(part, remainder) for part in parts), start=0.0)

    def block_ms(self, space: BlockwiseSpace[Any], block: Any, remainder: bool = True) -> float:
        """Milliseconds of the operations of one block."""
        return self.parts_ms(space.parts_of_block(block), remainder)

    def blocks_ms(self, space: BlockwiseSpace[Any], remainder: bool = True) -> NDArray[np.float64]:
        """:meth:`block_ms` of every block architecture, in the order of ``space.enumerate_blocks()``."""
        parts, counts = space.block_part_counts()
        milliseconds = np.array([self.part_ms(part, remainder) for part in parts], dtype=np.float64)
        return counts.astype(np.float64) @ milliseconds

    def link_ms(
        self, space: BlockwiseSpace[Any], width_before: int, width_after: int | None, remainder: bool = True
    ) -> float:
        """Milliseconds of what stands between two neighbouring widths; ``None`` is the end of the network."""
        return self.parts_ms(space.link_parts(width_before, width_after), remainder)

    def embedding_ms(self, space: BlockwiseSpace[Any], embedding_size: int, remainder: bool = True) -> float:
        """Milliseconds of the embeddings of one size."""
        return self.parts_ms(space.embedding_parts(embedding_size), remainder)

    def with_remainder(self, remainder: Remainder) -> LatencyTable:
        """The same table with another remainder."""
        return replace(self, remainder=remainder)

    def to_json(self) -> dict[str, Any]:
        """Plain values that :meth:`from_json` reads back."""
        return {
            "format_version": FORMAT_VERSION,
            "origin": None if self.origin is None else asdict(self.origin),
            "remainder": self.remainder.to_json(),
            "entries": [{"part": asdict(part), "latency": asdict(entry)} for part, entry in self.entries.items()],
            "marginals": None if self.marginals is None else self.marginals.to_json(),
        }

    @classmethod
    def from_json(cls, value: Any) -> LatencyTable:
        """Read what :meth:`to_json` gave.

        Raises:
            UserError: it is damaged, or of another version.
        """
        try:
            found = value["format_version"]
            if found != FORMAT_VERSION:
                raise UserError(f"latency table: found format {found}, expected {FORMAT_VERSION}; build it again")
            origin, marginals = value["origin"], value.get("marginals")  # which older files do not have
            return cls(
                {Part(**row["part"]): _measurement(row["latency"]) for row in value["entries"]},
                Remainder.from_json(value["remainder"]),
                None
                if origin is None
                else TableOrigin(**{**origin, "conditions": LatencyConditions(**origin["conditions"])}),
                None if marginals is None else Marginals.from_json(marginals),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            problem = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"latency table: it is damaged or not one ({problem}); build it again") from error

    @cached_property
    def _parts_ms(self) -> dict[bool, dict[Part, float]]:
        """Milliseconds of each part, with the remainder and without."""
        plain = {part: entry.median_ms for part, entry in self.entries.items()}
        corrected = {part: self.remainder.part_ms(part, measured) for part, measured in plain.items()}
        return {True: corrected, False: plain}


def describe_part(part: Part) -> str:
    """A part as people call it: ``operation M at width 192``, ``projection from 128 to 192``."""
    if part.input_size is not None:
        return f"{part.name} from {part.input_size} to {part.size}"
    name = part.name if part.name == part.kind else f"{part.kind} {part.name}"
    return f"{name} at width {part.size}"


def _measurement(value: Mapping[str, Any]) -> LatencyMeasurement:
    measured = LatencyMeasurement(**value)
    if not 0 <= measured.median_ms < float("inf"):
        raise ValueError(f"median_ms: found {measured.median_ms}, expected a number of at least 0")
    return measured
