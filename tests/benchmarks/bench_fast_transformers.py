"""What a one-shot search over components is worth: fidelity at equal measured latency, after equally much training.

``python -m tests.benchmarks.bench_fast_transformers [--steps 200] [--cost-weights 1] [--seeds 1,2,3] [--json]``

The teacher is all-MiniLM-L6-v2, the text the bundled novels. ``found``: supernet and distribution learn together, and
the architecture that comes out is trained on, all in N steps. Then two students get N steps of distillation each, on
the same batches, with the same loss and optimiser, from the same start (the teacher with its components in order of
importance): ``pruned`` keeps equally many of the best heads and neurons in every layer, ``shallow`` only the bottom
layers. Of either kind it is the one whose latency is nearest to that of what was found, all timed in turn. Models are
exported and judged on held-out text. Nothing of Ray is involved.

Ends with exit code 1 where what was found is not ahead of both in the mean over the seeds, by the similarity of
sentence embeddings and by the error of the last state.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orchestrator.latency_table import LatencyConditions, LatencyTable
from orchestrator.latency_table.building import MeasuredSpace, build_table
from orchestrator.latency_table.measuring import measure_parts_and_networks
from spaces.components.architecture import ComponentsArchitecture
from spaces.components.space import ComponentsSpace
from spaces.registry import load_space
from tests.benchmarks.environment import as_text, describe
from tests.benchmarks.recipe_text import save_teacher_and_text
from trainers.fidelity import Fidelity, Judgement, measure_fidelity
from trainers.oneshot import OneShot, OneShotFactory
from trainers.oneshot_settings import OneShotSettings
from trainers.optimisation import OptimiserSettings
from trainers.task import run_locally
from trainers.teacher import Teacher

RECIPE = "quickstart"
"""Whose teacher and text are used."""
WARM_UP = 0.05
"""Share of the steps before the distribution learns."""
NEURON_STEPS = 48
"""Of how many parts the neurons of pruned students are kept, so that there is one for nearly every latency."""


@dataclass(frozen=True)
class Prepared:
    """What all trainings have in common.

    Attributes:
        folder: has the teacher and the packed corpus.
        teacher: loaded.
        space: of its components.
        table: latencies of the space on this machine.
        conditions: of all latencies.
        judgement: held-out text with the teacher's answers.
    """

    folder: Path
    teacher: Teacher
    space: ComponentsSpace
    table: LatencyTable
    conditions: LatencyConditions
    judgement: Judgement


def prepare(folder: Path, arguments: argparse.Namespace) -> Prepared:
    """Teacher, text, and the table of latencies."""
    teacher, judgement = save_teacher_and_text(RECIPE, folder, batches=4)
    space: Any = load_space("components", OPTIONS, teacher.shape)
    conditions = LatencyConditions(8, 64, 1, warm_up=2, repeats=arguments.repeats)
    measured = MeasuredSpace(space, "components", OPTIONS, teacher.shape)
    table = build_table(measured, conditions, fit_architectures=arguments.fit, seed=1).table
    return Prepared(folder, teacher, space, table, conditions, judgement)


OPTIONS: dict[str, Any] = {"dropout": 0.0}


def train(prepared: Prepared, space_options: dict[str, Any], settings: OneShotSettings) -> OneShot:
    """Search, or distil the largest architecture of a space without a search."""
    marginals = prepared.table.marginals
    folder = prepared.folder
    assert marginals is not None
    place = folder / "teacher", folder / "corpus"
    factory = OneShotFactory(*place, "components", space_options, settings, marginals.fitted)
    task = factory(0, 1, torch.device("cpu"))
    run_locally(task, report_every=settings.optimiser.total_steps)
    return task


def settings_of(arguments: argparse.Namespace, seed: int, cost_weight: float, search: bool) -> OneShotSettings:
    """Of a search with what follows it, or of a plain distillation of as many steps."""
    steps = arguments.steps
    return OneShotSettings(
        batch_size=arguments.batch,
        seed=seed,
        precision="float32",
        optimiser=OptimiserSettings(3e-4, max(1, steps // 10), steps, 0.01, 1.0),
        warm_up_steps=round(WARM_UP * steps) if search else 0,
        search_steps=round(arguments.search * steps) if search else 0,
        paths=1,
        cost_weight=cost_weight,
        ramp_steps=round(0.3 * arguments.search * steps),
        distribution_rate=arguments.rate,
    )


def measured_ms(
    prepared: Prepared, space: ComponentsSpace, architectures: Sequence[ComponentsArchitecture]
) -> list[float]:
    """Latencies of whole networks, timed in turn."""
    vocabulary = prepared.teacher.shape.vocab_size
    _, found = measure_parts_and_networks(space, [], architectures, prepared.conditions, vocabulary)
    return [one.median_ms for one in found]


def rivals(prepared: Prepared) -> tuple[ComponentsSpace, dict[str, list[ComponentsArchitecture]]]:
    """All students of either kind, the smallest first, in a space that has them all."""
    shape = prepared.teacher.shape
    options = {**OPTIONS, "feed_forward_slices": NEURON_STEPS}
    space: Any = load_space("components", options, shape)
    layers, heads = shape.num_layers, shape.num_heads

    def layer(share: float) -> str:
        kept_heads, kept_neurons = max(1, round(share * heads)), max(1, round(share * NEURON_STEPS))
        return f"H1-{kept_heads}.Q1-2.M/F1-{kept_neurons}.M".replace("1-1.", "1.")

    whole = layer(1.0)
    pruned = ["|".join([layer(number / NEURON_STEPS)] * layers) for number in range(1, NEURON_STEPS + 1)]
    shallow = ["|".join([whole] * depth + ["0"] * (layers - depth)) for depth in range(1, layers + 1)]
    return space, {"pruned": [*map(space.parse, pruned)], "shallow": [*map(space.parse, shallow)]}


def rivals_of(
    prepared: Prepared, found: ComponentsArchitecture, space: ComponentsSpace, kinds: Mapping[str, Sequence[Any]]
) -> dict[str, ComponentsArchitecture]:
    """Of each kind the student whose latency is nearest to that of what was found, all of them timed in turn."""
    students = [student for kind in kinds.values() for student in kind]
    found_ms, *latencies = measured_ms(prepared, space, [space_text(prepared.space, found, space), *students])
    known = dict(zip(students, latencies, strict=True))
    return {name: min(kind, key=lambda student: abs(known[student] - found_ms)) for name, kind in kinds.items()}


def judge(prepared: Prepared, task: OneShot) -> Fidelity:
    """The exported model on held-out text."""
    model: Any = task.supernet.extract(task.frozen_architecture()).eval()
    return measure_fidelity(
        lambda ids, mask: model(input_ids=ids, attention_mask=mask).last_hidden_state, prepared.judgement
    )


def measure_seed(
    prepared: Prepared, seed: int, cost_weight: float, arguments: argparse.Namespace, tell: Callable[[str], None]
) -> dict[str, Any]:
    """A search, its rivals, and how faithful and fast all of them are."""
    searched = train(prepared, OPTIONS, settings_of(arguments, seed, cost_weight, search=True))
    found = searched.frozen_architecture()
    rival_space, students = rivals(prepared)
    students = {name: kind for name, kind in students.items() if name in arguments.rivals.split(",")}
    architectures = {"found": found, **rivals_of(prepared, found, rival_space, students)}
    fidelity = {"found": judge(prepared, searched)}
    for way in students:
        options = {**OPTIONS, "feed_forward_slices": NEURON_STEPS, "within": str(architectures[way])}
        distilled = train(prepared, options, settings_of(arguments, seed, cost_weight, search=False))
        fidelity[way] = judge(prepared, distilled)
    # Together, and with the teacher, so that the machine's moods hit all alike.
    networks = [space_text(prepared.space, found, rival_space), *(architectures[way] for way in students)]
    teacher = rival_space.largest()
    *latencies, teacher_ms = measured_ms(prepared, rival_space, [*networks, teacher])
    rows = {
        way: {
            "architecture": str(architectures[way]),
            "latency_ms": latency,
            "share_of_the_teachers": latency / teacher_ms,
            "relative_mse": fidelity[way].relative_mse,
            "cosine_similarity": fidelity[way].cosine_similarity,
        }
        for way, latency in zip(architectures, latencies, strict=True)
    }
    for way, row in rows.items():
        tell(
            f"lambda {cost_weight:g}, seed {seed}  {way:8} {row['latency_ms']:6.2f} ms "
            f"({row['share_of_the_teachers']:.2f} of the teacher's)  error {row['relative_mse']:.4f}  "
            f"cosine {row['cosine_similarity']:.4f}"
        )
    return {"seed": seed, "cost_weight": cost_weight, "teacher_ms": teacher_ms, "ways": rows}


def space_text(
    space: ComponentsSpace, architecture: ComponentsArchitecture, finer: ComponentsSpace
) -> ComponentsArchitecture:
    """The same network in a space whose feed-forwards have more, smaller slices."""
    factor = finer.options.feed_forward_slices // space.options.feed_forward_slices
    layers = []
    for layer in architecture.layers:
        stages = tuple(
            tuple(factor * number + part for number in stage for part in range(factor))
            for stage in layer.feed_forward.stages
        )
        layers.append(type(layer)(layer.attention, type(layer.feed_forward)(stages, (), layer.feed_forward.mean)))
    return ComponentsArchitecture(tuple(layers))


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds of each lambda, and whether what was found is ahead of both rivals."""
    found = []
    for cost_weight in dict.fromkeys(run["cost_weight"] for run in runs):
        of_weight = [run["ways"] for run in runs if run["cost_weight"] == cost_weight]
        means = {
            way: {
                key: statistics.fmean(ways[way][key] for ways in of_weight)
                for key in ("share_of_the_teachers", "relative_mse", "cosine_similarity")
            }
            for way in of_weight[0]
        }
        ahead = all(
            means["found"]["cosine_similarity"] > mean["cosine_similarity"]
            and means["found"]["relative_mse"] < mean["relative_mse"]
            for way, mean in means.items()
            if way != "found"
        )
        found.append({"cost_weight": cost_weight, "seeds": len(of_weight), "means": means, "ahead": ahead})
    return {"lambdas": found, "ahead": all(one["ahead"] for one in found)}


def main() -> int:
    """Parse the command line, print, and say whether what was found is ahead."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="of each training (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="sequences of a step (default: %(default)s)")
    parser.add_argument("--cost-weights", default="1", help="lambdas, with commas (default: %(default)s)")
    parser.add_argument(
        "--search", type=float, default=0.35, help="share of the steps in which is searched (default: %(default)s)"
    )
    parser.add_argument("--rate", type=float, default=0.15, help="of the log-odds (default: %(default)s)")
    parser.add_argument("--rivals", default="pruned,shallow", help="with commas (default: %(default)s)")
    parser.add_argument("--seeds", default="1,2,3", help="with commas (default: %(default)s)")
    parser.add_argument("--fit", type=int, default=120, help="networks behind the table (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=10, help="timed passes of each network (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine = describe()
    tell: Callable[[str], None] = (lambda line: None) if arguments.json else lambda line: print(line, flush=True)
    tell(as_text(machine))
    runs = []
    with tempfile.TemporaryDirectory() as name:
        prepared = prepare(Path(name), arguments)
        for cost_weight in map(float, arguments.cost_weights.split(",")):
            for seed in map(int, arguments.seeds.split(",")):
                runs.append(measure_seed(prepared, seed, cost_weight, arguments, tell))
    result = {"environment": machine, "runs": runs, **summary(runs)}
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for one in result["lambdas"]:
            for way, mean in one["means"].items():
                print(
                    f"lambda {one['cost_weight']:g}, mean of {one['seeds']} seeds  {way:8} "
                    f"{mean['share_of_the_teachers']:.2f} of the teacher's latency  error {mean['relative_mse']:.4f}  "
                    f"cosine {mean['cosine_similarity']:.4f}"
                )
    return 0 if result["ahead"] else 1


if __name__ == "__main__":
    sys.exit(main())
