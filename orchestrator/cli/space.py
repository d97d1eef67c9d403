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
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="an option of the space: preset=small; may be repeated, or be written as --preset small",
    ),
]
_OPEN = {"allow_extra_args": True, "ignore_unknown_options": True}
"""For commands that take an option of the space as an option of their own: --max-nodes 8 is --set max_nodes=8."""


@space_app.command("list")
def list_spaces(as_json: JsonOption = False) -> None:
    """List the installed search spaces."""
    from spaces.registry import space_names

    names = space_names()
    if as_json:
        print_json(names)
    else:
        print("\n".join(names))


@space_app.command("show", context_settings=_OPEN)
def show(
    context: typer.Context, name: NameArgument, options: OptionsOption = None, as_json: JsonOption = False
) -> None:
    """Show the choices a space consists of."""
    space = _load(name, _options(context, options))
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


@space_app.command("params", context_settings=_OPEN)
def params(
    context: typer.Context,
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
    """Print an architecture's weights and FLOPs, by arithmetic alone.

    Options of the space that the text settles, such as its hidden size, need not be set.
    """
    rule = _flops_rule(flops_rule)
    space = _load(name, _options(context, options), vocab_size, architecture)
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
        "parameter_counts": space.parameter_counts(parsed),
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
    for kind, parameters in space.parameter_counts(parsed).items():
        table.add_row("parameters", f"{parameters:,}", kind.replace("_", " "))
    table.add_row("arch_id", parsed.arch_id, "")
    console().print(table)


@space_app.command("count", context_settings=_OPEN)
def count(
    context: typer.Context, name: NameArgument, options: OptionsOption = None, as_json: JsonOption = False
) -> None:
    """Print the exact number of architectures, and of what they are made of."""
    from spaces.space import BlockwiseSpace

    space = _load(name, _options(context, options))
    everything, counts = space.cardinality(), space.counts()
    if as_json:
        print_json({"space": name, "cardinality": everything, **counts})
        return
    if not isinstance(space, BlockwiseSpace):
        print(f"{everything:,} architectures ({Decimal(everything):.2e})")
        for key, value in counts.items():
            print(f"{key.replace('_', ' ')}: {_count_text(value)}")
        return
    block, blocks, networks = (
        counts[key] for key in ("block_cardinality", "num_blocks", "cardinality_per_embedding_size")
    )
    sizes = counts["embedding_sizes"]
    print(f"{block:,} architectures of one block: a hidden size, and one or more operations in order")
    print(f"{networks:,} networks for one embedding size: {blocks} blocks ({Decimal(networks):.2e})")
    listed = ", ".join(map(str, sizes))
    print(f"{everything:,} networks in all: {len(sizes)} embedding sizes, {listed} ({Decimal(everything):.2e})")


def _count_text(value: Any) -> str:
    """A count, or several of them, for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_count_text(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_count_text, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _options(context: typer.Context, options: list[str] | None) -> list[str]:
    """The options of the space in the form KEY=VALUE, those included that were written as options of the command.

    Raises:
        UserError: something else was written, or an option has no value.
    """
    from orchestrator.errors import UserError

    given = list(options or ())
    words = iter(context.args)
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise UserError(f"found {word!r}, expected an option of the space such as --set KEY=VALUE")
        value = value if equals else next(words, "")
        if not value:
            raise UserError(f"{word}: found nothing behind it, expected a value, as in {word} VALUE")
        given.append(f"{key.replace('-', '_')}={value}")
    return given


def _load(
    name: str, options: list[str], vocab_size: int | None = None, architecture: str | None = None
) -> SearchSpace[Any]:
    """The space of some options; those that an architecture's text settles are taken from there if they are not set."""
    from orchestrator.recipe.overrides import parse_override
    from spaces.encoder_shape import EncoderShape
    from spaces.registry import space_class

    given = {".".join(option.path): option.value for option in map(parse_override, options)}
    of_name = space_class(name)
    settled = {} if architecture is None else of_name.options_of_text(architecture)
    space = of_name.from_options({**settled, **given})
    if vocab_size is None:
        return space
    shape = dataclasses.replace(space.shape or EncoderShape(), vocab_size=vocab_size)
    return of_name.from_options({**settled, **given}, shape)


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
