"""Scores of a supernet's paths, against the stand-alone models of the same paths."""

from __future__ import annotations

import math
import pickle
import random
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestrator.evaluation.evaluator import score_safely
from orchestrator.evaluation.local import evaluate_locally
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.evaluation.supernet_evaluator import SupernetEvaluatorFactory
from orchestrator.objectives import LOSS, PARAMETERS, CheapObjectives
from orchestrator.strategies.registry import create_strategy
from spaces.registry import load_space
from tests.spaces.microscopic import OPTIONS, SHAPE, architecture, block, shaken
from tests.trainers.corpora import make_corpus
from tests.trainers.teachers import save_teacher
from trainers.corpus import PackedCorpus
from trainers.errors import TrainingInputError
from trainers.masking import Masking
from trainers.prediction import mask_batches
from trainers.supernet_store import load_supernet
from trainers.teacher import TeacherSource
from trainers.validation import JUDGING_SHARE, SEARCH_SHARE, variance_at

NETWORKS = ("E32|32:M-F|32:M-F1", "E16|16:S3|24:M-F-S5", "E48|24:F|32:S5-M")
BATCHES, BATCH_SIZE = 3, 4


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluator")
    make_corpus(folder / "validation")
    supernet = shaken(load_space("nas_bert", OPTIONS, SHAPE).supernet())
    save_file(supernet.state_dict(), folder / "supernet.safetensors")
    return SupernetEvaluatorFactory(
        teacher_folder=save_teacher(folder / "teacher"),
        corpus_folder=folder / "validation",
        weights=folder / "supernet.safetensors",
        space_name="nas_bert",
        space_options=OPTIONS,
        batches=BATCHES,
        batch_size=BATCH_SIZE,
        precision="float32",
    )


@pytest.fixture(scope="module")
def evaluator(factory):
    return factory()


@pytest.fixture(scope="module")
def teacher(factory):
    return TeacherSource(str(factory.teacher_folder)).load()


def by_hand(factory, teacher, text: str, batches: int) -> float:
    """Squared error over variance, both summed over all valid tokens of the batches, by the stand-alone model."""
    space = load_space("nas_bert", OPTIONS, teacher.shape)
    model = load_supernet(space, factory.weights).extract(space.parse(text))
    error = variance = 0.0
    rows = PackedCorpus(factory.corpus_folder).even_batches(BATCHES, BATCH_SIZE, SEARCH_SHARE)
    for input_ids_BT, mask_BT in rows[:batches]:
        with torch.inference_mode():
            mine_ND = model(input_ids_BT, mask_BT).last_hidden_state[mask_BT.bool()].double()
            theirs_ND = teacher.states(input_ids_BT, mask_BT, [4])[0][mask_BT.bool()].double()
        error += float((mine_ND - theirs_ND).square().mean(1).sum())
        variance += float(theirs_ND.var(0, unbiased=False).mean()) * len(theirs_ND)
    return error / variance


@pytest.mark.parametrize("fidelity", [1, 2, BATCHES])
def test_scores_are_those_of_the_stand_alone_models(factory, evaluator, teacher, fidelity):
    scores = evaluator.score([architecture(text) for text in NETWORKS], fidelity)
    expected = [by_hand(factory, teacher, text, fidelity) for text in NETWORKS]
    assert [score.loss for score in scores] == pytest.approx(expected, rel=1e-4)
    assert len({round(loss, 6) for loss in expected}) == len(NETWORKS)
    assert all(score.status == "ok" and score.seconds > 0 for score in scores)


@pytest.mark.parametrize("fidelity", [1, BATCHES])
def test_hidden_tokens_are_predicted_by_the_teachers_head_from_the_last_state(factory, tmp_path, fidelity):
    folder = save_teacher(tmp_path / "teacher", with_head=True)
    predicting = replace(factory, teacher_folder=folder, mask_probability=0.3, seed=5)
    networks = [architecture(text) for text in NETWORKS]
    scores = predicting().score(networks, fidelity)
    plain = replace(factory, teacher_folder=folder)().score(networks, fidelity)
    assert [score.loss for score in scores] == [score.loss for score in plain]
    assert {score.masked_lm_loss for score in plain} == {None}
    teacher = TeacherSource(str(folder)).load()
    space = load_space("nas_bert", OPTIONS, teacher.shape)
    rows = PackedCorpus(factory.corpus_folder).even_batches(BATCHES, BATCH_SIZE, SEARCH_SHARE)
    batches = mask_batches(rows, Masking.of_tokenizer(teacher.tokenizer, 0.3), 5)[:fidelity]
    for score, text in zip(scores, NETWORKS, strict=True):
        model = load_supernet(space, factory.weights).extract(space.parse(text))
        total, count = 0.0, 0
        for batch in batches:
            with torch.inference_mode():
                logits_BTV = teacher.masked_lm_head(
                    model(batch.input_ids_BT, batch.attention_mask_BT).last_hidden_state
                )
            log_BTV = logits_BTV.double().log_softmax(-1)
            for row, column in batch.chosen_BT.nonzero().tolist():
                total -= float(log_BTV[row, column, batch.labels_BT[row, column]])
                count += 1
        assert count > 3
        assert score.masked_lm_loss == pytest.approx(total / count, rel=1e-4)
        assert score.judged == score.masked_lm_loss


def test_predicting_without_a_head_is_refused(factory):
    with pytest.raises(TrainingInputError, match=r"the teacher .* has no masked-LM head"):
        replace(factory, mask_probability=0.15)()


def test_a_masked_lm_loss_that_is_not_a_number_fails(factory, tmp_path):
    folder = save_teacher(tmp_path / "teacher", with_head=True)
    nothing_hidden = replace(factory, teacher_folder=folder, mask_probability=1e-9)()
    [score] = score_safely(nothing_hidden, [architecture(NETWORKS[0])], 1)
    assert (score.status, score.loss, score.masked_lm_loss) == ("failed", None, None)
    assert "masked-LM loss is nan" in score.error


@pytest.mark.parametrize("strategy", ["nsga2", "regularised_evolution"])
def test_in_a_search_only_networks_with_a_diverged_operation_fail(factory, evaluator, tmp_path, strategy):
    weights = load_file(factory.weights)
    for name, weight in weights.items():
        if name.startswith("blocks.1.layers.") and ".24_S5." in name:
            weight.view(-1)[0] = math.nan
    save_file(weights, tmp_path / "diverged.safetensors")
    space = load_space("nas_bert", OPTIONS, SHAPE)
    cheap = CheapObjectives(space)
    records = []
    made = create_strategy(strategy, space, [LOSS, PARAMETERS], [], 3, cheap=cheap, options={"population": 10})
    loop = SearchLoop(made, cheap, 120, batch_size=5, on_result=records.append)
    evaluate_locally(loop, replace(factory, weights=tmp_path / "diverged.safetensors"))
    diverged = [bool(re.search(r"\|24:[^|]*S5[^|]*$", str(record.architecture))) for record in records]
    assert [record.status == "failed" for record in records] == diverged
    assert {record.score.error for record in records if record.status == "failed"} == {"the loss is nan"}
    assert 0 < sum(diverged) < 60, "the test needs some of both"
    sound = [record for record in records if record.status == "ok"]
    plain = evaluator.score([record.architecture for record in sound], 1)
    assert [record.score.loss for record in sound] == [score.loss for score in plain]


def test_more_fidelity_than_batches_is_all_of_them(evaluator):
    networks = [architecture(text) for text in NETWORKS]
    losses = [[score.loss for score in evaluator.score(networks, fidelity)] for fidelity in (1, BATCHES, BATCHES + 5)]
    assert losses[1] == losses[2]
    assert losses[0] != losses[1]


def test_nobody_to_score_is_no_scores(evaluator):
    assert evaluator.score([], 1) == []


def test_company_does_not_change_a_score(evaluator):
    networks = [architecture(text) for text in NETWORKS]
    together = [score.loss for score in evaluator.score(networks, 2)]
    assert together == [evaluator.score([network], 2)[0].loss for network in networks]


def test_a_block_is_fed_with_the_teachers_state(factory, evaluator, teacher):
    space = load_space("nas_bert", OPTIONS, teacher.shape)
    supernet = load_supernet(space, factory.weights)
    path = block("24:M-S3")
    error = variance = 0.0
    for input_ids_BT, mask_BT in PackedCorpus(factory.corpus_folder).even_batches(BATCHES, BATCH_SIZE, SEARCH_SHARE):
        with torch.inference_mode():
            entering_BTD, leaving_BTD = teacher.states(input_ids_BT, mask_BT, [2, 4])
            output_BTD = supernet.forward_block(1, path, entering_BTD, mask_BT.bool())
        visible_BT = mask_BT.bool()
        error += float((output_BTD - leaving_BTD)[visible_BT].square().mean(1).sum())
        variance += float(leaving_BTD[visible_BT].var(0, unbiased=False).mean()) * int(visible_BT.sum())
    blocks = evaluator.blocks()
    loss = blocks.losses(1, [path])[0]
    assert loss / variance_at(blocks.batches, 2) == pytest.approx(error / variance, rel=1e-4)


def test_the_factory_travels(factory, evaluator):
    travelled = pickle.loads(pickle.dumps(factory))
    assert travelled == factory
    networks = [architecture(text) for text in NETWORKS]
    assert [score.loss for score in travelled().score(networks, 1)] == [s.loss for s in evaluator.score(networks, 1)]


def test_an_architecture_of_another_space_fails_alone(evaluator):
    networks = [architecture(text) for text in (NETWORKS[0], "E32|40:M|32:M", NETWORKS[1])]
    scores = score_safely(evaluator, networks, 1)
    assert [score.status for score in scores] == ["ok", "failed", "ok"]
    assert "KeyError" in scores[1].error


def test_text_for_the_search_is_not_text_for_the_judges(factory):
    corpus = PackedCorpus(factory.corpus_folder)
    searched, judged = (
        {tuple(row.tolist()) for ids, _ in corpus.even_batches(100, 8, share) for row in ids}
        for share in (SEARCH_SHARE, JUDGING_SHARE)
    )
    assert searched
    assert judged
    assert not searched & judged


def test_threads_are_set_where_asked(factory):
    before = torch.get_num_threads()
    try:
        replace(factory, threads=2, batches=1)()
        assert torch.get_num_threads() == 2
        replace(factory, threads=0, batches=1)()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_sampled_paths_have_finite_scores(evaluator):
    space = load_space("nas_bert", OPTIONS, SHAPE)
    rng = random.Random(5)
    scores = evaluator.score([space.sample(rng) for _ in range(20)], 1)
    assert all(score.loss is not None and math.isfinite(score.loss) and score.loss > 0 for score in scores)
