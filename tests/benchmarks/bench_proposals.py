"""How many candidates a second a strategy proposes and learns: our NSGA-II against Optuna's on the same decisions.

``python -m tests.benchmarks.bench_proposals [--proposals 5000] [--rounds 3] [--json]``

The space is the paper's (the one of the recipe ``nas_bert_base``), the objectives are a made-up loss and the encoder
parameters. Ours is asked for a population at a time and told what it asked; Optuna's ``NSGAIISampler`` is used as its
users do, ``study.ask``, a ``suggest_categorical`` for every decision of ``space.decisions()`` that applies, and
``study.tell``, with the study in memory. Both have populations of 100, the same number of proposals, and the same
values told. Whoever asks something twice is told twice; ours never does. Only asking (which ends with an architecture
in hand) and telling are on the clock, which is the processor time of this one thread; the garbage collector runs as
always. Both take turns, round by round, each round with a seed of its own. Optuna looks at all its trials for every
generation, and so gets slower the more there are. The other strategies are printed beside it, with fewer proposals
where they are slow. Ends with exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import optuna

from orchestrator.evaluation.evaluator import Measurement
from orchestrator.objectives import ENCODER_PARAMETERS, LOSS
from orchestrator.strategies.registry import create_strategy
from spaces.nas_bert.space import NasBertSpace
from tests.benchmarks.environment import as_text, describe

POPULATION = 100
PROPOSALS = 5_000
ROUNDS = 3
RATE_TARGET = 5_000.0
"""Proposals a second of our NSGA-II."""

RATIO_TARGET = 3.0
"""The same, divided by Optuna's."""

OURS, OPTUNA = "nsga2", "Optuna NSGAIISampler (rival)"
SPACE: dict[str, Any] = {"preset": "paper"}

OTHERS: dict[str, tuple[str, dict[str, Any], int]] = {
    "nsga2, uniform start": ("nsga2", {"population": POPULATION, "sampling": "architectures"}, PROPOSALS),
    "random": ("random", {}, PROPOSALS),
    "random over sizes": ("random", {"sampling": "sizes"}, 1_000),
    "regularised_evolution": ("regularised_evolution", {"population": POPULATION}, PROPOSALS),
    "hat_evolution": ("hat_evolution", {}, PROPOSALS),
    "binned_evolution": ("binned_evolution", {}, PROPOSALS),
    "successive_halving": ("successive_halving", {}, PROPOSALS),
    "predictor_guided": ("predictor_guided", {}, 300),
    "lanas, greedy": ("lanas", {}, 1_000),
    "lanas, uct": ("lanas", {"mode": "uct"}, 1_000),
    "optuna, nsga2": ("optuna", {"sampler_options": {"population_size": POPULATION}}, 1_000),
    "optuna, tpe": ("optuna", {"sampler": "tpe"}, 100),
}
"""Strategies printed beside it: what they are called, their options, and the most proposals of each."""


def values_of(architectures: Iterable[Any], space: NasBertSpace) -> list[tuple[float, float]]:
    """A made-up loss that more layers lower, and the encoder parameters; not on the clock."""
    return [
        (sum(1.0 / (1 + len(block.operations)) for block in one.blocks), float(space.cost(one).encoder_parameters))
        for one in architectures
    ]


def rate_of_strategy(space: NasBertSpace, name: str, options: Mapping[str, Any], seed: int, proposals: int) -> float:
    """Proposals a second of processor time of a registered strategy, asked a population at a time."""
    strategy = create_strategy(name, space, [LOSS, ENCODER_PARAMETERS], [], seed, options=options)
    spent, done = 0.0, 0
    while done < proposals:
        started = time.thread_time()
        asked = strategy.ask(min(POPULATION, proposals - done))
        spent += time.thread_time() - started
        if not asked:
            raise SystemExit(f"{name} proposed nothing after {done:,} of {proposals:,} candidates")
        told = [
            Measurement(one, {"loss": loss, "encoder_parameters": size})
            for one, (loss, size) in zip(asked, values_of(asked, space), strict=True)
        ]
        started = time.thread_time()
        strategy.tell(told)
        spent += time.thread_time() - started
        done += len(asked)
    return done / spent


def rate_of_optuna(space: NasBertSpace, seed: int, proposals: int) -> float:
    """Proposals a second of processor time of a plain study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    decisions = list(space.decisions())
    spent = 0.0
    for _ in range(proposals):
        started = time.thread_time()
        trial, chosen = study.ask(), dict[str, str]()
        for decision in decisions:
            if decision.is_active(chosen):
                chosen[decision.name] = trial.suggest_categorical(decision.name, decision.choices)
        architecture = space.from_decisions(chosen)
        spent += time.thread_time() - started
        (values,) = values_of([architecture], space)
        started = time.thread_time()
        study.tell(trial, values)
        spent += time.thread_time() - started
    return proposals / spent


def in_turn(
    ways: Mapping[str, Callable[[int], float]], rounds: int, tell: Callable[[str], None]
) -> dict[str, list[float]]:
    """Every way's rates, one a round, in an order that turns from round to round."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            rates[name].append(ways[name](number))
        tell(f"round {number + 1}: " + ", ".join(f"{name} {found[-1]:,.0f}/s" for name, found in rates.items()))
    return rates


def measure(proposals: int, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """All measurements, ready for JSON."""
    machine = describe(("netsuke", "numpy", "optuna", "scikit-learn"))
    tell(as_text(machine))
    space = NasBertSpace.from_options(SPACE)
    tell(
        f"{len(space.decisions())} decisions, {space.cardinality():.3g} architectures; {proposals:,} proposals each, "
        f"populations of {POPULATION}, processor time of one thread"
    )
    rates = in_turn(
        {
            OURS: lambda seed: rate_of_strategy(space, "nsga2", {"population": POPULATION}, seed, proposals),
            OPTUNA: lambda seed: rate_of_optuna(space, seed, proposals),
        },
        rounds,
        tell,
    )
    ratios = [ours / theirs for ours, theirs in zip(rates[OURS], rates[OPTUNA], strict=True)]
    tell(f"{OURS}: {_spread(rates[OURS])} a second; {OPTUNA}: {_spread(rates[OPTUNA])}; ratio {_spread(ratios, 1)}")
    others = {}
    for label, (name, options, most) in OTHERS.items():
        count = min(most, proposals)
        others[label] = rate_of_strategy(space, name, options, 0, count)
        tell(f"  {label:24} {others[label]:>10,.0f} a second ({count:,} proposals, once)")
    return {
        "environment": machine,
        "proposals": proposals,
        "population": POPULATION,
        "rates": rates,
        "ratios": ratios,
        "others": others,
    }


def missed(result: Mapping[str, Any]) -> list[str]:
    """Which targets the medians miss."""
    rate, ratio = statistics.median(result["rates"][OURS]), statistics.median(result["ratios"])
    problems = []
    if rate < RATE_TARGET:
        problems.append(f"{rate:,.0f} proposals a second")
    if ratio < RATIO_TARGET:
        problems.append(f"{ratio:.1f} times Optuna's")
    return problems


def _spread(values: Sequence[float], digits: int = 0) -> str:
    """Median and range."""
    middle, low, high = (f"{one:,.{digits}f}" for one in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low}-{high})"


def main() -> int:
    """Parse the command line, print, and say whether the targets were reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--proposals", type=int, default=PROPOSALS, help="of each side (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="times of each measurement (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()

    def tell(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    result = measure(arguments.proposals, arguments.rounds, tell)
    problems = missed(result)
    if arguments.json:
        print(json.dumps({**result, "missed": problems}, indent=2))
    tell(
        f"proposals: targets {RATE_TARGET:,.0f} a second and {RATIO_TARGET:.0f} times Optuna's: "
        + ("missed, " + "; ".join(problems) if problems else "reached")
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
