"""``netsuke space``: what can be searched, how much of it there is, and what an architecture costs."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from orchestrator.cli.output import JsonOption, console, new_table, print_json

if TYPE_CHECKING:
    from spaces.space import FlopsRule, SearchSpace

space_app = typer.Typer(help="Look at search spaces: list, show, params, count.", rich_markup_mode=None)
NameArgument = Annotated[str, typer.Argument(metavar="SPACE", help="a registered space (netsuke space list)")]
OptionsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="an option of the space: preset=small; may be repeated"),
]


@space_app.command("list")
def list_spaces(as_json: JsonOption = False) -> None:
    """List the installed search spaces."""
    from spaces.registry import space_names

    names = space_names()
    if as_json:
        print_json(names)
    else:
        print("\n".join(names))


@space_app.command("show")
def show(name: NameArgument, options: OptionsOption = None, as_json: JsonOption = False) -> None:
    """Show the choices a space consists of."""
    space = _load(name, options)
    decisions = space.decisions()
    if as_json:
        described = [
            {"name": decision.name, "choices": list(decision.choices), "conditional": decision.condition is not None}
            for decision in decisions
        ]
        print_json({"space": name, "cardinality": space.cardinality(), "decisions": described})
        return
    cardinality = space.cardinality()
    table = new_table(f"{name}: {cardinality:,} architectures", "decision", "choices", "asked")
    for decision in decisions:
        table.add_row(decision.name, ", ".join(decision.choices), "sometimes" if decision.condition else "always")
    console().print(table)


@space_app.command("params")
def params(
    name: NameArgument,
    architecture: Annotated[
        str, typer.Argument(metavar="ARCH", help="the architecture's text, in quotes: 'E64|192:S3-M|192:M-F'")
    ],
    options: OptionsOption = None,
    vocab_size: Annotated[
        int | None, typer.Option("--vocab-size", min=1, help="rows of the token embedding; default: the space's, 30522")
    ] = None,
    tied: Annotated[
        bool, typer.Option("--tied/--untied", help="whether an output layer shares the token embedding's weights")
    ] = True,
    sequence_length: Annotated[int, typer.Option("--sequence-length", min=1, help="tokens behind the FLOPs")] = 128,
    flops_rule: Annotated[
        str,
        typer.Option(
            "--flops-rule", metavar="RULE", help="encoder: without the embeddings; electra: them as a matrix product"
        ),
    ] = "encoder",
    as_json: JsonOption = False,
) -> None:
    """Print an architecture's weights and FLOPs, by arithmetic alone."""
    rule = _flops_rule(flops_rule)
    space = _load(name, options, vocab_size)
    parsed = space.parse(architecture)
    cost = space.cost(parsed, sequence_length, rule)
    genes = space.genes(parsed)
    vocabulary = None if space.shape is None else space.shape.vocab_size
    output_parameters = 0 if tied else _output_parameters(genes, vocabulary)
    described = {
        "space": name,
        "architecture": str(parsed),
        "arch_id": parsed.arch_id,
        "vocab_size": vocabulary,
        "tied": tied,
        "parameters": cost.parameters + output_parameters,
        "parameters_without_embeddings": cost.encoder_parameters,
        "embedding_parameters": cost.parameters - cost.encoder_parameters,
        "output_parameters": output_parameters,
        "flops": cost.flops,
        "flops_rule": rule,
        "sequence_length": sequence_length,
        "genes": genes,
    }
    if as_json:
        print_json(described)
        return
    table = new_table(str(parsed), "", "value", "counted", right=("value",))
    counted = {
        "parameters": f"vocabulary of {vocabulary:,}, {'tied' if tied else 'untied'}" if vocabulary else "",
        "parameters_without_embeddings": "operations and linear maps",
        "embedding_parameters": "tables and their normalisation",
        "output_parameters": "shared with the embeddings" if tied else "an output layer of its own",
        "flops": f"{sequence_length} tokens, rule {rule}",
    }
    for key, words in counted.items():
        table.add_row(key.replace("_", " "), f"{described[key]:,}", words)
    table.add_row("arch_id", parsed.arch_id, "")
    console().print(table)


@space_app.command("count")
def count(name: NameArgument, options: OptionsOption = None, as_json: JsonOption = False) -> None:
    """Print the exact number of architectures: of one block, of whole networks."""
    from spaces.space import BlockwiseSpace

    space = _load(name, options)
    everything = space.cardinality()
    if not isinstance(space, BlockwiseSpace):
        if as_json:
            print_json({"space": name, "cardinality": everything})
        else:
            print(f"{everything:,} architectures ({Decimal(everything):.2e})")
        return
    block, blocks, sizes = space.block_cardinality(), space.num_blocks, list(space.embedding_choices())
    if as_json:
        counts = {"block_cardinality": block, "num_blocks": blocks, "cardinality_per_embedding_size": block**blocks}
        print_json({"space": name, "cardinality": everything, **counts, "embedding_sizes": sizes})
        return
    print(f"{block:,} architectures of one block: a hidden size, and one or more operations in order")
    print(f"{block**blocks:,} networks for one embedding size: {blocks} blocks ({Decimal(block**blocks):.2e})")
    listed = ", ".join(map(str, sizes))
    print(f"{everything:,} networks in all: {len(sizes)} embedding sizes, {listed} ({Decimal(everything):.2e})")


def _load(name: str, options: list[str] | None, vocab_size: int | None = None) -> SearchSpace[Any]:
    from orchestrator.recipe.overrides import parse_override
    from spaces.encoder_shape import EncoderShape
    from spaces.registry import load_space

    given = {".".join(option.path): option.value for option in map(parse_override, options or ())}
    space = load_space(name, given)
    if vocab_size is None:
        return space
    return load_space(name, given, dataclasses.replace(space.shape or EncoderShape(), vocab_size=vocab_size))


def _flops_rule(text: str) -> FlopsRule:
    from orchestrator.errors import UserError
    from spaces.space import FlopsRule

    for rule in get_args(FlopsRule):
        if text == rule:
            return cast("FlopsRule", rule)
    raise UserError(f"--flops-rule {text}: found {text!r}, expected one of {', '.join(get_args(FlopsRule))}")


def _output_parameters(genes: dict[str, Any], vocabulary: int | None) -> int:
    """Weights of an output layer of its own: one row of the embedding's width for each token."""
    from spaces.errors import SpaceError

    if "embedding_size" not in genes or vocabulary is None:
        raise SpaceError("--untied: the space's architectures have no embedding size, expected one; leave it out")
    return int(genes["embedding_size"]) * vocabulary
