"""Extract Then Distill: what is important in a teacher, and what is cut out of it (paper notes, tests 1 to 5)."""

from __future__ import annotations

import pytest
import torch
from transformers import BertForMaskedLM

from spaces.extraction import TeacherImportance, random_indices, uniform_layers
from tests.spaces.microscopic import largest_difference, make_batch, make_space
from tests.trainers.teachers import make_teacher
from trainers.errors import TrainingInputError
from trainers.importance import masked_calibration, taylor_importance
from trainers.masking import MaskedBatch
from trainers.teacher import Teacher
from trainers.thin_teacher import Kept, ThinSizes, extract_thin, keep_important, keep_random
from trainers.uniform import UniformArchitecture, extract_uniform


def masked_lm_of(teacher: Teacher) -> BertForMaskedLM:
    model = BertForMaskedLM(teacher.model.config)
    model.bert, model.cls = teacher.model, teacher.masked_lm_head
    return model.eval()


@pytest.fixture
def teacher():
    return make_teacher(with_head=True)


@pytest.fixture
def batches(teacher):
    return masked_calibration(teacher, *make_batch((12, 12, 12, 9, 12, 7)), seed=1)


def logits(model, batch):
    with torch.no_grad():
        return model(*batch).logits


# --- extraction ------------------------------------------------------------------------------------------------------


def test_keeping_everything_keeps_the_logits_exactly(teacher):
    model, batch = masked_lm_of(teacher), make_batch()
    everything = Kept(range(4), torch.arange(32), [torch.arange(4)] * 4, [torch.arange(128)] * 4)
    assert torch.equal(logits(extract_thin(model, everything), batch), logits(model, batch))


SOME = Kept([0, 1, 2, 3], torch.arange(0, 32, 2), [torch.tensor([1, 3])] * 4, [torch.arange(5, 128, 3)] * 4)
"""Half of the dimensions, half of the heads and a third of the neurons."""


def deaden(model: BertForMaskedLM, kept: Kept) -> None:
    """Make everything that is not kept dead: no weight leads there or from there."""

    def others(size, indices):
        return [index for index in range(size) if index not in set(indices.tolist())]

    hidden = others(32, kept.hidden)
    with torch.no_grad():
        norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
        for norm in norms:
            norm.weight[hidden] = 0
            norm.bias[hidden] = 0
        embeddings = model.bert.embeddings
        for table in (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings):
            table.weight[:, hidden] = 0
        for number, layer in enumerate(model.bert.encoder.layer):
            for writer in (layer.attention.output.dense, layer.output.dense):
                writer.weight[hidden] = 0
                writer.bias[hidden] = 0
            for head in others(4, kept.heads[number]):
                layer.attention.output.dense.weight[:, head * 8 : head * 8 + 8] = 0
            layer.output.dense.weight[:, others(128, kept.neurons[number])] = 0
        dense = model.cls.predictions.transform.dense
        dense.weight[hidden] = 0
        dense.bias[hidden] = 0


def test_without_layer_norm_dead_parts_are_not_missed(teacher, monkeypatch):
    monkeypatch.setattr(torch.nn.LayerNorm, "forward", lambda self, hidden: hidden * self.weight + self.bias)
    model, batch = masked_lm_of(teacher), make_batch()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3)  # nothing else keeps the states of four layers small
    whole = logits(model, batch)
    deaden(model, SOME)
    expected = logits(model, batch)
    assert largest_difference(whole, expected, batch[1]) > 1e-3, "they did say something"
    assert largest_difference(logits(extract_thin(model, SOME), batch), expected, batch[1]) < 1e-5


def test_with_layer_norm_only_its_statistics_change(teacher, monkeypatch):
    """Mean and variance are taken over fewer dimensions; a teacher that takes them so as well says the same."""
    model, batch = masked_lm_of(teacher), make_batch()
    deaden(model, SOME)
    plain = logits(model, batch)
    thin = logits(extract_thin(model, SOME), batch)
    assert largest_difference(thin, plain, batch[1]) > 1e-3

    def over_living_dimensions(self, hidden_BTD):
        living_BTK = hidden_BTD[..., SOME.hidden]
        mean, variance = living_BTK.mean(-1, keepdim=True), living_BTK.var(-1, keepdim=True, correction=0)
        return (hidden_BTD - mean) / (variance + self.eps).sqrt() * self.weight + self.bias

    monkeypatch.setattr(torch.nn.LayerNorm, "forward", over_living_dimensions)
    assert largest_difference(thin, logits(model, batch), batch[1]) < 1e-4


@pytest.mark.parametrize(
    ("sizes", "layers"), [((12, 4), [3, 6, 9, 12]), ((12, 6), [2, 4, 6, 8, 10, 12]), ((24, 6), [4, 8, 12, 16, 20, 24])]
)
def test_layers_are_spaced_evenly(sizes, layers):
    assert [layer + 1 for layer in uniform_layers(*sizes)] == layers


def test_random_parts_depend_on_the_seed_alone(teacher):
    sizes = ThinSizes(2, 16, 40)
    first, again, other = (keep_random(teacher.model.config, sizes, seed) for seed in (3, 3, 4))
    for kept in (first, other):
        for indices, available in ((kept.hidden, 32), *((n, 128) for n in kept.neurons), *((h, 4) for h in kept.heads)):
            assert indices.tolist() == sorted(set(indices.tolist()))
            assert int(indices.max()) < available
    assert torch.equal(first.hidden, again.hidden)
    assert all(torch.equal(a, b) for a, b in zip(first.neurons, again.neurons, strict=True))
    assert not torch.equal(first.hidden, other.hidden)
    assert not torch.equal(first.neurons[0], first.neurons[1])
    assert random_indices(5, 5, 0).tolist() == [0, 1, 2, 3, 4]
    assert logits(extract_thin(masked_lm_of(teacher), first), make_batch()).isfinite().all()


def test_the_most_important_are_kept_and_ties_go_to_the_lower_index(teacher):
    scores_D = torch.zeros(32)
    scores_D[[30, 5]] = 2.0
    importance = TeacherImportance(
        tuple(torch.tensor([1.0, 1.0, 3.0, 1.0]) for _ in range(4)), (torch.ones(128),) * 4, scores_D
    )
    kept = keep_important(teacher.model.config, ThinSizes(2, 16, 3), importance)
    assert kept.hidden.tolist() == [*range(15), 30]
    assert [heads.tolist() for heads in kept.heads] == [[0, 2], [0, 2]]
    assert [neurons.tolist() for neurons in kept.neurons] == [[0, 1, 2], [0, 1, 2]]
    assert kept.layers == [1, 3]
    with pytest.raises(TrainingInputError, match="multiple of the size of the teacher's heads, 8"):
        keep_important(teacher.model.config, ThinSizes(2, 12, 3), importance)


# --- importance ------------------------------------------------------------------------------------------------------


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


def test_the_hidden_gate_is_the_slope_of_the_loss(teacher, batches):
    teacher = in_double(teacher)
    found = taylor_importance(teacher, batches)
    norms = [module for module in teacher.model.modules() if isinstance(module, torch.nn.LayerNorm)]
    for dimension in (0, 13, 31):

        def change(factor, dimension=dimension):
            undo = [scaled(p.data, dimension)(factor) for norm in norms for p in (norm.weight, norm.bias)]
            return lambda: [one() for one in undo]

        expected = sum(abs(slope(change, teacher, batch)) for batch in batches)
        assert found.hidden_D[dimension].item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("form", ["gate", "parameters"])
def test_dead_parts_are_worth_nothing(teacher, batches, form):
    deaden(masked_lm_of(teacher), SOME)
    found = taylor_importance(teacher, batches, form)
    kept = keep_important(teacher.model.config, ThinSizes(4, 16, 41), found)
    assert torch.equal(kept.hidden, SOME.hidden)
    assert all(torch.equal(heads, SOME.heads[0]) for heads in kept.heads)
    for scores_A in found.heads:
        assert float(scores_A[[0, 2]].abs().max()) == 0
        assert float(scores_A[[1, 3]].min()) > 0


def test_given_scores_decide_what_a_student_keeps(teacher):
    """The heads and neurons of a supernet's start and of a uniform baseline, the teacher's width kept."""
    wanted_A, wanted_I = torch.tensor([0.0, 3.0, 1.0, 2.0]), torch.arange(128.0)
    importance = TeacherImportance((wanted_A,) * 4, (wanted_I,) * 4, torch.zeros(32))
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
    assert all(float(scores.sum()) > 0 for scores in (*found.heads, *found.neurons, found.hidden_D))
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.model.state_dict().items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in teacher.model.parameters())
    fresh = make_teacher(with_head)
    for mine, theirs in zip(
        teacher.states(*make_batch(), range(5)), fresh.states(*make_batch(), range(5)), strict=True
    ):
        assert torch.equal(mine, theirs), "a gate was left in place"
