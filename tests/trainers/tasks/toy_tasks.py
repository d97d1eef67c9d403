"""Tasks that can be learnt in seconds, and encoders small enough to learn them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import BertConfig, BertModel

from spaces.efficient_bert.configuration import EfficientBertConfig
from spaces.efficient_bert.modeling import EfficientBertModel
from spaces.encoder_shape import EncoderShape
from spaces.registry import load_space
from tests.trainers.teachers import make_tokenizer
from trainers.tasks.catalogue import Task
from trainers.tasks.finetuning import FineTuningSettings
from trainers.tasks.models import load_for_task, load_tokenizer, save_for_task
from trainers.tasks.sources import TaskSource

FAST = FineTuningSettings(
    epochs=6, batch_size=16, learning_rate=5e-3, max_length=24, dropout=0.0, precision="float32", gradient_clip=1.0
)
GOOD, BAD = ("w1", "w2", "w3"), ("w4", "w5", "w6")
FILLER = [f"w{number}" for number in range(20, 60)]


def write(folder: Path, name: str, **columns: Any) -> None:
    file = folder / f"{name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)


def sentence(rng: random.Random, *words: str) -> str:
    chosen = [*rng.choices(FILLER, k=rng.randint(1, 6)), *words]
    rng.shuffle(chosen)
    return " ".join(chosen)


def write_sentiment(folder: Path, train: int = 240, dev: int = 48) -> Path:
    """SST-2's form: a sentence is positive if it has one of the good words."""
    rng = random.Random(0)
    for split, count in (("train", train), ("validation", dev)):
        labels = [row % 2 for row in range(count)]
        texts = [sentence(rng, rng.choice(GOOD if label else BAD)) for label in labels]
        write(folder, f"glue/sst2/{split}", sentence=texts, label=labels)
    return folder


def write_similarity(folder: Path, train: int = 160, dev: int = 48) -> Path:
    """STS-B's form: 5 for a pair with the same good or bad word class, else 0."""
    rng = random.Random(0)
    for split, count in (("train", train), ("validation", dev)):
        sides = [(rng.random() < 0.5, rng.random() < 0.5) for _ in range(count)]
        first = [sentence(rng, rng.choice(GOOD if one else BAD)) for one, _ in sides]
        numbers = [5.0 if one else 0.5 for one, _ in sides]
        second = [sentence(rng) for _ in sides]
        write(folder, f"glue/stsb/{split}", sentence1=first, sentence2=second, label=numbers)
    return folder


def write_tags(folder: Path, train: int = 120, dev: int = 30) -> Path:
    """WNUT's form: good words begin an entity of one type, bad words one of another, w7 goes on with either."""
    rng = random.Random(0)
    for split, count in (("train", train), ("validation", dev)):
        words, tags = [], []
        for _ in range(count):
            some_words, some_tags = [], []
            for _ in range(rng.randint(2, 5)):
                kind = rng.choice(("O", "good", "bad"))
                if kind == "O":
                    some_words.append(rng.choice(FILLER))
                    some_tags.append("O")
                    continue
                some_words.append(rng.choice(GOOD if kind == "good" else BAD))
                some_tags.append(f"B-{kind}")
            words.append(some_words)
            tags.append(some_tags)
        write(folder, f"wnut17/{split}", tokens=words, ner_tags=tags)
    return folder


def write_answers(folder: Path, train: int = 160, dev: int = 40, unanswerable: bool = False) -> Path:
    """SQuAD's form: the answer is the good word of the context; without one there is none (2.0)."""
    rng = random.Random(0)
    name = "squad_v2" if unanswerable else "squad_v1"
    for split, count in (("train", train), ("validation", dev)):
        rows: dict[str, list[Any]] = {"question": [], "context": [], "answers": []}
        for row in range(count):
            has_answer = not unanswerable or row % 2 == 0
            answer = rng.choice(GOOD)
            context = sentence(rng, answer) if has_answer else sentence(rng)
            # A word may be the beginning of another: look for it as a whole.
            start = f" {context} ".index(f" {answer} ") if has_answer else 0
            rows["question"].append("w9 w10")
            rows["context"].append(context)
            found = {"text": [answer], "answer_start": [start]} if has_answer else {"text": [], "answer_start": []}
            rows["answers"].append(found)
        answers = pa.array(
            rows["answers"],
            pa.struct({"text": pa.list_(pa.string()), "answer_start": pa.list_(pa.int32())}),
        )
        write(folder, f"{name}/{split}", question=rows["question"], context=rows["context"], answers=answers)
    return folder


def source(folder: Path, **train_data: str) -> TaskSource:
    return TaskSource(str(folder), train_data)


def save_bert(folder: Path, layers: int = 1, seed: int = 0) -> Path:
    """A microscopic BERT that knows the words w0 to w93."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    make_tokenizer().save_pretrained(str(folder))
    return folder


def save_nas_bert(folder: Path, architecture: str = "E32|32:S3|32:M-F1", seed: int = 0) -> Path:
    """A microscopic NAS-BERT with the same words."""
    torch.manual_seed(seed)
    shape = EncoderShape(2, 32, 2, 64, 99, 64, 2)
    options = {
        "num_blocks": 2,
        "layers_per_block": 2,
        "hidden_sizes": [16, 32],
        "head_size": 16,
        "operations": ["M", "F1", "S3"],
        "embedding_sizes": [32],
        "projections": "supernet",
        "type_vocab_size": 2,
        "dropout": 0.0,
    }
    space = load_space("nas_bert", options, shape)
    space.build(space.parse(architecture)).save_pretrained(folder)  # type: ignore[attr-defined]
    make_tokenizer().save_pretrained(str(folder))
    return folder


def save_efficient_bert(folder: Path, seed: int = 0) -> Path:
    """A microscopic EfficientBERT with the same words, whose output has another width than its blocks."""
    torch.manual_seed(seed)
    config = EfficientBertConfig(
        block_hidden_size=32,
        embedding_size=16,
        blocks=[{"expression": ["linear2", ["gelu", ["linear1", "x"]]], "stacked": 2, "inner_size": 16}] * 2,
        num_attention_heads=2,
        projection_size=24,
        vocab_size=99,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
    )
    EfficientBertModel(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(str(folder))
    return folder


def save_turned_round(tuned: Path, task: Task, folder: Path) -> None:
    """The same tuned model, which counts the classes of its task the other way round."""
    model: Any = load_for_task(str(tuned), task, keep_head=True)
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.copy_(parameter.flip(0).clone())
    model.config.id2label = dict(enumerate(reversed(task.labels)))
    model.config.label2id = {label: number for number, label in model.config.id2label.items()}
    save_for_task(model, load_tokenizer(str(tuned)), folder)
