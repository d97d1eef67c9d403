"""Extract Then Distill: what is important in a teacher, and what that is worth (paper notes, tests 3 to 6)."""

from __future__ import annotations

import pytest
import torch

from spaces.extraction import TeacherImportance, leading, random_importance, uniform_layers
from tests.spaces.microscopic import make_batch, make_space
from tests.trainers.teachers import make_teacher
from trainers.importance import masked_calibration, taylor_importance
from trainers.losses import masked_mse
from trainers.masking import MaskedBatch
from trainers.teacher import Teacher
from trainers.uniform import UniformArchitecture, extract_uniform


@pytest.fixture
def teacher():
    return make_teacher(with_head=True)


@pytest.fixture
def batches(teacher):
    return masked_calibration(teacher, *make_batch((12, 12, 12, 9, 12, 7)), seed=1)


@pytest.mark.parametrize(
    ("sizes", "layers"), [((12, 4), [3, 6, 9, 12]), ((12, 6), [2, 4, 6, 8, 10, 12]), ((24, 6), [4, 8, 12, 16, 20, 24])]
)
def test_layers_are_spaced_evenly(sizes, layers):
    assert [layer + 1 for layer in uniform_layers(*sizes)] == layers


def test_random_scores_depend_on_the_seed_alone_and_have_no_ties():
    first, again, other = (random_importance(3, 4, 40, seed) for seed in (3, 3, 4))
    assert [len(scores) for scores in (first.heads, first.neurons)] == [3, 3]
    for mine, same in zip((*first.heads, *first.neurons), (*again.heads, *again.neurons), strict=True):
        assert torch.equal(mine, same)
        assert sorted(mine.tolist()) == list(range(len(mine)))
    assert not torch.equal(first.neurons[0], first.neurons[1])
    assert not torch.equal(first.neurons[0], other.neurons[0])


def test_the_most_important_are_kept_and_ties_go_to_the_lower_index():
    assert leading(torch.tensor([1.0, 1.0, 3.0, 1.0]), 2).tolist() == [0, 2]
    scores = torch.zeros(32)
    scores[[30, 5]] = 2.0
    assert leading(scores, 16).tolist() == [*range(15), 30]


def in_double(teacher: Teacher) -> Teacher:
    modules = torch.nn.ModuleList([teacher.model, teacher.masked_lm_head]).double()
    return Teacher(modules[0], teacher.tokenizer, modules[1])


def loss_of(teacher: Teacher, batch: MaskedBatch) -> float:
    with torch.no_grad():
        (last_BTD,) = teacher.states(batch.input_ids_BT, batch.attention_mask_BT, [4])
        logits_NV = teacher.masked_lm_head(last_BTD[batch.chosen_BT])
        return torch.nn.functional.cross_entropy(logits_NV, batch.labels_BT[batch.chosen_BT]).item()


def slope(change, teacher, batch, step=1e-5):
    """Finite difference of the loss with respect to a factor on something, at 1."""
    values = []
    for factor in (1 + step, 1 - step):
        undo = change(factor)
        values.append(loss_of(teacher, batch))
        undo()
    return (values[0] - values[1]) / (2 * step)


def scaled(tensor, index):
    """Multiply a part of a tensor by a factor, and how to undo it."""

    def change(factor):
        before = tensor[index].clone()
        with torch.no_grad():
            tensor[index] *= factor

        def undo():
            with torch.no_grad():
                tensor[index] = before

        return undo

    return change


def test_importance_is_the_slope_of_the_loss(teacher, batches):
    """Of heads (through the columns that read them), and of neurons (incoming and outgoing weights)."""
    teacher = in_double(teacher)
    found = taylor_importance(teacher, batches)
    assert len(batches) == 2
    for number in (0, 3):
        layer = teacher.model.encoder.layer[number]
        for head in range(4):
            columns = (slice(None), slice(head * 8, head * 8 + 8))
            change = scaled(layer.attention.output.dense.weight.data, columns)
            expected = sum(abs(slope(change, teacher, batch)) for batch in batches)
            assert found.heads[number][head].item() == pytest.approx(expected, rel=1e-3)
        for neuron in (0, 77):
            inner, output = layer.intermediate.dense, layer.output.dense

            def incoming(factor, inner=inner, neuron=neuron):
                undo = [scaled(tensor, neuron)(factor) for tensor in (inner.weight.data, inner.bias.data)]
                return lambda: [one() for one in undo]

            outgoing = scaled(output.weight.data, (slice(None), neuron))
            expected = sum(abs(slope(change, teacher, b)) for b in batches for change in (incoming, outgoing))
            assert found.neurons[number][neuron].item() == pytest.approx(expected, rel=1e-3)


def test_dead_parts_are_worth_nothing(teacher, batches):
    """Heads and neurons that nobody reads."""
    heads, neurons = torch.tensor([0, 2]), torch.arange(0, 128, 3)
    with torch.no_grad():
        for layer in teacher.model.encoder.layer:
            for head in heads.tolist():
                layer.attention.output.dense.weight[:, head * 8 : head * 8 + 8] = 0
            layer.output.dense.weight[:, neurons] = 0
    found = taylor_importance(teacher, batches)
    for scores_A, scores_I in zip(found.heads, found.neurons, strict=True):
        assert float(scores_A[heads].abs().max()) == 0
        assert float(scores_A[[1, 3]].min()) > 0
        assert float(scores_I[neurons].abs().max()) == 0
        assert float(scores_I.max()) > 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_important_parts_learn_from_the_teacher_faster_than_random_ones(seed):
    """Mean error over the first steps: important parts at most that of random ones, below that of a random start."""
    teacher = make_teacher(with_head=True)
    batches = [make_batch((12, 12, 12, 9), seed=seed * 100 + number) for number in range(120)]
    taylor = taylor_importance(teacher, masked_calibration(teacher, *make_batch((12,) * 16, seed=seed), seed=seed))
    chance = random_importance(4, 4, 128, seed)
    sizes = UniformArchitecture(4, 48)
    starts = {
        name: extract_uniform(teacher.model, sizes, *batches[0], importance=scores)
        for name, scores in (("taylor", taylor), ("random", chance))
    }
    torch.manual_seed(seed)
    starts["scratch"] = type(teacher.model)(starts["taylor"].config, add_pooling_layer=False)
    errors = {name: mean_error(student, teacher, batches) for name, student in starts.items()}
    assert errors["taylor"] <= errors["random"] < errors["scratch"]


def mean_error(student, teacher, batches):
    """Of the last hidden state, over one pass of training."""
    optimiser = torch.optim.Adam(student.parameters(), lr=1e-3)
    found = []
    for input_ids_BT, mask_BT in batches:
        with torch.no_grad():
            target_BTD = teacher.model(input_ids=input_ids_BT, attention_mask=mask_BT).last_hidden_state
        loss = masked_mse(
            student(input_ids=input_ids_BT, attention_mask=mask_BT).last_hidden_state, target_BTD, mask_BT
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    return sum(found) / len(found)


def test_given_scores_decide_what_a_student_keeps(teacher):
    """The heads and neurons of a supernet's start and of a uniform baseline, the teacher's width kept."""
    wanted_A, wanted_I = torch.tensor([0.0, 3.0, 1.0, 2.0]), torch.arange(128.0)
    importance = TeacherImportance((wanted_A,) * 4, (wanted_I,) * 4)
    space, batch = make_space(head_size=8, operations=("M", "F1")), make_batch()
    supernet = space.supernet()
    supernet.start(teacher.model, *batch, init="teacher", importance=importance)
    theirs = teacher.model.encoder.layer[0]
    feed_forward = supernet.block(0).operation(1, 32, "F1")
    assert torch.equal(feed_forward.inner.weight, theirs.intermediate.dense.weight[96:])
    narrow = supernet.block(0).operation(0, 16, "M")
    rows = torch.cat([torch.arange(8, 16), torch.arange(24, 32)])
    directions_DH = supernet.block(0).entries["16"].weight.T
    torch.testing.assert_close(narrow.query.weight, theirs.attention.self.query.weight[rows] @ directions_DH)
    uniform = extract_uniform(teacher.model, UniformArchitecture(2, 20), *batch, importance=importance)
    assert torch.equal(
        uniform.encoder.layer[0].intermediate.dense.weight,
        teacher.model.encoder.layer[1].intermediate.dense.weight[108:],
    )


@pytest.mark.parametrize("with_head", [False, True])
def test_the_teacher_stays_as_it_is_and_needs_no_head(with_head, batches):
    teacher = make_teacher(with_head)
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    found = taylor_importance(teacher, batches)
    assert all(float(scores.sum()) > 0 for scores in (*found.heads, *found.neurons))
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.model.state_dict().items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in teacher.model.parameters())
    fresh = make_teacher(with_head)
    for mine, theirs in zip(
        teacher.states(*make_batch(), range(5)), fresh.states(*make_batch(), range(5)), strict=True
    ):
        assert torch.equal(mine, theirs), "a gate was left in place"
