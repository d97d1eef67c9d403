"""Material of evaluators in Ray's object store: loaded once, mapped instead of copied, and equal to what was put."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cluster.connect import ClusterInfo
from orchestrator.errors import RunError
from orchestrator.evaluation import object_store
from orchestrator.evaluation.evaluator import Score, SharingEvaluatorFactory
from orchestrator.evaluation.object_store import make_evaluator, pack, share_material, unpack
from orchestrator.evaluation.tune import TuneEvaluation
from orchestrator.testing.toy_space import toy_loss
from tests.orchestrator.evaluation.toy_evaluation import make_loop

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.uint8)


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 4), max_size=3),
    transposed=st.booleans(),
)
def test_tensors_come_back_as_they_were(dtype, shape, transposed):
    made = (torch.rand(shape) * 3).to(dtype)
    wanted = made.T if transposed and made.dim() == 2 else made
    material = {"tensor": wanted, "parameter": nn.Parameter(torch.ones(2, 3), requires_grad=False), "text": "x"}
    found = unpack(pack(material))
    assert found["tensor"].dtype == dtype
    assert found["tensor"].shape == wanted.shape
    assert torch.equal(found["tensor"], wanted)
    assert isinstance(found["parameter"], nn.Parameter)
    assert found["text"] == "x"


def test_memory_is_viewed_and_not_copied():
    weights, array = torch.rand(1000), np.arange(1000)
    packed = pack([weights, array, nn.Linear(100, 100).requires_grad_(False)])
    assert len(packed.pickled) < 2000
    assert packed.size > 4000 + 8000 + 40_000
    found = unpack(packed)
    assert found[0].data_ptr() == weights.data_ptr()
    assert found[1].ctypes.data == array.ctypes.data
    assert torch.equal(found[2](weights[:100]), unpack(pack(found))[2](weights[:100]))


@dataclass(frozen=True)
class MappedEvaluatorFactory:
    """Evaluators that multiply the toy loss with a tensor; ``log`` gets a line for each loading.

    Attributes:
        log: where loadings are counted.
        fails: what loading raises, if anything.
        evaluated: file in which the evaluator says where its tensor lies.
    """

    log: Path
    evaluated: Path
    fails: str = ""

    def __call__(self) -> MappedEvaluator:
        return self.make(self.load())

    def load(self) -> torch.Tensor:
        with self.log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if self.fails:
            raise FileNotFoundError(self.fails)
        return torch.full((100_000,), 2.0)

    def make(self, material: torch.Tensor) -> MappedEvaluator:
        return MappedEvaluator(material, self.evaluated)


class MappedEvaluator:
    def __init__(self, factors: torch.Tensor, evaluated: Path) -> None:
        self.factors, self.evaluated = factors, evaluated

    def score(self, architectures: Any, fidelity: int) -> list[Score]:
        with self.evaluated.open("a") as file:
            file.write(f"{os.getpid()} {mapped_file(self.factors.data_ptr())}\n")
        return [Score("ok", float(self.factors[0]) * toy_loss(one), 0.0) for one in architectures]


def mapped_file(address: int) -> str:
    """The file whose pages an address of this process belongs to; empty for memory of its own."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *rest = line.split(maxsplit=5)
        first, last = (int(bound, 16) for bound in span.split("-"))
        if first <= address < last:
            return rest[4] if len(rest) == 5 else ""
    return ""


@pytest.fixture
def factory(tmp_path: Path) -> MappedEvaluatorFactory:
    return MappedEvaluatorFactory(tmp_path / "loaded", tmp_path / "evaluated")


def test_searches_share_one_copy_that_was_loaded_once(local_ray: ClusterInfo, factory: MappedEvaluatorFactory) -> None:
    assert isinstance(factory, SharingEvaluatorFactory)
    evaluation = TuneEvaluation(factory)
    for _ in range(2):
        records: list[Any] = []
        evaluation.run(make_loop(records.append, budget=12, window=4))
        assert [record.score.loss for record in records] == [2 * toy_loss(one.architecture) for one in records]
    assert len(factory.log.read_text().splitlines()) == 1
    seen = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in factory.evaluated.read_text().splitlines()}
    assert len(seen) >= 2, "two actors were expected"
    assert all("plasma" in mapped for mapped in seen.values()), f"tensors lie elsewhere than in the store: {seen}"


def test_what_cannot_be_loaded_ends_the_search_with_its_reason(
    local_ray: ClusterInfo, factory: MappedEvaluatorFactory
) -> None:
    with pytest.raises(RunError, match=r"set up: FileNotFoundError: weights are gone$"):
        TuneEvaluation(replace(factory, fails="weights are gone")).run(make_loop())


def test_what_the_store_cannot_hold_is_loaded_by_each_actor(
    local_ray: ClusterInfo, factory: MappedEvaluatorFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "LARGEST_SHARE", 1e-6)
    references = share_material(factory, 1.0, 0.0)
    assert ray.get(references) == [None]
    made = make_evaluator(factory, references)
    assert float(made.factors.sum()) == 200_000
    assert len(factory.log.read_text().splitlines()) == 2
