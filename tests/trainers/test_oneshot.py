"""One-shot search over components: weights and distribution trained together."""

from __future__ import annotations

import pytest
import torch

from spaces.encoder_shape import EncoderShape
from tests.spaces.microscopic import OPTIONS as NAS_BERT_OPTIONS
from tests.trainers.oneshot_tasks import (
    LITTLE,
    OPTIONS,
    assert_resumed_as_undisturbed,
    changed,
    make_little_space,
    make_little_teacher,
    make_one_shot,
    make_settings,
    weights,
)
from tests.trainers.teachers import make_teacher, save_teacher
from trainers.errors import TrainingInputError
from trainers.oneshot import OneShot, OneShotFactory, supernet_tensors
from trainers.oneshot_lessons import StateLoss
from trainers.task import run_locally

ESTIMATORS = ("straight_through", "score_function", "importance_weighted")
PHASES = {"warm_up_steps": 2, "search_steps": 4, "total_steps": 9}


@pytest.fixture(scope="module")
def little_teacher():
    return make_little_teacher()


# --- what it learns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_cost_falls_in_the_search_and_the_loss_afterwards(little_teacher, corpus, estimator):
    steps = {"warm_up_steps": 0, "search_steps": 40, "total_steps": 70}
    settings = {"distribution_rate": 0.15, "cost_weight": 0.6, "learning_rate": 5e-3, "same_text": True}
    task = make_one_shot(little_teacher, corpus, estimator=estimator, **steps, **settings)
    rows = run_locally(task, report_every=5)
    costs = [row["expected_cost"] for row in rows]
    assert costs[0] < 0.95
    assert costs[7] < 0.8 * costs[0]
    assert len(set(costs[8:])) == 1, "that of the frozen architecture"
    assert rows[-1]["loss"] < 0.8 * rows[8]["loss"]
    assert rows[7]["entropy"] != rows[0]["entropy"]


def search(teacher, corpus, cost_weight, **changes):
    """The expected cost a search of 30 steps ends with, and its most likely architecture."""
    settings = {"distribution_rate": 0.2, "total_steps": 30, "paths": 1, "certainty": 0.9, **changes}
    task = make_one_shot(teacher, corpus, cost_weight=cost_weight, **settings)
    before = task.expected_share()
    for step in range(30):
        task.step(step)
    return before, task.expected_share(), task.distribution.most_likely()


def test_the_more_cost_counts_the_less_is_kept(little_teacher, corpus):
    """Paper notes, test 7: five values of lambda, and at the last one nothing is left but the least there can be."""
    found = [search(little_teacher, corpus, cost_weight) for cost_weight in (0.0, 0.3, 1.0, 5.0, 1000.0)]
    costs = [after for _, after, _ in found]
    assert costs[0] >= 0.98 * found[0][0], "without lambda nothing becomes cheaper"
    for cheaper, dearer in zip(costs[1:], costs, strict=False):
        assert cheaper <= 1.02 * dearer
    assert costs[-1] < 0.25 * costs[0]
    assert sum(len(choice.components) for choice in found[-1][2].sublayers) == 1


@pytest.mark.parametrize("estimator", ["straight_through", "score_function"])
def test_the_heads_that_carry_signal_are_kept(corpus, estimator):
    """Paper notes, test 9: of twelve heads nine put out nothing; they go, and the three others stay."""
    shape, signal = EncoderShape(1, 24, 12, 8, 99, 24, 2), (2, 5, 9)
    teacher = make_teacher(shape=shape)
    output = teacher.model.encoder.layer[0].attention.output.dense.weight
    with torch.no_grad():
        for head in range(12):
            output[:, 2 * head : 2 * head + 2] *= 6.0 if head in signal else 0.0
    space = make_little_space(shape=shape, fixed_feed_forward=("F1-4.M",), vertical=())
    settings = {"learning_rate": 1e-5, "distribution_rate": 0.2, "cost_weight": 0.5, "certainty": 0.8}
    task = make_one_shot(
        teacher, corpus, space, estimator=estimator, total_steps=60, paths=4, same_text=True, **settings
    )
    for step in range(60):
        task.step(step)
    kept = set(task.distribution.most_likely().sublayers[0].components)
    assert set(signal) <= kept
    assert len(set(range(12)) - kept) >= 6


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_bfloat16_learns_nearly_the_same(little_teacher, corpus, estimator):
    exact, rough = (
        run_locally(make_one_shot(little_teacher, corpus, estimator=estimator, precision=precision, certainty=0.8))[-1]
        for precision in ("float32", "bfloat16")
    )
    assert rough["loss"] != exact["loss"]
    assert rough["loss"] == pytest.approx(exact["loss"], rel=0.05)
    assert rough["expected_cost"] == pytest.approx(exact["expected_cost"], rel=0.05)


# --- phases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_distribution_learns_in_the_search_alone(little_teacher, corpus, estimator):
    task = make_one_shot(little_teacher, corpus, estimator=estimator, **PHASES)
    for step in range(9):
        before = weights(task)
        task.step(step)
        both = {"supernet", "distribution"}
        assert changed(before, weights(task)) == (both if 2 <= step < 6 else {"supernet"}), step
    assert task.frozen_architecture() == task.distribution.most_likely()


def test_what_is_frozen_is_trained_as_a_path_of_its_own(little_teacher, corpus):
    """After the search a step touches what the most likely architecture has, and its rows say which one that is."""
    task = make_one_shot(little_teacher, corpus, weight_decay=0.0, **PHASES)
    with torch.no_grad():
        task.distribution.attention.presence_LN[1] = -9.0
        task.distribution.feed_forward.presence_LN[0, 2:] = -9.0
    before = weights(task)
    task.step(6)
    moved = {name for name, tensor in weights(task).items() if not torch.equal(tensor, before[name])}
    assert not any("attentions.1." in name for name in moved)
    name = "supernet.feed_forwards.0.inner.weight"
    rows = (weights(task)[name] != before[name]).any(1)
    assert rows.tolist() == [True] * 16 + [False] * 16
    (row,) = task.rows(7)
    assert row["arch_id"] == task.distribution.most_likely().arch_id
    assert row["expected_cost"] == task.cost.of(task.frozen_architecture()) / task.whole_cost < 1


def test_cost_and_temperature_follow_the_schedule():
    settings = make_settings(
        warm_up_steps=2, search_steps=5, total_steps=9, ramp_steps=4, cost_weight=2.0, temperatures=(1.0, 0.2)
    )
    assert [settings.cost_weight_at(step) for step in range(9)] == [0, 0, 0.5, 1.0, 1.5, 2.0, 2.0, 0, 0]
    assert [settings.temperature_at(step) for step in range(2, 7)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert [settings.phase_of(step) for step in (0, 1, 2, 6, 7)] == ["warm_up"] * 2 + ["search"] * 2 + ["frozen"]


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_resumed_training_is_the_undisturbed_one(little_teacher, corpus, tmp_path, estimator, stop):
    space = make_little_space(dropout=0.1)
    assert_resumed_as_undisturbed(
        lambda: make_one_shot(little_teacher, corpus, space, estimator=estimator, **PHASES), stop, tmp_path
    )


def test_checkpoints_hold_supernet_and_distribution_and_nothing_besides(little_teacher, corpus):
    """By names, shapes and order of the optimiser's parameters, so that those of earlier versions are resumed."""
    task = make_one_shot(little_teacher, corpus)
    parts = {"supernet": make_little_space().supernet(), "distribution": make_little_space().distribution()}
    expected = {
        f"{part}.{name}": one.shape for part, module in parts.items() for name, one in module.named_parameters()
    }
    assert {name: tensor.shape for name, tensor in task.tensors().items()} == expected
    assert [*task.optimiser_state()] == ["optimiser", "distribution_optimiser", "memory", "tokens", "meter"]
    weights_of_supernet = [*parts["supernet"].parameters()]
    for group, wanted in zip(task.optimiser.param_groups, (lambda n: n > 1, lambda n: n <= 1), strict=True):
        assert [one.shape for one in group["params"]] == [one.shape for one in weights_of_supernet if wanted(one.ndim)]


def test_the_supernets_weights_can_be_had_alone(little_teacher, corpus):
    task = make_one_shot(little_teacher, corpus)
    task.step(0)
    supernet = make_little_space().supernet()
    supernet.load_state_dict(supernet_tensors(task.tensors()))
    assert all(
        torch.equal(one, two) for one, two in zip(supernet.parameters(), task.supernet.parameters(), strict=True)
    )


# --- paths and text --------------------------------------------------------------------------------------------------


def test_workers_draw_paths_of_their_own(little_teacher, corpus):
    """By seed, step and the path's number among all: four workers with one path draw what one worker with four does."""
    task = make_one_shot(little_teacher, corpus, paths=4, certainty=0.5)
    drawn = [task.architectures_of(step) for step in range(5)]
    assert len({one for paths in drawn for one in paths}) == 20
    for rank in range(4):
        settings = make_settings(paths=1, certainty=0.5)
        other = OneShot(task.supernet, task.space, task.cost, little_teacher, corpus, settings, rank=rank, world_size=4)
        assert [other.architectures_of(step) for step in range(5)] == drawn
        assert [*other._numbers] == [rank]
    seeded = make_one_shot(little_teacher, corpus, paths=4, certainty=0.5, seed=4)
    assert seeded.architectures_of(0) != drawn[0]


def test_paths_share_out_the_text_or_see_all_of_it(little_teacher, corpus):
    """By default a step costs one pass over its text, however many paths there are."""
    seen = []

    def watching(states_BTD, text):
        seen.append(sorted(text.rows_B.tolist()))
        return StateLoss()(states_BTD, text)

    task = make_one_shot(little_teacher, corpus, loss=watching, paths=3, estimator="score_function")
    task.step(0)
    everything = sorted(corpus.step_indices(0, 6, 3).tolist())
    assert [len(rows) for rows in seen] == [2, 2, 2]
    assert sorted(row for rows in seen for row in rows) == everything
    seen.clear()
    make_one_shot(little_teacher, corpus, loss=watching, paths=3, same_text=True).step(0)
    assert seen == [everything] * 3


def test_another_loss_can_be_given(little_teacher, corpus):
    """Such as one that looks at the first token alone; the distribution learns from it as well."""

    def first_token(states_BTD, text):
        return (states_BTD[-1][:, 0] - text.states_BTD[-1][:, 0]).square().mean()

    found = {}
    for loss in (None, first_token):
        task = make_one_shot(little_teacher, corpus, loss=loss, cost_weight=0.0, paths=1)
        task.step(0)
        found[loss] = task.rows(1)[0], weights(task)
    assert found[None][0]["loss"] == found[None][0]["relative_mse"] != found[first_token][0]["loss"]
    assert found[None][0]["relative_mse"] == found[first_token][0]["relative_mse"]
    assert changed(found[None][1], found[first_token][1]) == {"supernet", "distribution"}


def test_states_between_the_layers_can_count(little_teacher, corpus):
    task = make_one_shot(little_teacher, corpus, paths=1)
    text = task.lessons.draw(0).text
    states = [state + number for number, state in enumerate(text.states_BTD)]
    last, both = StateLoss()(states, text), StateLoss(0.5)(states, text)
    middle = StateLoss()(states[:2], type(text)(text.rows_B, text.input_ids_BT, text.mask_BT, text.states_BTD[:2]))
    assert float(both) == pytest.approx(float(last) + 0.5 * float(middle))


def test_rows_say_what_was_consumed(little_teacher, corpus):
    task = make_one_shot(little_teacher, corpus, paths=3, ramp_steps=4, **PHASES)
    rows = run_locally(task, report_every=3)
    assert [(row["stage"], row["subject"], row["step"], row["path_updates"]) for row in rows] == [
        ("supernet", "supernet", 3, 9),
        ("supernet", "supernet", 6, 18),
        ("supernet", "supernet", 9, 21),
    ]
    assert [row["cost_weight"] for row in rows] == [0.25, 1.0, 0.0]
    assert [row["arch_id"] is None for row in rows] == [True, True, False]
    assert rows[-1]["tokens"] == sum(int(corpus.step_rows(step, 6, 3)[1].sum()) for step in range(9))


# --- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_steps": 5, "search_steps": 6}, "supernet.steps: found 5, expected 6 or more"),
        (
            {"estimator": "score_function", "paths": 1},
            "supernet.paths_per_step: found 1 on one worker, expected 2 or more",
        ),
        ({"paths": 7}, "supernet.batch_size: found 6, expected 7 or more, a sequence for each of the paths"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(little_teacher, corpus, changes, message):
    with pytest.raises(TrainingInputError, match=message):
        make_one_shot(little_teacher, corpus, **changes)


def test_a_space_with_nothing_to_search_is_refused(little_teacher, corpus):
    space = make_little_space(fixed_attention=("H1", "H2"), fixed_feed_forward=("F1", "F2"))
    with pytest.raises(TrainingInputError, match="everything is fixed"):
        make_one_shot(little_teacher, corpus, space)


def test_a_space_without_a_distribution_is_refused(tmp_path, corpus_folder):
    factory = OneShotFactory(save_teacher(tmp_path), corpus_folder, "nas_bert", NAS_BERT_OPTIONS, make_settings())
    with pytest.raises(TrainingInputError, match=r"space.name: found 'nas_bert', which has no distribution"):
        factory(0, 1, torch.device("cpu"))


def test_the_factory_makes_what_the_folders_say(tmp_path, corpus_folder, corpus, little_teacher):
    folder = save_teacher(tmp_path / "teacher", shape=LITTLE)
    settings = make_settings(order="teacher")
    factory = OneShotFactory(folder, corpus_folder, "components", OPTIONS, settings, "parameters")
    made, reference = factory(0, 1, torch.device("cpu")), make_one_shot(little_teacher, corpus)
    for task in (made, reference):
        run_locally(task)
    assert changed(weights(made), weights(reference)) == set()


def test_the_factory_puts_the_teachers_components_in_order(tmp_path, corpus_folder, corpus, little_teacher):
    folder = save_teacher(tmp_path / "teacher", shape=LITTLE)
    made = OneShotFactory(folder, corpus_folder, "components", OPTIONS, make_settings())(0, 1, torch.device("cpu"))
    plain = make_one_shot(little_teacher, corpus)
    assert changed(weights(made), weights(plain))
    input_ids_BT, mask_BT = corpus.even_batches(1, 8)[0]
    with torch.no_grad():
        states_BTD = [
            one.supernet.eval()(one.space.largest(), input_ids_BT, mask_BT)[mask_BT.bool()] for one in (made, plain)
        ]
    torch.testing.assert_close(*states_BTD, atol=1e-5, rtol=0)
