"""Candidates that are judged by a short training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.trainers.candidates import LEARNT, TUNING, A, B, C, make_place, make_settings, sentiment
from tests.trainers.tasks.toy_tasks import FAST
from tests.trainers.warm_up_tasks import make_layerwise_space
from trainers.candidate_training import CandidateTraining
from trainers.corpus import PackedCorpus
from trainers.fidelity import Judgement
from trainers.supernet_store import load_supernet
from trainers.tasks.jobs import TuningJob, run_job
from trainers.tasks.judging import judge
from trainers.teacher import TeacherSource
from trainers.validation import SEARCH_SHARE

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("candidates"))


def make_training(place, task=None, space=None, **changes):
    settings = make_settings(**changes)
    space = space or make_layerwise_space()
    teacher = TeacherSource(str(place / "teacher")).load()
    batches = PackedCorpus(place / "validation").even_batches(2, 6, SEARCH_SHARE)
    judgement = Judgement.of_teacher(lambda ids, mask: teacher.states(ids, mask, [4])[0], batches)
    found = guide = None
    if task is not None:
        found = task.load(teacher, settings.tuning, CPU)
        guide = task.load_guide(found, settings.tuning, CPU)
    supernet = load_supernet(space, place / "supernet.safetensors")
    corpus = PackedCorpus(place / "corpus")
    return CandidateTraining(space, supernet, teacher, corpus, judgement, settings, found, guide)


def losses(results):
    assert not any(result.error for result in results)
    return [result.loss for result in results]


# --- without a task --------------------------------------------------------------------------------------------------


def test_training_brings_candidates_closer_to_the_teacher(place):
    untrained, little, much = (
        losses(make_training(place, warm_up_steps=steps).train([A, C], 4)) for steps in (0, 8, 60)
    )
    for before, between, after in zip(untrained, little, much, strict=True):
        assert before > between > after > 0.0


def test_a_result_depends_on_architecture_and_seed_alone(place):
    """Not on company, order, earlier candidates or the process's own chance; with dropout, so that chance matters."""
    space = make_layerwise_space(dropout=0.1)
    training = make_training(place, space=space, company=2)
    together = losses(training.train([A, B, C], 4))
    torch.manual_seed(99)
    assert losses(training.train([C, A], 4)) == [together[2], together[0]]
    assert losses(make_training(place, space=space, company=1).train([B], 4)) == [together[1]]
    assert len(set(together)) == 3
    assert losses(make_training(place, space=space, seed=4).train([A], 4)) != [together[0]]


@pytest.mark.parametrize(("fidelity", "steps"), [(1, 2), (2, 4), (3, 6), (4, 8), (0, 2), (9, 8)])
def test_a_fidelity_is_its_share_of_the_steps(place, fidelity, steps):
    """On a schedule of its own: the same as a training that is that long at full fidelity."""
    (result,) = make_training(place).train([B], fidelity)
    assert result.steps == steps
    (whole,) = make_training(place, warm_up_steps=steps, fidelities=1).train([B], 1)
    assert (whole.loss, whole.steps) == (result.loss, steps)


def test_shares_of_steps_are_rounded_up():
    assert [make_settings(fidelities=4).steps_at(5, fidelity) for fidelity in (1, 2, 3, 4)] == [2, 3, 4, 5]
    assert make_settings().steps_at(0, 1) == 0


def test_the_supernet_stays_as_it_is(place):
    training = make_training(place)
    before = {name: tensor.clone() for name, tensor in training.supernet.state_dict().items()}
    training.train([A, C], 4)
    assert all(torch.equal(before[name], tensor) for name, tensor in training.supernet.state_dict().items())


def test_candidates_can_start_from_scratch(place):
    """To compare with: the same for every start of the same seed."""
    training = make_training(place, start="scratch", warm_up_steps=0)
    first, again = (losses(training.train([B, C], 4)) for _ in range(2))
    assert first == again != losses(make_training(place, warm_up_steps=0).train([B, C], 4))


# --- with a task -----------------------------------------------------------------------------------------------------


def test_a_task_judges_by_its_best_accuracy_on_rows_that_are_not_learnt(place):
    training = make_training(place, sentiment(place), tuning=LEARNT)
    task = training.task
    assert (len(task.training), task.held_out.examples) == (120, 48)
    (result,) = training.train([A], 4)
    assert result.steps == 8 + 10 * 8
    assert result.loss < 0.1
    assert round((1 - result.loss) * 48, 6) == round((1 - result.loss) * 48)


def test_a_fidelity_shortens_the_tuning_too(place):
    training = make_training(place, sentiment(place), tuning=TUNING)
    assert [training.train([A], fidelity)[0].steps for fidelity in (1, 4)] == [2 + 4, 8 + 16]


def test_results_on_a_task_do_not_depend_on_company(place):
    training = make_training(place, sentiment(place), tuning=replace(TUNING, dropout=0.1, epochs=1))
    together = losses(training.train([A, B], 4))
    torch.manual_seed(5)
    assert losses(training.train([B], 4)) == [together[1]]
    assert losses(training.train([A], 4)) == [together[0]]


def test_a_tuned_teacher_teaches_its_predictions_and_its_layers(place, tmp_path):
    tuned = tmp_path / "tuned"
    data = sentiment(place)
    run_job(TuningJob(str(place / "teacher"), data.task, data.source, replace(FAST, epochs=2), 1, save_to=tuned))
    settings = replace(TUNING, distillation_weight=1.0, layer_weight=1.0)
    training = make_training(place, sentiment(place, str(tuned)), tuning=settings)
    assert training.guide is not None
    assert len(training.task.soft) == len(training.task.training)
    guided = training.train([B], 4)
    alone = make_training(place, sentiment(place), tuning=settings)
    assert alone.guide is None
    assert alone.task.soft is None
    assert losses(guided) == losses(training.train([B], 4))
    assert losses(alone.train([B], 4))


def test_accuracy_is_the_whole_splits_whatever_the_batches(place, monkeypatch):
    """Item 26: no mean over batches. Matthews' correlation is no mean of anything."""
    training = make_training(place, sentiment(place), tuning=TUNING)
    from trainers.tasks import judging
    from trainers.tasks.models import with_head

    task = replace(training.task.task, metrics=("matthews", "accuracy", "f1"))
    torch.manual_seed(0)
    model = with_head(training.space.build(C), task).eval()
    lengths = TUNING.lengths_for(model.config.encoder_config(), training.task.tokenizer)
    whole = judge(model, task, training.task.held_out, training.task.tokenizer, lengths)
    monkeypatch.setattr(judging, "_EVALUATION_TOKENS", 20)
    assert judge(model, task, training.task.held_out, training.task.tokenizer, lengths) == whole


# --- what goes wrong -------------------------------------------------------------------------------------------------


def breaking(training, where):
    """A training in which the second candidate cannot be used; returns it."""
    extract = training.supernet.extract

    def extract_or_fail(architecture):
        model = extract(architecture)
        if architecture == B and where == "extraction":
            raise ValueError("no such\nexpression")
        if architecture == B and where == "shapes":
            model.blocks[1].attention.output = torch.nn.Linear(7, 24)
        if architecture == B and where == "first pass":
            model.blocks[1].attention.output.weight.data[0, 0] = torch.nan
        return model

    training.supernet.extract = extract_or_fail
    return training


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("extraction", "ValueError: no such expression"),
        ("shapes", "RuntimeError: mat1 and mat2 shapes"),
        ("first pass", "not finite before any training"),
    ],
)
def test_a_broken_candidate_fails_with_its_reason_and_harms_no_other(place, where, reason):
    undisturbed = losses(make_training(place).train([A, C], 4))
    first, broken, last = breaking(make_training(place), where).train([A, B, C], 4)
    assert [first.loss, last.loss] == undisturbed
    assert broken.loss is None
    assert reason in broken.error
    assert "\n" not in broken.error
    assert broken.steps == 0


def test_numbers_that_run_away_are_a_failure(place):
    (result,) = make_training(place, learning_rate=1e30, gradient_clip=0.0, warm_up_steps=6).train([B], 4)
    assert result.loss is None
    assert "warm-up became nan" in result.error or "warm-up became inf" in result.error
    wild = replace(TUNING, learning_rate=1e30, gradient_clip=0.0)
    (result,) = make_training(place, sentiment(place), tuning=wild).train([B], 4)
    assert result.loss is None
    assert "tuning became" in result.error


def test_want_of_memory_is_told_to_the_caller(place):
    training = make_training(place)

    def extract(_):
        raise MemoryError

    training.supernet.extract = extract
    with pytest.raises(MemoryError):
        training.train([A], 4)
