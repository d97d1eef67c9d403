"""Candidates scored by a task with the weights of a supernet that was tuned on several, or searched by one."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestrator.evaluation.evaluator import SharingEvaluatorFactory, score_safely
from orchestrator.evaluation.object_store import pack, unpack
from orchestrator.evaluation.task_evaluator import TaskEvaluatorFactory
from spaces.narrowing import Narrowing
from tests.spaces.microscopic import OPTIONS as NAS_BERT_OPTIONS
from tests.spaces.microscopic import SHAPE as NAS_BERT_SHAPE
from tests.spaces.microscopic import make_space as make_nas_bert_space
from tests.trainers import oneshot_tasks
from tests.trainers.candidates import A, B, C
from tests.trainers.tasks import task_searches
from tests.trainers.tasks.joint_tasks import LABELS, SLICES, TASKS, make_place, make_settings, make_tuning
from tests.trainers.tasks.toy_tasks import source
from tests.trainers.warm_up_tasks import OPTIONS
from trainers.errors import TrainingInputError
from trainers.oneshot import supernet_tensors
from trainers.task import run_locally
from trainers.tasks import judging
from trainers.tasks.batching import Encoded
from trainers.tasks.headed_models import task_model
from trainers.tasks.joint_tuning import tuned_parts
from trainers.tasks.judging import DevSet, Lengths, judge
from trainers.tasks.metrics import accuracy, spearman
from trainers.tasks.models import load_tokenizer
from trainers.tasks.oneshot_task import head_tensors
from trainers.tasks.shared_heads import SharedHeads
from trainers.tasks.slices import read_held_out

SENTIMENT, SIMILARITY = TASKS
TUNING = replace(LABELS, pooling="mean")
LENGTHS = Lengths(24, TUNING.answers)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A supernet that has learnt both tasks in networks of all sizes."""
    folder = make_place(tmp_path_factory.mktemp("tuned"))
    plain = Narrowing(str(A), ("expressions",))
    tuning = make_tuning(folder, TUNING, plain, pooler="none", total_steps=200, learning_rate=5e-3)
    run_locally(tuning)
    for part, name in zip(tuned_parts(tuning.tensors()), ("tuned", "heads"), strict=True):
        save_file(part, folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def factory(place):
    return TaskEvaluatorFactory(
        teacher_folder=place / "teacher",
        weights=place / "tuned.safetensors",
        heads=place / "heads.safetensors",
        space_name="efficient_bert",
        space_options=OPTIONS,
        task=SENTIMENT,
        source=source(place / "data"),
        settings=make_settings(TUNING, pooler="none"),
        slices=SLICES,
    )


def held_out_of(place, task) -> Encoded:
    tokenizer = load_tokenizer(str(place / "teacher"))
    return read_held_out(task, source(place / "data"), tokenizer, LENGTHS, SLICES).encoded


@pytest.mark.parametrize("task", TASKS, ids=["class", "number"])
def test_scores_are_those_of_the_extracted_model_with_the_same_head(factory, place, task):
    """Row by row, without padding; and the loss is 1 minus the headline metric over all rows."""
    evaluator = replace(factory, task=task)()
    heads = SharedHeads.with_weights(load_file(place / "heads.safetensors"), "mean")
    held_out = held_out_of(place, task)
    found = evaluator.logits([A, B, C])
    for architecture, logits_RC, score in zip((A, B, C), found, evaluator.score([A, B, C], 1), strict=True):
        model = evaluator.supernet.extract(architecture)
        expected = []
        for row in range(len(held_out)):
            inputs = held_out.inputs([row])
            with torch.inference_mode():
                last_BTD = model(**inputs).last_hidden_state
                expected.append(heads(task.name, last_BTD, inputs["attention_mask"])[0].numpy())
        assert np.abs(logits_RC - np.stack(expected)).max() <= 1e-5 * max(1.0, np.abs(logits_RC).max())
        if task is SENTIMENT:
            metric = accuracy(np.stack(expected).argmax(-1), held_out.labels)
        else:
            metric = spearman(np.stack(expected)[:, 0], held_out.labels)
        assert (score.status, score.loss) == ("ok", pytest.approx(1 - metric, abs=1e-6))
        assert score.seconds > 0


def test_networks_that_the_tuning_drew_know_rows_they_have_not_seen(factory):
    plain, _, largest = factory().score([A, B, C], 1)
    assert plain.loss < 0.1
    assert largest.loss < 0.1


def test_a_metric_is_that_of_all_rows_whatever_the_batches(factory, monkeypatch):
    task = replace(SENTIMENT, metrics=("matthews", "accuracy", "f1"))
    whole = replace(factory, task=task)()
    monkeypatch.setattr(judging, "_EVALUATION_TOKENS", 20)
    divided = replace(factory, task=task)()
    assert len(divided.batches) > 10 > len(whole.batches)
    assert divided.score([B], 1)[0].loss == pytest.approx(whole.score([B], 1)[0].loss, abs=1e-9)


def test_an_evaluator_made_of_shared_material_scores_alike(factory):
    """Of arrays that may not be written to, as Ray's object store hands them out."""
    made = pickle.loads(pickle.dumps(factory))
    assert isinstance(made, SharingEvaluatorFactory)
    packed = pack(made.load())
    for buffer in packed.buffers:
        buffer.flags.writeable = False
    assert max(buffer.nbytes for buffer in packed.buffers) > 1000, "tensors lie beside the pickle"
    scores = [evaluator.score([B, C], 1) for evaluator in (made.make(unpack(packed)), made())]
    assert [one.loss for one in scores[0]] == [one.loss for one in scores[1]]


def test_predictions_that_are_not_finite_are_a_failure_and_harm_no_other(factory):
    evaluator = factory()
    undisturbed = evaluator.score([A], 1)[0].loss
    evaluator.supernet.blocks[0].feed_forwards[1].norm.weight.data[0] = torch.nan  # which the smallest does not reach
    first, broken = score_safely(evaluator, [A, C], 1)
    assert (first.status, first.loss) == ("ok", undisturbed)
    assert (broken.status, broken.loss) == ("failed", None)
    assert broken.error == "its predictions on sst2 are not finite"


@pytest.mark.parametrize("task", TASKS, ids=["class", "pairs with a number"])
def test_scores_after_a_search_by_a_task_are_those_of_the_extracted_model(tmp_path, task):
    """Of a supernet of components; the model is judged as whole models are."""
    place = task_searches.make_place(tmp_path)
    tuning = replace(task_searches.IMITATION, pooling="own")
    search = task_searches.make_search(place, tuning, task, total_steps=20, certainty=0.8)
    run_locally(search)
    files = place / "supernet.safetensors", place / "heads.safetensors"
    for file, part in zip(files, (supernet_tensors, head_tensors), strict=True):
        save_file(part(search.tensors()), file)
    settings = task_searches.make_settings(tuning)
    factory = TaskEvaluatorFactory(
        teacher_folder=place / "teacher",
        weights=files[0],
        heads=files[1],
        space_name="components",
        space_options=oneshot_tasks.OPTIONS,
        task=task,
        source=source(place / "data"),
        settings=settings,
        slices=task_searches.SLICES,
    )
    drawn = list(dict.fromkeys([search.supernet.largest(), *search.architectures_of(0)]))
    assert len(drawn) > 1
    tokenizer = load_tokenizer(str(place / "teacher"))
    held_out: DevSet = read_held_out(task, source(place / "data"), tokenizer, LENGTHS, task_searches.SLICES)
    evaluator = factory()
    found = zip(drawn, evaluator.logits(drawn), evaluator.score(drawn, 1), strict=True)
    for architecture, logits_RC, score in found:
        space = task_searches.make_task_space()
        model = task_model(space, architecture, *files, task, settings.pooling)
        expected = judging.predict(model, task, held_out.encoded)
        assert np.abs(logits_RC - np.stack(expected)).max() <= 1e-5
        metric = judge(model, task, held_out, tokenizer, LENGTHS)[task.headline]
        assert (score.status, score.loss) == ("ok", pytest.approx(1 - metric, abs=1e-6))


def test_a_supernet_that_takes_no_pairs_of_texts_is_refused(factory):
    blocks = replace(factory, space_name="nas_bert", space_options=NAS_BERT_OPTIONS)
    material = factory.load()
    weights = make_nas_bert_space().supernet().state_dict()
    with pytest.raises(TrainingInputError, match=r"^space.name: found 'nas_bert', whose supernet does not tell"):
        blocks.make(replace(material, shape=NAS_BERT_SHAPE, weights=weights))
