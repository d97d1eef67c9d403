"""Fine-tuning is a training like the others: Ray Train runs it, and comes to what the plain loop comes to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests.trainers.tasks.toy_tasks import FAST, save_bert, source, write_sentiment
from trainers.ray_train import Intervals, Scaling, train_on_ray
from trainers.task import WEIGHTS, Row, run_locally
from trainers.tasks.catalogue import find_task
from trainers.tasks.finetuning import FineTuningFactory


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_on_ray_and_without(local_ray, tmp_path, workers):
    settings = replace(FAST, epochs=1, pooling="mean")
    model = str(save_bert(tmp_path / "model"))
    factory = FineTuningFactory(
        model, find_task("sst2"), source(write_sentiment(tmp_path / "data", 64, 8)), settings, 1
    )
    here = factory()
    expected = run_locally(here, report_every=4)
    rows: list[Row] = []
    checkpoint = train_on_ray(
        factory,
        name="tuning",
        storage=tmp_path / "storage",
        scaling=Scaling(workers=workers, cpus_per_worker=1),
        intervals=Intervals(checkpoint_every=4, report_every=4),
        cluster=local_ray,
        on_rows=rows.extend,
        on_progress=lambda done: None,
    )
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    assert rows[-1]["loss"] == pytest.approx(expected[-1]["loss"], rel=1e-3)
    weights = load_file(checkpoint / WEIGHTS)
    for name, tensor in here.tensors().items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-4)
