"""One-shot search by a task: weights, distribution and head trained together."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from spaces.encoder_shape import EncoderShape
from tests.spaces.elsewhere import run_elsewhere
from tests.spaces.microscopic import OPTIONS as NAS_BERT_OPTIONS
from tests.spaces.microscopic import SHAPE as LARGER
from tests.trainers.oneshot_tasks import (
    OPTIONS,
    assert_resumed_as_undisturbed,
    changed,
    make_little_space,
    weights,
)
from tests.trainers.tasks.task_searches import (
    IMITATION,
    LABELS,
    POOLINGS,
    SENTIMENT,
    SHAPE,
    SIMILARITY,
    make_factory,
    make_place,
    make_search,
    make_settings,
    make_task_space,
    tuned,
)
from tests.trainers.tasks.toy_tasks import save_nas_bert, save_turned_round
from tests.trainers.teachers import make_teacher, make_tokenizer, save_teacher
from trainers.errors import TrainingInputError
from trainers.oneshot import OneShotSearch, supernet_tensors
from trainers.task import run_locally
from trainers.tasks.batching import Encoded
from trainers.tasks.catalogue import find_task
from trainers.tasks.headed_models import task_model, with_shared_head
from trainers.tasks.models import load_for_task, load_tokenizer, save_for_task, task_logits
from trainers.tasks.oneshot_task import TaskLessons, head_tensors
from trainers.tasks.shared_heads import SharedHeads
from trainers.tasks.taught_tasks import TaughtTask, supernet_inputs

TOLERANCE = 1e-5
CPU = torch.device("cpu")
PHASES = {"warm_up_steps": 2, "search_steps": 4, "total_steps": 9}
ESTIMATORS = ("straight_through", "score_function", "importance_weighted")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("searched"))


def predictions(search, task, architecture, rows=range(12)):
    """What supernet and head say of training rows, without dropout; and the batch."""
    inputs = search.lessons.taught.training.inputs([*rows], CPU)
    for module in (search.supernet, search.lessons.heads):
        module.eval()
    with torch.no_grad():
        last_BTD = search.supernet(architecture, *supernet_inputs(inputs))
        logits_BC = search.lessons.heads(task.name, last_BTD, inputs["attention_mask"])
    for module in (search.supernet, search.lessons.heads):
        module.train()
    return logits_BC, inputs


# --- where it starts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("task", [SENTIMENT, SIMILARITY], ids=["class", "number of pairs"])
def test_the_largest_architecture_is_the_tuned_teacher(place, task, pooling):
    search = make_search(place, replace(IMITATION, pooling=pooling), task)
    logits_BC, inputs = predictions(search, task, search.supernet.largest())
    teacher = load_for_task(str(tuned(place, task, pooling)), task, keep_head=True)
    with torch.no_grad():
        expected_BC = task_logits(teacher, task, inputs)
    assert expected_BC.std() > 0.01
    assert (logits_BC - expected_BC).abs().max() <= TOLERANCE
    if task is SIMILARITY:
        assert inputs["token_type_ids"].any()
        without = {**inputs, "token_type_ids": torch.zeros_like(inputs["token_type_ids"])}
        assert not torch.equal(task_logits(teacher, task, without), expected_BC), "segments are part of the test"


def test_classes_are_those_of_the_data_whatever_their_order_in_the_teacher(place, tmp_path):
    save_turned_round(tuned(place), SENTIMENT, tmp_path / "turned")
    turned = {"teacher": str(tmp_path / "turned"), "start": str(tmp_path / "turned")}
    ours, theirs = make_search(place), make_search(place, more=turned)
    assert changed(weights(ours), weights(theirs)) == set()
    lessons = [search.lessons.draw(0).batch for search in (ours, theirs)]
    torch.testing.assert_close(lessons[0].soft_BC, lessons[1].soft_BC)


def test_without_a_start_it_begins_at_the_runs_teacher_with_a_new_head(place):
    search = make_search(place, LABELS, more={"start": None}, order="teacher")
    supernet = make_little_space().supernet()
    supernet.start(make_teacher(shape=SHAPE).model)
    started = supernet_tensors(search.tensors())
    assert all(torch.equal(tensor, started[name]) for name, tensor in supernet.state_dict().items())
    assert not search.lessons.heads.classifiers["sst2"].bias.any()
    assert search.lessons.draw(0).batch.soft_BC is None, "nobody asks a teacher that has no say"
    again = make_search(place, LABELS, more={"start": None}, order="teacher")
    other = make_search(place, LABELS, more={"start": None}, order="teacher", seed=4)
    assert changed(weights(search), weights(again)) == set()
    assert changed(weights(search), weights(other)) == {"heads"}


def test_one_model_can_be_started_at_and_another_imitated(place, tmp_path):
    """The distilled starting point: a student's supernet that learns from a teacher of another form."""
    save_teacher(tmp_path / "larger", shape=LARGER)
    torch.manual_seed(0)
    model = load_for_task(str(tmp_path / "larger"), SENTIMENT, pooling="mean")
    save_for_task(model, load_tokenizer(str(place / "teacher")), tmp_path / "teacher")
    settings = replace(IMITATION, max_length=10)
    search = make_search(place, settings, more={"teacher": str(tmp_path / "teacher")})
    batch = search.lessons.draw(0).batch
    with torch.no_grad():
        expected_BC = task_logits(
            load_for_task(str(tmp_path / "teacher"), SENTIMENT, keep_head=True), SENTIMENT, batch.inputs
        )
    torch.testing.assert_close(batch.soft_BC, expected_BC)
    logits_BC, inputs = predictions(search, SENTIMENT, search.supernet.largest())
    start = load_for_task(str(tuned(place)), SENTIMENT, keep_head=True)
    with torch.no_grad():
        torch.testing.assert_close(logits_BC, task_logits(start, SENTIMENT, inputs), rtol=0, atol=TOLERANCE)


def test_the_cost_of_a_text_is_that_of_a_typical_row(place):
    """FLOPs depend on the length; where none is given, it is the mean length of the rows that are trained on."""
    search = make_search(place, more={"cost": "flops"})
    typical = round(search.lessons.taught.training.lengths.mean())
    whole = search.supernet.largest()
    assert search.whole_cost == make_task_space().expected_cost("flops", typical).of(whole)
    longer = make_search(place, more={"cost": "flops", "sequence_length": 24})
    assert longer.whole_cost == make_task_space().expected_cost("flops", 24).of(whole) > search.whole_cost


# --- what it learns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_cost_falls_in_the_search_and_the_loss_afterwards(place, estimator):
    steps = {"warm_up_steps": 0, "search_steps": 40, "total_steps": 120}
    settings = {"distribution_rate": 0.15, "cost_weight": 0.6, "learning_rate": 5e-3, "same_text": True}
    tuning = replace(LABELS, pooling="mean")  # so that what is left can tell, however little that is
    search = make_search(place, tuning, estimator=estimator, **steps, **settings)
    rows = run_locally(search, report_every=10)
    costs = [row["expected_cost"] for row in rows]
    assert costs[3] < 0.8 * costs[0]
    assert len(set(costs[4:])) == 1, "that of the frozen architecture"
    assert rows[-1]["loss"] < 0.8 * rows[4]["loss"]


@pytest.mark.parametrize("estimator", ["straight_through", "score_function"])
def test_the_heads_that_the_task_needs_are_kept(estimator):
    """Paper notes, test 9: labels hang on three of twelve heads; the nine others say little, and can go."""
    signal = (2, 5, 9)
    taught, space, supernet, heads = planted_task(signal)
    settings = make_settings(
        LABELS,
        batch_size=32,
        estimator=estimator,
        total_steps=60,
        paths=8,
        same_text=True,
        learning_rate=1e-5,
        distribution_rate=0.2,
        cost_weight=1.0,
        certainty=0.8,
    )
    cost = space.expected_cost("parameters", 10)
    lessons = TaskLessons(taught, heads, settings)
    search = OneShotSearch(supernet, space, cost, lessons, settings.search)
    for step in range(60):
        search.step(step)
    kept = set(search.distribution.most_likely().sublayers[0].components)
    assert set(signal) <= kept
    assert len(set(range(12)) - kept) >= 6


def planted_task(signal):
    """Random texts with the classes that a BERT of one layer says; most of its heads hardly touch them."""
    shape = EncoderShape(1, 24, 12, 8, 99, 24, 2)
    teacher = make_teacher(shape=shape)
    output = teacher.model.encoder.layer[0].attention.output.dense.weight
    with torch.no_grad():
        for head in range(12):
            output[:, 2 * head : 2 * head + 2] *= 6.0 if head in signal else 0.5
    rng = np.random.default_rng(0)
    texts = [[2, *rng.integers(5, 99, size=8).tolist(), 3] for _ in range(256)]
    torch.manual_seed(0)
    heads = SharedHeads(24, {"sst2": 2}, "mean", "none")
    with torch.no_grad():
        hidden_BTD = teacher.model(torch.tensor(texts)).last_hidden_state
        pooled_BD = hidden_BTD.mean(1)
        centred_BD = pooled_BD - pooled_BD.mean(0)
        direction_D = torch.linalg.svd(centred_BD, full_matrices=False).Vh[0]
        scores_B = centred_BD @ direction_D
        sharp = 2.0 / float(scores_B.std())
        heads.classifiers["sst2"].weight.copy_(torch.stack([-direction_D, direction_D]) * sharp)
        offset = float(pooled_BD.mean(0) @ direction_D) * sharp
        heads.classifiers["sst2"].bias.copy_(torch.tensor([offset, -offset]))
    encoded = Encoded(texts, None, (scores_B > 0).long().tolist(), 0)
    space = make_little_space(shape=shape, fixed_feed_forward=("F1-4.M",), vertical=())
    supernet = space.supernet()
    supernet.start(teacher.model)
    return TaughtTask(SENTIMENT, encoded), space, supernet, heads


def test_labels_and_teacher_count_by_their_weights(place):
    """The loss of a step is what fine-tuning's is, of the path that is drawn."""
    losses = {}
    for weight in (0.0, 0.5, 1.0):
        search = make_search(place, replace(IMITATION, distillation_weight=weight), paths=1, certainty=0.6)
        search.step(0)
        losses[weight] = search.rows(1)[0]
    assert losses[0.5]["loss"] == pytest.approx((losses[0.0]["loss"] + losses[1.0]["loss"]) / 2, rel=1e-6)
    assert losses[1.0]["loss"] == pytest.approx(losses[1.0]["kl_divergence"], rel=1e-6)
    assert losses[0.5]["kl_divergence"] == losses[1.0]["kl_divergence"]
    assert "kl_divergence" not in losses[0.0]


def test_rows_say_what_was_consumed(place):
    search = make_search(place, paths=3, ramp_steps=4, **PHASES)
    rows = run_locally(search, report_every=3)
    assert [(row["stage"], row["subject"], row["step"], row["path_updates"]) for row in rows] == [
        ("supernet", "supernet", 3, 9),
        ("supernet", "supernet", 6, 18),
        ("supernet", "supernet", 9, 21),
    ]
    assert rows[-1]["tokens"] == sum(search.lessons.draw(step).tokens for step in range(9))
    assert "relative_mse" not in rows[-1]


# --- phases, and going on --------------------------------------------------------------------------------------------


def test_the_head_learns_in_all_phases(place):
    search = make_search(place, **PHASES)
    for step in range(9):
        before = weights(search)
        search.step(step)
        all_parts = {"supernet", "heads", "distribution"}
        assert changed(before, weights(search)) == (all_parts if 2 <= step < 6 else all_parts - {"distribution"}), step


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_resumed_search_is_the_undisturbed_one(place, tmp_path, estimator, stop):
    """With dropout in supernet and head, and a teacher that is asked anew."""
    options = {"space_options": {**OPTIONS, "dropout": 0.1}}
    tuning = replace(IMITATION, dropout=0.1, pooling="own")
    assert_resumed_as_undisturbed(
        lambda: make_search(place, tuning, more=options, estimator=estimator, **PHASES), stop, tmp_path
    )


def test_a_checkpoint_holds_supernet_head_and_distribution(place):
    search = make_search(place, replace(IMITATION, pooling="own"))
    search.step(0)
    tensors = search.tensors()
    assert {name.split(".")[0] for name in tensors} == {"supernet", "heads", "distribution"}
    supernet = make_task_space().supernet()
    supernet.load_state_dict(supernet_tensors(tensors))
    again = SharedHeads.with_weights(head_tensors(tensors), "first")
    assert all(
        torch.equal(tensor, again.state_dict()[name]) for name, tensor in search.lessons.heads.state_dict().items()
    )
    assert again.pooler is not None


# --- workers and paths -----------------------------------------------------------------------------------------------


def test_workers_draw_rows_of_their_own(place):
    factory = pickle.loads(pickle.dumps(make_factory(place, make_settings(paths=1))))
    alone, *both = (factory(rank, count, CPU) for rank, count in ((0, 1), (0, 2), (1, 2)))
    seen = set()
    for step in range(2 * alone.lessons.batches.per_epoch):
        whole = alone.lessons.draw(step).batch.rows
        shares = [worker.lessons.draw(step).batch.rows for worker in both]
        assert sorted(shares[0] + shares[1]) == sorted(whole)
        assert not set(shares[0]) & set(shares[1])
        seen |= set(whole)
    assert seen == set(range(80)), "every row that is trained on"
    assert [worker.architectures_of(0) for worker in both] == [both[0].architectures_of(0)] * 2


def test_paths_share_out_the_rows_or_see_all_of_them(place):
    lesson = make_search(place, task=SIMILARITY, tuning=IMITATION).lessons.draw(0)
    shares = [lesson.share(number, 3) for number in range(3)]
    assert sorted(row for share in shares for row in share.batch.rows) == sorted(lesson.batch.rows)
    for number, share in enumerate(shares):
        batch = share.batch
        for name, tensor in lesson.batch.inputs.items():
            assert torch.equal(batch.inputs[name], tensor[number::3])
        assert torch.equal(batch.labels_B, lesson.batch.labels_B[number::3])
        assert torch.equal(batch.soft_BC, lesson.batch.soft_BC[number::3])
    assert [lesson.share(number, 10).batch.rows for number in (8, 9)] == [(row,) for row in lesson.batch.rows[:2]]


def test_an_epochs_last_rows_may_be_fewer_than_paths(place):
    """81 rows in batches of 8 leave one, which all paths of its step learn."""
    search = make_search(place, replace(IMITATION, max_train_examples=17), paths=4, batch_size=8, total_steps=6)
    assert sorted(len(search.lessons.draw(step).batch.rows) for step in range(3)) == [1, 8, 8]
    assert all(np.isfinite(row["loss"]) for row in run_locally(search, report_every=1))


# --- where it ends ---------------------------------------------------------------------------------------------------

LOAD_ELSEWHERE = """
import sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification
for folder in sys.argv[1:]:
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
    with torch.no_grad():
        save_file({"logits": model(**load_file(f"{folder}.inputs")).logits}, f"{folder}.found")
"""


def test_the_final_model_is_the_frozen_path_under_the_head(place, tmp_path):
    """Here, loaded again, and where netsuke is not installed; with BERT's pooler and without."""
    expected = {}
    for pooling in ("own", "mean"):
        search = make_search(place, replace(IMITATION, pooling=pooling), SIMILARITY, **PHASES)
        run_locally(search)
        for name, part in (("supernet", supernet_tensors), ("heads", head_tensors)):
            save_file(part(search.tensors()), tmp_path / f"{name}.safetensors")
        frozen = search.frozen_architecture()
        files = tmp_path / "supernet.safetensors", tmp_path / "heads.safetensors"
        model = task_model(make_task_space(), frozen, *files, SIMILARITY, search.lessons.settings.pooling)
        assert model.config.architecture == str(frozen)
        assert not model.training
        logits_BC, inputs = predictions(search, SIMILARITY, frozen)
        save_for_task(model, load_tokenizer(str(place / "teacher")), tmp_path / pooling)
        save_file({name: tensor.contiguous() for name, tensor in inputs.items()}, tmp_path / f"{pooling}.inputs")
        expected[pooling] = logits_BC
        again = load_for_task(str(tmp_path / pooling), SIMILARITY, keep_head=True)
        for one in (model, again):
            with torch.no_grad():
                assert (task_logits(one, SIMILARITY, inputs) - logits_BC).abs().max() <= TOLERANCE
    run_elsewhere(LOAD_ELSEWHERE, tmp_path, *(tmp_path / pooling for pooling in expected))
    for pooling, logits_BC in expected.items():
        assert (load_file(tmp_path / f"{pooling}.found")["logits"] - logits_BC).abs().max() <= TOLERANCE


def test_whoever_tunes_the_final_model_on_another_task_starts_a_plain_head(place, tmp_path):
    """A pooler that a head has brought along goes with it, as all models of a comparison have the same head."""
    search = make_search(place, replace(IMITATION, pooling="own"))
    model = with_shared_head(search.supernet.extract(search.supernet.largest()), search.lessons.heads, SENTIMENT)
    save_for_task(model, make_tokenizer(), tmp_path)
    again = load_for_task(str(tmp_path), SIMILARITY)
    assert model.pooler is not None
    assert again.pooler is None
    assert torch.equal(again.encoder.embeddings.token.weight, model.encoder.embeddings.token.weight)


def test_an_encoder_of_another_family_takes_no_shared_head():
    heads = SharedHeads(16, {"sst2": 2})
    with pytest.raises(TrainingInputError, match="found models of type 'bert', which take no head of a supernet's"):
        with_shared_head(make_teacher(shape=SHAPE).model, heads, SENTIMENT)


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_a_start_under_another_head_is_refused(place):
    with pytest.raises(TrainingInputError) as raised:
        make_search(place, more={"start": str(tuned(place, pooling="own"))})
    assert str(raised.value).startswith("finetuning.pooling: found first, but the head of '")
    assert str(raised.value).endswith("has own; set it to own, or start at the run's teacher")


def test_a_start_of_other_sizes_is_refused(place, tmp_path):
    save_teacher(tmp_path / "larger", shape=LARGER)
    model = load_for_task(str(tmp_path / "larger"), SENTIMENT)
    save_for_task(model, make_tokenizer(), tmp_path / "tuned")
    with pytest.raises(TrainingInputError, match=r"^teacher '.*/tuned': its num_hidden_layers is 4, expected 2"):
        make_search(place, replace(LABELS, max_length=10), more={"start": str(tmp_path / "tuned")})


def test_a_start_that_is_no_bert_is_refused(place, tmp_path):
    save_nas_bert(tmp_path / "encoder")
    model = load_for_task(str(tmp_path / "encoder"), SENTIMENT)
    save_for_task(model, make_tokenizer(), tmp_path / "tuned")
    with pytest.raises(TrainingInputError, match="found a model of type 'netsuke-nas-bert', expected a BERT"):
        make_search(place, LABELS, more={"start": str(tmp_path / "tuned")})


def test_a_space_without_a_distribution_is_refused(place):
    factory = make_factory(place, make_settings(), space_name="nas_bert", space_options=NAS_BERT_OPTIONS)
    with pytest.raises(TrainingInputError, match=r"space.name: found 'nas_bert', which has no distribution"):
        factory(0, 1, CPU)


def test_a_task_of_words_is_refused(place):
    factory = make_factory(place, make_settings(), task=find_task("wnut17"), teacher=None, start=None)
    with pytest.raises(TrainingInputError, match="task 'wnut17': candidates are tuned on texts with a class or"):
        factory(0, 1, CPU)
