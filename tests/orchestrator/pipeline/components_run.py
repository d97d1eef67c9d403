"""A microscopic run of the space of components: one-shot training, a search behind it, and distillation."""

from __future__ import annotations

from typing import Any

from tests.orchestrator.pipeline.microscopic_run import RECIPE

OPTIONS: dict[str, Any] = {"feed_forward_slices": 4, "dropout": 0.0}
STEPS = 20
ONE_SHOT: dict[str, Any] = {"cost": "flops", "cost_weight": 2.0, "distribution_rate": 0.5, "sweep": [0.0, 8.0]}
LAMBDAS = (2.0, 0.0, 8.0)
STRATEGY: dict[str, Any] = {
    "name": "regularised_evolution",
    "evaluations": 16,
    "options": {"population": 6, "sample_size": 2},
}


def components_recipe(**changes: Any) -> dict[str, Any]:
    """The recipe as a mapping; ``changes`` replace whole sections."""
    return {
        **RECIPE,
        "name": "components",
        "space": {"name": "components", "options": OPTIONS},
        "supernet": RECIPE["supernet"] | {"steps": STEPS, "report_every": 2, "oneshot": ONE_SHOT},
        "tables": {"latency": RECIPE["tables"]["latency"] | {"marginal_architectures": 48, "marginal_repeats": 2}},
        "search": RECIPE["search"] | {"strategies": [STRATEGY], "objectives": ["loss", "flops"]},
        "budgets": [{"name": "most", "choose": "oneshot"}, {"name": "half", "encoder_parameters": "50%"}],
        "distillation": RECIPE["distillation"] | {"intermediate_weight": 0.5},
        **changes,
    }
