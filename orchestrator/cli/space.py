"""``netsuke space``: what can be searched, how much of it there is, and what an architecture costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import JsonOption, console, new_table, print_json

if TYPE_CHECKING:
    from spaces.encoder_shape import EncoderShape
    from spaces.space import SearchSpace

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
        int | None, typer.Option("--vocab-size", min=1, help="rows of the token embedding; default: BERT's 30522")
    ] = None,
    tied: Annotated[
        bool, typer.Option("--tied/--untied", help="whether an output layer shares the token embedding's weights")
    ] = True,
    sequence_length: Annotated[int, typer.Option("--sequence-length", min=1, help="tokens behind the FLOPs")] = 128,
    as_json: JsonOption = False,
) -> None:
    """Print an architecture's weights and FLOPs, by arithmetic alone."""
    shape = None if vocab_size is None else _shape(vocab_size)
    space = _load(name, options, shape)
    parsed = space.parse(architecture)
    cost = space.cost(parsed, sequence_length)
    genes = space.genes(parsed)
    output_parameters = 0 if tied else _output_parameters(genes, shape or _shape())
    described = {
        "space": name,
        "architecture": str(parsed),
        "arch_id": parsed.arch_id,
        "parameters": cost.parameters + output_parameters,
        "encoder_parameters": cost.encoder_parameters,
        "embedding_parameters": cost.parameters - cost.encoder_parameters,
        "output_parameters": output_parameters,
        "flops": cost.flops,
        "sequence_length": sequence_length,
        "genes": genes,
    }
    if as_json:
        print_json(described)
        return
    table = new_table(str(parsed), "", "value", right=("value",))
    for key in ("parameters", "encoder_parameters", "embedding_parameters", "output_parameters", "flops"):
        table.add_row(key.replace("_", " "), f"{described[key]:,}")
    table.add_row("arch_id", parsed.arch_id)
    console().print(table)


@space_app.command("count")
def count(name: NameArgument, options: OptionsOption = None, as_json: JsonOption = False) -> None:
    """Print the exact number of architectures."""
    space = _load(name, options)
    counts = {"cardinality": space.cardinality()}
    block_cardinality = getattr(space, "block_cardinality", None)  # spaces made of blocks have it
    if block_cardinality is not None:
        counts["block_cardinality"] = block_cardinality()
    if as_json:
        print_json({"space": name, **counts})
        return
    print(f"{counts['cardinality']:,} architectures ({counts['cardinality']:.3g})")
    if "block_cardinality" in counts:
        print(f"{counts['block_cardinality']:,} architectures of one block")


def _load(name: str, options: list[str] | None, shape: EncoderShape | None = None) -> SearchSpace[Any]:
    from orchestrator.recipe.overrides import parse_override
    from spaces.registry import load_space

    given = {".".join(option.path): option.value for option in map(parse_override, options or ())}
    return load_space(name, given, shape)


def _shape(vocab_size: int | None = None) -> EncoderShape:
    from spaces.encoder_shape import EncoderShape

    return EncoderShape() if vocab_size is None else EncoderShape(vocab_size=vocab_size)


def _output_parameters(genes: dict[str, Any], shape: EncoderShape) -> int:
    """Weights of an output layer of its own: one row of the embedding's width for each token."""
    from spaces.errors import SpaceError

    if "embedding_size" not in genes:
        raise SpaceError("--untied: the space's architectures have no embedding_size gene, expected one; leave it out")
    return int(genes["embedding_size"]) * shape.vocab_size
