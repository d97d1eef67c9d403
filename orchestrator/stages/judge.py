"""Judging stand-alone models against the teacher on held-out text that no search has seen.

Shape legend: B batch, T tokens, H width of a model's states, D hidden size of the teacher.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orchestrator.recipe import Recipe
from orchestrator.stages.base import RunContext
from spaces.extraction import fit_linear
from trainers.corpus import PackedCorpus
from trainers.fidelity import Encode, Fidelity, Judgement, measure_fidelity
from trainers.teacher import Teacher

JUDGED_HALF = (1, 2)
"""Rows of the held-out text that finished models are judged on: the odd ones, since searches score on the even ones."""

TRIAL_QUARTER, FINAL_QUARTER = (1, 4), (3, 4)
"""The odd rows in two, where finalists are tried: what chooses a winner must not judge it as well."""


def judging_share(recipe: Recipe) -> tuple[int, int]:
    """The rows of the held-out text that finished models are judged on; nothing was chosen by them."""
    return FINAL_QUARTER if recipe.selection.finalists > 1 else JUDGED_HALF


class Judge:
    """Compares models with the teacher on some of the held-out text.

    Args:
        context: of the stage.
        teacher: what they are compared with.
        share: the rows of the held-out text, as :meth:`~trainers.corpus.PackedCorpus.even_batches` takes them.
    """

    def __init__(self, context: RunContext, teacher: Teacher, share: tuple[int, int]) -> None:
        self.context = context
        self.teacher = teacher
        settings = context.recipe.evaluation
        batches = -(-settings.sequences // settings.batch_size)
        held_out = PackedCorpus(context.folder.validation).even_batches(batches, settings.batch_size, share)
        self.judgement = Judgement.of_teacher(encoder(teacher.model), held_out)

    def fidelity(self, model: nn.Module) -> Fidelity:
        """How faithful a model is; one of another width gets the least-squares map to the teacher's."""
        return measure_fidelity(self._in_teachers_width(model), self.judgement)

    @torch.no_grad()
    def _in_teachers_width(self, model: nn.Module) -> Encode:
        encode = encoder(model)
        corpus = PackedCorpus(self.context.folder.corpus)
        rows = corpus.even_batches(1, self.context.recipe.distillation.batch_size)[0]
        state_BTH = encode(*rows)
        target_BTD = encoder(self.teacher.model)(*rows)
        if state_BTH.shape[-1] == target_BTD.shape[-1]:
            return encode
        visible_BT = rows[1].to(torch.bool)
        linear = nn.Linear(state_BTH.shape[-1], target_BTD.shape[-1])
        fit_linear(linear, state_BTH[visible_BT], target_BTD[visible_BT])
        return lambda input_ids_BT, mask_BT: linear(encode(input_ids_BT, mask_BT))


def encoder(model: nn.Module) -> Encode:
    """What a Hugging Face encoder makes of token ids: its last hidden state."""

    def encode(input_ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        hidden_BTD: Tensor = model(input_ids=input_ids_BT, attention_mask=mask_BT).last_hidden_state
        return hidden_BTD

    return encode
