"""A teacher in order of importance: the same function, and what comes last matters least."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.encoder_shape import EncoderShape
from spaces.ordering import in_order_of_importance
from tests.spaces.components.microscopic import make_space
from tests.spaces.microscopic import make_bert

SHAPE = EncoderShape(2, 16, 4, 32, 99, 24, 2)


def texts(seed: int, sequences: int = 24, tokens: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    input_ids_BT = torch.randint(5, SHAPE.vocab_size, (sequences, tokens), generator=generator)
    lengths_B = torch.randint(2, tokens + 1, (sequences,), generator=generator)
    mask_BT = torch.arange(tokens)[None] < lengths_B[:, None]
    return input_ids_BT * mask_BT, mask_BT.long()


def last_state(model, input_ids_BT, mask_BT):
    with torch.no_grad():
        return model(input_ids=input_ids_BT, attention_mask=mask_BT).last_hidden_state[mask_BT.bool()]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_the_function_stays(seed):
    teacher = make_bert(SHAPE, seed=seed)
    ordered = in_order_of_importance(teacher, *texts(seed))
    elsewhere = texts(seed + 1)
    torch.testing.assert_close(last_state(ordered, *elsewhere), last_state(teacher, *elsewhere), atol=1e-5, rtol=0)


def test_the_teacher_is_left_as_it_is():
    teacher = make_bert(SHAPE)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    ordered = in_order_of_importance(teacher, *texts(1))
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not torch.equal(ordered.encoder.layer[0].output.dense.weight, teacher.encoder.layer[0].output.dense.weight)


def test_a_head_of_fewer_dimensions_than_channels_stays_as_it_is():
    teacher = make_bert(SHAPE)
    with torch.no_grad():
        teacher.encoder.layer[0].attention.self.key.weight[:4] = 0.0  # the first head looks at all tokens alike
        teacher.encoder.layer[0].attention.self.key.bias[:4] = 0.0
    ordered = in_order_of_importance(teacher, *texts(1))
    torch.testing.assert_close(last_state(ordered, *texts(2)), last_state(teacher, *texts(2)), atol=1e-5, rtol=0)


def test_fewer_tokens_than_channels_leave_queries_and_keys_as_they_are():
    shape = EncoderShape(2, 16, 1, 32, 99, 24, 2)
    teacher = make_bert(shape)
    ordered = in_order_of_importance(teacher, *texts(1, sequences=1, tokens=6))
    assert torch.equal(
        ordered.encoder.layer[0].attention.self.key.weight, teacher.encoder.layer[0].attention.self.key.weight
    )
    torch.testing.assert_close(last_state(ordered, *texts(2)), last_state(teacher, *texts(2)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("H1-2.Q1-2.M/F1-4.M", "H3-4.Q1-2.M/F1-4.M"),
        ("H1-4.Q1.M/F1-4.M", "H1-4.Q2.M/F1-4.M"),
        ("H1-4.Q1-2.M/F1-2.M", "H1-4.Q1-2.M/F3-4.M"),
    ],
)
def test_what_comes_first_matters_most(first, last):
    """Heads, channels of queries and keys, and neurons: keeping the first half errs less than keeping the last."""
    space = make_space(shape=SHAPE, feed_forward_slices=4, query_key_slices=2, dropout=0.0)
    input_ids_BT, mask_BT = texts(3, sequences=64)
    kept = {first: 0.0, last: 0.0}
    for seed in range(5):
        teacher = make_bert(SHAPE, seed=seed)
        supernet = space.supernet().eval()
        supernet.start(in_order_of_importance(teacher, *texts(4, sequences=64)))
        wanted = last_state(teacher, input_ids_BT, mask_BT)
        for text in kept:
            with torch.no_grad():
                state_BTD = supernet(space.parse("|".join([text] * 2)), input_ids_BT, mask_BT)
            kept[text] += float((state_BTD[mask_BT.bool()] - wanted).square().mean())
    assert kept[first] < 0.8 * kept[last]
