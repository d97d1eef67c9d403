"""What the report shows of latencies: every part of the space, and predictions against measurements."""

from __future__ import annotations

import pandas as pd

from orchestrator import formatting as f
from orchestrator.latency_table.agreement import agreement
from orchestrator.latency_table.reliability import LEAST_SPEARMAN
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
    has_prices = not _costs(data).empty
    if not plots and not has_prices:
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
    lead = (_LEAD_OF_PRICES if has_prices else _lead_of_parts(data)) + other_device(data)
    fitted = marginal_costs(data) if has_prices else _terms(data)
    told = (*shown, *(_networks(rows, has_prices)), *fitted, *fixed, *parts)
    return Section("latency", "Latency", lead if plots or has_prices else "", told)


_LEAD_OF_PRICES = (
    "Whole networks are timed on the device below, and prices are fitted to what they are made of; a model’s "
    "prediction is the sum of the prices of all it has."
)


def _lead_of_parts(data: RunData) -> str:
    added = ", and of what a fitted remainder adds." if _terms(data) else "."
    return f"Every operation is timed on the device below; a model’s prediction is the sum of its parts{added}"


def other_device(data: RunData) -> str:
    """A sentence for predictions that are not of the device the models were timed on; empty where they are."""
    rows, terms = data.tables["latency"], data.tables["latency_terms"]
    whole = rows["kind"].isin(["model", "check"])
    parts = rows[~whole & (rows["kind"] != "fit")]
    table, here = (sorted(set(devices.dropna())) for devices in (_both(parts, terms), rows[whole]["device"]))
    if not table or not here or table == here:
        return ""
    return (
        f" The table is of {', '.join(table)}, and so is every predicted latency; whole models were timed on "
        f"{', '.join(here)}, so the two are not expected to agree."
    )


def _both(parts: pd.DataFrame, terms: pd.DataFrame) -> pd.Series:
    """The devices of a table's parts, or of its prices, which has none."""
    return terms["device"] if parts.empty else parts["device"]


def _costs(data: RunData) -> pd.DataFrame:
    """What one more of everything costs, where a table consists of prices."""
    rows = data.tables["latency_terms"]
    return rows[rows["horizontal_ms"].notna()]


def marginal_costs(data: RunData) -> list[Part]:
    """What one more head or slice costs beside others and behind them, the prices, and how well they predict."""
    rows, terms = _costs(data), data.tables["latency_terms"]
    last = rows.iloc[-1]
    columns = (Column("one more"), Column("beside others", is_number=True), Column("behind them", is_number=True))
    texts = tuple(
        (row["meaning"], f.milliseconds(row["horizontal_ms"]).replace("-", "−"), f.milliseconds(row["vertical_ms"]))
        for row in records(rows)
    )
    poor = (
        ""
        if last["spearman"] >= LEAST_SPEARMAN
        else f" That is below {LEAST_SPEARMAN}: a search by predicted latency may prefer slow networks. Measure on a "
        f"quiet machine, with more networks and repeats."
    )
    caption = (
        f"Fitted to {f.count(last['architectures'])} networks. On those left out of the fit, the mean error is "
        f"{f.percent(last['error_out_of_sample'])} (median {f.percent(last['median_error'])}), R² is "
        f"{last['r_squared']:.3f}, Spearman’s correlation {last['spearman']:.3f}, Kendall’s tau "
        f"{last['kendall_tau']:.3f}.{poor} Below 0 ms: networks with it are faster."
    )
    prices = terms[terms["horizontal_ms"].isna() & terms["value"].notna()]
    return [Grid(columns, texts, caption), _term_grid(prices, "The prices themselves, none of which is below 0.")]


def _terms(data: RunData) -> list[Part]:
    """What the remainder adds to the sum of the parts."""
    rows = data.tables["latency_terms"]
    rows = rows[rows["value"].notna()]
    if rows.empty:
        return []
    last = rows.iloc[-1]
    caption = (
        f"The remainder, fitted to {f.count(last['architectures'])} random networks. Mean error without it "
        f"{f.percent(last['error_without'])}, with it on networks left out of the fit "
        f"{f.percent(last['error_out_of_sample'])}."
    )
    return [_term_grid(rows, caption)]


def _term_grid(rows: pd.DataFrame, caption: str) -> Grid:
    columns = (Column("term"), Column("value", is_number=True), Column("unit"), Column("meaning", is_sentence=True))
    texts = tuple((row["term"], f.significant(row["value"]), row["unit"], row["meaning"]) for row in records(rows))
    return Grid(columns, texts, caption)


def _networks(rows: pd.DataFrame, has_prices: bool) -> list[Part]:
    """Networks that were timed whole: those of a check or, where there are none, those that prices were fitted to."""
    timed = rows[(rows["median_ms"] > 0) & (rows["predicted_ms"] > 0)]
    checked = timed[timed["kind"] == "check"]
    if len(checked) > 1:
        return _compared(checked, "Check: predicted against measured", _CHECK_OF_PRICES if has_prices else _CHECK)
    fitted = timed[timed["kind"] == "fit"]
    if has_prices and len(fitted) > 1:
        return _compared(fitted, "Fit: predicted against measured", _FIT)
    return []


_ORDER = (
    "Bias above 0: predicted slower than measured. Rank correlations near 1 say that the table orders networks as the "
    "device does, which is what a search needs."
)
_CHECK = (
    "Random networks, timed whole, that the table’s remainder was not fitted to. The remainder is what sums of parts "
    f"leave out. {_ORDER}"
)
_CHECK_OF_PRICES = f"Random networks, timed whole, that the prices were not fitted to. {_ORDER}"
_FIT = f"The networks that the prices were fitted to, which look better than others do. {_ORDER}"


def _compared(networks: pd.DataFrame, title: str, caption: str) -> list[Part]:
    """Predictions of some networks against measurements, as a figure and in numbers."""
    named = {"median_ms": "measured_ms", "architecture": "label"}
    shown = networks.rename(columns=named)
    columns = (
        Column("prediction"),
        Column("R²", is_number=True),
        Column("MAPE", is_number=True),
        Column("median error", is_number=True),
        Column("bias", is_number=True),
        Column("Spearman", is_number=True),
        Column("Kendall’s tau", is_number=True),
        Column("networks", is_number=True),
    )
    texts = []
    for column, name in figures.predictions(shown).items():
        known = shown[shown[column].notna()]
        if len(known) < 2:
            continue
        found = agreement(known[column].tolist(), known["measured_ms"].tolist())
        bias = f"{'+' if found.bias > 0 else '−'}{f.percent(abs(found.bias))}"
        errors = (f.percent(found.mape), f.percent(found.median_error), bias)
        orders = (f"{found.spearman:.3f}", f"{found.kendall_tau:.2f}")
        texts.append((name, f"{found.r_squared:.3f}", *errors, *orders, f.count(found.architectures)))
    figure = figures.latency_check(shown)
    description = "Measured against predicted latency of networks that were timed whole, and the line of equality"
    plot = Plot("latency-check", figure, description, title)
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
