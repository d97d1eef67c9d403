"""Judging masked-LM heads on the held-out text that models are judged on.

Shape legend: B batch, T tokens, N masked positions, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from orchestrator.stages.base import RunContext
from orchestrator.stages.judge import Judge
from trainers.masking import Masking
from trainers.prediction import Predict, Prediction, mask_batches, measure_prediction
from trainers.students import encoder_of, has_masked_lm_head, load_whole_student, predict_tokens
from trainers.teacher import Teacher


class PredictionJudge:
    """Has every model predict the same masked tokens.

    Args:
        context: of the stage.
        judge: whose text it takes.
        teacher: its tokenizer says what can be masked.
    """

    def __init__(self, context: RunContext, judge: Judge, teacher: Teacher) -> None:
        masking = Masking.of_tokenizer(teacher.tokenizer, context.recipe.distillation.mask_probability)
        text = [(input_ids_BT, mask_BT) for input_ids_BT, mask_BT, _ in judge.judgement.batches]
        self.batches = mask_batches(text, masking, context.recipe.seed)

    def of_teacher(self, teacher: Teacher) -> Prediction | None:
        """What the teacher's head predicts; ``None`` if it has none."""
        head = teacher.masked_lm_head
        return None if head is None else measure_prediction(_predict(teacher.model, head), self.batches)

    def of_student(self, folder: Path) -> Prediction | None:
        """What a finished student's head predicts; ``None`` if it has none."""
        if not has_masked_lm_head(folder):
            return None
        return self.of_model(load_whole_student(folder))

    def of_model(self, model: Any) -> Prediction:
        """What a student predicts that has a head, as :func:`~trainers.students.load_whole_student` gives it."""
        return measure_prediction(
            _predict(encoder_of(model), lambda hidden: predict_tokens(model, hidden)), self.batches
        )


def _predict(encoder: nn.Module, head: Any) -> Predict:
    def predict(input_ids_BT: Tensor, mask_BT: Tensor, chosen_BT: Tensor) -> Tensor:
        hidden_BTD = encoder(input_ids=input_ids_BT, attention_mask=mask_BT).last_hidden_state
        logits_NV: Tensor = head(hidden_BTD[chosen_BT])
        return logits_NV

    return predict
