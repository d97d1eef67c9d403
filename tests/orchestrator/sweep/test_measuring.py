"""How members are measured: by one box for all, over scores that can be compared."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orchestrator.report.sweep_page import against_evaluations, against_seconds
from orchestrator.results import ResultsWriter
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.members import Member
from orchestrator.sweep.settings import SweptStrategy
from orchestrator.sweep.summary import Finished, measure

FULL = 4


@pytest.fixture
def measured(tmp_path):
    """Two members: one asks three candidates, one of which fails; the other a low fidelity, then a full one."""
    folder = SweepDirectory(tmp_path)
    rows = {
        "first": [(4.0, 10, FULL, "ok", 1.0), (2.0, 20, FULL, "ok", 1.0), (None, 5, FULL, "failed", 1.0)],
        "second": [(0.1, 30, 1, "ok", 0.5), (3.0, 15, FULL, "ok", 2.0)],
    }
    with ResultsWriter(folder.results, "sweep-1") as writer:
        for member, candidates in rows.items():
            for proposal, (loss, size, fidelity, status, seconds) in reversed(list(enumerate(candidates))):
                values = {"proposal": proposal, "fidelity": fidelity, "loss": loss, "encoder_parameters": size}
                values |= {"arch_id": f"a{size}", "architecture": f"E{size}", "status": status, "seconds": seconds}
                writer.append("evaluations", member=member, strategy="random", **values)
    strategy = SweptStrategy(name="random")
    finished = [Finished(name, Member("toy", strategy, None, 3, seed), 1.0, "s") for seed, name in enumerate(rows)]
    return measure(folder, finished, ["loss", "encoder_parameters"], "loss", FULL)


def test_the_box_is_that_of_all_members_and_of_comparable_scores(measured):
    _, box = measured
    assert box == {"loss": (2.0, 4.0), "encoder_parameters": (10.0, 20.0)}


def test_curves_follow_the_order_of_the_proposals(measured):
    (first, second), _ = measured
    # Both of the first member's scores lie on an edge of the box, where they dominate nothing of it.
    assert first.curve.tolist() == [0.0, 0.0, 0.0]
    assert second.curve.tolist() == [0.0, 0.25]
    assert (first.front, second.front) == (2, 1)
    assert first.seconds.tolist() == [1.0, 2.0, 3.0]
    assert math.isnan(second.judged[0])


def test_means_over_seeds_hold_what_ended_early(measured):
    members, _ = measured
    places, curves = against_evaluations(members)
    assert places.tolist() == [1, 2, 3]
    assert curves.tolist() == [[0, 0, 0], [0, 0.25, 0.25]]
    places, curves = against_seconds(members)
    assert (places[0], places[-1]) == (0.0, 3.0)
    assert (np.diff(curves) >= 0).all()
    assert curves[1][places < 2.5].max() == 0.0
    assert curves[1][places >= 2.5].min() == 0.25
