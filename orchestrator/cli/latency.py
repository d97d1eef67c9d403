"""``netsuke latency``: a latency table of this device, and how well a table agrees with whole networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.latency_views import checked, described, show_check, show_table
from orchestrator.cli.output import JsonOption, check_run_folder, console, only_results_on_stdout, print_json
from orchestrator.errors import UserError
from orchestrator.formatting import plural

if TYPE_CHECKING:
    from orchestrator.latency_table import LatencyConditions, LatencyTable
    from orchestrator.latency_table.building import Check, MeasuredSpace
    from orchestrator.latency_table.measuring import OnRound
    from orchestrator.recipe import Recipe
    from orchestrator.run_directory import RunDirectory

FEWEST_NETWORKS = 2

latency_app = typer.Typer(
    help="Latency tables: build one on this device, check one against whole networks.", rich_markup_mode=None
)
BatchOption = Annotated[
    list[int] | None, typer.Option("--batch", min=1, help="sequences in a batch; with --length, may be repeated")
]
LengthOption = Annotated[
    list[int] | None, typer.Option("--length", min=1, help="tokens of a sequence; with --batch, may be repeated")
]
RepeatsOption = Annotated[int | None, typer.Option("--repeats", min=1, help="timed passes behind each median")]


@latency_app.command("build")
def build(
    source: Annotated[
        str, typer.Argument(metavar="RUN_OR_RECIPE", help="a run folder, a shipped recipe's name, or a YAML file")
    ],
    batches: BatchOption = None,
    lengths: LengthOption = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="processor threads of a pass")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:<number>")] = None,
    repeats: RepeatsOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help=".json or .parquet; default: <recipe name>-latency.json"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="change a key: space.options.preset=small; may be repeated"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a space on this device and write the table to a file.

    What no option says, the recipe's tables.latency does. Name the file in a recipe (tables.latency.table) to search
    for this device on another machine.
    """
    from orchestrator.latency_table.building import build_table
    from orchestrator.latency_table.files import check_ending, write_tables
    from orchestrator.stages.latency import check_length, measurements, require_enough_architectures

    chosen = [*(settings or ()), *_as_settings(threads, device, repeats)]
    recipe, space = _recipe_and_space(source, chosen)
    latency = recipe.tables.latency
    path = output or Path(f"{recipe.name}-latency.json")
    check_ending(path)
    shapes = _shapes(batches or [latency.batch_size], lengths or [latency.sequence_length])
    for _, length in shapes:
        check_length(recipe, space.shape.max_positions, length, "--length" if lengths else "")
    require_enough_architectures(latency, space.space, may_be_none=False)
    measured = measurements(latency, space.space)
    tables = []
    for batch, length in shapes:
        with _progress(f"batch {batch} × {length} tokens", as_json) as follow:
            built = build_table(
                space,
                replace(measured.conditions, batch_size=batch, sequence_length=length),
                fit_architectures=measured.fit_architectures,
                seed=recipe.seed,
                on_round=follow,
            )
        tables.append(built.table)
    write_tables(path, tables)
    if as_json:
        print_json({"file": str(path), "tables": [described(table) for table in tables]})
        return
    for table in tables:
        show_table(table)
    console().print(f"written to {path}; in a recipe: tables.latency.table: {path}", soft_wrap=True)


@latency_app.command("check")
def check(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_OR_TABLE", help="a run folder, or a file that netsuke latency build made")
    ],
    architectures: Annotated[
        int, typer.Option("--architectures", min=FEWEST_NETWORKS, help="random networks, from small to large")
    ] = 50,
    repeats: RepeatsOption = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="of the networks' draw; default: the run's, or 1")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time random networks end to end on this device, and compare them with a table.

    Of a table with a remainder, predictions are compared with it and without.

    With a run folder, the measurements go to its table latency (kind check).
    """
    from orchestrator.latency_table.building import check_table
    from orchestrator.latency_table.files import read_tables, space_of

    run_tables, run = (None, None) if source.is_file() or not source.exists() else _tables_of_run(source)
    tables = run_tables if run_tables is not None else read_tables(source)
    answers = []
    for table in tables:
        origin = table.origin
        if origin is None:
            raise UserError(f"{source}: the table does not say where it was measured; build it again")
        conditions = _here(origin.conditions, repeats, source)
        here = _device_name(conditions)
        with _progress(f"{plural(architectures, 'network')}, {origin.describe()}", as_json) as follow:
            found = check_table(
                table,
                space_of(table, source),
                conditions,
                int(origin.shape["vocab_size"]),
                architectures=architectures,
                seed=_seed(run, seed),
                on_round=follow,
            )
        answers.append(checked(table, found, here))
        if run is not None:
            _record(run, found, conditions)
        if not as_json:
            show_check(table, found, here)
    if as_json:
        print_json({"source": str(source), "checks": answers})


def _as_settings(threads: int | None, device: str | None, repeats: int | None) -> list[str]:
    """Options as changes of the recipe, so that they are validated as its keys are."""
    given = {"threads": threads, "device": device, "repeats": repeats, "marginal_repeats": repeats}
    return [f"tables.latency.{key}={value}" for key, value in given.items() if value is not None]


def _shapes(batches: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of batch size and sequence length; one of either goes with all of the other."""
    if len(batches) == 1:
        batches = [*batches] * len(lengths)
    if len(lengths) == 1:
        lengths = [*lengths] * len(batches)
    if len(batches) != len(lengths):
        raise UserError(
            f"--batch: found {len(batches)} sizes and {len(lengths)} of --length, expected pairs, or one of either"
        )
    return list(dict.fromkeys(zip(batches, lengths, strict=True)))


def _recipe_and_space(source: str, settings: Sequence[str]) -> tuple[Recipe, MeasuredSpace]:
    """The recipe of a run folder, of a name or of a file, and the space it searches."""
    from orchestrator.latency_table.building import MeasuredSpace
    from orchestrator.recipe import load_recipe
    from orchestrator.run_directory import RunDirectory
    from orchestrator.run_space import space_shape
    from orchestrator.stages.teacher import teacher_source
    from spaces.registry import load_space
    from trainers.teacher import TeacherSource

    folder = Path(source)
    if folder.is_dir():
        run: RunDirectory | None = RunDirectory(check_run_folder(folder))
        assert run is not None
        recipe = load_recipe(str(run.path / "recipe.yaml"), settings)
        fetched = (run.teacher / "config.json").is_file()
        shape = (TeacherSource(str(run.teacher)) if fetched else teacher_source(recipe)).shape()
    else:
        run = None
        recipe = load_recipe(source, settings)
        shape = teacher_source(recipe).shape()
    shape = space_shape(recipe, shape, run)
    space = load_space(recipe.space.name, recipe.space.options, shape)
    return recipe, MeasuredSpace(space, recipe.space.name, recipe.space.options, shape)


def _tables_of_run(folder: Path) -> tuple[list[LatencyTable], RunDirectory]:
    """The table that a run made.

    Raises:
        UserError: there is none, or it is of another space than the run's.
    """
    from orchestrator.latency_table import LatencyTable
    from orchestrator.latency_table.files import require_same_parts
    from orchestrator.run_directory import RunDirectory

    run = RunDirectory(check_run_folder(folder))
    record = run.stage_record("latency")
    if record is None or "latency_table" not in record.outputs:
        raise UserError(f"{folder}: its stage latency has not finished, expected a latency table; run it first")
    try:
        table = LatencyTable.from_json(record.outputs["latency_table"])
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    if table.origin is not None:
        require_same_parts(table, _recipe_and_space(str(folder), [])[1].space, folder)
    return [table], run


def _here(conditions: LatencyConditions, repeats: int | None, source: Path) -> LatencyConditions:
    """A table's conditions on this machine.

    Raises:
        UserError: it was measured on a GPU, and there is none here.
    """
    from orchestrator.stages.latency import measuring_device

    try:
        measuring_device(conditions.device)
    except UserError as error:
        raise UserError(f"{source}: its table was measured on {conditions.device}, which is not here") from error
    return conditions if repeats is None else replace(conditions, repeats=repeats)


def _device_name(conditions: LatencyConditions) -> str:
    from cluster.device import describe_device

    return describe_device(conditions.device).name


def _seed(run: RunDirectory | None, seed: int | None) -> int:
    """The seed of the draw; with a run's own, networks of its fit are not drawn again."""
    if seed is not None or run is None:
        return 1 if seed is None else seed
    from orchestrator.recipe import load_recipe

    return load_recipe(str(run.path / "recipe.yaml")).seed


def _record(run: RunDirectory, found: Check, conditions: LatencyConditions) -> None:
    """Write the measurements to the run's table ``latency``."""
    from cluster.lease import RunLock
    from orchestrator.results import ResultsWriter
    from orchestrator.stages.latency_rows import check_rows, latency_row

    described = run.read()
    if described is None:
        raise UserError(f"{run.path}: no run.json, expected a run that netsuke run made")
    with RunLock(run.path), ResultsWriter(run.results, described["run_id"]) as results:
        results.extend("latency", check_rows(found.networks, "check", latency_row(conditions)))


@contextmanager
def _progress(what: str, silently: bool) -> Iterator[OnRound]:
    """Show the rounds of a measurement on standard error; keep standard output for the answer."""
    from orchestrator.progress import Progress

    with (
        only_results_on_stdout() if silently else nullcontext(),
        Progress("silent" if silently else "auto").stage(what, unit="rounds") as progress,
    ):
        followed: list[int] = []

        def follow(done: int, total: int) -> None:
            if not followed:
                progress.follow(total, "rounds")
                followed.append(total)
            progress.update(done)

        yield follow
