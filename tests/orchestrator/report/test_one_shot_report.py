"""What the report shows of a one-shot search over components."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import formatting as f
from orchestrator.report.composition_figures import picture
from orchestrator.report.data import load
from orchestrator.report.models import winners
from orchestrator.report.oneshot_figures import PhaseSteps
from orchestrator.report.oneshot_sections import one_shot, one_shot_sentences
from orchestrator.report.sections import page
from orchestrator.report.views import Comparisons, Fold, Grid, Note, Part, Plots
from orchestrator.results import ResultsWriter
from spaces.components.architecture import ComponentsArchitecture
from spaces.components.space import ComponentsSpace
from spaces.components.sublayers import SublayerChoice
from tests.orchestrator.report.one_shot_run import CUT_SHORT, WINNER, write_one_shot_run
from tests.spaces.components.microscopic import TEXT, make_space

HALVES = (("head", 4, 2), ("slice", 8, 0))
"""Of the microscopic space: what components are called, and how many components and query-key slices there are."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_one_shot_run(tmp_path_factory.mktemp("one-shot") / "run")


def told(folder: Path) -> str:
    """The notes of the section, and the sentences of the summary, which are the same."""
    notes = [part.text for part in one_shot(load(folder)).parts if isinstance(part, Note)]
    assert one_shot_sentences(load(folder))[1:] == notes
    return " ".join(notes)


def grids(parts: tuple[Part, ...]) -> list[Grid]:
    return [part for part in parts if isinstance(part, Grid)]


def read_back(figure: object) -> ComponentsArchitecture:
    """The architecture that the cells of a picture show."""
    heat = figure.data[0]  # type: ignore[attr-defined]
    sublayers = []
    for values, texts in zip(heat.z, heat.text, strict=True):
        place = 0
        for _, components, slices in HALVES:
            stages: dict[int, list[int]] = {}
            for one in range(components):
                if values[place + one]:
                    stages.setdefault(int(texts[place + one] or 1), []).append(one)
            place += components + 1
            query_key = tuple(one for one in range(slices) if values[place + one])
            place += slices + 1 if slices else 0
            mean = bool(values[place])
            sublayers.append(SublayerChoice(tuple(map(tuple, stages.values())), query_key, mean))
            place += 3
    return ComponentsArchitecture.of_sublayers(sublayers)


@given(seed=st.integers(0, 10_000), vertical=st.sampled_from([("attention", "feed_forward"), ("feed_forward",), ()]))
@settings(max_examples=40, deadline=None)
def test_a_picture_shows_all_that_an_architecture_says(seed: int, vertical: tuple[str, ...]) -> None:
    space = make_space(vertical=vertical)
    architecture = space.sample(random.Random(seed))
    assert read_back(picture(architecture, space.options)) == architecture


def test_cells_of_later_stages_are_darker_and_what_is_gone_is_named() -> None:
    space = make_space()
    figure = picture(space.parse(TEXT), space.options)
    first = figure.data[0].z[0]
    assert list(first[:4]) == [1, 1, 0, 2]
    assert [text.text for text in figure.layout.annotations if text.y == 3] == ["the whole layer is gone"]
    assert [text.text for text in figure.layout.annotations if text.y == 2] == ["no feed-forward"]
    assert set(figure.data[0].z[2]) == {None}
    assert figure.data[0].customdata[0][3] == "layer 1, head 4: kept, stage 2 of 2"
    assert figure.data[0].customdata[0][2] == "layer 1, head 3: dropped"


def test_pictures_of_many_slices_take_the_width_of_the_page(tmp_path: Path) -> None:
    space = {"name": "components", "options": {"feed_forward_slices": 64}}
    folder = write_one_shot_run(tmp_path / "run", found="0|F1-64.M|F1,63.M|0", winners={"most": WINNER}, space=space)
    shown = [part for part in one_shot(load(folder)).parts if isinstance(part, Plots)][1:]
    assert [len(part.plots) for part in shown] == [1, 1, 1]
    assert [bool(part.caption) for part in shown] == [False, False, True]


def test_the_phases_are_those_of_the_recipe(run: Path) -> None:
    plot = next(part for part in one_shot(load(run)).parts if isinstance(part, Plots)).plots[0]
    names = {text.text: text.x for text in plot.figure.layout.annotations}
    assert names == {"warm-up": 10, "search": 45, "frozen": 85}
    [searched] = [shape for shape in plot.figure.layout.shapes if shape.type == "rect"]
    assert (searched.x0, searched.x1) == (20, 70)
    expected, frozen = (line for line in plot.figure.data if line.yaxis == "y2")
    assert (list(expected.x), list(frozen.x)) == ([10, 20, 30, 40, 50, 60, 70], [80, 90, 100])


def test_phases_without_steps_are_left_out() -> None:
    assert PhaseSteps(0, 8, 8).spans == [("search", 0, 8)]
    assert PhaseSteps(1, 5, 9).spans == [("warm-up", 0, 1), ("search", 1, 6), ("frozen", 6, 9)]


def test_the_table_has_the_numbers_of_the_space(run: Path) -> None:
    space = make_space()
    whole, found = space.largest(), space.parse(TEXT)
    table, paper = grids(one_shot(load(run)).parts)
    names = [column.name for column in table.columns]
    rows = [dict(zip(names, row, strict=True)) for row in table.rows]
    assert [row["architecture"] for row in rows] == [
        "The teacher’s own form",
        "Found by one-shot, winner of “most”",
        "Winner of “half”",
    ]
    assert rows[1] == {
        "architecture": "Found by one-shot, winner of “most”",
        "encoder parameters": f.count(space.cost(found).encoder_parameters),
        "of all": f.percent(space.cost(found).encoder_parameters / space.cost(whole).encoder_parameters),
        "FLOPs": f.percent(space.cost(found, 16).flops / space.cost(whole, 16).flops),
        "predicted latency": f.NOTHING,
        "layers": "3 of 4",
        "heads": "9 of 16",
        "uniform attention": "1",
        "neurons": f"{13 * space.options.slice_size:,} of {32 * space.options.slice_size:,}",
        "in series": "8",
    }
    assert rows[2]["predicted latency"] == f.milliseconds(2.5)
    assert [row[1] for row in paper.rows] == [
        "3 of 5 LayerNorms keep it",
        "layer 2 of 4",
        "3 of 6 slices kept",
        "in 1 of 2 feed-forwards",
    ]
    fold = next(part for part in one_shot(load(run)).parts if isinstance(part, Fold))
    assert TEXT in fold.text
    assert WINNER in fold.text


def test_a_search_that_came_to_rest_is_told_so(run: Path) -> None:
    assert "The search had come to rest" in told(run)
    assert "What helps" not in told(run)


def test_a_search_that_was_cut_short_is_told_what_helps(tmp_path: Path) -> None:
    text = told(write_one_shot_run(tmp_path / "run", course=CUT_SHORT))
    decisions = len(make_space().encode(make_space().largest()))
    assert f"as open as {0.75 * decisions:.0f} tosses of a coin, of {decisions} decisions in all" in text
    # From step 20 to 70 the search is 50 steps long; the expected cost at 57.5 lies between 0.85 and 0.79.
    assert "by 10.5 points of 25.0 in its last quarter" in text
    assert "supernet.steps" in text
    assert "cost_weight" in text


def test_a_search_that_gave_nothing_up_is_told_so(tmp_path: Path) -> None:
    whole = str(make_space().largest())
    folder = write_one_shot_run(tmp_path / "run", found=whole, winners={"most": whole})
    assert "The search gave nothing up" in told(folder)
    [table] = grids(one_shot(load(folder)).parts)
    assert [row[0] for row in table.rows] == ["The teacher’s own form, found by one-shot, winner of “most”"]


def test_a_search_under_way_has_a_course_and_no_verdict(tmp_path: Path) -> None:
    data = load(write_one_shot_run(tmp_path / "run", found="", winners={"half": WINNER}))
    section = one_shot(data)
    assert not [part for part in section.parts if isinstance(part, Note)]
    assert one_shot_sentences(data) == []
    assert page(data).plots()[0].heading == "The course of the training"


def test_a_run_that_has_not_begun_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("space: {name: components}\n")
    section = one_shot(load(tmp_path))
    assert [part.text for part in section.parts if isinstance(part, Note)] == ["The supernet has not been trained yet."]
    assert "blocks" not in {one.section_id for one in page(load(tmp_path)).sections}


def test_other_runs_have_no_such_section(finished_run: Path) -> None:
    data = load(finished_run)
    assert "one-shot" not in {section.section_id for section in page(data).sections}
    assert one_shot_sentences(data) == []


def test_a_budget_says_that_the_one_shot_training_chose(tmp_path: Path) -> None:
    folder = write_one_shot_run(tmp_path / "run")
    with ResultsWriter(folder / "results", "made-up-2") as writer:
        for budget in ("most", "half"):
            writer.append("models", model=budget, role="winner", budget=budget, encoder_parameters=10, architecture="x")
    cards = next(part for part in winners(load(folder)).parts if isinstance(part, Comparisons)).cards
    assert [card.limits for card in cards] == ["what the one-shot training found", ""]


def test_candidates_of_a_sampling_distribution_are_drawn_as_those_of_any_strategy(run: Path) -> None:
    front = next(section for section in page(load(run)).sections if section.section_id == "front")
    figure = next(part for part in front.parts if isinstance(part, Plots)).plots[0].figure
    assert "sampling_distribution" in {trace.name for trace in figure.data}


def test_a_space_with_fixed_halves_does_not_call_its_largest_the_teachers(tmp_path: Path) -> None:
    fixed = {"fixed_attention": ["H1-2.Q1.M"] * 4}
    space = ComponentsSpace.from_options(fixed, make_space().options.shape)
    found = "|".join(["H1-2.Q1.M/F1-4.M"] * 4)
    folder = write_one_shot_run(
        tmp_path / "run", found=found, winners={"half": WINNER}, space={"name": "components", "options": fixed}
    )
    table = grids(one_shot(load(folder)).parts)[0]
    assert [row[0] for row in table.rows] == ["The largest architecture", "Found by one-shot"]
    share = space.cost(space.parse(found)).encoder_parameters / space.cost(space.largest()).encoder_parameters
    assert table.rows[1][2] == f.percent(share)
