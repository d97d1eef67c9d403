"""The teacher's states on disk: a training with them is the training without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.trainers.blockwise_tasks import make_training
from trainers import teacher_states
from trainers.errors import TrainingInputError
from trainers.task import run_locally
from trainers.teacher_states import TeacherStates, cache_bytes

CPU = torch.device("cpu")


@pytest.fixture
def make_states(teacher, corpus, tmp_path):
    def make(form: teacher_states.CacheFormat = "float32") -> TeacherStates:
        return TeacherStates(teacher, corpus, 2, "float32", CPU, form, tmp_path / "states")

    return make


def read(states, corpus, rows):
    return states.of(np.array(rows), *corpus.rows(np.array(rows)))


def test_a_training_with_a_cache_equals_one_without_bit_for_bit(teacher, corpus, tmp_path):
    """40 rows, 6 a step: text comes again from step 6 on, and two steps straddle the end of an epoch."""
    steps = 20
    plain = make_training(teacher, corpus, total_steps=steps, paths_per_step=2)
    cached = make_training(
        teacher, corpus, total_steps=steps, paths_per_step=2, teacher_cache="float32", cache_folder=tmp_path
    )
    rows = [[{**row, "tokens_per_second": 0} for row in run_locally(task)] for task in (plain, cached)]
    assert cached.states.rows_read > 6 * steps / 2
    for name, tensor in plain.tensors().items():
        assert torch.equal(tensor, cached.tensors()[name]), name
    assert rows[0] == rows[1]


def test_states_come_back_as_they_were_padding_included(make_states, corpus):
    states = make_states()
    rows = [0, 5, 17, 39]
    assert not corpus.rows(np.array(rows))[1].all(), "some of these rows have to be padded"
    first = read(states, corpus, rows)
    assert states.rows_read == 0
    again = read(states, corpus, rows[::-1])
    assert states.rows_read == 4
    assert len(first) == 3
    for before, after in zip(first, again, strict=True):
        assert after.dtype == torch.float32
        assert torch.equal(before, after.flip(0))


def test_the_next_worker_reads_what_one_has_seen(make_states, corpus):
    first = read(make_states(), corpus, [1, 2, 3])
    other = make_states()
    second = read(other, corpus, [3, 2, 1])
    assert other.rows_read == 3
    assert all(torch.equal(before, after.flip(0)) for before, after in zip(first, second, strict=True))


@pytest.mark.parametrize("form", ["bfloat16", "float16"])
def test_short_formats_give_the_same_whether_computed_or_read(make_states, teacher, corpus, form):
    states = make_states(form)
    computed, kept = (read(states, corpus, [4, 8]) for _ in range(2))
    assert states.rows_read == 2
    exact = teacher.states(*corpus.rows(np.array([4, 8])), [0, 2, 4])
    for first, second, full in zip(computed, kept, exact, strict=True):
        assert torch.equal(first, second)
        assert not torch.equal(first, full)
        torch.testing.assert_close(first, full, rtol=1e-2, atol=1e-2)


def test_a_batch_may_be_half_known_and_hold_a_row_twice(make_states, corpus):
    states = make_states()
    read(states, corpus, [7])
    mixed = read(states, corpus, [7, 9, 9, 11])
    assert states.rows_read == 0, "half a batch is no batch: the teacher runs on all of it"
    again = read(states, corpus, [9, 11])
    assert states.rows_read == 2
    for before, after in zip(mixed, again, strict=True):
        assert torch.equal(before[[1, 3]], after)


def test_the_file_has_the_size_that_plans_tell(make_states, corpus, teacher, tmp_path):
    make_states("bfloat16")
    size = sum(file.stat().st_size for file in (tmp_path / "states").rglob("*.bin"))
    assert size == cache_bytes(len(corpus), 2, 12, 32, "bfloat16") == 40 * (3 * 12 * 32 * 2 + 1)
    assert cache_bytes(len(corpus), 2, 12, 32, "off") == 0


def test_a_disk_without_room_is_told_before_anything_is_written(make_states, monkeypatch):
    monkeypatch.setattr(teacher_states, "free_bytes", lambda path: 1000)
    with pytest.raises(TrainingInputError) as raised:
        make_states()
    message = str(raised.value)
    assert message.startswith("supernet.teacher_cache: the teacher's states take 180.0 KiB on the disk of ")
    assert "1000 B are free; set it to bfloat16 or off" in message


def test_text_that_is_seen_once_is_not_kept(teacher, corpus, tmp_path):
    task = make_training(teacher, corpus, total_steps=6, teacher_cache="float32", cache_folder=tmp_path / "states")
    run_locally(task)
    assert not (tmp_path / "states").exists()
