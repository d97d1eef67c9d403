"""How students are distilled: the settings, and what they come to with a given teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from trainers.errors import TrainingInputError
from trainers.layer_losses import Padding
from trainers.optimisation import OptimiserSettings
from trainers.precision import Precision

Objective = Literal["auto", "masked_lm", "hidden_states", "layer_states"]
SettledObjective = Literal["masked_lm", "hidden_states", "layer_states"]
Positions = Literal["masked", "all"]

HIDDEN_STATE_WEIGHTS = {"hidden_weight": 1.0, "intermediate_weight": 0.3, "embedding_weight": 1.0}
"""The weights of ``hidden_states`` where nothing else is said; those of the other objectives are 0 then."""


@dataclass(frozen=True)
class DistillationSettings:
    """How students are distilled; a weight of 0 switches a loss off.

    Attributes:
        batch_size: sequences of a step, all workers together.
        seed: of data order, dropout and masking.
        precision: number format of forward passes.
        optimiser: learning rate, steps and regularisation.
        objective: ``auto`` is ``masked_lm`` where the teacher has a masked-LM head, ``hidden_states`` elsewhere;
            ``layer_states`` compares every layer (:mod:`trainers.layer_losses`).
        kl_share: lambda of equation 2: 0 is the masked-LM loss alone, 1 the divergence alone (``masked_lm`` only).
        kl_positions: where predictions are compared: at masked positions, or at all valid ones (``masked_lm`` only).
        temperature: of the predictions' softmax in the divergence (``masked_lm`` only).
        mask_probability: share of the tokens that are masked (``masked_lm`` only).
        layer_padding: what padding counts for (``layer_states`` only).
        train_embeddings: whether the embeddings learn too; ``None``: with all objectives but ``hidden_states``.
        hidden_weight: on the error of the last hidden state, relative to its variance; this and the next two may be
            ``None`` for :data:`HIDDEN_STATE_WEIGHTS` or 0, after the objective.
        intermediate_weight: on the mean relative error of the aligned intermediate states.
        embedding_weight: on 1 minus the cosine similarity of sentence embeddings.
    """

    batch_size: int
    seed: int
    precision: Precision
    optimiser: OptimiserSettings
    objective: Objective = "auto"
    kl_share: float = 0.5
    kl_positions: Positions = "masked"
    temperature: float = 1.0
    mask_probability: float = 0.15
    layer_padding: Padding = "counted"
    train_embeddings: bool | None = None
    hidden_weight: float | None = None
    intermediate_weight: float | None = None
    embedding_weight: float | None = None

    def resolved(self, teacher_has_head: bool) -> ResolvedSettings:
        """Settle everything that depends on the teacher.

        Raises:
            TrainingInputError: the objective needs a head that the teacher has not.
        """
        objective = resolve_objective(self.objective, self.kl_share, teacher_has_head)
        defaults = HIDDEN_STATE_WEIGHTS if objective == "hidden_states" else dict.fromkeys(HIDDEN_STATE_WEIGHTS, 0.0)
        weights = {name: _given(getattr(self, name), default) for name, default in defaults.items()}
        learning = _given(self.train_embeddings, objective != "hidden_states")
        settled = replace(self, objective=objective, train_embeddings=bool(learning), **weights)
        return ResolvedSettings(**vars(settled))


@dataclass(frozen=True)
class ResolvedSettings(DistillationSettings):
    """Settings of which nothing is left open: no ``auto``, no ``None``."""

    @property
    def predicts(self) -> bool:
        """Whether students predict masked tokens."""
        return self.objective == "masked_lm"

    @property
    def compares_layers(self) -> bool:
        """Whether the states and attention scores of the teacher's layers are targets."""
        return self.objective == "layer_states"

    @property
    def compares_states(self) -> bool:
        """Whether the teacher's hidden states are targets by a weight of their own."""
        return any(getattr(self, name) > 0 for name in HIDDEN_STATE_WEIGHTS)


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def resolve_objective(objective: Objective, kl_share: float, teacher_has_head: bool) -> SettledObjective:
    """Which objective is meant.

    Raises:
        TrainingInputError: it needs predictions of a teacher that has no masked-LM head.
    """
    if objective == "auto":
        return "masked_lm" if teacher_has_head else "hidden_states"
    if objective == "masked_lm" and not teacher_has_head and kl_share > 0:
        raise TrainingInputError(
            f"distillation.objective: found masked_lm with kl_share {kl_share}, but the teacher has no masked-LM head "
            f"to learn from; use hidden_states or auto, a teacher with that head, or kl_share: 0"
        )
    return objective
