"""Searches that go on from a student: a stand-alone model becomes a supermodel again, of a space within it."""

from __future__ import annotations

import dataclasses
import random
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.components.gene_weights import GeneWeights
from spaces.components.modeling import ComponentsModel
from spaces.components.space import ComponentsSpace
from spaces.components.stand_alone import supermodel_shape
from spaces.errors import SpaceError
from spaces.huggingface import ComponentsForMaskedLM
from tests.spaces.components.microscopic import WITHIN, make_space, make_supernet
from tests.spaces.microscopic import SHAPE, largest_difference, make_batch, make_bert
from tests.spaces.test_teacher_start import TEXTS

TOLERANCE = 1e-5


@cache
def supernet():
    return make_supernet()


def saved(tmp_path_factory, text):
    """The student of a text, as it is loaded again."""
    folder = tmp_path_factory.mktemp("student")
    supernet().extract(make_space().parse(text)).save_pretrained(folder)
    return ComponentsModel.from_pretrained(folder)


def unfolded(student, seed=9):
    """A supermodel of the space within a student, with a start of its own where nothing is left."""
    torch.manual_seed(seed)
    started = make_space(within=student.config.architecture).supernet().eval()
    started.start(student)
    return started


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_student_becomes_a_supermodel_again(tmp_path_factory, seed):
    """Whatever is left of it: all paths within it compute the same, and it can be extracted again as it was."""
    rng = random.Random(seed)
    limit = make_space().sample(rng)
    student = saved(tmp_path_factory, str(limit))
    started = unfolded(student)
    space = ComponentsSpace(started.options)
    assert started.largest() == limit
    with torch.no_grad():
        for one in (limit, space.smallest(), *(space.mutate(space.sample(rng), rng) for _ in range(3))):
            difference = largest_difference(started(one, *make_batch()), supernet()(one, *make_batch()))
            assert difference <= 1e-6, str(one)
    again = started.extract(limit).state_dict()
    assert again.keys() == student.state_dict().keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in student.state_dict().items())


def test_what_a_student_has_not_is_never_used(tmp_path_factory):
    """It keeps its random start, whatever that is: no path, no gates and no Psi look at it, and it has no gradient."""
    student = saved(tmp_path_factory, WITHIN)
    one, other = (unfolded(student, seed) for seed in (9, 10))
    theirs = dict(other.named_parameters())
    gone = {name: weights != theirs[name] for name, weights in one.named_parameters()}
    assert int(gone["attentions.0.value.weight"].all(1).sum()) == 8, "a head of four"
    assert int(gone["attentions.0.query.weight"].all(1).sum()) == 8 + 3 * 4, "its channels, and half of the others'"
    assert int(gone["feed_forwards.0.output.weight"].all(0).sum()) == 3 * 16
    assert all(gone[f"feed_forwards.2.{name}.weight"].all() for name in ("inner", "output"))
    assert not any(bits.any() for name, bits in gone.items() if name.startswith("embeddings"))
    space, generator = ComponentsSpace(one.options), torch.Generator().manual_seed(0)
    ways = [one.largest(), GeneWeights.of(one.largest(), one.options)]
    ways += [space.distribution(0.5).draw_gates(generator, 0.5) for _ in range(3)]
    for way in ways:
        outputs_BTD = [supermodel(way, *make_batch()) for supermodel in (one, other)]
        assert torch.equal(*outputs_BTD)
        one.zero_grad(set_to_none=True)
        outputs_BTD[0].square().sum().backward()
        for name, weights in one.named_parameters():
            assert weights.grad is None or not weights.grad[gone[name]].any(), name


def test_a_student_under_a_head_is_told_by_its_encoder(tmp_path):
    student = ComponentsForMaskedLM.of_encoder(supernet().extract(make_space().parse(WITHIN)))
    student.save_pretrained(tmp_path)
    started = unfolded(ComponentsModel.from_pretrained(tmp_path))
    with torch.no_grad():
        path_BTD = started(started.largest(), *make_batch())
        assert largest_difference(path_BTD, supernet()(started.largest(), *make_batch())) <= 1e-6


def test_a_teacher_can_be_started_at_within_too():
    """Which prunes it before the search begins."""
    whole, teacher = make_space().supernet().eval(), make_bert()
    part = make_space(within=WITHIN).supernet().eval()
    whole.start(teacher)
    part.start(teacher)
    with torch.no_grad():
        assert torch.equal(part(part.largest(), *make_batch()), whole(part.largest(), *make_batch()))


def test_half_of_the_real_teacher(real_teacher, tmp_path):
    """Of all-MiniLM-L6-v2: what was exported, and what is started at it."""
    space = ComponentsSpace.from_options({}, real_teacher.shape)
    first = space.supernet().eval()
    first.start(real_teacher.model)
    half = "|".join(["H1-3>8-10.Q1-2.M/F1-2>5-6.M", "H2-7.Q2.M/F5-8.M"] * 3)
    first.extract(space.parse(half)).save_pretrained(tmp_path)
    student = ComponentsModel.from_pretrained(tmp_path)
    shape = supermodel_shape(student.config, 0)
    assert shape == real_teacher.shape
    second = ComponentsSpace.from_options({"within": half}, shape).supernet().eval()
    second.start(student)
    encoded = real_teacher.tokenizer(TEXTS, padding=True, return_tensors="pt")
    batch = (encoded["input_ids"], encoded["attention_mask"])
    with torch.no_grad():
        expected_BTD = student(*batch).last_hidden_state
        for way in (second.largest(), GeneWeights.of(second.largest(), second.options)):
            assert largest_difference(second(way, *batch), expected_BTD, batch[1]) <= TOLERANCE


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_the_shape_of_the_supermodel_is_known():
    config = supernet().extract(make_space().parse("F5|0|0|0")).config
    assert supermodel_shape(config, 7) == SHAPE
    config.intermediate_size = None  # as exports of earlier versions have it
    assert supermodel_shape(config, 7) == dataclasses.replace(SHAPE, intermediate_size=7)


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        (
            WITHIN,
            {},
            "space.options.within: found nothing, so that all components may be kept, expected "
            f"'{WITHIN}', which is what is left of the student; set it to that",
        ),
        (WITHIN, {"within": "H1|0|0|0"}, f"space.options.within: found 'H1|0|0|0', expected '{WITHIN}', which is what"),
        ("H1-2|0|0|0", {"within": "H1>2|0|0|0"}, "space.options.within: found 'H1>2|0|0|0', expected 'H1-2|0|0|0',"),
        (
            "H1-2.Q1|F1|0|0",
            {"within": "H1-2.Q1|F1|0|0", "feed_forward_slices": 4},
            "space.options.feed_forward_slices: found 4, slices of 32 neurons, but those of the student have 16; "
            "expected 8",
        ),
        (
            "H1-2.Q1|F1|0|0",
            {"within": "H1-2.Q1|F1|0|0", "query_key_slices": 4},
            "space.options.query_key_slices: found 4, slices of 2 channels, but those of the student have 4; expected "
            "2",
        ),
        (
            "F1|0|0|0",
            {"within": "F1|0|0|0", "shape": dataclasses.replace(SHAPE, vocab_size=98)},
            "student: its vocab_size is 99, expected 98, for which the space was made; make the space for this "
            "student's shape",
        ),
        (
            "F1|0|0|0",
            {"within": "F1|0|0|0", "shape": dataclasses.replace(SHAPE, num_heads=2)},
            "student: its head_size is 8, expected 16",
        ),
    ],
)
def test_students_that_the_space_does_not_lie_within_are_refused(text, changes, message):
    student = supernet().extract(make_space().parse(text))
    started = make_space(**changes).supernet()
    before = {name: tensor.clone() for name, tensor in started.state_dict().items()}
    with pytest.raises(SpaceError) as raised:
        started.start(student)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in started.state_dict().items())


@pytest.mark.parametrize(
    ("text", "teacher_layers", "expected"),
    [
        ("H1/F1|H1|0|F1-2", 4, [(2, 1), (3, 3)]),
        ("H1/F1|H1|0|F1-2", 8, [(2, 2), (3, 6)]),
        ("F1|F1|F1|F1", 2, [(2, 1), (3, 1)]),
    ],
)
def test_states_stand_for_layers_of_the_teacher_not_for_its_embeddings(text, teacher_layers, expected):
    space = make_space()
    assert space.aligned_states(space.parse(text), teacher_layers) == expected
