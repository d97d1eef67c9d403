"""The section on where the tables lie; recipes and sweeps have the same."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from orchestrator.recipe.section import Section
from orchestrator.results_url import check_results_url

ResultsUrl = Annotated[str, AfterValidator(check_results_url)]


class ResultsSettings(Section):
    """Where the tables of results lie."""

    url: ResultsUrl | None = Field(
        None,
        description="URL of the folder for the tables, such as s3://bucket/netsuke/{run}/results, or any other that "
        "pyarrow or fsspec knows; {run} is the name of the run's folder, {run_id} its id; options such as "
        "?endpoint_override=host:port may follow; keys are refused: they belong into the environment "
        "(AWS_ACCESS_KEY_ID, ...); a run that has rows may only follow them where they were copied to; null: the "
        "folder results in the run's own",
    )
