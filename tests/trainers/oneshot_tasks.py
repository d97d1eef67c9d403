"""Microscopic one-shot searches over components."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spaces.components.space import ComponentsSpace
from spaces.encoder_shape import EncoderShape
from tests.spaces.components.microscopic import make_space
from tests.trainers.teachers import make_teacher
from trainers.corpus import PackedCorpus
from trainers.oneshot import OneShot, OneShotSearch
from trainers.oneshot_settings import OneShotSettings
from trainers.optimisation import OptimiserSettings
from trainers.task import load_checkpoint, save_checkpoint
from trainers.teacher import Teacher, TeacherSource

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


@dataclass(frozen=True)
class UnlikeStarts:
    """Makes searches of which every worker's supernet starts elsewhere; picklable."""

    teacher_folder: Path
    corpus_folder: Path
    settings: OneShotSettings

    def __call__(self, rank: int, world_size: int, device: torch.device) -> OneShot:
        """Start at random, by the worker's number."""
        teacher, corpus = TeacherSource(str(self.teacher_folder)).load(), PackedCorpus(self.corpus_folder)
        space = ComponentsSpace.from_options({"dropout": 0.0}, teacher.shape)
        torch.manual_seed(rank)
        supernet, cost = space.supernet(), space.expected_cost("parameters", 12)
        return OneShot(supernet, space, cost, teacher, corpus, self.settings, rank, world_size, device)


def weights(search: OneShotSearch) -> dict[str, Tensor]:
    """All that is learnt, as it is now."""
    return {name: tensor.clone() for name, tensor in search.tensors().items()}


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """The names of what differs, without their last parts."""
    assert before.keys() == after.keys()
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def assert_resumed_as_undisturbed(make: Callable[[], OneShotSearch], stop: int, folder: Path) -> None:
    """A search that is saved after some steps and loaded ends, bit for bit, where one ends that was not.

    Args:
        make: makes one at its start.
        stop: steps before the checkpoint.
        folder: of the checkpoint.
    """
    whole, first, second = make(), make(), make()
    steps = whole.total_steps
    for step in range(steps):
        whole.step(step)
    for step in range(stop):
        first.step(step)
    save_checkpoint(first, folder, stop, [])
    done, _ = load_checkpoint(second, folder)
    for step in range(done, steps):
        second.step(step)
    assert changed(weights(whole), weights(second)) == set()
    (ours,), (theirs,) = whole.rows(steps), second.rows(steps)
    for row in (ours, theirs):
        del row["tokens_per_second"]
    assert ours == theirs
