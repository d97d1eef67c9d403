"""Figures show what the rows say."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.report import figures, latency_figures, palette, ranking_figures, supernet_figures
from orchestrator.report.data import Budget, RunData, Student, tidy
from orchestrator.report.sections import page
from orchestrator.results.schemas import TABLES


def frame(table: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    return tidy(pd.DataFrame(rows), TABLES[table])


def candidates(points: list[tuple[float, float]], strategy: str = "random") -> pd.DataFrame:
    """Candidates of the given (encoder parameters, loss)."""
    rows = [
        {
            "arch_id": f"a{number}",
            "architecture": f"E64|{number}:M",
            "strategy": strategy,
            "encoder_parameters": parameters,
            "latency_ms": 1.0 + number,
            "loss": loss,
        }
        for number, (parameters, loss) in enumerate(points)
    ]
    return frame("evaluations", rows)


def trace(figure: Any, name: str) -> Any:
    return next(one for one in figure.data if one.name == name)


def drawn_points(figure: Any) -> set[tuple[float, float]]:
    """The points of a front's clouds, legend entries aside."""
    clouds = [one for one in figure.data if one.showlegend is False]
    return {(float(x), float(y)) for one in clouds for x, y in zip(one.x, one.y, strict=True)}


def test_the_front_is_what_no_candidate_beats() -> None:
    scored = candidates([(100, 0.5), (200, 0.3), (150, 0.6), (300, 0.3), (50, 0.9)])
    line = trace(
        figures.front(scored, frame("selections", []), [], figures.PARAMETERS, figures.LATENCY), "Pareto front"
    )
    assert list(zip(line.x, line.y, strict=True)) == [(50, 0.9), (100, 0.5), (200, 0.3)]


def test_the_front_shows_every_candidate_with_its_architecture_and_latency() -> None:
    scored = candidates([(100, 0.5), (200, 0.3)])
    cloud = figures.front(scored, frame("selections", []), [], figures.PARAMETERS, figures.LATENCY).data[0]
    assert list(cloud.text) == ["E64|0:M", "E64|1:M"]
    assert list(cloud.marker.color) == [1.0, 2.0]


def test_a_crowd_is_thinned_but_its_front_stays_whole() -> None:
    rng = np.random.default_rng(3)
    points = [(float(x), float(y)) for x, y in rng.uniform(0.1, 1.0, size=(2 * figures.MOST_POINTS, 2))]
    scored = candidates(points)
    figure = figures.front(scored, frame("selections", []), [], figures.PARAMETERS, figures.LATENCY)
    best = figures.pareto(scored, figures.PARAMETERS)
    drawn = drawn_points(figure)
    assert len(drawn) == figures.MOST_POINTS
    assert set(zip(best["encoder_parameters"], best["loss"], strict=True)) <= drawn


def test_budgets_and_winners_are_marked() -> None:
    scored = candidates([(100, 0.5), (200, 0.3)])
    winner = {"budget": "half", "chosen": True, "loss": 0.3, "encoder_parameters": 200, "architecture": "E64|1:M"}
    budgets = [Budget("half", 250.0, None), Budget("fast", None, 3.0)]
    figure = figures.front(scored, frame("selections", [winner]), budgets, figures.PARAMETERS, figures.LATENCY)
    assert [line.x0 for line in figure.layout.shapes] == [250.0]
    assert figure.layout.xaxis.range[1] > 250.0
    star = trace(figure, "winner")
    assert (star.x[0], star.y[0], star.text[0], star.customdata[0]) == (200, 0.3, "half", "E64|1:M")


losses = st.one_of(st.none(), st.floats(0.01, 9.0))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 100), losses), min_size=1, max_size=40), st.integers(1, 100))
def test_progress_is_the_running_minimum_within_the_budget(rows: list[tuple[int, float | None]], limit: int) -> None:
    scored = candidates([(parameters, math.nan if loss is None else loss) for parameters, loss in rows])
    figure = figures.progress(scored, Budget("b", float(limit), None))
    line = figure.data[0]
    corners = dict(zip([int(x) for x in line.x], [float(y) for y in line.y], strict=True))
    best = math.inf
    shown = math.inf
    for number, (parameters, loss) in enumerate(rows, start=1):
        if parameters <= limit and loss is not None:
            best = min(best, loss)
        shown = corners.get(number, shown)
        assert shown == best
    if best < math.inf:
        assert len(rows) in corners


def test_a_uniform_baseline_is_its_winners_colour_but_dashed() -> None:
    rows = [
        {"stage": "distillation", "subject": label, "step": step, "relative_mse": 1.0 / step}
        for label in ("half-uniform", "half-winner", "tenth-winner")
        for step in (1, 2)
    ]
    students = {
        f"{budget}-{role}": Student(f"{budget}-{role}", budget, role)
        for budget in ("half", "tenth")
        for role in ("winner", "uniform")
    }
    lines = figures.distillation(frame("training", rows), students).data
    assert [line.name for line in lines] == ["half, winner", "half, uniform", "tenth, winner"]
    assert [line.line.dash for line in lines] == ["solid", "dash", "solid"]
    assert lines[0].line.color == lines[1].line.color != lines[2].line.color


def test_supernet_curves_are_the_rows_of_each_block() -> None:
    rows = [
        {"stage": "supernet", "subject": "supernet", "block": block, "step": step, "relative_mse": block + 1 / step}
        for step in (20, 10)
        for block in (0, 1)
    ]
    first, second = figures.supernet_training(frame("training", rows)).data
    assert (list(first.x), list(first.y)) == ([10, 20], [0.1, 0.05])
    assert (second.name, list(second.y)) == ("block 1", [1.1, 1.05])


def test_heat_map_has_each_operation_at_each_size_once() -> None:
    rows = [
        {"kind": "operation", "operation": name, "hidden_size": size, "median_ms": value, "spread_ms": 0.1}
        for name, size, value in [("M", 192, 1.0), ("M", 96, 0.5), ("S3", 96, 0.25)]
    ]
    heat = latency_figures.operation_latency(frame("latency", rows)).data[0]
    assert (list(heat.x), list(heat.y)) == (["M", "S3"], ["96", "192"])
    np.testing.assert_array_equal(np.asarray(heat.z, dtype=float), [[0.5, 0.25], [1.0, np.nan]])


def test_block_losses_have_a_colour_for_each_hidden_size_and_the_front_of_all() -> None:
    rows = [
        {"block": 0, "architecture": f"{size}:M", "hidden_size": size, "parameters": parameters, "relative_loss": loss}
        for size, parameters, loss in [(96, 10, 0.5), (96, 20, 0.6), (192, 30, 0.2), (192, 40, 0.3)]
    ]
    figure = supernet_figures.block_losses(frame("block_losses", rows))
    narrow, wide = trace(figure, "96 wide"), trace(figure, "192 wide")
    assert (list(narrow.x), list(wide.y)) == ([10, 20], [0.2, 0.3])
    assert narrow.marker.color != wide.marker.color
    line = trace(figure, "lowest loss")
    assert list(zip(line.x, line.y, strict=True)) == [(10, 0.5), (30, 0.2)]


def test_a_bin_that_is_done_keeps_what_it_had() -> None:
    rows = [
        {"round": 1, "block": 0, "bin": 1, "live_before": 100, "live_after": 50},
        {"round": 1, "block": 0, "bin": 2, "live_before": 15, "live_after": 10},
        {"round": 2, "block": 0, "bin": 1, "live_before": 50, "live_after": 25},
    ]
    shrunk = frame("shrinking", rows)
    line = trace(supernet_figures.alive(shrunk), "block 0")
    assert (list(line.x), list(line.y)) == ([0, 1, 2], [115, 60, 35])
    heat = supernet_figures.alive_by_bin(shrunk).data[0]
    assert [list(row) for row in heat.text] == [["50", "25"], ["10", "10"]]


def test_signals_are_bars_beside_the_line_of_noise() -> None:
    rows = [
        {"block": block, "hidden_size": size, "signal": 1.0 + block, "spread": 0.1, "noise": 0.1, "kendall_tau": 0.5}
        for block in (0, 1)
        for size in (192, 96)
    ]
    figure = supernet_figures.signals(frame("signals", rows))
    assert [list(bar.x) for bar in figure.data] == [["96", "192"]] * 2
    assert list(trace(figure, "block 1").y) == [2.0, 2.0]
    assert figure.layout.shapes[0].y0 == supernet_figures.CLEAR_SIGNAL


def test_finalists_go_from_their_place_by_loss_to_their_place_after_the_trial() -> None:
    rows = [
        {"budget": "b", "architecture": text, "rank": rank, "trial_rank": place, "chosen": place == 1}
        for text, rank, place in [("a", 1, 2), ("b", 9, 1)]
    ]
    lines = ranking_figures.finalists(frame("selections", rows)).data
    assert [(list(line.y), line.line.color == palette.ACCENT) for line in lines] == [([1, 2], False), ([2, 1], True)]


def test_a_check_shows_both_predictions_of_every_network() -> None:
    networks = pd.DataFrame(
        {"label": ["a", "b"], "measured_ms": [2.0, 4.0], "predicted_ms": [2.1, 3.9], "additive_ms": [1.0, 2.0]}
    )
    figure = latency_figures.latency_check(networks)
    assert list(trace(figure, "with the remainder").x) == [2.1, 3.9]
    assert list(trace(figure, "plain sum of the parts").x) == [1.0, 2.0]


def test_every_colour_has_a_dark_partner(finished: RunData) -> None:
    known = set(palette.DARK)

    def colours(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set().union(*map(colours, value.values()))
        if isinstance(value, list):
            return set().union(*map(colours, value))
        return {value} if isinstance(value, str) and value.startswith("#") else set()

    used = set().union(*(colours(json.loads(plot.figure.to_json())) for plot in page(finished).plots()))
    assert used
    assert used <= known
    assert len(set(palette.DARK.values())) == len(known)


@pytest.mark.parametrize("count", range(9))
def test_ordered_colours_keep_their_order(count: int) -> None:
    places = [palette.SEQUENCE.index(colour) for colour in palette.steps(count)]
    assert len(places) == count
    assert places == sorted(places)
