"""A whole run whose search learns distributions by loss and the latency table's prices."""

from __future__ import annotations

import pytest
import yaml

from tests.orchestrator.pipeline.components_run import components_recipe
from tests.orchestrator.pipeline.runs import Run
from tests.orchestrator.without_ray import without_ray

STRATEGY = {
    "name": "sampling_distribution",
    "evaluations": 24,
    "options": {"cost": "latency_ms", "cost_weights": [0.1, 1.0], "paths": 3, "certainty": 0.7},
}
pytestmark = pytest.mark.timeout(900)


def test_distributions_are_searched_by_latency(local_ray, tmp_path, place):
    """Without prices that the table says, the strategy refuses this cost."""
    recipe = components_recipe()
    recipe["search"] = recipe["search"] | {"strategies": [STRATEGY], "objectives": ["loss", "latency_ms"]}
    file = place / "distribution_search.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    run = Run(file, tmp_path / "run")
    with without_ray():
        run.start()
    rows = run.table("evaluations")
    rows = rows[rows["strategy"] == "sampling_distribution"]
    assert len(rows) == 24
    assert rows["arch_id"].is_unique
    assert rows["latency_ms"].notna().all()
    assert (rows["status"] == "ok").all()
