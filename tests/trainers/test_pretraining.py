from __future__ import annotations

import pytest
import torch
from transformers import BertForMaskedLM, BertTokenizer

from spaces.encoder_shape import EncoderShape
from tests.trainers.corpora import make_documents
from tests.trainers.teachers import make_tokenizer
from trainers.errors import TrainingInputError
from trainers.masking import Masking
from trainers.optimisation import OptimiserSettings, apply_step, make_optimiser
from trainers.pretraining import (
    Pretraining,
    PretrainingFactory,
    PretrainingSettings,
    TeacherBlueprint,
    first_characters,
    pretrained_teacher,
)
from trainers.students import own_tensors
from trainers.task import load_checkpoint, run_locally, save_checkpoint
from trainers.teacher import TeacherSource

SIZES = {"num_layers": 2, "hidden_size": 32, "num_heads": 4, "intermediate_size": 64, "max_positions": 24}


def make_blueprint(**changes):
    return TeacherBlueprint(**{**SIZES, "vocabulary_size": 99, **changes})


def make_settings(**changes):
    optimiser = {"learning_rate": 1e-3, "warmup_steps": 2, "total_steps": changes.pop("total_steps", 6)}
    optimiser.update({key: changes.pop(key) for key in [*changes] if key in OptimiserSettings.__annotations__})
    settings = {"batch_size": 6, "seed": 5, "precision": "float32", "mask_probability": 0.15, **changes}
    return PretrainingSettings(**settings, optimiser=OptimiserSettings(**optimiser))


@pytest.fixture
def folder(tmp_path):
    """Configuration and tokenizer, as the teacher's stage prepares them."""
    make_tokenizer().save_pretrained(str(tmp_path / "start"))
    make_blueprint().config().save_pretrained(tmp_path / "start")
    return tmp_path / "start"


@pytest.fixture
def make(folder, corpus_folder):
    def call(**changes):
        return PretrainingFactory(folder, corpus_folder, make_settings(**changes))(0, 1, torch.device("cpu"))

    return call


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def weights(task):
    return {name: tensor.clone() for name, tensor in task.tensors().items()}


# --- training --------------------------------------------------------------------------------------------------------


def test_it_learns_masked_tokens_by_the_book(make, corpus):
    """Against a loop over Hugging Face's own loss, with all positions but the masked ones ignored."""
    task, reference = make(), make()
    run_locally(task)
    model = reference.model
    settings = make_settings().optimiser
    optimiser = make_optimiser(model, settings)
    masking = Masking.of_tokenizer(make_tokenizer(), 0.15)
    for step in range(6):
        noise = hash((5, step, 0))
        batch = masking.mask(*corpus.step_rows(step, 6, 5), noise)
        torch.manual_seed(noise)
        labels_BT = torch.where(batch.chosen_BT, batch.labels_BT, -100)
        model(batch.input_ids_BT, batch.attention_mask_BT, labels=labels_BT).loss.backward()
        apply_step(optimiser, settings, step, [model])
    for name, tensor in own_tensors(model).items():
        torch.testing.assert_close(task.tensors()[name], tensor, rtol=1e-4, atol=1e-6)


def test_the_loss_falls_and_rows_tell_it(make, corpus):
    task = make(total_steps=60, learning_rate=5e-3)
    rows = run_locally(task, report_every=20)
    losses = [row["loss"] for row in rows]
    assert losses[-1] < losses[0]
    assert [row["step"] for row in rows] == [20, 40, 60]
    assert {(row["stage"], row["subject"]) for row in rows} == {("teacher", "teacher")}
    assert rows[-1]["tokens"] == sum(int(corpus.step_rows(step, 6, 5)[1].sum()) for step in range(60))
    assert all(row["masked_lm_loss"] == row["loss"] and 0 <= row["masked_lm_accuracy"] <= 1 for row in rows)


def test_a_resumed_training_equals_an_uninterrupted_one(make, tmp_path):
    whole, first, resumed = make(), make(), make()
    for step in range(6):
        whole.step(step)
    for step in range(3):
        first.step(step)
    save_checkpoint(first, tmp_path / "checkpoint", 3, first.rows(3))
    load_checkpoint(resumed, tmp_path / "checkpoint")
    for step in range(3, 6):
        resumed.step(step)
    assert same(weights(whole), weights(resumed))
    assert whole.rows(6)[0]["tokens"] == resumed.rows(6)[0]["tokens"]


def test_the_start_depends_on_the_seed_alone(make):
    torch.manual_seed(0)
    first = weights(make())
    torch.manual_seed(1)
    assert same(first, weights(make()))
    assert not same(first, weights(make(seed=6)))


def test_what_was_trained_is_an_ordinary_teacher(make, folder, tmp_path, corpus):
    task = make()
    run_locally(task)
    pretrained_teacher(folder, task.tensors()).save(tmp_path / "teacher")
    source = TeacherSource(str(tmp_path / "teacher"))
    assert source.has_masked_lm_head()
    teacher = source.load()
    assert teacher.shape == source.shape() == make_blueprint().shape()
    batch = corpus.even_batches(1, 4)[0]
    with torch.no_grad():
        logits_BTV = task.model.eval()(*batch).logits
        assert torch.equal(BertForMaskedLM.from_pretrained(tmp_path / "teacher")(*batch).logits, logits_BTV)
        (last_BTD,) = teacher.states(*batch, [2])
        assert torch.equal(teacher.masked_lm_head(last_BTD), logits_BTV)


def test_a_worker_is_made_from_folders_alone(make):
    assert isinstance(make(), Pretraining)


# --- blueprints ------------------------------------------------------------------------------------------------------


def test_the_shape_is_known_before_anything_is_trained():
    assert make_blueprint().shape() == EncoderShape(
        num_layers=2, hidden_size=32, num_heads=4, intermediate_size=64, vocab_size=99, max_positions=24
    )
    assert make_blueprint().has_masked_lm_head()


def test_a_vocabulary_is_trained_on_the_text_the_same_every_time():
    blueprint = make_blueprint(vocabulary_size=60)
    first, *others = (blueprint.tokenizer(make_documents) for _ in range(5))
    assert all(first.get_vocab() == other.get_vocab() for other in others)
    assert len(first) <= 60
    assert (first.pad_token_id, first.mask_token) == (0, "[MASK]")
    ids = first("w12 W90")["input_ids"]
    assert first.unk_token_id not in ids
    assert (ids[0], ids[-1]) == (first.cls_token_id, first.sep_token_id)
    assert first("w12")["input_ids"] == first("W12")["input_ids"]
    cased = make_blueprint(vocabulary_size=60, lowercase=False).tokenizer(make_documents)
    assert cased.unk_token_id in cased("W12")["input_ids"]


def test_no_text_makes_no_vocabulary():
    with pytest.raises(TrainingInputError, match="the corpus is empty; expected at least"):
        make_blueprint().tokenizer(lambda: ["", "\n"])


def test_a_vocabulary_too_small_for_the_alphabet():
    with pytest.raises(TrainingInputError) as raised:
        make_blueprint(vocabulary_size=20).tokenizer(make_documents)
    assert str(raised.value) == (
        "teacher.pretraining.vocabulary_size: found 20, but the special tokens and characters of the text alone make "
        "27; set it to more"
    )


@pytest.mark.parametrize("form", ["file", "folder", "tokenizer"])
def test_a_given_vocabulary_in_any_form(tmp_path, form):
    given = make_tokenizer()
    words = sorted(given.get_vocab(), key=given.get_vocab().get)
    if form == "tokenizer":
        given.save_pretrained(str(tmp_path))
    else:
        (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    source = tmp_path / "vocab.txt" if form == "file" else tmp_path
    blueprint = make_blueprint(vocabulary=source)
    assert blueprint.shape().vocab_size == 99
    assert blueprint.tokenizer(tuple).get_vocab() == given.get_vocab()


def test_padding_is_where_the_vocabulary_has_it(tmp_path):
    words = ["w0", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[PAD]"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    blueprint = make_blueprint(vocabulary=tmp_path)
    assert blueprint.shape().pad_token_id == 5
    assert blueprint.tokenizer(tuple).pad_token_id == 5


def test_bert_s_own_vocabulary(netsuke_data):
    blueprint = make_blueprint(vocabulary=netsuke_data / "vocab" / "bert-base-uncased")
    assert blueprint.shape().vocab_size == 30_522
    tokenizer = blueprint.tokenizer(tuple)
    assert isinstance(tokenizer, BertTokenizer)
    assert tokenizer.tokenize("Unbelievably small") == ["un", "##bel", "##ie", "##va", "##bly", "small"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "vocab.txt' does not exist; expected a vocab.txt, a folder with one or with a tokenizer.json, or null"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n", "vocab.txt' has no [MASK]; expected a BERT vocabulary, a token a line"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n", "vocab.txt' has a token twice; expected a BERT vocabulary"),
        (b"\xff\xfe", "vocab.txt' is not UTF-8 text: "),
    ],
)
def test_what_is_wrong_with_a_vocabulary_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(TrainingInputError) as raised:
        make_blueprint(vocabulary=tmp_path).shape()
    line = str(raised.value)
    assert line.startswith("teacher.pretraining.vocabulary: '")
    assert message in line
    assert "\n" not in line


def test_a_tokenizer_without_a_mask_token(tmp_path):
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"])}
    BertTokenizer(vocab=words, mask_token=None).save_pretrained(str(tmp_path))
    with pytest.raises(TrainingInputError, match="has no mask_token; expected a BERT tokenizer"):
        make_blueprint(vocabulary=tmp_path).shape()


def test_text_for_a_vocabulary_can_be_limited():
    documents = ["aaaa", "bbbb", "cccc"]
    assert list(first_characters(documents, None)) == documents
    assert list(first_characters(documents, 5)) == documents[:2]
    assert list(first_characters(documents, 4)) == documents[:1]
