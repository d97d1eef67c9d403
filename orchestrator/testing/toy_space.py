"""A tiny search space with a loss that is additive over layers, so that searches can be tested in milliseconds."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spaces.architecture import Architecture
from spaces.errors import ArchitectureSyntaxError, SpaceError
from spaces.space import Cost, Decision, FlopsRule, SearchSpace
from spaces.supernet import Supernet

OPERATIONS = {"L": 1, "W": 2, "H": 4}
"""An operation's letter, and how many times the width its hidden layer has."""

VOCABULARY = 16


@dataclass(frozen=True)
class ToyArchitecture(Architecture):
    """A width and one operation a layer, written ``8:L-W-H``."""

    width: int
    operations: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.width}:{'-'.join(self.operations)}"


class ToySpace(SearchSpace[ToyArchitecture]):
    """Stacks of 1 to ``layers`` residual two-layer perceptrons of one width, behind an embedding.

    Args:
        layers: the largest depth.
        widths: the widths to choose from.
    """

    name = "toy"

    def __init__(self, layers: int = 6, widths: Sequence[int] = (4, 8, 12, 16)) -> None:
        self.layers = layers
        self.widths = tuple(widths)

    def sample(self, rng: random.Random) -> ToyArchitecture:
        """Width, depth and operations, each uniformly."""
        depth = rng.randint(1, self.layers)
        return ToyArchitecture(rng.choice(self.widths), tuple(rng.choices(list(OPERATIONS), k=depth)))

    def mutate(self, architecture: ToyArchitecture, rng: random.Random) -> ToyArchitecture:
        """Change the width or one operation, or add or remove a layer."""
        operations = architecture.operations
        neighbours = [ToyArchitecture(width, operations) for width in self.widths if width != architecture.width]
        for index in range(len(operations)):
            before, after = operations[:index], operations[index + 1 :]
            neighbours += [
                ToyArchitecture(architecture.width, (*before, operation, *after))
                for operation in OPERATIONS
                if operation != operations[index]
            ]
        if len(operations) > 1:
            neighbours.append(ToyArchitecture(architecture.width, operations[:-1]))
        if len(operations) < self.layers:
            neighbours += [ToyArchitecture(architecture.width, (*operations, operation)) for operation in OPERATIONS]
        return rng.choice(neighbours)

    def crossover(self, first: ToyArchitecture, second: ToyArchitecture, rng: random.Random) -> ToyArchitecture:
        """The width of one parent, the first layers of one and the last of the other."""
        cut = rng.randint(0, min(len(first.operations), len(second.operations)))
        width = rng.choice((first.width, second.width))
        return ToyArchitecture(width, first.operations[:cut] + second.operations[cut:])

    def contains(self, architecture: Architecture) -> bool:
        """Whether width and depth are this space's."""
        return (
            isinstance(architecture, ToyArchitecture)
            and architecture.width in self.widths
            and 1 <= len(architecture.operations) <= self.layers
            and all(operation in OPERATIONS for operation in architecture.operations)
        )

    def parse(self, text: str) -> ToyArchitecture:
        """Read ``width:operations``."""
        match = re.fullmatch(r"(\d+):([A-Z](?:-[A-Z])*)", text)
        if match is None:
            raise ArchitectureSyntaxError(f"{text!r} is not a toy architecture, expected a text such as 8:L-W-H")
        architecture = ToyArchitecture(int(match[1]), tuple(match[2].split("-")))
        if not self.contains(architecture):
            raise SpaceError(f"{text!r} lies outside the toy space with widths {self.widths} and {self.layers} layers")
        return architecture

    def cardinality(self) -> int:
        """Widths times the sum of 3^depth."""
        stacks: int = (3 ** (self.layers + 1) - 3) // 2
        return len(self.widths) * stacks

    def smallest(self) -> ToyArchitecture:
        """One layer of the least width with the operation that has the smallest factor."""
        return ToyArchitecture(min(self.widths), (min(OPERATIONS, key=lambda name: OPERATIONS[name]),))

    def encode(self, architecture: ToyArchitecture) -> NDArray[np.float64]:
        """The width, then each layer's factor, 0 where there is none."""
        factors = [OPERATIONS[operation] for operation in architecture.operations]
        return np.array([architecture.width, *factors] + [0] * (self.layers - len(factors)), dtype=np.float64)

    def genes(self, architecture: ToyArchitecture) -> dict[str, Any]:
        """Width, depth, and how often each operation occurs."""
        counts = {operation: architecture.operations.count(operation) for operation in OPERATIONS}
        return {"width": architecture.width, "depth": len(architecture.operations), **counts}

    def decisions(self) -> Sequence[Decision]:
        """Width, depth, and the operation of each layer that the depth makes exist."""
        operations = [
            Decision(f"operation_{index}", tuple(OPERATIONS), partial(_layer_exists, index))
            for index in range(self.layers)
        ]
        depths = tuple(str(depth) for depth in range(1, self.layers + 1))
        return [Decision("width", tuple(map(str, self.widths))), Decision("depth", depths), *operations]

    def from_decisions(self, chosen: Mapping[str, str]) -> ToyArchitecture:
        """Put the choices together."""
        operations = tuple(chosen[f"operation_{index}"] for index in range(int(chosen["depth"])))
        return ToyArchitecture(int(chosen["width"]), operations)

    def to_decisions(self, architecture: ToyArchitecture) -> dict[str, str]:
        """Take the choices apart."""
        operations = {f"operation_{index}": operation for index, operation in enumerate(architecture.operations)}
        return {"width": str(architecture.width), "depth": str(len(architecture.operations)), **operations}

    def cost(
        self, architecture: ToyArchitecture, sequence_length: int = 128, flops_rule: FlopsRule = "encoder"
    ) -> Cost:
        """Weights and biases of every layer; two operations a multiply-add."""
        width = architecture.width
        hidden_sizes = [width * OPERATIONS[operation] for operation in architecture.operations]
        encoder = sum(2 * width * hidden + hidden + width for hidden in hidden_sizes)
        embedding = 2 * VOCABULARY * width if flops_rule == "electra" else 0
        flops = (embedding + sum(4 * width * hidden for hidden in hidden_sizes)) * sequence_length
        return Cost(encoder + VOCABULARY * width, encoder, flops)

    def build(self, architecture: ToyArchitecture) -> nn.Module:
        """Embedding and residual layers."""
        layers = [_Layer(architecture.width, OPERATIONS[operation]) for operation in architecture.operations]
        return nn.Sequential(nn.Embedding(VOCABULARY, architecture.width), *layers)

    def supernet(self) -> ToySupernet:
        """One set of layers for each width."""
        return ToySupernet(self)


def toy_loss(architecture: ToyArchitecture) -> float:
    """A loss between 0 and about 2: a sum over layers, whose best operation differs from layer to layer."""
    letters = list(OPERATIONS)
    mismatch = sum(
        abs(letters.index(operation) - (2 * index) % len(letters))
        for index, operation in enumerate(architecture.operations)
    )
    return 1.0 / len(architecture.operations) + 0.1 * mismatch + 1.0 / architecture.width


class ToySupernet(Supernet[ToyArchitecture]):
    """Every layer of every width with every operation."""

    def __init__(self, space: ToySpace) -> None:
        super().__init__()
        self._space = space
        self.embeddings = nn.ModuleDict({str(width): nn.Embedding(VOCABULARY, width) for width in space.widths})
        self.layers = nn.ModuleDict(
            {
                f"{width}_{index}_{operation}": _Layer(width, factor)
                for width in space.widths
                for index in range(space.layers)
                for operation, factor in OPERATIONS.items()
            }
        )

    def forward(self, architecture: ToyArchitecture, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """Embed, then run the architecture's layers; the mask plays no role in layers that see one token each."""
        hidden: Tensor = self.embeddings[str(architecture.width)](input_ids_BT)
        for layer in self._path(architecture):
            hidden = layer(hidden)
        return hidden

    def extract(self, architecture: ToyArchitecture) -> nn.Module:
        """A stand-alone model with copies of the path's weights."""
        model = self._space.build(architecture)
        parts = [self.embeddings[str(architecture.width)], *self._path(architecture)]
        model.load_state_dict(nn.Sequential(*parts).state_dict())
        return model

    def _path(self, architecture: ToyArchitecture) -> list[nn.Module]:
        return [
            self.layers[f"{architecture.width}_{index}_{operation}"]
            for index, operation in enumerate(architecture.operations)
        ]


class _Layer(nn.Module):
    """A residual two-layer perceptron."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, factor * width)
        self.outer = nn.Linear(factor * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = hidden + self.outer(torch.relu(self.inner(hidden)))
        return result


def _layer_exists(index: int, chosen: Mapping[str, str]) -> bool:
    return index < int(chosen["depth"])
