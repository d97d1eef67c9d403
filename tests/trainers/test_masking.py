from __future__ import annotations

import pytest
import torch

from tests.trainers.teachers import make_tokenizer
from trainers.masking import Masking

MASK = 4


def make_input(rows=400, tokens=50):
    generator = torch.Generator().manual_seed(0)
    input_ids_BT = torch.randint(5, 99, (rows, tokens), generator=generator)
    input_ids_BT[:, 0], input_ids_BT[:, 40] = 2, 3
    mask_BT = (torch.arange(tokens) < 41).long().expand(rows, tokens)
    return input_ids_BT * mask_BT, mask_BT


def apply(masking, seed=1):
    input_ids_BT, mask_BT = make_input()
    return input_ids_BT, *masking.apply(input_ids_BT, mask_BT, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("probability", [0.15, 0.4])
def test_shares_are_those_of_bert(probability):
    before_BT, after_BT, chosen_BT = apply(Masking.of_tokenizer(make_tokenizer(), probability))
    ordinary = 400 * 39
    chosen = int(chosen_BT.sum())
    spread = 5 * (ordinary * probability * (1 - probability)) ** 0.5
    assert chosen == pytest.approx(ordinary * probability, abs=spread)
    hidden = int((chosen_BT & (after_BT == MASK)).sum())
    kept = int((chosen_BT & (after_BT == before_BT)).sum())
    replaced = chosen - hidden - kept
    for count, share in ((hidden, 0.8), (kept, 0.1), (replaced, 0.1)):
        # a random token is the mask or the old one in 2 of 99 draws
        assert count / chosen == pytest.approx(share, abs=0.03)


def test_special_tokens_padding_and_what_is_not_chosen_stay():
    before_BT, after_BT, chosen_BT = apply(Masking.of_tokenizer(make_tokenizer(), 1.0))
    assert not chosen_BT[:, 0].any()
    assert not chosen_BT[:, 40:].any()
    assert chosen_BT[:, 1:40].all()
    assert torch.equal(after_BT[~chosen_BT], before_BT[~chosen_BT])
    assert int(after_BT.max()) < 99
    assert len(set(after_BT[chosen_BT].tolist())) == 99, "random tokens are drawn from the whole vocabulary"


def test_nothing_is_hidden_at_probability_zero():
    before_BT, after_BT, chosen_BT = apply(Masking.of_tokenizer(make_tokenizer(), 0.0))
    assert torch.equal(before_BT, after_BT)
    assert not chosen_BT.any()


def test_masking_depends_on_the_generator_alone():
    masking = Masking.of_tokenizer(make_tokenizer(), 0.15)
    torch.manual_seed(0)
    first = apply(masking)
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first, apply(masking), strict=True))
    assert not torch.equal(first[2], apply(masking, seed=2)[2])


def test_special_tokens_are_read_from_the_tokenizer(real_teacher):
    masking = Masking.of_tokenizer(real_teacher.tokenizer, 0.15)
    assert (masking.mask_token_id, masking.vocab_size) == (103, 30522)
    assert sorted(masking.special_ids) == [0, 100, 101, 102, 103]
