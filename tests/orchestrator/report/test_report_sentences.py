"""What the report and the ending summary say in words of trials and tasks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from orchestrator.report.data import RunData, load, tidy
from orchestrator.report.latency_sections import timed_models
from orchestrator.report.models import headline, winners
from orchestrator.report.ranking_sections import finalist_sentences, rank_sentences, trial_errors
from orchestrator.report.supernet_sections import signal
from orchestrator.report.task_sections import glue_means, scores, task_sentences, tasks
from orchestrator.report.views import Comparisons, Grid, Note
from orchestrator.results import TABLES, ResultsWriter
from trainers.tasks.catalogue import GLUE, TASKS
from trainers.tasks.metrics import GLUE_COLUMNS


def agreements(**columns: object) -> pd.DataFrame:
    rows = [{"budget": "rank_fidelity", "proxy": "loss", "architectures": 8, **columns}]
    return tidy(pd.DataFrame(rows), TABLES["selections"])


def test_finalists_tell_which_place_won(finished: RunData) -> None:
    tried = finished.selections[finished.selections["trial_rank"].notna()]
    for sentence, budget in zip(finalist_sentences(finished), ("half", "quarter", "tenth"), strict=True):
        winner = tried[(tried["budget"] == budget) & tried["chosen"]]
        assert sentence.startswith(f"Budget {budget}: 4 finalists were distilled for 60 steps")
        assert f"place {winner['rank'].iloc[0]:.0f} by the supernet’s loss won" in sentence


def test_rank_fidelity_warns_where_only_the_size_ranks() -> None:
    [text] = rank_sentences(agreements(tau=0.6, tau_low=0.3, tau_high=0.9, tau_size=0.7, tau_beyond_size=0.05))
    assert "hardly more than the size" in text
    assert "is 0.60 (95 % interval 0.30 to 0.90); the size alone reaches 0.70" in text
    [text] = rank_sentences(agreements(tau=0.8, tau_low=0.5, tau_high=0.9, tau_size=0.3, tau_beyond_size=0.7))
    assert "also ranks architectures of like size" in text
    [text] = rank_sentences(agreements(tau=0.1, tau_low=-0.4, tau_high=0.5, tau_size=0.3, tau_beyond_size=0.0))
    assert "cannot be told from a random order" in text


def test_sums_of_block_losses_are_compared_with_chained_ones() -> None:
    rows = tidy(pd.DataFrame([{"proxy": "block_loss_sum", "spearman": 0.7, "networks": 30}]), TABLES["selections"])
    [text] = rank_sentences(rows)
    assert text.startswith("Over 30 scored networks")
    assert "0.70: adding up blocks is a rough guess" in text
    [text] = rank_sentences(rows.assign(spearman=-0.6))
    assert "-0.60: adding up blocks says little" in text


def test_a_cosine_is_turned_into_an_error() -> None:
    rows = [{"trial_measure": "cosine_similarity", "trial_cosine_similarity": 0.75, "trial_relative_mse": 9.0}]
    errors, title = trial_errors(tidy(pd.DataFrame(rows), TABLES["selections"]))
    assert (list(errors), title) == ([0.25], "1 − cosine similarity")


def test_tasks_count_each_seed_and_only_the_last_settings(tmp_path: Path) -> None:
    with ResultsWriter(tmp_path / "results", "r1") as writer:
        writer.append("selections", budget="half", arch_id="a", chosen=True)

        def score(role: str, task: str, value: float, seed: int, signature: str = "new") -> None:
            common = {"model": f"half-{role}", "role": role, "budget": "half", "task": task, "split": "validation"}
            common |= {"metric": "f1", "headline": True, "signature": signature}
            writer.append("task_scores", value=value, seed=seed, **common)

        score("winner", "sst2", 0.1, 1, "old")
        for role, values in (("winner", (0.8, 0.9)), ("uniform", (0.7, 0.7))):
            for seed, value in enumerate(values):
                score(role, "sst2", value, seed)
        score("winner", "rte", 0.5, 1)  # the uniform one has not been tuned for it yet
        score("winner", "mnli", 0.4, 1)  # a start of rte alone
    (tmp_path / "recipe.yaml").write_text("finetuning: {tasks: [sst2, rte], start_from: mnli}")
    data = load(tmp_path)
    found = scores(data).set_index(["role", "task"])
    assert ("winner", "mnli") not in found.index
    assert abs(found.loc[("winner", "sst2"), "mean"] - 0.85) < 1e-9
    assert abs(found.loc[("winner", "sst2"), "spread"] - 0.05 * 2**0.5) < 1e-9
    assert found.loc[("winner", "sst2"), "seeds"] == 2
    [text] = task_sentences(data, scores(data))
    assert (
        "over 1 task, the winner scores 0.850 on average and the uniform model of equal size 0.700: better by" in text
    )


def test_the_mean_of_glue_s_nine_columns_is_told_of_models_that_have_all(tmp_path: Path) -> None:
    """MobileBERT-TINY's row."""
    values = dict(zip(GLUE_COLUMNS.values(), (81.5, 81.6, 68.9, 89.5, 91.7, 46.7, 80.1, 87.9, 65.1), strict=True))
    with ResultsWriter(tmp_path / "results", "r1") as writer:
        writer.append("selections", budget="half", arch_id="a", chosen=True)
        for role, places in (("winner", list(values)), ("uniform", list(values)[:-1])):
            for task, split, metric in places:
                common = {"model": f"half-{role}", "role": role, "budget": "half", "seed": 1, "signature": task}
                common |= {"headline": metric == TASKS[task].headline and split != "validation_mismatched"}
                value = values[task, split, metric] / 100
                writer.append("task_scores", task=task, split=split, metric=metric, value=value, **common)
            for task in ("qqp", "mrpc"):  # their headline; F1 is what the mean takes
                common |= {"task": task, "signature": task, "split": "validation", "headline": True}
                writer.append("task_scores", metric="accuracy", value=0.1, **common)
    tasks_of_glue = ", ".join(name for name in GLUE if name != "wnli")
    (tmp_path / "recipe.yaml").write_text(f"finetuning: {{tasks: [{tasks_of_glue}]}}")
    data = load(tmp_path)
    means = glue_means(data)
    assert [(model, mean.text()) for model, mean in means.items()] == [("half-winner", "77.0")]
    assert task_sentences(data, scores(data))[-1] == "GLUE (9 columns), dev splits, × 100: half-winner 77.0."
    grid = next(part for part in tasks(data).parts if isinstance(part, Grid))
    assert [column.name for column in grid.columns][-2:] == ["average", "GLUE (9 columns)"]
    assert {cells[0]: cells[-1] for cells in grid.rows} == {"half, winner": "0.770", "half, uniform": "–"}
    (tmp_path / "recipe.yaml").write_text("finetuning: {tasks: [sst2]}")
    assert glue_means(load(tmp_path)) == {}


def test_weak_signals_are_named_with_what_helps(finished: RunData) -> None:
    note = next(part for part in signal(finished).parts if isinstance(part, Note))
    assert "block 2 at 96" in note.text
    assert "block 0 at 384" not in note.text
    assert "supernet.init: teacher" in note.text


def test_models_tell_what_they_predict_what_they_share_and_where_sizes_differ(tmp_path: Path) -> None:
    def row(label: str, role: str, budget: str | None, parameters: int, loss: float, **more: object) -> dict:
        sizes = {"parameters": parameters, "encoder_parameters": 3_000_000, "vocabulary_size": 30_522}
        heads = {"masked_lm_loss": loss, "masked_lm_accuracy": 0.5, "tied_embeddings": True}
        times = {"measured_latency_ms": 4.0, "predicted_latency_ms": 5.0, "speed_up": 2.0}
        return {"model": label, "role": role, "budget": budget, "arch_id": label, **sizes, **heads, **times, **more}

    with ResultsWriter(tmp_path / "results", "r1") as writer:
        writer.append("models", **row("teacher", "teacher", None, 30_000_000, 1.5))
        writer.append("models", **row("small", "winner", "small", 5_000_000, 2.5, initialisation="scratch"))
        writer.append("models", **row("small-uniform", "uniform", "small", 27_000_000, 3.5))
        writer.append("models", **row("also", "winner", "also", 5_000_000, 2.5, same_as="small"))
    data = load(tmp_path)
    sentence = plain(headline(data).sentence)
    assert (
        "It predicts 50.0 % of masked tokens right at a loss of 2.50 (the teacher 50.0 % at a loss of 1.50" in sentence
    )
    section = winners(data)
    assert "which also started at random weights" in section.lead
    cards = {card.title: card for part in section.parts if isinstance(part, Comparisons) for card in part.cards}
    remark = plain(cards["small"].remark)
    assert remark.endswith("as large as the winner behind them, but has 27.0 M parameters in all against 5.00 M.")
    assert cards["also"].remark == "Distilled and measured once for several budgets: the winner is that of “small”."
    cells = {metric.name: [cell.text for cell in metric.cells] for metric in cards["small"].metrics}
    assert cells["input and output embeddings"] == ["tied", "tied", "tied"]
    assert cells["vocabulary"] == ["30,522"] * 3
    assert list(timed_models(data)["label"]) == ["teacher", "small", "small-uniform"], "a copy was not timed"


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")
