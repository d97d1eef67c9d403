"""``netsuke export``: an architecture of a run as a model that others can load."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import JsonOption, RunArgument, check_run_folder, only_results_on_stdout, print_json
from orchestrator.errors import UserError


class ExportFormat(StrEnum):
    """Formats a model can be exported in; ``hf``: a Hugging Face folder (safetensors, tokenizer, model card)."""

    HF = "hf"


def export(
    run_dir: RunArgument,
    model: Annotated[
        str, typer.Argument(metavar="ARCH", help="label of a finished model, an arch_id, or an architecture's text")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="the new folder of the model")],
    export_format: Annotated[
        ExportFormat, typer.Option("--format", help="hf: Hugging Face folder with safetensors and tokenizer")
    ] = ExportFormat.HF,
    as_json: JsonOption = False,
) -> None:
    """Export a model of a run and print its folder."""
    check_run_folder(run_dir)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: found a file, expected a new or empty folder")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out}: found a folder that is not empty, expected a new or empty one")
    with only_results_on_stdout():
        from orchestrator.export import export_architecture

        path = export_architecture(run_dir, model, export_format.value, out)
    if as_json:
        print_json({"model": model, "format": export_format.value, "path": str(path)})
    else:
        print(path)
