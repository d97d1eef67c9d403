"""Latency tables as files: JSON, or Parquet with a row for each part or price; one file may hold several batch shapes.

A file is made on the target device (``netsuke latency build``) and named in a recipe that searches elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cluster.storage import write_atomically
from orchestrator.errors import UserError
from orchestrator.latency_table.marginals import priced
from orchestrator.latency_table.measuring import EMBEDDINGS_KIND
from orchestrator.latency_table.table import LatencyTable, describe_part
from spaces.errors import SpaceError
from spaces.sampled_space import SampledSpace
from spaces.space import BlockwiseSpace, Part, SearchSpace

ENDINGS = (".json", ".parquet")
_METADATA_KEY = b"netsuke_latency_tables"


def check_ending(path: Path) -> None:
    """Make sure that a file's name says one of the formats.

    Raises:
        UserError: it does not.
    """
    if path.suffix not in ENDINGS:
        raise UserError(f"{path}: found the ending {path.suffix!r}, expected {' or '.join(ENDINGS)}")


def write_tables(path: Path, tables: Sequence[LatencyTable]) -> None:
    """Write tables to one file, whole or not at all.

    Args:
        path: with one of :data:`ENDINGS`.
        tables: each for another batch shape.

    Raises:
        UserError: another ending.
        ClusterError, ClusterUserError: the file cannot be written.
    """
    check_ending(path)
    text = json.dumps({"tables": [table.to_json() for table in tables]}, indent=1)
    if path.suffix == ".json":
        write_atomically(path, text + "\n")
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.Table.from_pylist([row for table in tables for row in _rows(table)])
    described = rows.replace_schema_metadata({_METADATA_KEY: text.encode()})
    write_atomically(path, lambda partial: pq.write_table(described, partial))


def read_tables(path: Path) -> list[LatencyTable]:
    """Read what :func:`write_tables` wrote.

    Raises:
        UserError: no such file, it is damaged, or it is something else; the message names the file.
    """
    check_ending(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected a latency table (netsuke latency build makes one)")
    try:
        value = json.loads(_text(path))
        tables = [LatencyTable.from_json(table) for table in value["tables"]]
    except (KeyError, TypeError, ValueError, OSError) as error:
        problem = str(error).removeprefix("latency table: ").splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a latency table, or damaged ({problem}); build it again") from error
    if not tables or any(table.origin is None for table in tables):
        raise UserError(f"{path}: found no table that says where it was measured; build it again")
    return tables


def choose_table(tables: Sequence[LatencyTable], batch_size: int, sequence_length: int, path: Path) -> LatencyTable:
    """The table of one batch shape.

    Raises:
        UserError: the file has other shapes only.
    """
    shapes = {}
    for table in tables:
        assert table.origin is not None
        shapes[table.origin.conditions.batch_size, table.origin.conditions.sequence_length] = table
    if (batch_size, sequence_length) not in shapes:
        found = ", ".join(f"{batch} × {length}" for batch, length in shapes)
        raise UserError(
            f"{path}: found tables for batches of {found} tokens, expected one for {batch_size} × {sequence_length}; "
            f"change tables.latency.batch_size and sequence_length, or build it for them"
        )
    return shapes[batch_size, sequence_length]


def require_same_parts(table: LatencyTable, space: SearchSpace[Any], path: Path) -> None:
    """Make sure that a table was measured on what a space's networks are made of.

    Raises:
        UserError: a part or a price is missing, or parts are built with other weights there.
    """
    if (with_prices := priced(space)) is not None:
        _require_same_prices(table, with_prices, path)
        return
    missing = [part for part in space.parts() if part not in table.entries]
    if missing:
        raise UserError(
            f"{path}: it is a table of another space: no entry for {describe_part(missing[0])} and {len(missing) - 1} "
            f"more of the {len(space.parts())} parts; build it with this recipe"
        )
    measured = space_of(table, path)
    if not (isinstance(measured, BlockwiseSpace) and isinstance(space, BlockwiseSpace)):
        return
    for part in space.parts():
        here, there = space.part_cost(part).encoder_parameters, measured.part_cost(part).encoder_parameters
        if here != there:
            raise UserError(
                f"{path}: it is a table of another space: {describe_part(part)} has {there:,} weights there, here "
                f"{here:,}; build it with this recipe"
            )
        if (difference := _built_differently(part, space, measured)) is not None:
            raise UserError(
                f"{path}: it is a table of another space: {describe_part(part)} has {difference}; build it with this "
                f"recipe"
            )


def _require_same_prices(table: LatencyTable, space: SampledSpace[Any], path: Path) -> None:
    """Make sure that a table has prices of everything that a space's networks are made of, of the same size there.

    Raises:
        UserError: it has not.
    """
    other = f"{path}: it is a table of another space"
    if table.marginals is None:
        raise UserError(f"{other}: found parts, expected marginal prices; build it with this recipe")
    known, needed = table.marginals.by_name(), space.latency_terms()
    missing = [name for name in needed if name not in known]
    if missing:
        raise UserError(
            f"{other}: no price for {missing[0]} and {len(missing) - 1} more of the {len(needed)} that this one needs; "
            f"build it with this recipe"
        )
    measured = space_of(table, path)
    there = measured.latency_sizes() if isinstance(measured, SampledSpace) else {}
    for name, size in space.latency_sizes().items():
        if there.get(name) != size:
            raise UserError(f"{other}: {name} {there.get(name)} there, here {size}; build it with this recipe")
    beyond = [name for name in known if name not in needed]
    if beyond:
        raise UserError(
            f"{other}: it tells {beyond[0]} apart, which this one has no price of its own for, because of what may be "
            f"kept or stand behind others; build it with this recipe"
        )


def _built_differently(part: Part, space: SearchSpace[Any], measured: SearchSpace[Any]) -> str | None:
    """What differs between the modules of a part that has as many weights in both spaces, such as the size of heads."""
    if part.kind == EMBEDDINGS_KIND:
        return None
    with torch.device("meta"):
        here, there = (dict(one.build_part(part).named_modules()) for one in (space, measured))
    for name in here.keys() & there.keys():
        sizes = _sizes(here[name])
        for key, size in _sizes(there[name]).items():
            if sizes.get(key) != size:
                return f"{key.replace('_', ' ')} {size} there, here {sizes.get(key)}"
    return None if here.keys() == there.keys() else "other layers there"


def _sizes(module: nn.Module) -> dict[str, int]:
    """The whole numbers a module was built with, such as ``num_heads``."""
    return {name: value for name, value in sorted(vars(module).items()) if type(value) is int}


def space_of(table: LatencyTable, path: Path) -> SearchSpace[Any]:
    """The space whose parts a table's file says it was measured on.

    Raises:
        UserError: there is no such space here, or the file describes it wrongly.
    """
    from spaces.encoder_shape import EncoderShape
    from spaces.registry import load_space

    origin = table.origin
    if origin is None:
        raise UserError(f"{path}: the table does not say which space it was measured on; build it again")
    try:
        return load_space(origin.space_name, origin.space_options, EncoderShape(**origin.shape))
    except (SpaceError, TypeError) as error:
        raise UserError(f"{path}: the space it was measured on cannot be made here: {error}") from error


def _rows(table: LatencyTable) -> list[dict[str, Any]]:
    """A row for each part, or for each price and the network itself, for readers who know nothing of netsuke."""
    origin = table.origin
    assert origin is not None
    shared = {
        "batch_size": origin.conditions.batch_size,
        "sequence_length": origin.conditions.sequence_length,
        "device": origin.device_name,
        "threads": origin.conditions.threads if origin.conditions.device == "cpu" else None,
        "dtype": origin.conditions.precision,
    }
    if (marginals := table.marginals) is not None:
        return [
            {"term": term.name, "price_ms": term.value, "unit": term.unit, "meaning": term.meaning, **shared}
            for term in marginals.terms
        ]
    return [
        {
            "kind": part.kind,
            "operation": part.name,
            "hidden_size": part.size,
            "input_size": part.input_size,
            "median_ms": entry.median_ms,
            "spread_ms": entry.spread_ms,
            "with_remainder_ms": table.part_ms(part),
            "repeats": entry.repeats,
            **shared,
        }
        for part, entry in table.entries.items()
    ]


def _text(path: Path) -> str:
    """The JSON text of a file of either format."""
    if path.suffix == ".json":
        return path.read_text(encoding="utf-8")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except pa.ArrowInvalid as error:
        raise ValueError(str(error)) from error
    described: bytes = metadata[_METADATA_KEY]
    return described.decode()
