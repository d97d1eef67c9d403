from __future__ import annotations

import math

import pytest
import torch

from tests.trainers.teachers import make_tokenizer
from trainers.masking import MaskedBatch, Masking
from trainers.prediction import Prediction, mask_batches, measure_prediction


def make_batches(sizes, probability=0.3):
    generator = torch.Generator().manual_seed(1)
    plain = [(torch.randint(5, 99, (size, 9), generator=generator), torch.ones(size, 9).long()) for size in sizes]
    return mask_batches(plain, Masking.of_tokenizer(make_tokenizer(), probability), seed=4)


def table(seed=0):
    """Predicts from the position's own input id, by a table."""
    table_VV = torch.randn(99, 99, generator=torch.Generator().manual_seed(seed))
    return lambda input_ids_BT, _, chosen_BT: table_VV[input_ids_BT[chosen_BT]]


def test_loss_and_accuracy_by_hand():
    chosen_BT = torch.tensor([[False, True, True]])
    labels_BT = torch.tensor([[9, 1, 0]])
    batch = MaskedBatch(torch.full((1, 3), 4), torch.ones(1, 3).long(), chosen_BT, labels_BT)
    logits_NV = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    found = measure_prediction(lambda *_: logits_NV, [batch])
    assert found.loss == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert (found.accuracy, found.positions) == (0.5, 2)
    assert found.perplexity == pytest.approx(math.exp(found.loss))


def test_every_token_counts_alike_whatever_its_batch():
    batches = make_batches((1, 8, 3))
    found = measure_prediction(table(), batches)
    parts = [measure_prediction(table(), [batch]) for batch in batches if batch.chosen_BT.any()]
    positions = sum(part.positions for part in parts)
    assert found.positions == positions == sum(int(batch.chosen_BT.sum()) for batch in batches)
    assert found.loss == pytest.approx(sum(part.loss * part.positions for part in parts) / positions)
    assert found.accuracy == pytest.approx(sum(part.accuracy * part.positions for part in parts) / positions)


def test_the_same_tokens_are_hidden_from_every_model():
    first, again = make_batches((4, 4)), make_batches((4, 4))
    assert all(torch.equal(a.input_ids_BT, b.input_ids_BT) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].chosen_BT, first[1].chosen_BT)


def test_nothing_hidden_is_nothing_measured():
    found = measure_prediction(table(), make_batches((2, 2), probability=0.0))
    assert found.positions == 0
    assert math.isnan(found.loss)
    assert math.isnan(found.perplexity)


def test_a_hopeless_model_has_a_perplexity_all_the_same():
    assert math.isfinite(Prediction(5_000.0, 0.0, 1).perplexity)
