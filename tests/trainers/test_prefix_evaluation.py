"""Losses with shared beginnings: those of evaluating alone bit for bit, in memory that depth bounds."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.spaces.microscopic import block, make_space, shaken
from tests.trainers.states_alive import watch_states
from trainers.losses import masked_mse, masked_variance
from trainers.prefix_evaluation import (
    PrefixEvaluator,
    common_length,
    mean_over_batches,
    pieces_of_walk,
    sort_paths,
)
from trainers.validation import ValidationBatch, variance_at

SPACE = make_space()
BLOCKS = list(SPACE.enumerate_blocks())
torch.manual_seed(4)
SUPERNET = shaken(SPACE.supernet()).eval().requires_grad_(False)
LENGTHS = ((12, 7, 3), (12, 12, 12), (5, 1))


def make_batches(device: str = "cpu") -> list[ValidationBatch]:
    """Batches of different sizes, with and without padding, and any states for the teacher's."""
    generator = torch.Generator().manual_seed(5)
    batches = []
    for lengths in LENGTHS:
        mask_BT = (torch.arange(12)[None, :] < torch.tensor(lengths)[:, None]).long()
        shape = (len(lengths), 12, SPACE.options.shape.hidden_size)
        states = [torch.randn(shape, generator=generator) for _ in range(SPACE.num_blocks + 1)]
        variances = [masked_variance(state, mask_BT).item() for state in states]
        moved = [state.to(device) for state in states]
        batches.append(ValidationBatch(torch.zeros_like(mask_BT).to(device), mask_BT.to(device), moved, variances))
    return batches


BATCHES = make_batches()
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


def evaluator(precision: str = "float32", **options) -> PrefixEvaluator:
    return PrefixEvaluator(SUPERNET, BATCHES, precision, **options)


@settings(max_examples=25, deadline=None)
@given(
    index=st.integers(0, SPACE.num_blocks - 1),
    blocks=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=12),
    precision=st.sampled_from(["float32", "bfloat16"]),
)
def test_losses_are_those_of_evaluating_alone_bit_for_bit(index, blocks, precision):
    scorer = evaluator(precision)
    expected = [scorer.loss_alone(index, each) for each in blocks]
    assert scorer.losses(index, blocks).tolist() == expected


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_whole_trees_are_exact_on_every_device(device, precision):
    supernet = shaken(SPACE.supernet()).eval().requires_grad_(False).to(device)
    scorer = PrefixEvaluator(supernet, make_batches(device), precision)
    tree = [each for each in BLOCKS if len(each.operations) < 4 and each.operations[0] == "M"]
    assert scorer.losses(1, tree).tolist() == [scorer.loss_alone(1, each) for each in tree]


def test_alone_means_forward_block_and_masked_mse():
    chosen = block("24:M-F-S5")
    squared = tokens = 0.0
    with torch.inference_mode():
        for batch in BATCHES:
            output_BTD = SUPERNET.forward_block(1, chosen, batch.states_BTD[1], batch.mask_BT.bool())
            count = float(batch.mask_BT.sum())
            squared += masked_mse(output_BTD, batch.states_BTD[2], batch.mask_BT).item() * count
            tokens += count
    assert evaluator().loss_alone(1, chosen) == squared / tokens


def test_forward_block_is_the_composition_of_its_steps_bit_for_bit():
    hidden_BTD, mask_BT = BATCHES[0].states_BTD[0], BATCHES[0].mask_BT.bool()
    for chosen in random.Random(1).sample(BLOCKS, 10):
        shared, size = SUPERNET.block(0), chosen.hidden_size
        expected = shared.entries[str(size)](hidden_BTD)
        for layer, operation in enumerate(chosen.operations):
            expected = shared.operation(layer, size, operation)(expected, mask_BT)
        expected_BTD = shared.exits[str(size)](expected)
        assert torch.equal(SUPERNET.forward_block(0, chosen, hidden_BTD, mask_BT), expected_BTD)


def test_the_states_of_the_teacher_and_of_the_path_are_left_as_they_are():
    before = [state.clone() for batch in BATCHES for state in batch.states_BTD]
    evaluator().losses(0, [block("32:M"), block("32:M-F"), block("16:S3")])  # 32 is the teacher's width: no exit
    after = [state for batch in BATCHES for state in batch.states_BTD]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_every_step_is_computed_once_and_depth_bounds_the_states_alive():
    scorer = evaluator()
    scorer.losses(0, BLOCKS)
    nodes = len(BLOCKS) + len(SPACE.options.hidden_sizes)  # every node of the trees but the entries is an architecture
    assert scorer.states_computed == nodes * len(BATCHES)
    assert scorer.most_states_alive == SPACE.options.layers_per_block + 1


def test_memory_is_bounded_by_depth_and_not_by_count(monkeypatch):
    most = watch_states(monkeypatch, SUPERNET)
    evaluator().losses(0, BLOCKS[:400])
    assert len(most) > 400
    assert max(most) <= SPACE.options.layers_per_block + 1


def test_results_stream_back_once_each_and_repeats_cost_nothing():
    blocks = [block("16:M-F"), block("24:S3"), block("16:M-F"), block("16:M")]
    scorer, told = evaluator(), {}

    def on_result(place: int, loss: float) -> None:
        assert place not in told
        told[place] = loss

    losses = scorer.losses(0, blocks, on_result)
    assert told == dict(enumerate(losses.tolist()))
    assert losses[0] == losses[2]
    assert scorer.states_computed == 5 * len(BATCHES)  # two entries, M, F and S3


def test_one_block_of_the_supernet_says_nothing_about_another():
    chosen = [block("16:M-F"), block("24:S3")]
    changed = copy.deepcopy(SUPERNET)
    with torch.no_grad():
        for parameter in changed.block_module(1).parameters():
            parameter.mul_(2.0)
    other = PrefixEvaluator(changed, BATCHES)
    assert evaluator().losses(0, chosen).tolist() == other.losses(0, chosen).tolist()
    assert evaluator().losses(1, chosen).tolist() != other.losses(1, chosen).tolist()


def test_what_stands_in_padding_changes_no_loss():
    chosen = [block("16:M-S5"), block("24:S3-F"), block("32:M")]
    moved = []
    for batch in BATCHES:
        gone_BT1 = (1 - batch.mask_BT).unsqueeze(-1)
        states = [state + 100.0 * gone_BT1 for state in batch.states_BTD]
        moved.append(ValidationBatch(batch.input_ids_BT, batch.mask_BT, states, batch.variances))
    losses = PrefixEvaluator(SUPERNET, moved).losses(0, chosen)
    assert losses == pytest.approx(evaluator().losses(0, chosen), rel=1e-6)


@pytest.mark.parametrize("index", [0, 1])
def test_the_factored_output_agrees_to_rounding(index):
    blocks = [*random.Random(2).sample(BLOCKS, 60), block("32:M-F")]
    full, factored = evaluator().losses(index, blocks), evaluator(output="factored").losses(index, blocks)
    assert factored == pytest.approx(full, rel=2e-6)
    assert (factored != full).any()  # else the switch does nothing


def test_batches_are_weighted_by_their_tokens():
    by_batch = evaluator().batch_losses(0, [block("16:M"), block("24:F")])
    tokens = [sum(lengths) for lengths in LENGTHS]
    expected = (by_batch * tokens).sum(1) / sum(tokens)
    assert by_batch.shape == (2, len(LENGTHS))
    assert mean_over_batches(by_batch, np.array(tokens, dtype=float)) == pytest.approx(expected)
    assert evaluator().losses(0, [block("16:M"), block("24:F")]) == pytest.approx(expected)


def test_the_variance_at_a_border_is_weighted_by_tokens():
    weighted = [batch.variances[1] * float(batch.mask_BT.sum()) for batch in BATCHES]
    assert variance_at(BATCHES, 1) == pytest.approx(sum(weighted) / 64)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple)), st.integers(1, 9))
def test_pieces_of_a_walk_are_all_of_it_in_order_within_one_entry(paths, pieces):
    paths = list(paths)
    cut = pieces_of_walk(paths, [float(len(path)) for path in paths], pieces)
    walked = [paths[place] for piece in cut for place in piece]
    assert walked == sort_paths(paths)
    assert all(len({paths[place][0] for place in piece}) == 1 for piece in cut)


def test_pieces_are_about_equal():
    paths = [SUPERNET.block_steps(each) for each in BLOCKS]
    costs = [1.0] * len(paths)
    sizes = [len(piece) for piece in pieces_of_walk(paths, costs, 12)]
    assert max(sizes) <= len(paths) / 12 + 1
    assert len(sizes) <= 12 + len(SPACE.options.hidden_sizes)


def test_a_walk_visits_each_beginning_before_its_continuations():
    walked = sort_paths([("b", 2, "x"), ("a",), ("b", 2), ("a", "x"), ("b",)])
    assert walked.index(("b",)) < walked.index(("b", 2)) < walked.index(("b", 2, "x"))
    assert abs(walked.index(("a",)) - walked.index(("a", "x"))) == 1
    assert common_length(("b", 2, "x"), ("b", 2)) == 2
