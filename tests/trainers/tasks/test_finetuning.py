"""Fine-tuning microscopic encoders on tasks they can learn, with and without a teacher."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoModelForSequenceClassification

from spaces import huggingface as _registered  # noqa: F401 - AutoModel has to know the project's models
from tests.trainers.tasks.toy_tasks import (
    FAST,
    save_bert,
    save_efficient_bert,
    save_nas_bert,
    source,
    write_answers,
    write_sentiment,
    write_similarity,
    write_tags,
)
from trainers.errors import TrainingInputError
from trainers.task import load_checkpoint, run_locally, save_checkpoint
from trainers.tasks.answers import AnswerSettings
from trainers.tasks.catalogue import find_task
from trainers.tasks.finetuning import FineTuningFactory
from trainers.tasks.jobs import TuningJob, TuningWorker, run_job, was_tuned_for
from trainers.tasks.models import has_head_for, label_order, load_encoder, load_for_task, locate

SHORT = replace(FAST, answers=AnswerSettings(24, 4, 3))
SAVE = {"bert": save_bert, "nas_bert": save_nas_bert, "efficient_bert": save_efficient_bert}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data and models; tests leave them as they are."""
    folder = tmp_path_factory.mktemp("tasks")
    for write in (write_sentiment, write_similarity, write_tags, write_answers):
        write(folder / "data")
    write_answers(folder / "data", unanswerable=True)
    for kind, save in SAVE.items():
        save(folder / kind)
    return folder


def job(place, kind="bert", task="sst2", **changes):
    settings = changes.pop("settings", SHORT)
    return TuningJob(str(place / kind), find_task(task), source(place / "data"), settings, **({"seed": 1} | changes))


def factory(place, kind="bert", task="sst2", settings=SHORT, seed=1, **changes):
    return FineTuningFactory(str(place / kind), find_task(task), source(place / "data"), settings, seed, **changes)


def headline(result):
    return next(score.value for score in result.scores if score.headline)


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("bert", "mean"), ("bert", "first"), ("nas_bert", "mean"), ("nas_bert", "first"), ("efficient_bert", "mean")],
)
def test_a_learnable_task_is_learnt(place, kind, pooling):
    epochs = 10 if pooling == "mean" else 20
    result = run_job(job(place, kind, settings=replace(SHORT, pooling=pooling, epochs=epochs)))
    assert headline(result) >= 0.95
    assert (result.examples, result.epochs) == (240, epochs)
    assert result.loss < 0.1


@pytest.mark.parametrize("kind", ["bert", "nas_bert"])
@pytest.mark.parametrize(
    ("task", "least", "epochs"), [("stsb", 0.8, 14), ("wnut17", 0.99, 6), ("squad_v1", 0.95, 14), ("squad_v2", 0.9, 14)]
)
def test_every_kind_of_task_is_learnt(place, kind, task, least, epochs):
    result = run_job(job(place, kind, task, settings=replace(SHORT, pooling="mean", epochs=epochs)))
    assert headline(result) >= least
    names = {score.metric for score in result.scores}
    assert names >= {"stsb": {"spearman", "pearson"}, "wnut17": {"f1", "accuracy"}}.get(task, {"f1", "exact_match"})


@pytest.mark.parametrize(
    ("kind", "answerability"),
    [("bert", "layer"), ("bert", "span"), ("nas_bert", "layer"), ("nas_bert", "span"), ("efficient_bert", "layer")],
)
def test_a_model_that_knows_what_has_no_answer_is_kept_and_judged_again(place, kind, answerability, tmp_path):
    answers = replace(SHORT.answers, answerability=answerability)
    settings = replace(SHORT, epochs=2, answers=answers, max_train_examples=48)
    saved = tmp_path / "saved"
    tuned = run_job(job(place, kind, "squad_v2", settings=settings, save_to=saved))
    names = {score.metric for score in tuned.scores}
    assert names >= {"f1_answerable", "f1_unanswerable", "exact_match_answerable", "best_f1", "best_f1_threshold"}
    model = AutoModelForQuestionAnswering.from_pretrained(saved)
    outputs = model(torch.tensor([[2, 7, 3, 9, 8, 3]]))
    assert outputs.start_logits.shape == outputs.end_logits.shape == (1, 6)
    logits = getattr(outputs, "answerable_logits", None)
    assert (logits is not None) == (answerability == "layer")
    assert logits is None or logits.shape == (1,)
    judged = run_job(replace(job(place, kind, "squad_v2", settings=settings), model=str(saved), train=False))
    assert judged.scores == tuned.scores
    assert was_tuned_for(str(saved), find_task("squad_v2"))
    again = run_job(replace(job(place, kind, "squad_v2", settings=settings, teacher=str(saved)), model=str(saved)))
    assert again.loss is not None
    assert np.isfinite(again.loss)


def test_squad_1_has_no_layer_for_what_has_no_answer(place):
    model = factory(place, "nas_bert", "squad_v1", replace(SHORT, epochs=1))().model
    assert getattr(model, "answerability", None) is None


def test_the_seed_alone_decides(place):
    settings = replace(SHORT, epochs=1, dropout=0.1)
    one, again = (run_job(job(place, settings=settings)) for _ in range(2))
    other = run_job(job(place, settings=settings, seed=2))
    assert one.loss == again.loss
    assert one.scores == again.scores
    assert one.loss != other.loss


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_resumed_training_is_the_undisturbed_one(place, tmp_path, keep):
    settings = replace(SHORT, epochs=2, dropout=0.1, keep=keep)
    whole = factory(place, settings=settings)()
    run_locally(whole)
    first = factory(place, settings=settings)()
    for step in range(13):
        first.step(step)
    save_checkpoint(first, tmp_path / "checkpoint", 13, [])
    second = factory(place, settings=settings)()
    done, _ = load_checkpoint(second, tmp_path / "checkpoint")
    for step in range(done, second.total_steps):
        second.step(step)
    assert second.finish() == whole.finish()
    for (name, ours), theirs in zip(second.model.state_dict().items(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_the_best_epoch_is_kept_where_it_is_asked_for(place):
    """A learning rate that ruins the model after a good beginning."""
    tuning = factory(place, settings=replace(SHORT, epochs=4, keep="best"))()
    scores = []
    for step in range(tuning.total_steps):
        tuning.step(step)
        if (step + 1) % tuning.batches.per_epoch == 0:
            scores.append(tuning.judge(tuning.dev_sets[0])["accuracy"])
            if len(scores) == 2:
                with torch.no_grad():
                    tuning.model.classifier.weight.zero_()
                    tuning.model.encoder.embeddings.word_embeddings.weight.zero_()
    kept = tuning.finish()
    assert tuning.judge(tuning.dev_sets[0])["accuracy"] == max(scores)
    assert kept == scores.index(max(scores)) + 1


def test_task_distillation_imitates_a_tuned_teacher(place, tmp_path):
    """With imitation alone the student learns although its own labels are wrong."""
    teacher = tmp_path / "teacher"
    run_job(job(place, settings=replace(SHORT, pooling="mean"), save_to=teacher))
    wrong = write_sentiment(tmp_path / "wrong")
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = wrong / "glue/sst2/train.parquet"
    table = pq.read_table(file)
    pq.write_table(table.set_column(1, "label", pa.array([1 - label for label in table["label"].to_pylist()])), file)
    task, settings = find_task("sst2"), replace(SHORT, pooling="mean", distillation_weight=1.0)
    student = TuningJob(str(place / "nas_bert"), task, source(wrong), settings, 1, teacher=str(teacher))
    assert headline(run_job(student)) == 1.0
    assert headline(run_job(replace(student, settings=replace(settings, distillation_weight=0.0)))) == 0.0


@pytest.mark.parametrize("task", ["stsb", "wnut17", "squad_v1"])
def test_distillation_of_every_kind_runs_and_its_weight_of_0_is_no_teacher(place, tmp_path, task):
    teacher = tmp_path / "teacher"
    short = replace(SHORT, epochs=1, pooling="mean")
    run_job(job(place, task=task, settings=short, save_to=teacher))
    without = run_job(job(place, "nas_bert", task, settings=replace(short, distillation_weight=0.0)))
    nothing = replace(short, distillation_weight=0.0)
    assert run_job(job(place, "nas_bert", task, settings=nothing, teacher=str(teacher))).loss == without.loss
    with_teacher = run_job(job(place, "nas_bert", task, settings=short, teacher=str(teacher)))
    assert with_teacher.loss != without.loss
    assert np.isfinite(with_teacher.loss)


def test_a_teacher_that_reads_other_tokens(place, tmp_path):
    from transformers import BertTokenizer

    teacher = tmp_path / "teacher"
    run_job(job(place, settings=replace(SHORT, epochs=1), save_to=teacher))
    BertTokenizer(
        vocab={word: row for row, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "x"])}
    ).save_pretrained(str(teacher))
    with pytest.raises(TrainingInputError, match="its vocabulary is not the model's"):
        factory(place, teacher=str(teacher))()


def test_a_teacher_without_a_head(place):
    with pytest.raises(TrainingInputError, match="found no head for the task 'sst2'"):
        factory(place, teacher=str(place / "bert"))()


@pytest.mark.parametrize(
    ("kind", "task"),
    [("bert", "sst2"), ("nas_bert", "sst2"), ("nas_bert", "wnut17"), ("efficient_bert", "sst2")],
)
def test_a_tuned_model_is_saved_whole_and_judged_without_training(place, tmp_path, kind, task):
    folder = tmp_path / "tuned"
    tuned = run_job(job(place, kind, task, settings=replace(SHORT, epochs=2, pooling="mean"), save_to=folder))
    assert was_tuned_for(str(folder), find_task(task))
    assert not was_tuned_for(str(folder), find_task("cola"))
    judged = run_job(TuningJob(str(folder), find_task(task), source(place / "data"), SHORT, 1, train=False))
    assert judged.scores == tuned.scores
    assert (judged.examples, judged.epochs, judged.loss) == (0, 0, None)
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"], "nothing half written is left"


def test_only_a_model_with_a_head_can_be_judged_without_training(place):
    with pytest.raises(TrainingInputError, match="found no head for the task 'sst2' \\(2 outputs\\), expected one"):
        run_job(job(place, train=False))


@pytest.mark.parametrize("kind", ["bert", "nas_bert", "efficient_bert"])
def test_another_task_starts_from_the_tuned_encoder_with_a_new_head(place, tmp_path, kind):
    folder = tmp_path / "mnli"
    run_job(job(place, kind, settings=replace(SHORT, epochs=1, pooling="mean"), save_to=folder))
    trained = load_encoder(str(folder)).state_dict()
    torch.manual_seed(5)
    model = load_for_task(str(folder), find_task("mnli"), pooling="mean")
    assert model.config.num_labels == 3
    assert model.classifier.weight.shape[0] == 3
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, trained[name]), name
    torch.manual_seed(5)
    rte = load_for_task(str(folder), find_task("rte"), pooling="mean")
    saved = load_for_task(str(folder), find_task("sst2"), keep_head=True)
    assert rte.classifier.weight.shape == saved.classifier.weight.shape
    assert not torch.equal(rte.classifier.weight, saved.classifier.weight)


def test_all_encoders_get_the_same_head(place):
    for kind in SAVE:
        torch.manual_seed(3)
        model = load_for_task(str(place / kind), find_task("rte"), pooling="mean", dropout=0.2)
        extra = {name for name, _ in model.named_parameters()} - {
            f"encoder.{name}" for name, _ in model.encoder.named_parameters()
        }
        assert extra == {"classifier.weight", "classifier.bias"}
        assert model.dropout.p == 0.2
        assert dict(model.config.id2label) == {0: "entailment", 1: "not_entailment"}
    own = load_for_task(str(place / "bert"), find_task("rte"), pooling="own")
    assert type(own).__name__ == "BertForSequenceClassification"


def test_pooling_matters_and_padding_does_not(place):
    ids_BT = torch.tensor([[2, 10, 11, 3]])
    padded_BT, mask_BT = torch.tensor([[2, 10, 11, 3, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0, 0]])
    logits = {}
    with torch.no_grad():
        for kind in SAVE:
            for pooling in ("first", "mean"):
                torch.manual_seed(3)
                model = load_for_task(str(place / kind), find_task("rte"), pooling=pooling)
                logits[kind, pooling] = model(ids_BT).logits
                torch.testing.assert_close(model(padded_BT, mask_BT).logits, logits[kind, pooling], atol=1e-5, rtol=0)
            assert not torch.allclose(logits[kind, "first"], logits[kind, "mean"])


def test_heads_of_others_may_count_their_classes_otherwise(place, tmp_path):
    config = AutoConfig.from_pretrained(place / "bert")
    config.num_labels = 3
    config.label2id = {"contradiction": 0, "Neutral": 1, "entailment": 2}
    assert label_order(config, find_task("mnli")) == [2, 1, 0]
    config.label2id = {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    assert label_order(config, find_task("mnli")) == [0, 1, 2]
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    assert has_head_for(AutoConfig.from_pretrained(tmp_path), find_task("mnli"))
    assert not has_head_for(AutoConfig.from_pretrained(tmp_path), find_task("rte"))


def test_models_that_are_not_there(tmp_path):
    with pytest.raises(TrainingInputError, match="MODEL: '/nowhere' is not a folder"):
        locate("/nowhere")
    with pytest.raises(TrainingInputError, match="has no config"):
        locate(str(tmp_path))
    assert locate("owner/name") == "owner/name"


def test_workers_see_disjoint_shares_and_the_same_schedule(place):
    parts = [factory(place)(rank, 2) for rank in range(2)]
    assert parts[0].total_steps == parts[1].total_steps
    rows = [set(part.batches.rows(0, part.rank, 2).tolist()) for part in parts]
    assert not rows[0] & rows[1]
    assert len(rows[0] | rows[1]) == SHORT.batch_size


def test_every_worker_judges_the_whole_split(place):
    """Item 26: dealt out, the split would be scored in parts, and parts of F1 or of a correlation do not average."""
    alone, *parts = factory(place)(0, 1), *(factory(place)(rank, 2) for rank in range(2))
    (split,) = alone.dev_sets
    for part in parts:
        (own,) = part.dev_sets
        assert own.encoded.input_ids == split.encoded.input_ids
        assert part.judge(own) == alone.judge(split)


def test_rows_tell_of_the_interval(place):
    tuning = factory(place, settings=replace(SHORT, epochs=1))()
    rows = run_locally(tuning, report_every=4)
    assert [row["step"] for row in rows] == [4, 8, 12, 15]
    assert all(row["stage"] == "finetuning" and row["subject"] == "sst2" for row in rows)
    assert rows[-1]["tokens"] == sum(len(ids) for ids in tuning.training.input_ids)


def test_a_worker_does_what_the_function_does(place):
    settings = replace(SHORT, epochs=1)
    work = TuningWorker(threads=1)()
    assert work(job(place, settings=settings)).scores == run_job(job(place, settings=settings)).scores
