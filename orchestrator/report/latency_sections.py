"""What the report shows of latencies: every part of the space, and predictions against measurements."""

from __future__ import annotations

import pandas as pd

from orchestrator import formatting as f
from orchestrator.latency_table.agreement import agreement
from orchestrator.report import latency_figures as figures
from orchestrator.report.data import RunData, records
from orchestrator.report.views import Column, Grid, Note, Part, Plot, Plots, Section


def latency(data: RunData) -> Section:
    """Latency of operations, and what the table predicts for whole models against what was measured."""
    rows = data.tables["latency"]
    parts: list[Part] = []
    operations = rows[(rows["kind"] == "operation") & rows["hidden_size"].notna() & rows["median_ms"].notna()]
    plots = [
        Plot(
            f"latency-operations-{index}",
            figures.operation_latency(part),
            "Median latency in ms of each operation at each hidden size",
            f"Operations, ms a batch ({setting})",
        )
        for index, (setting, part) in enumerate(operations.groupby(_settings(operations), sort=False))
    ]
    if not plots:
        parts.append(Note("No operation has been timed yet."))
    models = timed_models(data)
    if models.empty:
        parts.append(Note("No whole model has been timed yet, so predictions cannot be checked."))
    else:
        figure = figures.latency_agreement(models)
        description = "Measured against predicted latency of whole models, with error bars and the line of equality"
        plots.append(Plot("latency-agreement", figure, description, "Whole models: predicted against measured"))
    caption = "" if models.empty else _agreement_caption(models)
    shown = [Plots(tuple(plots), caption)] if plots else []
    fixed = _fixed_parts(rows)
    lead = "Every operation is timed on the device below; a model’s prediction is the sum of its parts" + (
        ", and of what a fitted remainder adds." if _terms(data) else "."
    )
    lead += other_device(rows)
    return Section("latency", "Latency", lead if plots else "", (*shown, *_check(rows), *_terms(data), *fixed, *parts))


def other_device(rows: pd.DataFrame) -> str:
    """A sentence for predictions that are not of the device the models were timed on; empty where they are.

    Args:
        rows: of the table ``latency``.
    """
    whole = rows["kind"].isin(["model", "check"])
    table, here = (
        sorted(set(part["device"].dropna())) for part in (rows[~whole & (rows["kind"] != "fit")], rows[whole])
    )
    if not table or not here or table == here:
        return ""
    return (
        f" The table is of {', '.join(table)}, and so is every predicted latency; whole models were timed on "
        f"{', '.join(here)}, so the two are not expected to agree."
    )


def _terms(data: RunData) -> list[Part]:
    """What the remainder adds to the sum of the parts."""
    rows = data.tables["latency_terms"]
    rows = rows[rows["value"].notna()]
    if rows.empty:
        return []
    columns = (Column("term"), Column("value", is_number=True), Column("unit"), Column("meaning", is_sentence=True))
    texts = tuple((row["term"], f.significant(row["value"]), row["unit"], row["meaning"]) for row in records(rows))
    last = rows.iloc[-1]
    caption = (
        f"The remainder, fitted to {f.count(last['architectures'])} random networks. Mean error without it "
        f"{f.percent(last['error_without'])}, with it on networks left out of the fit "
        f"{f.percent(last['error_out_of_sample'])}."
    )
    return [Grid(columns, texts, caption)]


def _check(rows: pd.DataFrame) -> list[Part]:
    """Random networks that were timed whole, to see what the table's predictions are worth."""
    networks = rows[(rows["kind"] == "check") & (rows["median_ms"] > 0) & (rows["predicted_ms"] > 0)]
    if len(networks) < 2:
        return []
    named = {"median_ms": "measured_ms", "architecture": "label"}
    shown = networks.rename(columns=named)
    columns = (
        Column("prediction"),
        Column("MAPE", is_number=True),
        Column("bias", is_number=True),
        Column("Kendall’s tau", is_number=True),
        Column("networks", is_number=True),
    )
    texts = []
    for name, column in (("with the remainder", "predicted_ms"), ("plain sum of the parts", "additive_ms")):
        known = shown[shown[column].notna()]
        if len(known) < 2:
            continue
        found = agreement(known[column].tolist(), known["measured_ms"].tolist())
        bias = f"{'+' if found.bias > 0 else '−'}{f.percent(abs(found.bias))}"
        texts.append((name, f.percent(found.mape), bias, f"{found.kendall_tau:.2f}", f.count(found.architectures)))
    figure = figures.latency_check(shown)
    description = "Measured against predicted latency of random networks, with and without the remainder"
    caption = (
        "Random networks, timed whole, that the table’s remainder was not fitted to. The remainder is what sums of "
        "parts leave out. Bias above 0: predicted slower than measured. A tau near 1 says that the table orders "
        "networks as the device does, which is what a search needs."
    )
    plot = Plot("latency-check", figure, description, "Check: predicted against measured")
    return [Plots((plot,)), Grid(columns, tuple(texts), caption)]


def timed_models(data: RunData) -> pd.DataFrame:
    """Every whole model with a predicted and a measured latency.

    Returns:
        One row a model with ``label``, ``role``, ``predicted_ms``, ``measured_ms``, ``spread_ms``: those of the table
        ``models``, then those that were only timed (``latency`` of kind "model"), such as samples for calibration.
    """
    models = data.tables["models"]
    models = models[models["same_as"] == ""].rename(  # a copy was not timed
        columns={
            "model": "label",
            "predicted_latency_ms": "predicted_ms",
            "measured_latency_ms": "measured_ms",
            "latency_spread_ms": "spread_ms",
        }
    )
    timed = data.tables["latency"]
    timed = timed[(timed["kind"] == "model") & ~timed["arch_id"].isin(set(models["arch_id"]) - {""})]
    timed = timed.rename(columns={"median_ms": "measured_ms"}).assign(role="")
    timed["label"] = timed["architecture"].where(timed["architecture"] != "", timed["operation"])
    columns = ["label", "role", "predicted_ms", "measured_ms", "spread_ms"]
    both = pd.concat([models[columns], timed[columns]], ignore_index=True)
    return both[(both["predicted_ms"] > 0) & (both["measured_ms"] > 0)].reset_index(drop=True)


def mean_absolute_percentage_error(models: pd.DataFrame) -> float:
    """Mean of |predicted - measured| / measured over the rows of :func:`timed_models`, as a share of one."""
    return float(((models["predicted_ms"] - models["measured_ms"]).abs() / models["measured_ms"]).mean())


def _agreement_caption(models: pd.DataFrame) -> str:
    error = f.percent(mean_absolute_percentage_error(models))
    return (
        f"Mean absolute percentage error of the prediction (MAPE) over {f.plural(len(models), 'model')}: {error}. "
        "Error bars span the quartiles of the repeats."
    )


def _settings(rows: pd.DataFrame) -> pd.Series:
    return rows["batch_size"].map("batch {:.0f}".format) + rows["sequence_length"].map(" × {:.0f} tokens".format)


def _fixed_parts(rows: pd.DataFrame) -> list[Part]:
    """Latencies of projections and embeddings, as a table."""
    fixed = rows[rows["kind"].isin(["projection", "embeddings"])]
    if fixed.empty:
        return []
    columns = (
        Column("part"),
        Column("measured at"),
        Column("from width", is_number=True),
        Column("to width", is_number=True),
        Column("median", is_number=True),
        Column("quartiles apart", is_number=True),
    )
    texts = tuple(
        (
            row["kind"] if row["operation"] in ("", row["kind"]) else f"{row['kind']} ({row['operation']})",
            setting,
            f.count(row["input_size"]),
            f.count(row["hidden_size"]),
            f.milliseconds(row["median_ms"]),
            f.milliseconds(row["spread_ms"], digits=2),
        )
        for row, setting in zip(records(fixed), _settings(fixed), strict=True)
    )
    return [Grid(columns, texts, "What a model consists of besides its operations.")]
