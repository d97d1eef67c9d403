"""A student while it is distilled: its model, and the linear maps that bring its states to the teacher's width.

Shape legend: B batch, T tokens, N positions, H width of a student's state, D hidden size of the teacher, V vocabulary.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertModel

from spaces.extraction import fit_linear, uniform_layers
from spaces.layer_states import LayerStates
from trainers.distillation_settings import ResolvedSettings
from trainers.layer_losses import check_heads, layer_map
from trainers.layer_recording import LayerRecording, run_layers
from trainers.students import encoder_of, predict_tokens
from trainers.teacher import Teacher

_LAYERS = "layers"
"""Name of the one map that all states share where every layer is compared."""


@dataclass(frozen=True)
class Outputs:
    """What a student says of a batch: states mapped to the teacher's width, predictions at the positions asked."""

    last_BTD: Tensor | None
    aligned: list[tuple[int, Tensor]]
    logits_NV: Tensor | None
    layers: LayerStates | None = None


class Learner(nn.Module):
    """A student's model with the linear maps that bring its states to the teacher's width, where they differ.

    The maps serve training only, and exist where states are compared. They start as the least-squares fit on one batch.
    A model that ends with such a map of its own says its states behind it, and gets none.

    Args:
        model: the student's, with or without a masked-LM head.
        alignment: pairs (index into the student's hidden states, layer of the teacher) of intermediate states.
        teacher: gives the targets, on the CPU.
        input_ids_BT: a batch that the maps are fitted on, int64.
        mask_BT: 1 for valid tokens.
        settings: how to train.

    Attributes:
        layers: the teacher's layers, from 1, that the blocks learn from; empty where layers are not compared.

    Raises:
        TrainingInputError: the model lacks what the objective compares.
    """

    def __init__(
        self,
        model: nn.Module,
        alignment: tuple[tuple[int, int], ...],
        teacher: Teacher,
        input_ids_BT: Tensor,
        mask_BT: Tensor,
        settings: ResolvedSettings,
    ) -> None:
        super().__init__()
        self.model = model
        self.compares_states = settings.compares_states
        self.compares_layers = settings.compares_layers
        self.alignment = alignment if settings.intermediate_weight else ()
        encoder: Any = encoder_of(model)
        if settings.predicts:
            predict_tokens(model, torch.zeros(1, encoder.config.hidden_size))  # a student without a head is told now
        if not settings.train_embeddings:
            encoder.embeddings.requires_grad_(False)
        self.probes = nn.ModuleDict()
        if self.compares_states:
            self._fit_probes(encoder, teacher, input_ids_BT, mask_BT)
        self.layers = self._match_layers(encoder, teacher, input_ids_BT, mask_BT) if self.compares_layers else ()

    @torch.no_grad()
    def _fit_probes(self, encoder: nn.Module, teacher: Teacher, input_ids_BT: Tensor, mask_BT: Tensor) -> None:
        last = -1
        pairs = [*self.alignment, (last, teacher.shape.num_layers)]
        hidden = encoder(input_ids=input_ids_BT, attention_mask=mask_BT, output_hidden_states=True).hidden_states
        targets = teacher.states(input_ids_BT, mask_BT, [layer for _, layer in pairs])
        visible_BT = mask_BT.to(torch.bool)
        for (index, _), target_BTD in zip(pairs, targets, strict=True):
            if hidden[index].shape[-1] != target_BTD.shape[-1]:
                probe = nn.Linear(hidden[index].shape[-1], target_BTD.shape[-1])
                fit_linear(probe, hidden[index][visible_BT], target_BTD[visible_BT])
                self.probes[self._name(index)] = probe

    @torch.no_grad()
    def _match_layers(
        self, encoder: nn.Module, teacher: Teacher, input_ids_BT: Tensor, mask_BT: Tensor
    ) -> tuple[int, ...]:
        """Find the teacher's layers to learn from, and fit the one map of all states where widths differ."""
        states = run_layers(encoder, input_ids_BT, mask_BT)
        layers = matching_layers(encoder, len(states.hidden_BTD), teacher.shape.num_layers)
        targets = teacher.layer_states(input_ids_BT, mask_BT, layers)
        check_heads(states.scores_BHTT[0].shape[1], targets.scores_BHTT[0].shape[1])
        widths = states.embeddings_BTD.shape[-1], targets.embeddings_BTD.shape[-1]
        if widths[0] != widths[1]:
            visible_BT = mask_BT.to(torch.bool)
            ours_NH, theirs_ND = (
                torch.cat([state[visible_BT] for state in (some.embeddings_BTD, *some.hidden_BTD)])
                for some in (states, targets)
            )
            self.probes[_LAYERS] = probe = nn.Linear(*widths)
            fit_linear(probe, ours_NH, theirs_ND)
        return layers

    @staticmethod
    def _name(index: int) -> str:
        return "last" if index == -1 else str(index)

    def _probe(self, index: int, state_BTH: Tensor) -> Tensor:
        name = self._name(index)
        probed: Tensor = self.probes[name](state_BTH) if name in self.probes else state_BTH
        return probed.float()

    def _mapped(self, states: LayerStates) -> LayerStates:
        """The states in the teacher's width, by the map that was fitted for them if there is one."""
        return map_states(states, self.probes[_LAYERS]) if _LAYERS in self.probes else states

    def forward(self, input_ids_BT: Tensor, mask_BT: Tensor, predicted_BT: Tensor | None = None) -> Outputs:
        """Encode a batch; states come back in the teacher's width, float32, predictions at ``predicted_BT``."""
        encoder = encoder_of(self.model)
        recording = LayerRecording(encoder) if self.compares_layers else None
        with recording or nullcontext():
            output = encoder(input_ids=input_ids_BT, attention_mask=mask_BT, output_hidden_states=self.compares_states)
        layers = None if recording is None else self._mapped(recording.states())
        logits_NV = None
        if predicted_BT is not None:
            logits_NV = predict_tokens(self.model, output.last_hidden_state[predicted_BT]).float()
        if not self.compares_states:
            last_BTD = None if layers is None else layers.hidden_BTD[-1].float()
            return Outputs(last_BTD, [], logits_NV, layers)
        aligned = [(layer, self._probe(index, output.hidden_states[index])) for index, layer in self.alignment]
        return Outputs(self._probe(-1, output.last_hidden_state), aligned, logits_NV, layers)


def matching_layers(encoder: nn.Module, student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """The teacher's layers, from 1, that a student's layers learn from.

    A BERT that was cut out of the teacher learns from the very layers it kept, whether or not they divide; for all
    others this is :func:`~trainers.layer_losses.layer_map`. Where both apply they are the same.
    """
    if isinstance(encoder, BertModel):
        return tuple(layer + 1 for layer in uniform_layers(teacher_layers, student_layers))
    return layer_map(student_layers, teacher_layers)


def map_states(states: LayerStates, linear: nn.Module) -> LayerStates:
    """Embeddings and hidden states through one linear map."""
    return LayerStates(
        linear(states.embeddings_BTD), tuple(linear(state) for state in states.hidden_BTD), states.scores_BHTT
    )
