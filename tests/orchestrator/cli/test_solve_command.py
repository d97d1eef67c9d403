"""``netsuke solve`` on a run whose block losses are recorded."""

from __future__ import annotations

import random
import shutil
from dataclasses import asdict
from itertools import product

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from orchestrator.evaluation.block_scoring import BlockRows
from orchestrator.formatting import count
from orchestrator.latency_table import LatencyTable
from orchestrator.recipe import load_recipe
from orchestrator.results import ResultsWriter, open_results
from orchestrator.results.pareto import non_dominated
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.evaluators import evaluator_factory
from spaces.registry import load_space
from tests.orchestrator.pipeline.microscopic_run import RECIPE, SEQUENCE_LENGTH, shape_of_teacher, write_teacher
from tests.orchestrator.trained_run import make_trained_run
from tests.orchestrator.without_ray import without_ray

SPACE = load_space("nas_bert", RECIPE["space"]["options"], shape_of_teacher())
BLOCKS = list(SPACE.enumerate_blocks())


def record_losses(
    run: RunDirectory, count: int | None = None, latency: bool = True, alive=None, supernet: str = "supernet-1"
) -> None:
    """Block losses that fall with the block's size, and some noise."""
    table = LatencyTable.from_json(run.stage_record("latency").outputs["latency_table"]) if latency else None
    rows = BlockRows(SPACE, supernet, 2, SEQUENCE_LENGTH, table, alive)
    rng = random.Random(0)
    chosen = BLOCKS if count is None else rng.sample(BLOCKS, count)
    with ResultsWriter(run.results, run.read()["run_id"]) as results:
        for index in range(SPACE.num_blocks):
            for block in chosen:
                loss = 1 / (1000 + SPACE.block_cost(block).parameters) + 1e-5 * rng.random()
                results.append("block_losses", **rows.row(index, block, loss, variance=0.5 + index))


@pytest.fixture
def run(place, tmp_path):
    return make_trained_run(place, tmp_path / "run")


@pytest.fixture
def predicting_run(place, tmp_path):
    """A run whose teacher has a masked-LM head, with block losses."""
    other = tmp_path / "place"
    other.mkdir()
    shutil.copy(place / "microscopic.yaml", other)
    write_teacher(other / "teacher", with_head=True)
    run = make_trained_run(other, tmp_path / "run")
    record_losses(run, count=30)
    return run


def all_pairs(run: RunDirectory) -> pd.DataFrame:
    """Every network of the scored blocks, with its summed loss and its costs."""
    frame = open_results(run.results).frame("block_losses")
    table = LatencyTable.from_json(run.stage_record("latency").outputs["latency_table"])
    rows = []
    losses = [dict(zip(one["architecture"], one["loss"], strict=True)) for _, one in frame.groupby("block")]
    for first, second in product(*losses):
        architecture = SPACE.parse(f"E32|{first}|{second}")
        loss = losses[0][first] + losses[1][second]
        latency_ms = round(table.predict_ms(SPACE, architecture), 9)  # sums of milliseconds differ in their last digit
        rows.append({"loss": loss, "latency_ms": latency_ms, **asdict(SPACE.cost(architecture, SEQUENCE_LENGTH))})
    return pd.DataFrame(rows)


def lowest_sum(run: RunDirectory, keeps) -> tuple[float, str]:
    """By brute force over all pairs of blocks."""
    frame = open_results(run.results).frame("block_losses")
    losses = [dict(zip(one["architecture"], one["loss"], strict=True)) for _, one in frame.groupby("block")]
    texts = [str(block) for block in BLOCKS if str(block) in losses[0]]
    order = sorted(
        (losses[0][first] + losses[1][second], first, second) for first in texts[::1] for second in texts[::1]
    )
    for loss, first, second in order:
        architecture = SPACE.parse(f"E32|{first}|{second}")
        if keeps(architecture):
            return loss, str(architecture)
    raise AssertionError("nothing keeps the limits")


def test_the_best_within_limits_is_that_of_brute_force(run, netsuke):
    record_losses(run, count=60)
    answer = netsuke("solve", run.path, "--max-encoder-params", "12k", "--max-latency", "4ms", "--json")
    assert answer.code == 0, answer.err
    table = LatencyTable.from_json(run.stage_record("latency").outputs["latency_table"])
    loss, architecture = lowest_sum(
        run,
        lambda one: SPACE.cost(one).encoder_parameters <= 12_000 and table.predict_ms(SPACE, one) <= 4 + 1e-9,
    )
    (found,) = answer.json["networks"]
    assert found["architecture"] == architecture
    assert found["loss"] == pytest.approx(loss, rel=1e-12)
    cost = SPACE.cost(SPACE.parse(architecture), SEQUENCE_LENGTH)
    assert (found["parameters"], found["flops"]) == (cost.parameters, cost.flops)
    assert found["latency_ms"] == pytest.approx(table.predict_ms(SPACE, SPACE.parse(architecture)), abs=1e-8)
    assert answer.json["combinations"] == 60**2
    assert any("sample" in note for note in answer.json["notes"])


def test_a_person_reads_what_was_proven(run, netsuke):
    record_losses(run)
    answer = netsuke("solve", run.path, "--max-encoder-params", "50%")
    assert answer.code == 0, answer.err
    assert f"optimal over {len(BLOCKS) ** 2:,} combinations" in answer.out
    assert "solved in" in answer.out
    assert "sample" not in answer.out
    assert "whole loss" not in answer.out, "nothing was ranked again"
    (found,) = netsuke("solve", run.path, "--max-encoder-params", "50%", "--json").json["networks"]
    assert f" {count(found['flops'])} " in answer.out, "small networks have FLOPs, too"


def test_without_limits_the_whole_front_is_given(run, netsuke, tmp_path):
    record_losses(run)
    file = tmp_path / "front.parquet"
    answer = netsuke("solve", run.path, "--output", file, "--json")
    assert answer.code == 0, answer.err
    points = np.array([[one["loss"], one["parameters"], one["latency_ms"]] for one in answer.json["networks"]])
    beaten = [((points <= point).all(axis=1) & (points < point).any(axis=1)).any() for point in points]
    assert not any(beaten)
    assert len(np.unique(points, axis=0)) == len(points) > 20
    assert pq.read_table(file).num_rows == len(points)
    shown = netsuke("solve", run.path, "--objectives", "loss,parameters")
    assert "the whole front over" in shown.out


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        (("--max-params", "30k"), {"parameters": 30_000}),
        (("--max-encoder-params", "30k", "--max-latency", "5ms"), {"encoder_parameters": 30_000, "latency_ms": 5}),
        (("--max-flops", "600k"), {"flops": 600_000}),
        (
            ("--max-flops", "700k", "--max-encoder-params", "15k", "--objectives", "loss,latency"),
            {"flops": 700_000, "encoder_parameters": 15_000},
        ),
    ],
)
def test_the_front_within_limits_is_that_of_brute_force(run, netsuke, options, limits):
    record_losses(run, count=25)
    answer = netsuke("solve", run.path, *options, "--front", "--json")
    assert answer.code == 0, answer.err
    names = answer.json["objectives"]
    everything = all_pairs(run)
    within = everything[np.all([everything[name] <= limit + 1e-9 for name, limit in limits.items()], axis=0)]
    points = within[names].to_numpy()
    expected = np.unique(points[non_dominated(points)], axis=0)
    found = np.unique([[one[name] for name in names] for one in answer.json["networks"]], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert 0 < len(within) < len(everything)
    assert len(found) == len(answer.json["networks"])
    assert answer.json["limits"] == limits
    shown = netsuke("solve", run.path, *options, "--front").out
    assert "Pareto front of" in shown
    assert "the whole front within the limits over 625 combinations" in shown


def test_a_front_within_impossible_limits_names_the_nearest(run, netsuke):
    record_losses(run, count=20)
    answer = netsuke("solve", run.path, "--max-params", "1k", "--front")
    assert answer.code == 2
    assert "no network keeps the limit" in answer.error


def test_the_best_are_ranked_again_by_the_whole_network_and_by_the_teachers_head(predicting_run, netsuke, local_ray):
    run = predicting_run
    arguments = ("solve", run.path, "--max-encoder-params", "20k", "--top", "4")
    plain = netsuke(*arguments, "--json", "--no-rerank").json
    answer = netsuke(*arguments, "--json")
    assert answer.code == 0, answer.err
    first = answer.json
    found = {one["architecture"]: one["whole_loss"] for one in first["networks"]}
    assert [*found.values()] == sorted(found.values())
    assert set(found) == {one["architecture"] for one in plain["networks"]}
    recorded = open_results(run.results).frame("evaluations")
    assert dict(zip(recorded["architecture"], recorded["loss"], strict=True)) == found
    assert set(recorded["strategy"]) == {"exact"}
    assert netsuke(*arguments, "--json").json["networks"] == first["networks"]
    assert len(open_results(run.results).frame("evaluations")) == 4, "nothing is scored twice"

    assert {one["masked_lm_loss"] for one in first["networks"]} == {None}
    with without_ray():
        answer = netsuke(*arguments, "--rerank-by", "masked_lm", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["ranked_by"] == "masked_lm_loss"
    losses = {one["architecture"]: one["masked_lm_loss"] for one in answer.json["networks"]}
    assert [*losses.values()] == sorted(losses.values())
    evaluator = evaluator_factory(load_recipe(str(run.path / "recipe.yaml")), run, 1, 8, 0, "masked_lm")()
    for text, loss in losses.items():
        [score] = evaluator.score([SPACE.parse(text)], 1)
        assert loss == pytest.approx(score.masked_lm_loss, rel=1e-5)
    assert {one["architecture"]: one["whole_loss"] for one in answer.json["networks"]} == found, "means what it did"
    shown = netsuke(*arguments, "--rerank-by", "masked_lm").out
    assert "masked-LM loss" in shown
    assert len(open_results(run.results).frame("evaluations")) == 4, "each is scored once in each way, and one row"
    assert "masked-LM loss" not in netsuke(*arguments).out


def test_ranking_by_predictions_needs_a_head(run, netsuke):
    record_losses(run, count=20)
    answer = netsuke("solve", run.path, "--max-params", "1M", "--top", "2", "--rerank-by", "masked_lm")
    assert answer.code == 2
    assert answer.error.startswith("--rerank-by: found masked_lm, but the teacher ")
    assert answer.error.endswith("expected one that was saved as BertForMaskedLM, or leave it at hidden_states")


def test_whole_networks_of_a_former_supernet_are_not_scored_with_the_present_weights(run, netsuke):
    record_losses(run, count=20, supernet="supernet-0")
    arguments = ("solve", run.path, "--max-params", "1M", "--supernet", "supernet-0", "--top", "2")
    answer = netsuke(*arguments)
    assert answer.code == 2
    assert "has only the weights of its present supernet supernet-1" in answer.error
    assert len(netsuke(*arguments, "--no-rerank", "--json").json["networks"]) == 2


def test_survivors_alone_or_all(place, tmp_path, netsuke):
    run = make_trained_run(place, tmp_path / "shrunk")
    alive = [np.arange(len(BLOCKS)) % 7 == 0] * SPACE.num_blocks
    record_losses(run, alive=alive)
    arguments = ("solve", run.path, "--max-encoder-params", "20k", "--json")
    assert netsuke(*arguments).json["combinations"] == int(alive[0].sum()) ** 2
    assert netsuke(*arguments, "--blocks", "all").json["combinations"] == len(BLOCKS) ** 2


def test_normalised_sums_weigh_blocks_by_their_variance(run, netsuke):
    record_losses(run, count=60)
    arguments = ("solve", run.path, "--max-encoder-params", "20k", "--json")
    raw, normalised = (netsuke(*arguments, "--loss", kind).json["networks"][0] for kind in ("raw", "normalised"))
    assert raw["loss"] != normalised["loss"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--max-params", "10X"), "--max-params: found '10X', expected"),
        (("--max-params", "50%"), "--max-params: found 50%, expected a number such as 10M"),
        (("--max-latency", "-4ms"), "--max-latency: found"),
        (("--blocks", "dead"), "--blocks"),
        (("--embedding", "huge"), "--embedding: found 'huge', expected ladder, any, or a size"),
        (("--embedding", "7", "--max-params", "1M"), "embedding size: found 7, expected one of the space's: 32"),
        (("--max-params", "1k"), "no network keeps the limit: parameters at most 1,000 (the least is"),
        (
            ("--max-latency", "0.1ms"),
            "no network keeps the limit: latency at most 0.100 ms (the least is 3.50 ms)",
        ),
        (("--objectives", "loss,beauty"), "--objectives: found 'beauty'"),
        (("--max-params", "1M", "--batches", "9"), "--batches: found 9, expected a number of validation batches that"),
        (("--max-params", "1M", "--batches", "9"), "were scored on (2); leave it out, or score them on as many first"),
        (("--output", "front.csv"), "expected .parquet"),
    ],
)
def test_a_mistake_gets_one_line(run, netsuke, options, says):
    record_losses(run, count=20)
    answer = netsuke("solve", run.path, *options)
    assert answer.code == 2
    assert says in answer.error


def test_a_limit_on_latency_needs_a_latency_table(run, netsuke):
    record_losses(run, count=20, latency=False)
    answer = netsuke("solve", run.path, "--max-latency", "4ms")
    assert answer.code == 2
    assert "--max-latency" in answer.error


def test_without_block_losses_it_says_what_to_run(run, netsuke):
    answer = netsuke("solve", run.path, "--max-params", "1M")
    assert answer.code == 2
    assert "netsuke score" in answer.error
