"""NAS-BERT's block-wise supernet (section 3.2): student blocks that stand in for the teacher's, with shared weights.

Shape legend: B batch, T tokens, D hidden size of the teacher (the interface of every block), E embedding size.

Each block maps the teacher's hidden state at its input to the one at its output. Within a block there is one module
for every (layer, hidden size, operation), shared by all paths that use it, and one pair of linear maps for every
hidden size, between the teacher's width and the block's. At the teacher's own width the pair is the identity, so that
the teacher's block itself is a path.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from spaces.extraction import TeacherImportance
from spaces.model_parts.embeddings import SummedEmbeddings
from spaces.nas_bert.architecture import BlockArchitecture, NasBertArchitecture
from spaces.nas_bert.modeling import NasBertModel
from spaces.nas_bert.operations import build_operation, initialise_like_the_paper
from spaces.nas_bert.options import NasBertOptions
from spaces.nas_bert.stand_alone import configuration_of
from spaces.supernet import BlockwiseSupernet

if TYPE_CHECKING:
    from spaces.nas_bert.space import NasBertSpace


def projection(input_size: int, output_size: int, interface_size: int) -> nn.Module:
    """A linear map, or the identity where both widths are the teacher's."""
    if input_size == output_size == interface_size:
        return nn.Identity()
    return nn.Linear(input_size, output_size)


class SupernetBlock(nn.Module):
    """All paths of one block.

    Args:
        options: of the space.
    """

    def __init__(self, options: NasBertOptions) -> None:
        super().__init__()
        width = options.shape.hidden_size
        self.entries = nn.ModuleDict({str(size): projection(width, size, width) for size in options.hidden_sizes})
        self.exits = nn.ModuleDict({str(size): projection(size, width, width) for size in options.hidden_sizes})
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    operation_key(size, operation): build_operation(
                        operation,
                        size,
                        head_size=options.head_size,
                        separable_units=options.separable_units,
                        dropout=options.dropout,
                        layer_norm_eps=options.shape.layer_norm_eps,
                    )
                    for size in options.hidden_sizes
                    for operation in options.operations_at(size)
                }
            )
            for _ in range(options.layers_per_block)
        )

    def operation(self, layer: int, hidden_size: int, operation: str) -> nn.Module:
        """The shared module of an operation at a layer (from 0) and hidden size."""
        operations = self.layers[layer]
        assert isinstance(operations, nn.ModuleDict)
        return operations[operation_key(hidden_size, operation)]

    def entry(self, hidden_size: int) -> nn.Module:
        """The map from the teacher's width to a hidden size."""
        return self.entries[str(hidden_size)]

    def exit(self, hidden_size: int) -> nn.Module:
        """The map from a hidden size to the teacher's width."""
        return self.exits[str(hidden_size)]


class NasBertSupernet(BlockwiseSupernet[NasBertArchitecture]):
    """The supernet: embeddings of every size, and blocks.

    Args:
        space: the space whose architectures are its paths.
    """

    def __init__(self, space: NasBertSpace) -> None:
        super().__init__()
        self.space = space
        options = space.options
        self.num_blocks = options.num_blocks
        shape = options.shape
        self.embeddings = nn.ModuleDict(
            {
                str(size): SummedEmbeddings(
                    size,
                    shape.vocab_size,
                    shape.max_positions,
                    options.type_vocab_size,
                    shape.pad_token_id,
                    options.dropout,
                    shape.layer_norm_eps,
                )
                for size in options.embedding_sizes
            }
        )
        self.embedding_exits = nn.ModuleDict(
            {str(size): projection(size, shape.hidden_size, shape.hidden_size) for size in options.embedding_sizes}
        )
        self.blocks = nn.ModuleList(SupernetBlock(options) for _ in range(options.num_blocks))
        initialise_like_the_paper(self)

    def block(self, index: int) -> SupernetBlock:
        """Block ``index``, counted from 0."""
        block = self.blocks[index]
        assert isinstance(block, SupernetBlock)
        return block

    def block_module(self, index: int) -> nn.Module:
        """The weights of block ``index``."""
        return self.block(index)

    def embedding_modules(self) -> dict[int, nn.Module]:
        """Embeddings of other widths than the teacher's, with their map to its width; its own stay frozen."""
        width = self.space.options.shape.hidden_size
        return {
            size: nn.ModuleList([self.embeddings[str(size)], self.embedding_exits[str(size)]])
            for size in self.space.options.embedding_sizes
            if size != width
        }

    def start(
        self,
        teacher: Any,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor,
        init: str,
        importance: TeacherImportance | None = None,
    ) -> None:
        """Start at the teacher, or as the paper does but for the teacher's embeddings; see the base class."""
        from spaces.nas_bert.teacher_start import start_at_teacher, start_embeddings

        training = self.training
        self.eval()  # linear maps are fitted to what the embeddings say, not to their dropout
        if init == "teacher":
            start_at_teacher(self, teacher, input_ids_BT, attention_mask_BT, importance)
        else:
            start_embeddings(self, teacher, input_ids_BT, attention_mask_BT)
        self.train(training)

    def split(self, architecture: NasBertArchitecture) -> tuple[int, tuple[BlockArchitecture, ...]]:
        """The embedding size and the block architectures."""
        return architecture.embedding_size, architecture.blocks

    def embed(self, embedding_size: int, input_ids_BT: Tensor) -> Tensor:
        """The student's embeddings of one size, mapped to the teacher's width (``hidden_BTD``)."""
        key = str(embedding_size)
        hidden_BTD: Tensor = self.embedding_exits[key](self.embeddings[key](input_ids_BT))
        return hidden_BTD

    def block_steps(self, block: BlockArchitecture) -> tuple[Hashable, ...]:
        """The hidden size, then the operations."""
        return block.hidden_size, *((block.hidden_size, operation) for operation in block.operations)

    def run_step(self, index: int, position: int, key: Hashable, state: Tensor, mask_BT: Tensor) -> Tensor:
        """The entry of a hidden size, or the operation of a layer."""
        block = self.block(index)
        if position == 0:
            return block.entry(cast(int, key))(state)
        hidden_size, operation = cast(tuple[int, str], key)
        return block.operation(position - 1, hidden_size, operation)(state, mask_BT)

    def leave(self, index: int, entry: Hashable, state: Tensor) -> Tensor:
        """The exit of a hidden size."""
        return self.block(index).exit(cast(int, entry))(state)

    def leave_map(self, index: int, entry: Hashable) -> tuple[Tensor, Tensor] | None:
        """The exit's weight and bias; none at the teacher's own width."""
        leaving = self.block(index).exit(cast(int, entry))
        return (leaving.weight, leaving.bias) if isinstance(leaving, nn.Linear) else None

    def extract(self, architecture: NasBertArchitecture) -> NasBertModel:
        """The stand-alone model of a path, whose linear maps are the products of the supernet's."""
        options = dataclasses.replace(self.space.options, projections="supernet")
        model = NasBertModel(configuration_of(architecture, options))
        with torch.no_grad():
            key = str(architecture.embedding_size)
            model.embeddings.load_state_dict(self.embeddings[key].state_dict())
            leaving = self.embedding_exits[key]
            for index, architecture_block in enumerate(architecture.blocks):
                shared, size = self.block(index), str(architecture_block.hidden_size)
                _compose(leaving, shared.entries[size], into=model.projections[index])
                leaving = shared.exits[size]
                operations = model.blocks[index]
                assert isinstance(operations, nn.ModuleList)
                for layer, operation in enumerate(architecture_block.operations):
                    source = shared.operation(layer, architecture_block.hidden_size, operation)
                    operations[layer].load_state_dict(source.state_dict())
            _compose(leaving, nn.Identity(), into=model.projections[-1])
        return model.train(self.training)


def operation_key(hidden_size: int, operation: str) -> str:
    """The name of an operation's module within a layer of the supernet, such as ``192_S3``."""
    return f"{hidden_size}_{operation}"


def _compose(first: nn.Module, second: nn.Module, *, into: nn.Module) -> None:
    """Set ``into`` to ``second(first(x))``; either may be the identity, and so must ``into`` if both are."""
    if not isinstance(into, nn.Linear):
        return
    linear = [module for module in (first, second) if isinstance(module, nn.Linear)]
    weight, bias = linear[0].weight.double(), linear[0].bias.double()
    for module in linear[1:]:
        weight, bias = module.weight.double() @ weight, module.weight.double() @ bias + module.bias.double()
    into.weight.copy_(weight)
    into.bias.copy_(bias)
