"""The page about the tables, written from their schemas: ``python -m orchestrator.results.document > docs/results.md``.

A test compares the page in the repository with this module's, so the two cannot drift apart.
"""

from __future__ import annotations

import pyarrow as pa

from orchestrator.results.columns import FLAG, GENES, INTEGER, REAL, SCHEMA_VERSION, TEXT, TIME, Column, Table
from orchestrator.results.schemas import TABLES

COMMAND = "python -m orchestrator.results.document > docs/results.md"

TYPE_NAMES: dict[pa.DataType, str] = {
    TEXT: "text",
    INTEGER: "whole number",
    REAL: "number",
    FLAG: "true or false",
    TIME: "time (UTC)",
    GENES: "map of text to text",
}
"""What people call the Arrow types."""

_INTRODUCTION = """\
<!-- Written by `{command}`; change orchestrator/results/schemas.py instead. -->

# The tables of a run

Everything a run measures is in `RUN/results/`, or [behind a URL](#tables-behind-a-url), as a folder of Parquet parts
for each table. This page is written from the schemas themselves (version {version}), which also travel in every part:
units, meanings and whether larger is better as field metadata (`unit`, `description`, `better`), the version as schema
metadata.

| table | one row is |
| --- | --- |
{overview}

## What a reader can rely on

* A part appears as a whole or not at all. Rows that are appended are on the disk within two seconds; a run that is
  killed loses at most those.
* Every table is there from the start of a run, so a query never fails for want of a folder.
* A resumed run may record a measurement again. Where a table below names a *key*, the row recorded last counts. The
  command and `open_results` apply that rule by themselves; whoever reads the parts directly applies it with
  `recorded_at`.
* Small parts are merged now and then. `netsuke results` and `open_results` never count a row twice meanwhile; another
  reader may, for the moment in which the merged part and its predecessors are both there: `run_id` and `recorded_at`
  together tell rows apart.
* A column never changes its meaning. A new column raises the minor part of the version, anything else the major part,
  and netsuke refuses tables of a newer major version with a clear message.

## Reading them

```
netsuke results RUN                        # how many rows each table has
netsuke results RUN models                 # a table; --format csv|json|parquet for programs
netsuke results RUN evaluations --where "parameters < 10e6" --pareto loss,latency_ms
netsuke results RUN --sql "SELECT strategy, min(loss) FROM evaluations GROUP BY strategy"
```

`--where` takes one boolean expression (DuckDB's) over the table's columns. `--pareto` then leaves the rows that no
other row beats in all the columns it names, best in the first one first; rows that failed or have an empty cell there
are on no front. Smaller is better, except where a column below says that larger is; `column:max` or `column:min`
decides. `--limit` comes last.

```python
import orchestrator.results

results = orchestrator.results.open("RUN")
results.frame("models")                                           # pandas
results.table("evaluations", where="parameters < 10e6")           # Arrow
results.relation("evaluations").aggregate("strategy, min(loss)")  # DuckDB
results.front("evaluations", ["loss", "latency_ms"])              # Arrow, the rows that nothing beats
```

RUN is a run folder (which remembers where its tables lie), a results folder, or the URL of one: whatever `pyarrow.fs`
(`s3://bucket/run/results`, with `?endpoint_override=host:port&scheme=http` behind it for other stores than Amazon's, or
`AWS_ENDPOINT_URL` in the environment; `gs://`, `hdfs://`) or fsspec knows (`abfs://`, `sftp://`, ...; most need a
package of their own).
`ResultsWriter` and `compact` take the same URLs, and the same rules hold there.

Without netsuke any Parquet reader does: `pandas.read_parquet("RUN/results/models")`,
`duckdb.sql("FROM 'RUN/results/models/*.parquet'")`, `polars.read_parquet("RUN/results/models/*.parquet")`.

## Tables behind a URL

```yaml
results: {{url: "s3://bucket/netsuke/{{run}}/results"}}   # in a recipe, or in a sweep for the sweep's own tables
```

* Every command that takes the run's folder finds the tables there. Everything else (checkpoints, models, the report)
  stays in the folder.
* `{{run}}` is the name of the run's folder, `{{run_id}}` its id, which no other run has. A place belongs to one run:
  where the rows of another one are, the command ends before it wrote anything.
* Keys are refused in the URL, so that no copy of a recipe or report holds them: they come from the environment
  (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, a profile, the machine's role; `GOOGLE_APPLICATION_CREDENTIALS`; ...).
* A run writes there before it does anything else, so a wrong bucket costs seconds. When the storage fails later, the
  run ends with one line that names it, and the same command goes on once it answers again.
* The URL of a run that has rows may change only to where they were copied (every table's folder, with its parts as they
  are: `aws s3 sync RUN/results s3://...`); netsuke compares the numbers of rows first.
"""


def document() -> str:
    """The page as Markdown."""
    overview = "\n".join(f"| [`{table.name}`](#{table.name}) | {table.row} |" for table in TABLES.values())
    introduction = _INTRODUCTION.format(command=COMMAND, version=SCHEMA_VERSION, overview=overview)
    return "\n".join([introduction, *map(_section, TABLES.values())])


def _section(table: Table) -> str:
    key = f"Key: {', '.join(f'`{name}`' for name in table.key)}." if table.key else "No key: every row counts."
    rows = "\n".join(map(_row, table.columns))
    return f"""\
## {table.name}

One row is {table.row}. {key}

| column | type | unit | meaning |
| --- | --- | --- | --- |
{rows}
"""


def _row(column: Column) -> str:
    remarks = {" *(never empty)*": column.required, " *(larger is better)*": column.larger_is_better}
    description = column.description + "".join(remark for remark, holds in remarks.items() if holds)
    return f"| `{column.name}` | {TYPE_NAMES[column.type]} | {column.unit} | {_cell(description)} |"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    print(document(), end="")
