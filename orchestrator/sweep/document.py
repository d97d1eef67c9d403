"""The page about sweep files, written from their models: ``python -m orchestrator.sweep.document > docs/sweep.md``.

A test compares the page in the repository with this module's, so the two cannot drift apart.
"""

from __future__ import annotations

from orchestrator.recipe.document import sections_of
from orchestrator.sweep.settings import Sweep

COMMAND = "python -m orchestrator.sweep.document > docs/sweep.md"

_INTRODUCTION = f"""\
<!-- Written by `{COMMAND}`; change orchestrator/sweep/ instead. -->

# Sweeps

Which strategy is worth its evaluations? A sweep sets searches side by side: every strategy with every seed, budget and
number of evaluations, over every space, as one run.

```yaml
recipe: quickstart                 # the base; 'set' changes keys of it
set: {{supernet.steps: 200}}
strategies:
  - {{name: random}}
  - {{name: nsga2, options: {{population: 20}}}}
  - {{name: optuna, label: tpe, options: {{sampler: tpe}}}}
seeds: [1, 2, 3]
evaluations: [50, 200]
```

`netsuke sweep SWEEP` takes the name of a shipped sweep (`netsuke sweep --list`) or the path of a file. Everything is
validated before anything runs; `--dry-run` tells what would happen. `--reuse RUN` copies from a run's folder what the
sweep would make just the same: with it, the shipped `quickstart_strategies` searches the supernet of `runs/quickstart`.

* **Shared**: teacher, corpus, latency table and supernet are made once for each space, in an ordinary run folder below
  `spaces/`; `netsuke results`, `report` and `run --run-dir` take it. The supernet's seed is the recipe's; `seeds` are
  those of the searches.
* **Nothing is scored twice**: a candidate that any member has had scored by the same supernet, as thoroughly, is known
  to all. Each member has rows of its own in the table `evaluations`, which name it in the column `member`.
* **Resumed**: the same command goes on. Finished members are skipped; an interrupted one goes on from its state and
  asks what it would have asked. A seed or strategy more is that many searches more.
* **Measured by one yardstick**: hypervolume is the share of the box between the best and the worst value that any
  member has seen of each objective. The table `sweeps` has a row for each member; `report.html` draws hypervolume
  against evaluations and against the seconds that the scores took on the actors, mean and spread over seeds.
* Members start at the same well-known architectures, as the searches of a run do (but not at what
  one-shot trainings have found).
* **Tables behind a URL**: `results: {{url: "s3://bucket/{{run}}/results"}}` says where the sweep's own tables lie, and
  `set: {{results.url: "s3://bucket/{{run_id}}/results"}}` where those of its spaces' runs do
  ([results.md](results.md#tables-behind-a-url)).

The folder, `runs/<sweep name>` by default:

```
SWEEP/sweep.yaml          the sweep with every default written out
SWEEP/spaces/<label>/     the run folder of a space
SWEEP/members/<name>/     the state of a search under way; its record once it is finished
SWEEP/results/            the tables evaluations and sweeps, unless results.url names another place
SWEEP/report.html         the page
```

Relative paths in a sweep file start at its own folder.
"""


def document() -> str:
    """The page as Markdown."""
    return "\n".join([_INTRODUCTION, *sections_of(Sweep)])


if __name__ == "__main__":
    print(document(), end="")
