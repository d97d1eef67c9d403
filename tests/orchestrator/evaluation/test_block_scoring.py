"""Block losses as a table: pieces of the tree, rows, and going on after an interruption."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from safetensors.torch import save_file

from cluster.latency import LatencyMeasurement
from orchestrator.errors import UserError
from orchestrator.evaluation.actor_pool import run_here
from orchestrator.evaluation.block_choice import choose_blocks, choose_for_signal, count_chosen
from orchestrator.evaluation.block_scoring import (
    LARGEST_PIECE,
    BlockRows,
    BlockScorerFactory,
    blockwise,
    cut_into_pieces,
    leave_out_recorded,
    losses_by_batch,
    score_blocks,
)
from orchestrator.evaluation.supernet_evaluator import SupernetEvaluatorFactory
from orchestrator.latency_table import LatencyTable
from orchestrator.results import ResultsWriter, open_results
from orchestrator.testing.toy_space import ToySpace
from spaces.registry import load_space
from tests.spaces.microscopic import OPTIONS, SHAPE, block, shaken
from tests.trainers.corpora import make_corpus
from tests.trainers.teachers import save_teacher

BATCHES = 2
SPACE = blockwise(load_space("nas_bert", OPTIONS, SHAPE))
WANTED = {0: [block("16:M-F"), block("24:S3"), block("16:M")], 1: [block("32:F-F1-M")]}
BLOCKS = list(SPACE.enumerate_blocks())


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorer")
    make_corpus(folder / "validation")
    save_file(shaken(SPACE.supernet()).state_dict(), folder / "supernet.safetensors")
    evaluators = SupernetEvaluatorFactory(
        teacher_folder=save_teacher(folder / "teacher"),
        corpus_folder=folder / "validation",
        weights=folder / "supernet.safetensors",
        space_name="nas_bert",
        space_options=OPTIONS,
        batches=BATCHES,
        batch_size=4,
        precision="float32",
    )
    return BlockScorerFactory(evaluators)


def rows_of(**options) -> BlockRows:
    return BlockRows(SPACE, "abc", BATCHES, sequence_length=12, **options)


def score(factory, folder, wanted=WANTED, rows=None, on_scored=lambda count: None) -> dict:
    """Score what is missing; returns what that was."""
    rows = rows or rows_of()
    with ResultsWriter(folder, "run") as results:
        missing = leave_out_recorded(results, folder, rows, wanted)
        score_blocks(run_here, factory, results, rows, missing, 2, on_scored)
    return missing


def table(folder):
    return open_results(folder).frame("block_losses")


def test_every_architecture_has_a_row_with_its_loss_and_costs(factory, tmp_path):
    score(factory, tmp_path)
    rows = table(tmp_path).set_index(["block", "architecture"])
    assert sorted(rows.index) == sorted((index, str(each)) for index, blocks in WANTED.items() for each in blocks)
    evaluator = factory.evaluators().blocks()
    for (index, text), row in rows.iterrows():
        chosen = SPACE.parse_block(text)
        cost = SPACE.block_cost(chosen, 12)
        assert row["loss"] == evaluator.loss_alone(index, chosen)
        assert row["relative_loss"] == row["loss"] / row["variance"]
        assert (row["parameters"], row["flops"]) == (cost.parameters, cost.flops)
        assert (row["hidden_size"], row["layers"]) == (chosen.hidden_size, len(chosen.operations))
        assert (row["fidelity"], row["supernet_signature"]) == (BATCHES, "abc")
    assert rows["alive"].isna().all()
    assert rows["latency_ms"].isna().all()


def test_what_is_recorded_is_not_scored_again(factory, tmp_path):
    score(factory, tmp_path)
    counted = []
    more = {**WANTED, 1: [*WANTED[1], block("24:S3")]}
    assert score(factory, tmp_path, more, on_scored=counted.append) == {0: [], 1: [block("24:S3")]}
    assert counted == [1]
    other_fidelity = BlockRows(SPACE, "abc", 1, sequence_length=12)
    other_supernet = BlockRows(SPACE, "def", BATCHES, sequence_length=12)
    assert score(factory, tmp_path, rows=other_fidelity) == WANTED
    assert score(factory, tmp_path, rows=other_supernet) == WANTED


def test_an_interruption_loses_only_the_piece_under_way(factory, tmp_path):
    wanted = {0: BLOCKS[:40], 1: BLOCKS[:40]}
    done = []

    def interrupt(count: int) -> None:
        done.append(count)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(factory, tmp_path, wanted, on_scored=interrupt)
    missing = score(factory, tmp_path, wanted)
    assert sum(map(len, missing.values())) == 80 - sum(done)
    assert len(table(tmp_path)) == 80


def test_latency_and_survival_are_brought_up_to_date_without_scoring(factory, tmp_path):
    score(factory, tmp_path)
    before = table(tmp_path).set_index(["block", "architecture"])["loss"]
    measured = LatencyMeasurement(2.0, 1.9, 2.1, 3, 1)
    latency = LatencyTable(dict.fromkeys(SPACE.parts(), measured))
    alive = [np.array([each == block("16:M") for each in BLOCKS])] * 2
    missing = score(factory, tmp_path, rows=rows_of(latency=latency, alive=alive))
    rows = table(tmp_path).set_index(["block", "architecture"])
    assert not any(missing.values())
    assert rows["loss"].to_dict() == before.to_dict()
    assert rows["latency_ms"].to_dict() == {
        (index, str(each)): 2.0 * len(each.operations) for index, blocks in WANTED.items() for each in blocks
    }
    assert [key for key, row in rows.iterrows() if row["alive"]] == [(0, "16:M")]


def test_pieces_hold_everything_once_and_the_costliest_come_first():
    wanted = {0: BLOCKS, 1: BLOCKS[:7]}
    pieces = cut_into_pieces(SPACE, wanted, 3, actors=2)
    for index, blocks in wanted.items():
        assert sorted(str(each) for piece in pieces if piece.index == index for each in piece.blocks) == sorted(
            map(str, blocks)
        )
    costs = [sum(SPACE.block_cost(each).flops / len(each.operations) for each in piece.blocks) for piece in pieces]
    assert costs == sorted(costs, reverse=True)
    assert len(pieces) >= 8
    assert max(len(piece.blocks) for piece in pieces) <= LARGEST_PIECE
    assert {piece.batches for piece in pieces} == {3}


def test_a_scorer_travels_and_takes_any_number_of_batches(factory):
    scorer = pickle.loads(pickle.dumps(factory))()
    (piece,) = cut_into_pieces(SPACE, {1: WANTED[1]}, 3, actors=1)
    found = scorer(piece)
    assert found.by_batch_AN.shape == (1, 3)
    assert scorer(replace(piece, batches=1)).by_batch_AN.shape == (1, 1)
    alone = replace(factory.evaluators, batches=3)().blocks().loss_alone(1, WANTED[1][0])
    assert found.losses[0] == alone


def test_losses_by_batch_are_found_by_architecture(factory):
    found = losses_by_batch(run_here, factory, SPACE, WANTED, 2, 1, lambda count: None)
    evaluator = factory.evaluators().blocks()
    for index, blocks in WANTED.items():
        expected = evaluator.batch_losses(index, blocks)
        assert [found[index][each].tolist() for each in blocks] == expected.tolist()


def test_the_factored_output_is_the_factorys_switch(factory):
    factored = replace(factory, output="factored")
    one, other = (
        losses_by_batch(partial(run_here), each, SPACE, WANTED, 2, 1, lambda count: None)
        for each in (factory, factored)
    )
    for chosen in WANTED[0]:
        assert one[0][chosen] == pytest.approx(other[0][chosen], rel=1e-5)
    assert any((one[0][chosen] != other[0][chosen]).any() for chosen in WANTED[0])


def test_selections():
    alive = [np.array([place % 7 == index for place in range(len(BLOCKS))]) for index in range(2)]
    assert choose_blocks(SPACE, "all", 1, alive) == {0: BLOCKS, 1: BLOCKS}
    assert choose_blocks(SPACE, "alive", 1, None) == {0: BLOCKS, 1: BLOCKS}
    assert choose_blocks(SPACE, "alive", 1, alive) == {index: BLOCKS[index::7] for index in range(2)}
    few = choose_blocks(SPACE, 9, 1, alive)
    assert [len(set(blocks)) for blocks in few.values()] == [9, 9]
    assert few == choose_blocks(SPACE, 9, 1, None)
    assert few != choose_blocks(SPACE, 9, 2, None)
    assert {index: blocks[:9] for index, blocks in choose_blocks(SPACE, 12, 1, None).items()} == few
    assert len(set(choose_blocks(SPACE, len(BLOCKS) - 1, 1, None)[0])) == len(BLOCKS) - 1
    assert sorted(map(str, choose_blocks(SPACE, 10**9, 1, None)[1])) == sorted(map(str, BLOCKS))
    assert choose_blocks(SPACE, 0, 1, None) == {0: [], 1: []}


@pytest.mark.parametrize("selection", ["all", "alive", 0, 9, 10**9])
@pytest.mark.parametrize("shrunk", [False, True])
def test_counts_are_those_of_the_selection(selection, shrunk):
    alive = [np.arange(len(BLOCKS)) % 7 == index for index in range(2)] if shrunk else None
    chosen = choose_blocks(SPACE, selection, 1, alive)
    assert count_chosen(SPACE, selection, alive) == sum(map(len, chosen.values()))


def test_the_sample_of_the_signal_is_even_over_hidden_sizes_and_of_the_living():
    chosen = choose_for_signal(SPACE, 5, 1, None)
    assert list(chosen) == [0, 1]
    assert chosen[0] != chosen[1]
    for sizes in chosen.values():
        assert {size: len(set(blocks)) for size, blocks in sizes.items()} == {16: 5, 24: 5, 32: 5}
        assert all(each.hidden_size == size for size, blocks in sizes.items() for each in blocks)
    alive = [np.array([each.hidden_size == 24 and len(each.operations) == 1 for each in BLOCKS])] * 2
    assert choose_for_signal(SPACE, 9, 1, alive)[1] == {
        24: [each for each in BLOCKS if each.hidden_size == 24 and len(each.operations) == 1]
    }
    assert choose_for_signal(SPACE, 0, 1, None) == {}


def test_a_space_without_blocks_is_refused():
    with pytest.raises(UserError, match=r"not a space of blocks, .*such as nas_bert .*block_architectures: 0"):
        blockwise(ToySpace())


def test_losses_are_finite(factory, tmp_path):
    score(factory, tmp_path)
    assert all(math.isfinite(loss) and loss > 0 for loss in table(tmp_path)["loss"])
