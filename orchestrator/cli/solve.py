"""``netsuke solve``: the proven best networks within limits, or the whole Pareto front, over a run's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import (
    JsonOption,
    RunArgument,
    check_run_folder,
    console,
    new_table,
    only_results_on_stdout,
    print_json,
)
from orchestrator.errors import UserError
from orchestrator.formatting import count, plural, resource, resource_name

if TYPE_CHECKING:
    from orchestrator.evaluation.evaluator import RankBy
    from orchestrator.opened_run import OpenedRun
    from orchestrator.solving.answering import Loaded, Ranked
    from orchestrator.solving.networks import EmbeddingRule

EXCERPT = 20
"""Points of a front, and networks, that are shown on a terminal."""

_OBJECTIVES = {"loss": "loss", "parameters": "parameters", "flops": "flops", "latency": "latency_ms"}
_WHOLE_LOSSES = {"whole_loss": "whole loss", "masked_lm_loss": "masked-LM loss"}
_RANKED_BY = {None: "loss", "hidden_states": "whole_loss", "masked_lm": "masked_lm_loss"}
_NOT_GIVEN = "no limit"


class BlockChoices(StrEnum):
    """Which scored blocks may be combined."""

    ALIVE = "alive"
    ALL = "all"


class RankChoice(StrEnum):
    """What the best are ranked again by."""

    HIDDEN_STATES = "hidden_states"
    MASKED_LM = "masked_lm"


class LossChoice(StrEnum):
    """What is added up."""

    RAW = "raw"
    NORMALISED = "normalised"


def solve(
    run_dir: RunArgument,
    max_params: Annotated[
        str | None, typer.Option(metavar="SIZE", help="most weights, embeddings included: 10M")
    ] = None,
    max_encoder_params: Annotated[
        str | None, typer.Option(metavar="SIZE", help="most weights behind the embeddings: 50% of the teacher's, or 5M")
    ] = None,
    max_flops: Annotated[str | None, typer.Option(metavar="COUNT", help="most FLOPs of a sequence: 2.3G")] = None,
    max_latency: Annotated[str | None, typer.Option(metavar="TIME", help="longest predicted latency: 4ms")] = None,
    top: Annotated[
        int,
        typer.Option(min=1, max=10_000, help="how many; more than 1 are ranked again by the loss of the whole network"),
    ] = 1,
    blocks: Annotated[
        BlockChoices, typer.Option(help="alive: survivors of shrinking (everything scored where nothing was shrunk)")
    ] = BlockChoices.ALIVE,
    loss: Annotated[
        LossChoice,
        typer.Option(help="raw: sums of mean squared errors (the paper); normalised: by the teacher's variance"),
    ] = LossChoice.RAW,
    embedding: Annotated[
        str,
        typer.Option(
            metavar="ladder|any|SIZE", help="embedding size: the paper's ladder by size, the cheapest, or one"
        ),
    ] = "ladder",
    front: Annotated[
        bool, typer.Option("--front", help="the whole Pareto front within the limits; the default without any limit")
    ] = False,
    objectives: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="of the front, with commas: loss,parameters,latency (the default), flops"),
    ] = None,
    batches: Annotated[
        int | None, typer.Option(min=1, help="validation batches behind the block losses; default: the most there are")
    ] = None,
    supernet: Annotated[
        str | None, typer.Option(metavar="SIGNATURE", help="whose losses; default: the run's present supernet")
    ] = None,
    rerank: Annotated[bool, typer.Option("--rerank/--no-rerank", help="whether more than one are ranked again")] = True,
    rerank_by: Annotated[
        RankChoice | None,
        typer.Option(
            help="hidden_states: the error of the last state of the chained blocks; masked_lm: cross entropy of hidden "
            "tokens through the teacher's masked-LM head; default: the recipe's search.rank_by",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write all networks to this Parquet file (.parquet)")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the networks of lowest summed block loss within limits, proven over all combinations of scored blocks.

    Without limits, or with --front: the whole Pareto front of loss, parameters and latency, within the limits given.
    """
    check_run_folder(run_dir)
    if output is not None and output.suffix != ".parquet":
        raise UserError(f"--output {output}: found the ending {output.suffix or '(none)'}, expected .parquet")
    from orchestrator.opened_run import open_run
    from orchestrator.solving.answering import check_ranking, load_networks

    rule = _embedding_rule(embedding)
    with only_results_on_stdout() if as_json else nullcontext():
        run = open_run(run_dir)
        rank_by: RankBy = run.recipe.search.rank_by if rerank_by is None else rerank_by.value
        limits = _limits(run, max_params, max_encoder_params, max_flops, max_latency)
        is_front = front or not limits or objectives is not None
        again = rerank and top > 1 and not is_front
        if again:
            check_ranking(run, supernet, rank_by)
        loaded = load_networks(run, blocks.value, loss.value, batches, supernet)
        if is_front:
            answer = _front(loaded, rule, limits, objectives)
        else:
            answer = _best(loaded, rule, limits, top, rank_by if again else None)
    answer = {
        "limits": limits,
        "loss": loss.value,
        "blocks": blocks.value,
        "embedding": embedding,
        "batches": loaded.read.fidelity,
        **answer,
        "notes": [*_notes(loaded, rule), *answer["notes"]],
        "seconds": {"loading": loaded.seconds, "solving": answer["seconds"]},
    }
    if output is not None:
        _write(answer["networks"], output)
    if as_json:
        print_json(answer)
    else:
        _print(answer, output)


def _best(
    loaded: Loaded, rule: EmbeddingRule, limits: Mapping[str, float], top: int, rank_by: RankBy | None
) -> dict[str, Any]:
    from orchestrator.solving.answering import as_dict, rank_whole, solve_budget, tables_for, unranked

    solution, seconds = solve_budget(tables_for(loaded, rule, limits), limits, top)
    notes = []
    if len(solution.networks) < top:
        found = len(solution.networks)
        notes.append(f"only {plural(found, 'network')} {'keeps' if found == 1 else 'keep'} the limits")
    ranked: list[Ranked] = (
        unranked(loaded, solution) if rank_by is None else rank_whole(loaded, rule, limits, solution, rank_by)
    )
    return {
        "kind": "best",
        "proven": f"optimal over {_count(solution.combinations)} combinations",
        "combinations": solution.combinations,
        "ranked_by": _RANKED_BY[rank_by],
        "networks": [as_dict(one) for one in ranked],
        "seconds": seconds,
        "notes": notes,
    }


def _front(loaded: Loaded, rule: EmbeddingRule, limits: Mapping[str, float], objectives: str | None) -> dict[str, Any]:
    from orchestrator.solving.answering import Ranked, as_dict, solve_front

    names = _objective_names(objectives, loaded.run.latency is not None)
    networks, combinations, seconds = solve_front(loaded, rule, names, limits)
    texts = [str(loaded.networks.architecture(network)) for network in networks]
    return {
        "kind": "front",
        "proven": f"the whole front{' within the limits' if limits else ''} over {_count(combinations)} combinations",
        "combinations": combinations,
        "objectives": names,
        "networks": [as_dict(Ranked(network, text)) for network, text in zip(networks, texts, strict=True)],
        "seconds": seconds,
        "notes": [],
    }


def _objective_names(given: str | None, with_latency: bool) -> list[str]:
    if given is None:
        return ["loss", "parameters", "latency_ms"] if with_latency else ["loss", "parameters"]
    names = [name.strip() for name in given.split(",")]
    for name in names:
        if name not in _OBJECTIVES:
            raise UserError(f"--objectives: found {name!r}, expected some of {', '.join(_OBJECTIVES)}")
    if "latency" in names and not with_latency:
        raise UserError("--objectives: found latency, but the run has no latency table; leave it out")
    return [_OBJECTIVES[name] for name in names]


def _embedding_rule(text: str) -> EmbeddingRule:
    if text == "ladder" or text == "any":
        return "ladder" if text == "ladder" else "any"
    if not text.isdecimal():
        raise UserError(f"--embedding: found {text!r}, expected ladder, any, or a size such as 128")
    return int(text)


def _limits(
    run: OpenedRun,
    max_params: str | None,
    max_encoder_params: str | None,
    max_flops: str | None,
    max_latency: str | None,
) -> dict[str, float]:
    """The limits that were given, in the units of the tables' resources."""
    from orchestrator.recipe.budgets import parse_latency_ms, parse_size
    from trainers.teacher import TeacherSource

    limits: dict[str, float] = {}
    for option, name, text in (
        ("--max-params", "parameters", max_params),
        ("--max-encoder-params", "encoder_parameters", max_encoder_params),
        ("--max-flops", "flops", max_flops),
    ):
        if text is None:
            continue
        try:
            size = parse_size(text)
        except ValueError as error:
            raise UserError(f"{option}: {error}") from error
        if size.percent is not None and name != "encoder_parameters":
            raise UserError(
                f"{option}: found {text}, expected a number such as 10M; shares go with --max-encoder-params"
            )
        limits[name] = float(size.resolve(TeacherSource(str(run.folder.teacher)).shape().encoder_parameters))
    if max_latency is not None:
        try:
            limits["latency_ms"] = parse_latency_ms(max_latency)
        except ValueError as error:
            raise UserError(f"--max-latency: {error}") from error
    return limits


def _notes(loaded: Loaded, rule: EmbeddingRule) -> list[str]:
    """What a person should know before believing the answer."""
    notes = []
    if not loaded.read.whole:
        counts = ", ".join(f"{len(block.texts):,}" for block in loaded.read.blocks)
        notes.append(
            f"only a sample of the block architectures was scored ({counts}): the optimum is over these; for all of "
            f"them: netsuke score {loaded.run.folder.path} --architectures all"
        )
    if loaded.read.shrunk:
        notes.append("only survivors of shrinking were combined; --blocks all combines everything scored")
    if rule == "any":
        notes.append("embeddings have no loss of their own, so --embedding any always takes the cheapest")
    return notes


def _count(combinations: int) -> str:
    return f"{combinations:,}" if combinations < 10**7 else f"{combinations:.2g}"


def _print(answer: Mapping[str, Any], output: Path | None) -> None:
    networks: Sequence[Mapping[str, Any]] = answer["networks"]
    shown = _excerpt(networks) if answer["kind"] == "front" else list(networks[:EXCERPT])
    measured = [name for name in _WHOLE_LOSSES if any(one[name] is not None for one in shown)]
    whole = [_WHOLE_LOSSES[name] for name in measured]
    numbers = ("loss", *whole, "parameters", "encoder", "FLOPs", "latency")
    table = new_table(_title(answer), *numbers, "architecture", right=numbers)
    for one in shown:
        latency = one.get("latency_ms")
        table.add_row(
            f"{one['loss']:.6g}",
            *("" if one[name] is None else f"{one[name]:.4f}" for name in measured),
            f"{one['parameters']:,.0f}",
            f"{one['encoder_parameters']:,.0f}",
            count(one["flops"]),
            "" if latency is None else f"{latency:.3f} ms",
            one["architecture"],
        )
    console().print(table)
    if len(shown) < len(networks):
        more = "" if output is not None else "; all of them: --json, or --output FILE.parquet"
        print(f"{len(shown)} of {len(networks):,} shown{more}")
    seconds = answer["seconds"]
    print(f"{answer['proven']}; loaded in {seconds['loading']:.2f} s, solved in {seconds['solving']:.2f} s")
    for note in answer["notes"]:
        print(f"note: {note}")
    if output is not None:
        print(f"written: {output}")


def _title(answer: Mapping[str, Any]) -> str:
    given = [f"{resource_name(name)} ≤ {resource(name, limit)}" for name, limit in answer["limits"].items()]
    limits = ", ".join(given) or _NOT_GIVEN
    if answer["kind"] == "front":
        objectives = ", ".join(map(resource_name, answer["objectives"]))
        return f"Pareto front of {objectives} ({plural(len(answer['networks']), 'network')}; {limits})"
    return f"best networks with {limits}"


def _excerpt(networks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Some networks, evenly over the sizes, the smallest and the largest among them."""
    ordered = sorted(networks, key=lambda one: (one["parameters"], one["loss"]))
    if len(ordered) <= EXCERPT:
        return ordered
    return [ordered[round(step * (len(ordered) - 1) / (EXCERPT - 1))] for step in range(EXCERPT)]


def _write(networks: Sequence[Mapping[str, Any]], output: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.tmp")
    pq.write_table(pa.Table.from_pylist([dict(one) for one in networks]), temporary)
    temporary.replace(output)
