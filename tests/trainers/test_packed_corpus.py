from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.corpora import make_corpus, make_documents
from tests.trainers.teachers import make_tokenizer
from trainers.corpus import PackedCorpus, pack, save_corpus

PORTIONS = list(pack(make_documents(count=9, words=17), make_tokenizer(), 8))


def everything(corpus):
    return corpus.rows(np.arange(len(corpus)))


@pytest.fixture(scope="module")
def whole():
    tokens_ST, lengths_S = (np.concatenate(parts) for parts in zip(*PORTIONS, strict=True))
    return torch.from_numpy(tokens_ST).long(), torch.from_numpy(lengths_S).long()


@pytest.mark.parametrize("rows_per_shard", [1, 2, 5, 26, 27, 28, 1000])
def test_any_shard_size_gives_the_same_rows(tmp_path, whole, rows_per_shard):
    description = save_corpus(tmp_path, iter(PORTIONS), rows_per_shard)
    corpus = PackedCorpus(tmp_path)
    assert corpus.description == description
    assert len(corpus) == description.sequences == 27
    assert description.sequence_length == 8
    assert description.tokens == int(whole[1].sum())
    assert sum(description.shards) == 27
    assert all(rows == rows_per_shard for rows in description.shards[:-1])
    input_ids_ST, mask_ST = everything(corpus)
    assert input_ids_ST.dtype == mask_ST.dtype == torch.int64
    assert torch.equal(input_ids_ST, whole[0])
    assert torch.equal(mask_ST.sum(1), whole[1])
    assert torch.equal(mask_ST, mask_ST.cummin(1).values), "padding comes last"


def test_portions_without_rows_are_harmless(tmp_path, whole):
    empty = (PORTIONS[0][0][:0], PORTIONS[0][1][:0])
    save_corpus(tmp_path, [empty, *PORTIONS, empty], 4)
    assert torch.equal(everything(PackedCorpus(tmp_path))[0], whole[0])


def test_an_older_corpus_is_replaced(tmp_path):
    save_corpus(tmp_path, PORTIONS, 2)
    save_corpus(tmp_path, PORTIONS[:1], 2)
    assert len(PackedCorpus(tmp_path)) == 3
    assert len(list(tmp_path.glob("tokens-*.npy"))) == 2


def test_a_folder_without_its_description_is_incomplete(tmp_path):
    def breaks():
        yield from PORTIONS[:4]
        raise RuntimeError("the power went out")

    save_corpus(tmp_path, PORTIONS, 2)
    with pytest.raises(RuntimeError, match="power"):
        save_corpus(tmp_path, breaks(), 2)
    assert not (tmp_path / "corpus.json").exists()


def test_the_description_is_plain_json(tmp_path):
    save_corpus(tmp_path, PORTIONS, 10)
    fields = json.loads((tmp_path / "corpus.json").read_text())
    assert fields == {"sequences": 27, "sequence_length": 8, "tokens": 207, "shards": [10, 10, 7]}


def test_rows_come_in_the_order_asked_and_repeat(tmp_path, whole):
    save_corpus(tmp_path, PORTIONS, 4)
    indices = np.array([26, 0, 13, 13, 3, 4])
    assert torch.equal(PackedCorpus(tmp_path).rows(indices)[0], whole[0][indices])


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """30 rows that differ: row n says n."""
    documents = [f"w{number}" * 1 + " w93" for number in range(30)]
    return make_corpus(tmp_path_factory.mktemp("numbered"), documents, sequence_length=4, rows_per_shard=7)


def numbers(batch):
    return (batch[0][:, 1] - 5).tolist()


@settings(max_examples=40, deadline=None)
@given(batch_size=st.integers(1, 40), world_size=st.integers(1, 5), seed=st.integers(0, 99))
def test_each_epoch_has_every_row_once_and_workers_share_each_batch(numbered, batch_size, world_size, seed):
    steps = -(-90 // batch_size)
    seen = []
    for step in range(steps):
        batch = numbers(numbered.step_rows(step, batch_size, seed))
        assert len(batch) == batch_size
        shares = [numbers(numbered.step_rows(step, batch_size, seed, rank, world_size)) for rank in range(world_size)]
        together = [share[index] for index in range(batch_size) for share in shares if index < len(share)]
        assert together[:batch_size] == batch, "interleaved, the shares are the batch"
        assert sum(map(len, shares)) == batch_size
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        seen += batch
    for epoch in range(3):
        assert sorted(seen[30 * epoch : 30 * epoch + 30]) == list(range(30))


def test_order_depends_on_seed_and_epoch(numbered):
    first, second = (numbers(numbered.step_rows(epoch, 30, 1)) for epoch in (0, 1))
    other = numbers(numbered.step_rows(0, 30, 2))
    assert len({tuple(first), tuple(second), tuple(other)}) == 3
    assert numbers(numbered.step_rows(0, 30, 1)) == first


@pytest.mark.parametrize(("count", "size"), [(1, 4), (3, 4), (2, 15), (5, 30), (100, 1)])
def test_even_batches_are_spread_over_the_corpus(numbered, count, size):
    batches = [numbers(batch) for batch in numbered.even_batches(count, size)]
    rows = [row for batch in batches for row in batch]
    assert len(batches) <= count
    assert max(map(len, batches)) <= size
    assert len(rows) == len(set(rows)) == min(30, count * size)
    assert rows == sorted(rows)
    if len(rows) > 1:
        assert (rows[0], rows[-1]) == (0, 29)
    assert [numbers(batch) for batch in numbered.even_batches(count, size)] == batches


@pytest.mark.parametrize("parts", [2, 3, 30])
def test_shares_of_even_batches_have_no_row_in_common(numbered, parts):
    shares = [numbered.even_batches(100, 4, (part, parts)) for part in range(parts)]
    rows = [[row for batch in share for row in numbers(batch)] for share in shares]
    assert sorted(row for share in rows for row in share) == list(range(30))
    few = [numbers(numbered.even_batches(1, 1, (part, parts))[0]) for part in range(parts)]
    assert [row % parts for (row,) in few] == list(range(parts))


def test_a_corpus_too_small_to_be_shared_is_used_whole(tmp_path):
    corpus = make_corpus(tmp_path, ["w1 w2"], sequence_length=4)
    assert [numbers(batch) for batch in corpus.even_batches(2, 2, (1, 2))] == [[1]]
