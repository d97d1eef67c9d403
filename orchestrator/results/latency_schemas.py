"""The tables of latency measurements: what was timed, and what was fitted to it."""

from __future__ import annotations

from orchestrator.results.columns import INTEGER, REAL, TEXT, Column
from orchestrator.results.shared_columns import ARCHITECTURE, measured_table

LATENCY = measured_table(
    "latency",
    "one latency measured on a device: of an operation, a fixed part, or a whole model",
    Column(
        "kind",
        TEXT,
        "",
        "operation, projection, embeddings, or model; fit and check: random networks that the table's remainder, or "
        "its marginal prices, were fitted to, or compared with",
        required=True,
    ),
    Column("operation", TEXT, "", "operation's letter in the architecture text (M, F, S3, ...), or the part's name"),
    Column("hidden_size", INTEGER, "1", "hidden size the operation ran at; empty for a whole model"),
    Column("input_size", INTEGER, "1", "width a projection starts from; empty elsewhere"),
    *ARCHITECTURE,
    Column("batch_size", INTEGER, "1", "sequences in a batch", required=True),
    Column("sequence_length", INTEGER, "tokens", "tokens of a sequence", required=True),
    Column("median_ms", REAL, "ms", "median latency of one batch", required=True),
    Column("spread_ms", REAL, "ms", "distance between the quartiles of the repeats"),
    Column("repeats", INTEGER, "1", "timed repeats behind the median"),
    Column("predicted_ms", REAL, "ms", "what the table predicts for a whole model; empty elsewhere"),
    Column(
        "additive_ms",
        REAL,
        "ms",
        "the same without the remainder, the plain sum of the parts; of fit and check, empty where there are no parts",
    ),
    Column("with_remainder_ms", REAL, "ms", "what a part counts in predictions, the remainder's share included"),
    Column("device", TEXT, "", "processor or accelerator, as it names itself"),
    Column("threads", INTEGER, "1", "threads used; empty on an accelerator"),
    Column("dtype", TEXT, "", "number format of the forward pass"),
    key=("run_id", "kind", "operation", "hidden_size", "input_size", "arch_id", "batch_size", "sequence_length"),
)

LATENCY_TERMS = measured_table(
    "latency_terms",
    "one term of the remainder that the latency table adds to the sum of the parts; or, where networks are not sums of "
    "parts, one marginal price, or what one more component costs by these prices",
    Column(
        "term",
        TEXT,
        "",
        "network, layer, projection, scale, or scale:<parts>; none: the parts add up by themselves. Of prices what "
        "they are of, such as attention.stage, or one more <component>",
        required=True,
    ),
    Column("value", REAL, "", "the fitted value, in the unit of the next column; empty for none"),
    Column("unit", TEXT, "", "ms a network, ms an operation, ms a projection, or 1 for a factor; ms each of prices"),
    Column("meaning", TEXT, "", "the term in words"),
    Column("architectures", INTEGER, "1", "networks that the remainder, or the prices, were fitted to"),
    Column("error_without", REAL, "", "mean absolute error of whole networks, a share of their latency, without it"),
    Column("error_in_sample", REAL, "", "the same with it, on the networks of the fit"),
    Column("error_out_of_sample", REAL, "", "the same on networks that were left out of the fit (cross-validation)"),
    Column(
        "horizontal_ms", REAL, "ms", "what one more of it costs beside others of its kind; empty for terms and prices"
    ),
    Column(
        "vertical_ms", REAL, "ms", "the same behind them, where it opens a stage; empty where it cannot stand there"
    ),
    Column("median_error", REAL, "", "of prices, the median error of networks left out of the fit, a share of latency"),
    Column(
        "r_squared",
        REAL,
        "1",
        "of prices, the share of the variance of those networks' latencies that is predicted",
        larger_is_better=True,
    ),
    Column(
        "spearman",
        REAL,
        "1",
        "of prices, Spearman's correlation of predicted and measured latencies of those networks; below 0.9 a search "
        "by latency_ms may prefer slow ones",
        larger_is_better=True,
    ),
    Column("kendall_tau", REAL, "1", "the same as Kendall's tau-b", larger_is_better=True),
    Column("batch_size", INTEGER, "1", "sequences in a batch"),
    Column("sequence_length", INTEGER, "tokens", "tokens of a sequence"),
    Column("device", TEXT, "", "processor or accelerator, as it names itself"),
    Column("threads", INTEGER, "1", "threads used; empty on an accelerator"),
    Column("dtype", TEXT, "", "number format of the forward pass"),
    key=("run_id", "term", "batch_size", "sequence_length"),
)
