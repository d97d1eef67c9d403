"""What trials are ranked by, and how long they train."""

from __future__ import annotations

import pytest

from orchestrator.errors import UserError
from orchestrator.recipe.distillation import DistillationSettings
from orchestrator.stages.trials import TrialResult, settle_measure, short_training, trial_ranks

FAITHFUL = TrialResult(relative_mse=0.1, cosine_similarity=0.80)
ALIKE = TrialResult(relative_mse=0.2, cosine_similarity=0.95)
PREDICTING = TrialResult(relative_mse=3.0, cosine_similarity=0.10, masked_lm_loss=2.5)


def test_places_follow_the_measure() -> None:
    results = {"a": ALIKE, "b": FAITHFUL}
    assert trial_ranks(results, "relative_mse") == {"b": 1, "a": 2}
    assert trial_ranks(results, "cosine_similarity") == {"a": 1, "b": 2}
    assert trial_ranks({"b": ALIKE, "a": ALIKE}, "relative_mse") == {"a": 1, "b": 2}


def test_auto_is_the_masked_lm_loss_only_where_every_student_predicts_tokens() -> None:
    assert settle_measure("auto", [PREDICTING, PREDICTING], "selection.measure") == "masked_lm_loss"
    assert settle_measure("auto", [FAITHFUL, PREDICTING], "selection.measure") == "relative_mse"
    assert settle_measure("cosine_similarity", [PREDICTING], "selection.measure") == "cosine_similarity"
    with pytest.raises(UserError, match=r"selection\.measure: found masked_lm_loss, but the students"):
        settle_measure("masked_lm_loss", [FAITHFUL], "selection.measure")


@pytest.mark.parametrize("steps", [1, 7, 60, 500])
def test_a_trial_is_a_valid_distillation_in_short(steps: int) -> None:
    settings = DistillationSettings(steps=300, warmup_steps=40, checkpoint_every=100, report_every=20, batch_size=8)
    short = short_training(settings, steps)
    assert short.steps == steps
    assert DistillationSettings.model_validate(short.model_dump()) == short, "its intervals fit its steps"
    kept = {"steps", "warmup_steps", "checkpoint_every", "report_every"}
    assert short.model_dump(exclude=kept) == settings.model_dump(exclude=kept)
