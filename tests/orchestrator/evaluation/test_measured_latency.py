"""Latency as an objective that is measured: on its own actor, recorded, and survived when it fails."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import ray

from cluster.connect import LATENCY_DEVICE, ClusterInfo
from orchestrator.evaluation.evaluator import Score
from orchestrator.evaluation.latency_device import LatencyDevice
from orchestrator.evaluation.latency_meter import MeasuredLatency, with_latencies
from orchestrator.evaluation.local import evaluate_locally
from orchestrator.evaluation.recorded import evaluation_row, preload_recorded
from orchestrator.evaluation.records import SearchRecord
from orchestrator.evaluation.tune import TuneEvaluation
from orchestrator.results import ResultsWriter
from tests.orchestrator.evaluation.measured_latency import (
    SPACE,
    Fragile,
    SizeEvaluator,
    make_latency_loop,
    make_meter,
)


def test_each_network_is_timed_whole() -> None:
    deep, shallow = (SPACE.parse(text) for text in ("E16|16:M-F2-M-F2|16:M-F2-M-F2", "E16|16:F1|16:F1"))
    measured = make_meter().measure([deep, shallow])
    assert all(one.median_ms and one.spread_ms is not None and not one.error for one in measured)
    assert (measured[0].median_ms or 0) > (measured[1].median_ms or 0)


def test_a_network_that_cannot_be_built_fails_alone() -> None:
    texts = ["E16|16:M|16:M", "E16|16:F1|16:M"]
    architectures = [SPACE.parse(text) for text in texts]
    scores = [Score("ok", 0.5, 0.1), Score("ok", 0.4, 0.1)]
    first, second = with_latencies(make_meter(Fragile(fails=texts[1])), architectures, scores)
    assert first.status == "ok"
    assert first.measured_latency_ms is not None
    assert second == Score.failed(
        "its latency could not be measured: MemoryError: too large for this device", seconds=0.1
    )


def test_what_failed_before_is_not_timed() -> None:
    failed = Score.failed("diverged")
    assert MeasuredLatency(1.0, 0.1).added_to(failed) == failed


def test_a_search_learns_measured_latencies_and_records_them(tmp_path: Path) -> None:
    records: list[SearchRecord] = []
    loop = make_latency_loop(records.append)
    evaluate_locally(loop, SizeEvaluator, meter=make_meter())
    assert len(records) == 12
    known = {member.architecture: member.values for member in loop.strategy._parents}  # type: ignore[attr-defined]
    by_architecture = {record.architecture: record.score for record in records}
    assert known
    for architecture, values in known.items():
        score = by_architecture[architecture]
        assert values == (score.loss, score.measured_latency_ms)

    with ResultsWriter(tmp_path, "run") as results:
        for record in records[:5]:
            results.append("evaluations", **evaluation_row(record, SPACE, "nsga2", "supernet"))
    again: list[SearchRecord] = []
    resumed = make_latency_loop(again.append)
    preload_recorded(resumed, tmp_path, "nsga2", "supernet")
    evaluate_locally(resumed, SizeEvaluator, meter=make_meter())
    assert len(again) == 7, "what is recorded is not measured again"


@pytest.mark.usefixtures("local_ray")
class TestLatencyDevice:
    def test_beside_the_scoring_actors_also_after_it_was_killed(self, tmp_path: Path) -> None:
        bomb = tmp_path / "bomb"
        bomb.touch()
        records: list[SearchRecord] = []
        loop = make_latency_loop(records.append, window=2)
        TuneEvaluation(SizeEvaluator, actors=1, meter=make_meter(Fragile(kills=bomb))).run(loop)
        assert not bomb.exists(), "nobody was killed"
        assert [record.status for record in records] == ["ok"] * 12
        assert all(record.score.measured_latency_ms for record in records)
        deadline = time.monotonic() + 60
        while ray.available_resources().get(LATENCY_DEVICE) != 1:
            assert time.monotonic() < deadline, "the device is never free again"
            time.sleep(0.2)

    def test_a_cluster_without_the_resource_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from orchestrator.errors import UserError

        monkeypatch.setattr("orchestrator.evaluation.latency_device.LATENCY_DEVICE", "no_such_device")
        with pytest.raises(UserError, match=r"found none; start one with: ray start --resources='\{\"no_such_device"):
            LatencyDevice(make_meter(), 1)


def test_the_local_cluster_offers_one_device(local_ray: ClusterInfo) -> None:
    assert local_ray.is_local
    assert ray.cluster_resources()[LATENCY_DEVICE] == 1
