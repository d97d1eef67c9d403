"""Candidates scored by a short training, as searches ask for it."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from orchestrator.evaluation.evaluator import SharingEvaluatorFactory, score_at_fidelities, score_safely
from orchestrator.evaluation.local import evaluate_locally
from orchestrator.evaluation.object_store import pack, unpack
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.training_evaluator import TrainingEvaluatorFactory
from orchestrator.objectives import LOSS, CheapObjectives
from orchestrator.strategies.successive_halving import SuccessiveHalving
from tests.trainers.candidates import LEARNT, TUNING, A, B, C, make_place, make_settings, sentiment
from tests.trainers.warm_up_tasks import OPTIONS, make_layerwise_space
from trainers.errors import TrainingInputError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("evaluator"))


@pytest.fixture
def factory(place):
    return TrainingEvaluatorFactory(
        teacher_folder=place / "teacher",
        corpus_folder=place / "corpus",
        validation_folder=place / "validation",
        weights=place / "supernet.safetensors",
        space_name="efficient_bert",
        space_options=OPTIONS,
        settings=make_settings(),
        batches=2,
        batch_size=6,
    )


def test_scores_are_losses_after_training(factory):
    evaluator = factory()
    scores = evaluator.score([A, C], 4)
    assert all(score.status == "ok" and score.seconds > 0 for score in scores)
    untrained = replace(factory, settings=make_settings(warm_up_steps=0))().score([A, C], 4)
    assert all(after.loss < before.loss for after, before in zip(scores, untrained, strict=True))
    assert [score.loss for score in evaluator.score([C], 4)] == [scores[1].loss]


def test_an_evaluator_made_of_shared_material_scores_alike(factory, place):
    """Of arrays that may not be written to, as Ray's object store hands them out; with a task and without."""
    for made in (factory, replace(factory, task=sentiment(place), settings=make_settings(tuning=TUNING))):
        made = pickle.loads(pickle.dumps(made))
        assert isinstance(made, SharingEvaluatorFactory)
        packed = pack(made.load())
        for buffer in packed.buffers:
            buffer.flags.writeable = False
        scores = [evaluator.score([B], 2) for evaluator in (made.make(unpack(packed)), made())]
        assert scores[0][0].status == "ok"
        assert scores[0][0].loss == scores[1][0].loss


def test_a_task_makes_the_loss_one_minus_the_accuracy(factory, place):
    settings = make_settings(tuning=LEARNT)
    scores = replace(factory, task=sentiment(place), settings=settings)().score([A], 4)
    assert scores[0].loss < 0.1
    assert scores[0].loss * 48 == pytest.approx(round(scores[0].loss * 48))


def test_a_task_without_settings_is_refused(factory, place):
    with pytest.raises(TrainingInputError, match="task 'sst2': found no settings to tune candidates with"):
        replace(factory, task=sentiment(place))()


def test_failures_come_with_their_reason(factory):
    evaluator = replace(factory, settings=make_settings(learning_rate=1e30, gradient_clip=0.0))()
    (score,) = score_safely(evaluator, [B], 4)
    assert (score.status, score.loss) == ("failed", None)
    assert "the loss of its warm-up became" in score.error


def test_a_search_stops_weak_candidates_early(factory):
    """Successive halving over shares of the training: six are trained for half of the steps, the best three go on."""
    space = make_layerwise_space()
    strategy = SuccessiveHalving(space, (LOSS,), (), 0, bracket=6, eta=2, rungs=2, descendants=0.0)
    records = []
    loop = SearchLoop(strategy, CheapObjectives(space), 9, fidelity=4, window=1, on_result=records.append)
    evaluate_locally(loop, factory)
    brief, whole = ([record for record in records if record.proposal.fidelity == fidelity] for fidelity in (2, 4))
    assert (len(brief), len(whole)) == (6, 3)
    assert {record.status for record in records} == {"ok"}
    best = sorted(brief, key=lambda record: record.score.loss)[:3]
    assert {record.architecture for record in whole} == {record.architecture for record in best}
    again = score_at_fidelities(factory(), [(record.architecture, record.proposal.fidelity) for record in records])
    assert [score.loss for score in again] == [record.score.loss for record in records]
