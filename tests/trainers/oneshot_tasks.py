"""Microscopic one-shot searches over components."""

from __future__ import annotations

from typing import Any

from spaces.components.space import ComponentsSpace
from spaces.encoder_shape import EncoderShape
from tests.spaces.components.microscopic import make_space
from tests.trainers.teachers import make_teacher
from trainers.corpus import PackedCorpus
from trainers.oneshot import OneShot
from trainers.oneshot_settings import OneShotSettings
from trainers.optimisation import OptimiserSettings
from trainers.teacher import Teacher

LITTLE = EncoderShape(2, 16, 4, 32, 99, 24, 2)
"""Two layers of four heads; fits the tokenizer of the tests."""
OPTIONS: dict[str, Any] = {"feed_forward_slices": 4, "query_key_slices": 2, "dropout": 0.0}


def make_little_teacher(**changes: Any) -> Teacher:
    return make_teacher(shape=LITTLE, **changes)


def make_little_space(**changes: Any) -> ComponentsSpace:
    return make_space(**{"shape": LITTLE, **OPTIONS, **changes})


def make_settings(**changes: Any) -> OneShotSettings:
    """Settings of a training, its optimiser's among them; it is all search unless phases are named."""
    optimiser = {"learning_rate": 1e-3, "warmup_steps": 2, "total_steps": 8}
    optimiser.update({key: changes.pop(key) for key in [*changes] if key in OptimiserSettings.__annotations__})
    settings: dict[str, Any] = {
        "batch_size": 6,
        "seed": 3,
        "precision": "float32",
        "warm_up_steps": 0,
        "search_steps": optimiser["total_steps"],
        **changes,
    }
    return OneShotSettings(**settings, optimiser=OptimiserSettings(**optimiser))  # type: ignore[arg-type]


def make_one_shot(
    teacher: Teacher, corpus: PackedCorpus, space: ComponentsSpace | None = None, loss: Any = None, **changes: Any
) -> OneShot:
    """A search that starts at the teacher, for fewer weights."""
    space = space or make_little_space()
    supernet = space.supernet()
    supernet.start(teacher.model)
    cost = space.expected_cost("parameters", 12)
    return OneShot(supernet, space, cost, teacher, corpus, make_settings(**changes), loss=loss)
