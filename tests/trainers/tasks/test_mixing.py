"""Whose turn a step is, and which rows it takes."""

from __future__ import annotations

from collections import Counter

import pytest

from trainers.tasks.batching import Encoded
from trainers.tasks.mixing import MixedBatches

COUNTS = (70, 33, 8)
BATCHES = (9, 5, 1)
"""Of eight rows each."""


def examples(count):
    return Encoded([[2] * (3 + row % 7) for row in range(count)], None, [0] * count, 0)


def mixed(seed=1, batch_size=8):
    return MixedBatches([examples(count) for count in COUNTS], batch_size, seed)


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_tasks_take_turns_in_proportion_to_their_batches_and_every_row_has_one_an_epoch(epoch):
    batches = mixed()
    assert batches.per_epoch == sum(BATCHES)
    steps = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
    assert Counter(batches.task(step) for step in steps) == dict(enumerate(BATCHES))
    rows = [(batches.task(step), row) for step in steps for row in batches.rows(step).tolist()]
    assert sorted(rows) == [(task, row) for task, count in enumerate(COUNTS) for row in range(count)]


def test_the_order_depends_on_seed_and_step_alone():
    ahead, anywhere = mixed(), mixed()
    plan = {step: (ahead.task(step), ahead.rows(step).tolist()) for step in range(40)}
    for step in (39, 3, 20, 14, 15, 0):
        assert (anywhere.task(step), anywhere.rows(step).tolist()) == plan[step]
    turns = [task for task, _ in plan.values()]
    assert turns[:15] != sorted(turns[:15]), "tasks are not learnt one after the other"
    assert turns[:15] != turns[15:30], "each epoch has an order of its own"
    assert turns != [mixed(seed=2).task(step) for step in range(40)]


def test_workers_share_a_batch_of_one_task():
    batches = mixed()
    for step in range(batches.per_epoch):
        whole = batches.rows(step).tolist()
        parts = [batches.rows(step, rank, 3).tolist() for rank in range(3)]
        assert all(parts)
        if len(whole) >= 3:
            assert sorted(row for part in parts for row in part) == sorted(whole)
