"""Syne Tune's multi-objective regularised evolution as a process that is asked and told in JSON lines.

Run by ``bench_strategies`` with the Python that has Syne Tune; imports nothing of netsuke. The first line names the
seed and the decisions; each further one asks for a configuration or tells the values of one. Every line is answered.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    """Answer until the input ends."""
    from syne_tune.config_space import choice
    from syne_tune.optimizer.schedulers.multiobjective.multi_objective_regularized_evolution import (
        MultiObjectiveRegularizedEvolution,
    )

    searcher: Any = None
    asked = 0
    for line in sys.stdin:
        message = json.loads(line)
        answer: dict[str, Any] = {}
        if "decisions" in message:
            config_space = {name: choice(list(choices)) for name, choices in message["decisions"].items()}
            searcher = MultiObjectiveRegularizedEvolution(config_space, random_seed=message["seed"])
        elif "values" in message:
            searcher.on_trial_complete(message["trial"], message["config"], list(message["values"]))
        else:
            answer = {"config": searcher.suggest(), "trial": asked}
            asked += 1
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
