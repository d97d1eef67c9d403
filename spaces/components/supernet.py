"""The supermodel: a BERT that holds its weights as components, and runs any composition of them.

Shape legend: B batch, T tokens, D hidden size.

Its weights are a BERT's, tensor for tensor. A path takes rows and columns of them at run time, stage by stage, and
``extract`` copies the same rows and columns into dense blocks. With real-valued genes each component runs by itself and
the operator Psi puts them together, smoothly in every gene; with zeros and ones that is the path again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from spaces.components.anchors import whole
from spaces.components.architecture import ComponentsArchitecture
from spaces.components.blocks import affine_of
from spaces.components.gates import Gates
from spaces.components.gene_weights import GeneWeights
from spaces.components.modeling import ComponentsModel
from spaces.components.options import ComponentsOptions
from spaces.components.shared_sublayers import SharedAttention, SharedFeedForward, SharedSublayer
from spaces.components.stand_alone import Block, blocks_of, configuration_of
from spaces.components.starting import check_teacher, is_stand_alone, student_architecture
from spaces.model_parts.embeddings import SummedEmbeddings
from spaces.model_parts.initialisation import initialise
from spaces.sampling_distribution import SampledSupernet

_EMBEDDINGS = {
    "token": "word_embeddings",
    "position": "position_embeddings",
    "segment": "token_type_embeddings",
    "norm": "LayerNorm",
}
_ATTENTION = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "norm": "attention.output.LayerNorm",
}
_FEED_FORWARD = {"inner": "intermediate.dense", "output": "output.dense", "norm": "output.LayerNorm"}
"""Where a BERT has what the supermodel has, by name."""

Runnable = ComponentsArchitecture | Gates | GeneWeights
"""What the supermodel runs."""


class ComponentsSupernet(SampledSupernet[ComponentsArchitecture]):
    """The supermodel. Its random start is N(0, 0.02) without biases, as a stand-alone model's is.

    Args:
        options: of the space whose architectures are its paths.
    """

    def __init__(self, options: ComponentsOptions) -> None:
        super().__init__()
        self.options = options
        self.embeddings = SummedEmbeddings.of_config(configuration_of(whole(options), options))
        self.attentions = nn.ModuleList(SharedAttention(options, kind) for kind in options.sublayers[::2])
        self.feed_forwards = nn.ModuleList(SharedFeedForward(options, kind) for kind in options.sublayers[1::2])
        initialise(self)

    def sublayer(self, number: int) -> SharedSublayer:
        """A sublayer by its number from 0: twice its layer's, and one more for a feed-forward."""
        found = (self.feed_forwards if number % 2 else self.attentions)[number // 2]
        assert isinstance(found, SharedSublayer)
        return found

    def forward(
        self,
        architecture: Runnable,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor,
        token_type_ids_BT: Tensor | None = None,
    ) -> Tensor:
        """Run one architecture, or all components with genes that have gradients.

        Args:
            architecture: a member of the space, alone or with gates, or genes as real numbers.
            input_ids_BT: int64 token ids.
            attention_mask_BT: 1 for valid tokens, 0 for padding; any integer or bool dtype.
            token_type_ids_BT: segments; 0 by default, ignored where the teacher has no segment embedding.

        Returns:
            The last hidden state, ``hidden_BTD``.
        """
        for hidden_BTD in self._states(architecture, input_ids_BT, attention_mask_BT, token_type_ids_BT):
            last_BTD = hidden_BTD
        return last_BTD

    def hidden_states(
        self,
        architecture: Runnable,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor,
        token_type_ids_BT: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The embeddings' output and the state after every layer, those that have vanished included.

        Arguments are those of :meth:`forward`. They compare with a teacher's hidden states one by one.
        """
        return tuple(self._states(architecture, input_ids_BT, attention_mask_BT, token_type_ids_BT))

    def _states(
        self,
        architecture: Runnable,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor,
        token_type_ids_BT: Tensor | None,
    ) -> Iterator[Tensor]:
        mask_BT = attention_mask_BT.bool()
        hidden_BTD = self.embeddings(input_ids_BT, token_type_ids_BT)
        yield hidden_BTD
        for number in range(2 * self.options.shape.num_layers):
            shared, layer = self.sublayer(number), number // 2
            if isinstance(architecture, GeneWeights):
                genes = architecture.halves[number % 2].of_layer(layer)
                hidden_BTD = shared.run_weighted(hidden_BTD, mask_BT, genes)
            elif isinstance(architecture, Gates):
                gates = architecture.weights.halves[number % 2].of_layer(layer)
                hidden_BTD = shared.run_gated(hidden_BTD, mask_BT, gates, architecture.plan(number))
            else:
                hidden_BTD = shared.run(hidden_BTD, mask_BT, architecture.layers[layer].sublayers[number % 2])
            if number % 2:
                yield hidden_BTD

    def largest(self) -> ComponentsArchitecture:
        """The teacher's own form, or what the space lies within, which uses all weights but for what is fixed."""
        return whole(self.options)

    @torch.no_grad()
    def start(self, teacher: Any) -> None:
        """Take over a model's weights: all components as :meth:`largest` has them then *are* that model.

        Args:
            teacher: a Hugging Face BERT encoder, or a :class:`ComponentsModel`: an already distilled student that the
                space lies within. Weights that a student does not have stay as they are.

        Raises:
            SpaceError: it has other sizes than the space was made for, or the space does not lie within the student.
        """
        if is_stand_alone(teacher.config):
            self._unfold(teacher)
            return
        check_teacher(teacher.config, self.options)
        _copy(teacher.embeddings, self.embeddings, _EMBEDDINGS)
        for layer, theirs in enumerate(teacher.encoder.layer):
            _copy(theirs, self.attentions[layer], _ATTENTION)
            _copy(theirs, self.feed_forwards[layer], _FEED_FORWARD)

    def _unfold(self, student: Any) -> None:
        """The inverse of :meth:`extract`."""
        architecture = student_architecture(student.config, self.options)
        self.embeddings.load_state_dict(student.embeddings.state_dict())
        for block, module in zip(blocks_of(architecture), student.blocks, strict=True):
            shared = self.sublayer(block.sublayer)
            linears = (getattr(module, name) for name in shared.map_names)
            maps = tuple(None if linear is None else affine_of(linear) for linear in linears)
            shared.put(block.components, block.choice.query_key, maps)
            if block.is_last:
                shared.norm.load_state_dict(module.norm.state_dict())

    @torch.no_grad()
    def extract(self, architecture: ComponentsArchitecture) -> ComponentsModel:
        """The stand-alone model of a path: a dense block for each stage, with nothing of what is dropped."""
        model = ComponentsModel(configuration_of(architecture, self.options))
        model.embeddings.load_state_dict(self.embeddings.state_dict())
        for block, module in zip(blocks_of(architecture), model.blocks, strict=True):
            self._fold(block, module)
        return model.train(self.training)

    def _fold(self, block: Block, module: Any) -> None:
        """Copy what one stage has into its dense block."""
        shared = self.sublayer(block.sublayer)
        maps = shared.maps(block.components, block.choice.query_key, with_bias=block.is_first)
        for name, affine in zip(shared.map_names, maps, strict=True):
            linear = getattr(module, name)
            if affine is not None:
                weight, bias = affine
                linear.weight.copy_(weight)
                if bias is not None:
                    linear.bias.copy_(bias)
        if block.is_last:
            module.norm.load_state_dict(shared.norm.state_dict())


def _copy(source: Any, target: nn.Module, places: dict[str, str]) -> None:
    """Copy weights of submodules by their names in both; what the target has not is passed over."""
    for name, place in places.items():
        mine = getattr(target, name)
        if mine is not None:
            mine.load_state_dict(source.get_submodule(place).state_dict())
