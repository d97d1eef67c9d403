"""Reads the states of all layers out of a model's ordinary forward passes, whatever head is on top of it.

Shape legend: B batch, T tokens, H attention heads, d size of a head, W width of all heads.

Hugging Face's fast attention never shows its scores, and its slow one only after the softmax. So queries and keys are
noted on their way, and multiplied once more: a small product beside what a pass costs. Nothing of the pass changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spaces.layer_states import LayerStates
from trainers.errors import TrainingInputError

PADDED_KEY = -10_000.0
"""What is added to the scores of padded keys."""


class LayerRecording:
    """Notes the layers of an encoder in the passes that are made while it is open, as a context manager.

    The encoder's attention has linear maps called ``query`` and ``key``, one pair a layer; the encoder takes
    ``attention_mask`` and ``output_hidden_states`` as Hugging Face's do. BERT does, and so do the students of
    layer-wise supernets.

    Args:
        encoder: the model without its head.
        layers: whose states are wanted, numbered from 1; ``None``: all.

    Raises:
        TrainingInputError: the encoder has no such attention.
    """

    def __init__(self, encoder: nn.Module, layers: Sequence[int] | None = None) -> None:
        self.encoder = encoder
        config: Any = encoder.config
        attentions, heads = _attentions(encoder), getattr(config, "num_attention_heads", None)
        if not attentions or heads is None:
            raise TrainingInputError(_lacks_attention(encoder))
        self._heads, self._depth = int(heads), len(attentions)
        self.layers = tuple(layers if layers is not None else range(1, len(attentions) + 1))
        self._attentions = {layer: attentions[layer - 1] for layer in self.layers}
        self._handles: list[RemovableHandle] = []
        self._queries: dict[int, Tensor] = {}
        self._keys: dict[int, Tensor] = {}
        self._hidden: Sequence[Tensor] = ()
        self._mask_BT: Tensor | None = None

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._handles = [
            self.encoder.register_forward_pre_hook(self._ask_for_states, with_kwargs=True),
            self.encoder.register_forward_hook(self._note_states),
        ]
        for layer, attention in self._attentions.items():
            self._handles += [
                attention.query.register_forward_hook(_noting(self._queries, layer)),
                attention.key.register_forward_hook(_noting(self._keys, layer)),
            ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def states(self) -> LayerStates:
        """The states of the last pass, as wide as the encoder's output; they are forgotten here.

        Raises:
            TrainingInputError: the encoder has not one attention in each of its layers.
        """
        assert self._mask_BT is not None, "no pass was made, or none with an attention mask"
        if len(self._hidden) != self._depth + 1:
            raise TrainingInputError(_lacks_attention(self.encoder))
        hidden, mask_BT = self._hidden, self._mask_BT
        padded_B11T = (1.0 - mask_BT.to(torch.float32))[:, None, None, :] * PADDED_KEY
        scores = tuple(self._scores(layer) + padded_B11T for layer in self.layers)
        found = LayerStates(hidden[0], tuple(hidden[layer] for layer in self.layers), scores)
        self._hidden, self._mask_BT = (), None
        self._queries.clear()
        self._keys.clear()
        return found

    def _scores(self, layer: int) -> Tensor:
        query_BHTd, key_BHTd = (self._by_head(noted[layer]) for noted in (self._queries, self._keys))
        scores_BHTT: Tensor = query_BHTd @ key_BHTd.transpose(2, 3) * query_BHTd.shape[-1] ** -0.5
        return scores_BHTT

    def _by_head(self, projected_BTW: Tensor) -> Tensor:
        batch, tokens, _ = projected_BTW.shape
        return projected_BTW.view(batch, tokens, self._heads, -1).transpose(1, 2)

    def _ask_for_states(
        self, _: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self._mask_BT = options.get("attention_mask", inputs[1] if len(inputs) > 1 else None)
        return inputs, {**options, "output_hidden_states": True}

    def _note_states(self, _: nn.Module, __: Any, output: Any) -> None:
        self._hidden = output.hidden_states


def _lacks_attention(encoder: nn.Module) -> str:
    return (
        f"distillation.objective: found layer_states, but a student of type {type(encoder).__name__} has not one "
        f"attention in each of its layers; use hidden_states or masked_lm"
    )


def _attentions(encoder: nn.Module) -> list[Any]:
    """The modules with the linear maps to queries and keys, from the first layer to the last."""
    return [
        module
        for module in encoder.modules()
        if all(isinstance(getattr(module, name, None), nn.Linear) for name in ("query", "key"))
    ]


def _noting(notes: dict[int, Tensor], layer: int) -> Any:
    def note(_: nn.Module, __: Any, output: Tensor) -> None:
        notes[layer] = output

    return note


def run_layers(
    encoder: nn.Module, input_ids_BT: Tensor, attention_mask_BT: Tensor, layers: Sequence[int] | None = None
) -> LayerStates:
    """Run an encoder once and return the states of its layers, as wide as its output.

    Args:
        encoder: as :class:`LayerRecording` takes it.
        input_ids_BT: int64 token ids.
        attention_mask_BT: 1 for valid tokens.
        layers: whose states are wanted, numbered from 1; ``None``: all.
    """
    with LayerRecording(encoder, layers) as recording:
        encoder(input_ids=input_ids_BT, attention_mask=attention_mask_BT)
    return recording.states()
