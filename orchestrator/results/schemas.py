"""The tables every measurement goes into: their rows, columns and keys."""

from __future__ import annotations

from orchestrator.results.columns import FLAG, GENES, INTEGER, REAL, TEXT, Column, Table
from orchestrator.results.latency_schemas import LATENCY, LATENCY_TERMS
from orchestrator.results.shared_columns import ARCHITECTURE, ENCODER_PARAMETERS, PARAMETERS, measured_table

RUNS = measured_table(
    "runs",
    "one stage of one attempt at a run: started, finished, skipped, interrupted or failed",
    Column("attempt", INTEGER, "1", "1 for the first start of the run folder, one more each time it is run again"),
    Column("recipe", TEXT, "", "name of the recipe"),
    Column("recipe_signature", TEXT, "", "hash of the resolved recipe"),
    Column("stage", TEXT, "", "name of the stage"),
    Column("stage_signature", TEXT, "", "hash of the recipe sections and inputs the stage depends on"),
    Column("status", TEXT, "", "started, finished, skipped or failed"),
    Column("seconds", REAL, "s", "wall-clock time of the stage, once it ended"),
    Column("detail", TEXT, "", "what the stage did, or why it failed, in one line"),
    Column("host", TEXT, "", "machine the driver ran on"),
    Column("pid", INTEGER, "", "process id of the driver"),
    Column("netsuke_version", TEXT, "", "version of netsuke"),
    Column("torch_version", TEXT, "", "version of PyTorch"),
    Column("ray_version", TEXT, "", "version of Ray"),
)

TRAINING = measured_table(
    "training",
    "one interval of a training: means since the previous row of the same subject",
    Column("stage", TEXT, "", "the stage that trained (teacher, supernet, distillation, ...)", required=True),
    Column(
        "subject",
        TEXT,
        "",
        "what was trained: teacher, supernet (or with which lambda), a student's label, or the task of a supernet "
        "tuned on tasks",
        required=True,
    ),
    Column(
        "arch_id", TEXT, "", "the student's architecture, or the one that a supernet is frozen at; empty for others"
    ),
    Column("block", INTEGER, "", "block of the supernet, counted from 0; empty for a whole network"),
    Column("step", INTEGER, "1", "optimiser steps done when the row was recorded", required=True),
    Column("loss", REAL, "", "mean training loss over the interval"),
    Column("relative_mse", REAL, "", "mean squared error to the teacher divided by the variance of its hidden states"),
    Column("masked_lm_loss", REAL, "", "cross entropy of masked tokens in nats; empty where none are predicted"),
    Column(
        "masked_lm_accuracy", REAL, "1", "share of the masked tokens that were predicted right", larger_is_better=True
    ),
    Column("kl_divergence", REAL, "", "divergence of the predictions from the teacher's, in nats"),
    Column("learning_rate", REAL, "", "learning rate at the end of the interval"),
    Column("tokens", INTEGER, "1", "valid tokens consumed since the start of the training, all workers together"),
    Column(
        "tokens_per_second",
        REAL,
        "1/s",
        "valid tokens consumed per second over the interval, all workers together",
        larger_is_better=True,
    ),
    Column("path_updates", INTEGER, "1", "paths (block architectures) that were updated since the start"),
    Column("workers", INTEGER, "1", "training workers"),
    Column(
        "expected_cost",
        REAL,
        "1",
        "where a supernet learns what to draw: the mean cost of its architectures as a share of the largest one's; of "
        "the frozen architecture once there is one",
    ),
    Column("cost_weight", REAL, "", "lambda: what that counts in the objective at the end of the interval"),
    Column("entropy", REAL, "nats", "how much of the architecture the distribution leaves undecided"),
    key=("run_id", "stage", "subject", "block", "step"),
)

EVALUATIONS = measured_table(
    "evaluations",
    "one scored candidate (a whole network, or one block of the supernet)",
    *ARCHITECTURE,
    Column("genes", GENES, "", "the architecture's genes as text, for grouping"),
    Column("scope", TEXT, "", "network (blocks chained on their own outputs) or block (fed with the teacher's states)"),
    Column("block", INTEGER, "", "block, counted from 0; empty for a whole network"),
    Column("strategy", TEXT, "", "the strategy that proposed the candidate"),
    Column("proposal", INTEGER, "1", "running number of the proposal within its strategy, from 0"),
    Column("trial_id", TEXT, "", "the Ray Tune trial that carried the candidate; empty outside Tune"),
    Column("status", TEXT, "", "ok, or failed"),
    Column(
        "supernet_signature",
        TEXT,
        "",
        "which trained supernet scored the candidate, or which training of candidates out of which supernet; losses "
        "compare where it is the same",
    ),
    Column(
        "fidelity",
        INTEGER,
        "1",
        "validation batches the loss was measured on; where candidates are trained, the share of the training; 1 where "
        "a task's held-out rows score them as they are",
    ),
    Column(
        "loss",
        REAL,
        "",
        "mean squared error to the teacher over valid tokens / variance of the teacher's states; where candidates, or "
        "their supernet, are tuned on a task, 1 - their score on it",
    ),
    Column(
        "masked_lm_loss",
        REAL,
        "",
        "cross entropy in nats of hidden tokens, predicted by the teacher's masked-LM head; empty where not measured",
    ),
    PARAMETERS,
    ENCODER_PARAMETERS,
    Column("flops", INTEGER, "1", "floating-point operations of a forward pass of one sequence"),
    Column("latency_ms", REAL, "ms", "latency predicted by the table"),
    Column(
        "measured_latency_ms",
        REAL,
        "ms",
        "median latency of the whole network, timed during the search; empty where measured_latency_ms is no objective",
    ),
    Column("measured_latency_spread_ms", REAL, "ms", "distance between the quartiles of measured_latency_ms"),
    Column("seconds", REAL, "s", "time the evaluation took on its actor"),
    Column("host", TEXT, "", "machine of the evaluation actor"),
    Column("pid", INTEGER, "", "process id of the evaluation actor"),
    Column("error", TEXT, "", "why the candidate failed; empty if it did not"),
    Column("member", TEXT, "", "of a sweep, the member that proposed the candidate; empty elsewhere"),
    Column("phase", TEXT, "", "of a search in phases, the one that proposed the candidate; empty elsewhere"),
    key=("run_id", "arch_id", "scope", "block", "strategy", "supernet_signature", "fidelity", "member", "phase"),
)

BLOCK_LOSSES = measured_table(
    "block_losses",
    "one architecture of one block of a supernet, fed with the teacher's states",
    Column("supernet_signature", TEXT, "", "which trained supernet was scored"),
    Column("block", INTEGER, "", "block, counted from 0", required=True),
    Column("arch_id", TEXT, "", "short hash of the block architecture's text"),
    Column("architecture", TEXT, "", "the block architecture's canonical text, such as 192:S3-M"),
    Column("hidden_size", INTEGER, "1", "width of the block's layers"),
    Column("layers", INTEGER, "1", "layers of the block"),
    Column("fidelity", INTEGER, "1", "validation batches the loss was measured on"),
    Column(
        "loss", REAL, "", "mean squared error to the teacher's state at the block's end, valid tokens and dimensions"
    ),
    Column("variance", REAL, "", "variance of the teacher's state at the block's end over the same tokens"),
    Column("relative_loss", REAL, "", "loss / variance"),
    Column("parameters", INTEGER, "1", "weights of the block's operations"),
    Column("flops", INTEGER, "1", "floating-point operations of the block in a forward pass of one sequence"),
    Column("latency_ms", REAL, "ms", "latency of the block predicted by the table; empty where there was none"),
    Column("alive", FLAG, "", "whether the architecture survived shrinking; empty where nothing was shrunk"),
    key=("run_id", "supernet_signature", "block", "arch_id", "fidelity"),
)

SIGNALS = measured_table(
    "signals",
    "what the block losses of one hidden size of one block say about its architectures, apart from noise",
    Column("supernet_signature", TEXT, "", "which trained supernet was scored"),
    Column("block", INTEGER, "", "block, counted from 0", required=True),
    Column("hidden_size", INTEGER, "1", "width of the compared architectures", required=True),
    Column("architectures", INTEGER, "1", "architectures that were compared"),
    Column("batches", INTEGER, "1", "validation batches behind each loss whose noise this is"),
    Column("spread", REAL, "", "standard deviation of the architectures' losses, as measured"),
    Column(
        "noise", REAL, "", "standard deviation of one architecture's loss against the others, were it measured anew"
    ),
    Column(
        "signal",
        REAL,
        "1",
        "spread / noise; below 2 the ranking within the hidden size is mostly noise",
        larger_is_better=True,
    ),
    Column(
        "kendall_tau", REAL, "1", "rank correlation of the losses on two halves of the batches", larger_is_better=True
    ),
    Column(
        "explained_by_size", REAL, "1", "share of the block's variance of losses that lies between its hidden sizes"
    ),
    key=("run_id", "supernet_signature", "block", "hidden_size"),
)

SHRINKING = measured_table(
    "shrinking",
    "one round of progressive shrinking in one bin of one block",
    Column("round", INTEGER, "1", "round, counted from 1; 0: what the latency rule removed before the training"),
    Column("block", INTEGER, "", "block, counted from 0"),
    Column("bin", INTEGER, "", "size bin within the block, counted from 1"),
    Column("step", INTEGER, "1", "supernet training steps done before the round"),
    Column("live_before", INTEGER, "1", "architectures alive before the round"),
    Column("sampled", INTEGER, "1", "architectures that were evaluated"),
    Column("removed", INTEGER, "1", "architectures that were removed"),
    Column("live_after", INTEGER, "1", "architectures alive after the round"),
    Column("best_loss", REAL, "", "lowest loss among the evaluated"),
    Column("median_loss", REAL, "", "median loss among the evaluated"),
    Column("worst_loss", REAL, "", "highest loss among the evaluated"),
    Column("rule", TEXT, "", "what removed: latency, half_sampled, half_bin, or operations (PS-op)"),
    Column("latency_rule", TEXT, "", "two_sided or upper, and where latencies came from; none: any latency may live"),
    Column("live_total", INTEGER, "1", "architectures alive in the block after the round, all bins together"),
    Column("dropped_operations", TEXT, "", "with PS-op, the operations that were dropped in the bin; empty: none"),
    Column("seconds", REAL, "s", "time the round took in the block, all its bins together"),
    key=("run_id", "round", "block", "bin"),
)

SELECTIONS = measured_table(
    "selections",
    "one architecture that a selection ranked for a budget, or how well one proxy ranked the rank fidelity's sample",
    Column("budget", TEXT, "", "name of the budget; rank_fidelity for that stage's sample", required=True),
    Column("max_encoder_parameters", INTEGER, "1", "limit on the weights behind the embeddings; empty: none"),
    Column("max_parameters", INTEGER, "1", "limit on all weights; empty: none"),
    Column("max_flops", INTEGER, "1", "limit on the floating-point operations of one sequence; empty: none"),
    Column("max_latency_ms", REAL, "ms", "limit on the predicted latency; empty: none"),
    Column("rank", INTEGER, "1", "place by loss among the candidates within the budget, from 1"),
    Column("chosen", FLAG, "", "whether this architecture was distilled as the budget's winner"),
    *ARCHITECTURE,
    Column("strategy", TEXT, "", "the strategy that proposed it"),
    Column("loss", REAL, "", "its loss as a subnet of the supernet"),
    PARAMETERS,
    ENCODER_PARAMETERS,
    Column("latency_ms", REAL, "ms", "latency predicted by the table"),
    Column("trial_steps", INTEGER, "1", "optimiser steps it was distilled for on trial; empty: it was not"),
    Column(
        "trial_relative_mse", REAL, "", "after its trial: squared error of token states / variance of the teacher's"
    ),
    Column(
        "trial_cosine_similarity",
        REAL,
        "",
        "after its trial: mean cosine of sentence embeddings to the teacher's",
        larger_is_better=True,
    ),
    Column(
        "trial_masked_lm_loss", REAL, "", "after its trial: cross entropy of masked tokens in nats; empty: no such head"
    ),
    Column("trial_measure", TEXT, "", "what trials were ranked by, a column of this table without trial_"),
    Column("trial_rank", INTEGER, "1", "place by the trial's measure among those tried for the budget, from 1"),
    Column("block_loss_sum", REAL, "", "sum of its blocks' mean squared errors, each fed with the teacher's states"),
    Column("relative_block_loss_sum", REAL, "", "the same, each divided by the variance of the teacher's states"),
    Column("proxy", TEXT, "", "proxy that the row judges, a column of this table; empty: the row is an architecture"),
    Column("architectures", INTEGER, "1", "architectures behind the correlations with the trials' results"),
    Column(
        "tau",
        REAL,
        "",
        "Kendall's tau-b of the proxy against the trials' errors: 1 ranks alike, 0 at random",
        larger_is_better=True,
    ),
    Column("tau_p_value", REAL, "", "probability of a tau as far from 0 by chance"),
    Column("tau_low", REAL, "", "lower end of tau's 95 % bootstrap interval"),
    Column("tau_high", REAL, "", "upper end of tau's 95 % bootstrap interval"),
    Column("tau_size", REAL, "", "tau of size alone (fewer encoder parameters, larger error) on the same trials"),
    Column("tau_beyond_size", REAL, "", "partial tau of the proxy, given the size: what it sees besides the size"),
    Column(
        "spearman",
        REAL,
        "",
        "Spearman's correlation of the proxy with the chained loss of scored networks",
        larger_is_better=True,
    ),
    Column("networks", INTEGER, "1", "scored networks behind the Spearman correlation"),
    key=("run_id", "budget", "arch_id", "proxy"),
)

MODELS = measured_table(
    "models",
    "one finished stand-alone model, or the teacher, as measured at the end",
    Column("model", TEXT, "", "label of the model within the run", required=True),
    Column("role", TEXT, "", "teacher, winner, or uniform (the baseline of equal size)", required=True),
    Column("budget", TEXT, "", "the budget it was made for; empty for the teacher"),
    Column(
        "same_as",
        TEXT,
        "",
        "label of the model it is a copy of: both budgets chose the same architecture, which was distilled and "
        "measured once; empty: it was distilled itself",
    ),
    *ARCHITECTURE,
    Column("initialisation", TEXT, "", "where the weights started: inherited, extracted, or scratch"),
    Column(
        "matched_on",
        TEXT,
        "",
        "of a uniform baseline: the column in which it is as large as the winner. It has the teacher's embeddings, "
        "however narrow the winner's are, so it is parameters only where the budget limits all weights and such a BERT "
        "can be that small, and encoder_parameters elsewhere",
    ),
    PARAMETERS,
    ENCODER_PARAMETERS,
    Column("vocabulary_size", INTEGER, "1", "rows of the token embedding table"),
    Column(
        "tied_embeddings",
        FLAG,
        "",
        "whether masked tokens are predicted by the token embedding table itself, so that parameters hold all that the "
        "vocabulary costs; empty: the model has no masked-LM head",
    ),
    Column("size_bytes", INTEGER, "B", "size of the weights in float32, embeddings included, without a masked-LM head"),
    Column("predicted_latency_ms", REAL, "ms", "latency predicted by the table"),
    Column("measured_latency_ms", REAL, "ms", "median latency measured on the device"),
    Column("latency_spread_ms", REAL, "ms", "distance between the quartiles of the measured latencies"),
    Column(
        "speed_up",
        REAL,
        "1",
        "the teacher's measured latency divided by the model's; each runs as the class its folder loads as, a BERT as "
        "transformers' BertModel and a winner as the code that is exported with it",
        larger_is_better=True,
    ),
    Column(
        "cosine_similarity",
        REAL,
        "",
        "mean cosine similarity of sentence embeddings to the teacher's, held-out text",
        larger_is_better=True,
    ),
    Column("initial_cosine_similarity", REAL, "", "the same before distillation", larger_is_better=True),
    Column("relative_mse", REAL, "", "squared error of token states / variance of the teacher's states, held-out text"),
    Column("masked_lm_loss", REAL, "", "cross entropy of masked tokens of held-out text in nats; empty: no such head"),
    Column("perplexity", REAL, "1", "exp(masked_lm_loss)"),
    Column(
        "masked_lm_accuracy",
        REAL,
        "1",
        "share of the masked tokens of held-out text that were predicted right",
        larger_is_better=True,
    ),
    Column("distillation_steps", INTEGER, "1", "optimiser steps of its distillation"),
    Column("distillation_tokens", INTEGER, "1", "valid tokens of its distillation"),
    Column("path", TEXT, "", "folder of the model, relative to the run folder; empty for the teacher"),
    key=("run_id", "model"),
)

TASK_SCORES = measured_table(
    "task_scores",
    "one metric of one model on one split of a downstream task, after fine-tuning with one seed",
    Column("model", TEXT, "", "label of the model: teacher, a student's label, or a folder's name", required=True),
    Column("role", TEXT, "", "teacher, winner, uniform (the baseline of equal size), or model (somebody's own)"),
    Column("budget", TEXT, "", "the budget it was made for; empty for the teacher and for models of no run"),
    Column("task", TEXT, "", "name of the task, such as sst2", required=True),
    Column("split", TEXT, "", "split that was judged, such as validation or validation_mismatched", required=True),
    Column("metric", TEXT, "", "accuracy, f1, matthews, pearson, spearman, exact_match, ...", required=True),
    Column(
        "value",
        REAL,
        "1",
        "over the whole split: a share, or a correlation from -1 to 1; of metrics that end in _threshold a logit",
        required=True,
    ),
    Column("headline", FLAG, "", "whether the metric stands for the task in the average over tasks"),
    Column("seed", INTEGER, "", "seed of the head's start, of dropout and of the examples' order"),
    Column("examples", INTEGER, "1", "training examples (windows, for question answering); 0: nothing was trained"),
    Column("dev_examples", INTEGER, "1", "rows of the split that were judged"),
    Column("epochs", INTEGER, "1", "passes over the training examples behind the judged weights"),
    Column("training_loss", REAL, "", "mean training loss at the end"),
    Column("seconds", REAL, "s", "time of the whole fine-tuning, judging included"),
    Column("teacher", TEXT, "", "label of the model whose predictions were imitated; empty: none"),
    Column("start", TEXT, "", "task whose tuned weights (same model and seed) it started from; empty: the model's own"),
    Column("signature", TEXT, "", "hash of model, data, settings and teacher: equal for scores that can be compared"),
    Column("stage", TEXT, "", "task_teachers: of a teacher that a search needed on the task; empty elsewhere"),
    key=("run_id", "model", "task", "split", "metric", "seed", "signature"),
)

SWEEPS = measured_table(
    "sweeps",
    "one member of a sweep: one strategy with one seed, searching one space for one number of evaluations",
    Column("sweep", TEXT, "", "name of the sweep"),
    Column("member", TEXT, "", "the member, as the table evaluations names it", required=True),
    Column("space", TEXT, "", "label of the space"),
    Column("strategy", TEXT, "", "label of the strategy"),
    Column("strategy_name", TEXT, "", "name of the strategy as it is registered"),
    Column("options", TEXT, "", "options of the strategy as JSON"),
    Column("seed", INTEGER, "", "seed of the search"),
    Column("budget", TEXT, "", "the budget the search kept to; empty: all budgets of the recipe together"),
    Column("evaluations", INTEGER, "1", "evaluations the member might have"),
    Column("scored", INTEGER, "1", "candidates it got a score of, failed ones included"),
    Column("failed", INTEGER, "1", "candidates that failed"),
    Column("reused", INTEGER, "1", "scores that were known already, from another member or an earlier search"),
    Column("best_loss", REAL, "", "lowest loss among its candidates, by what the recipe ranks by"),
    Column("best_arch_id", TEXT, "", "short hash of the candidate with that loss"),
    Column("best_architecture", TEXT, "", "its canonical text"),
    Column("front", INTEGER, "1", "distinct points of its Pareto front"),
    Column(
        "hypervolume",
        REAL,
        "1",
        "share of the objectives' box that it dominates; the box reaches from the best to the worst value that any "
        "member of the sweep has seen of each objective, so a sweep that has grown measures all its members anew",
    ),
    Column("seconds", REAL, "s", "wall-clock time of the search, all its starts together"),
    Column("evaluation_seconds", REAL, "s", "time behind its scores on the actors, whoever had them measured"),
    Column("supernet_signature", TEXT, "", "which trained supernet scored the candidates"),
    key=("run_id", "member"),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        RUNS,
        TRAINING,
        EVALUATIONS,
        BLOCK_LOSSES,
        SIGNALS,
        SHRINKING,
        LATENCY,
        LATENCY_TERMS,
        SELECTIONS,
        MODELS,
        TASK_SCORES,
        SWEEPS,
    )
}
