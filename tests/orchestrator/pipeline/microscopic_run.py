"""What a microscopic run is made of: a text, a teacher folder with a real tokenizer, and a recipe."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from tokenizers import BertWordPieceTokenizer
from transformers import BertForMaskedLM, BertTokenizer

from spaces.encoder_shape import EncoderShape
from tests.spaces.microscopic import make_bert, shaken

SEQUENCE_LENGTH = 16
VOCABULARY = 300
WINNERS = ("most", "some")
MODELS = ("most", "most-uniform", "some", "some-uniform")
STAGES = (
    "teacher",
    "corpus",
    "latency",
    "supernet",
    "block_losses",
    "search",
    "selection",
    "distillation",
    "evaluation",
    "finetuning",
    "rank_fidelity",
    "report",
)
EVALUATIONS = {"regularised_evolution": 24, "optuna": 12}
SUPERNET_STEPS, REPORT_EVERY = 24, 8

RECIPE: dict[str, Any] = {
    "name": "microscopic",
    "seed": 3,
    "teacher": {"source": "teacher"},
    "corpus": {"source": "text.txt", "sequence_length": SEQUENCE_LENGTH, "validation_fraction": 0.2},
    "space": {
        "name": "nas_bert",
        "options": {
            "num_blocks": 2,
            "layers_per_block": 4,
            "hidden_sizes": [16, 32],
            "head_size": 16,
            "operations": ["M", "F", "F2", "S3"],
            "embedding_sizes": [32],
            "projections": "supernet",
            "type_vocab_size": 2,
            "dropout": 0.0,
        },
    },
    "supernet": {
        "steps": SUPERNET_STEPS,
        "batch_size": 8,
        "checkpoint_every": 12,
        "report_every": REPORT_EVERY,
        "precision": "float32",
        "scaling": {"cpus_per_worker": 1},
    },
    "tables": {
        "block_architectures": 5,
        "block_batches": 1,
        "signal_architectures": 3,
        "signal_batches": 2,
        "latency": {
            "batch_size": 2,
            "sequence_length": SEQUENCE_LENGTH,
            "warm_up": 1,
            "repeats": 3,
            "fit_architectures": 4,
        },
    },
    "search": {
        "strategies": [
            {"name": "regularised_evolution", "evaluations": 24, "options": {"population": 8, "sample_size": 3}},
            {"name": "optuna", "evaluations": 12, "options": {"sampler_options": {"population_size": 6}}},
        ],
        "objectives": ["loss", "encoder_parameters"],  # no latency: it is never the same twice
        "validation_batches": 1,
        "batch_size": 8,
        "actors": 1,
        "candidates_per_trial": 4,
    },
    "budgets": [
        {"name": "most", "encoder_parameters": "60%"},
        {"name": "some", "encoder_parameters": "25%"},
    ],
    "distillation": {
        "steps": 6,
        "batch_size": 8,
        "checkpoint_every": 3,
        "report_every": 3,
        "precision": "float32",
        "scaling": {"cpus_per_worker": 1},
    },
    "evaluation": {"sequences": 16, "batch_size": 8, "latency_repeats": 3},
}


@cache
def text() -> str:
    """A few hundred lines of made-up words, the same every time."""
    rng = random.Random(1)
    syllables = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]
    words = ["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3)))) for _ in range(150)]
    lines = [" ".join(rng.choices(words, k=rng.randint(5, 15))) for _ in range(300)]
    return "\n".join(lines) + "\n"


def shape_of_teacher(**changes: int) -> EncoderShape:
    sizes = {
        "num_layers": 4,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 128,
        "vocab_size": VOCABULARY,
        "max_positions": 24,
        "type_vocab_size": 2,
    }
    return EncoderShape(**(sizes | changes))


def write_text(folder: Path) -> Path:
    file = folder / "text.txt"
    file.write_text(text(), encoding="utf-8")
    return file


def write_teacher(folder: Path, *, with_head: bool = False, sentence_encoder: bool = False, **changes: int) -> Path:
    """A folder as Hugging Face writes it.

    Args:
        folder: made if absent.
        with_head: save a BertForMaskedLM instead of a BertModel.
        sentence_encoder: add what makes sentence-transformers take the folder for a sentence encoder.
        changes: of the shape.
    """
    model = make_bert(shape_of_teacher(**changes), hidden_dropout_prob=0.0)
    if with_head:
        masked_lm = shaken(BertForMaskedLM(model.config).eval(), seed=4)
        masked_lm.bert = model
        masked_lm.tie_weights()
        masked_lm.save_pretrained(folder)
    else:
        model.save_pretrained(folder)
    learner = BertWordPieceTokenizer(lowercase=True)
    learner.train_from_iterator(text().splitlines(), vocab_size=VOCABULARY, min_frequency=1, show_progress=False)
    BertTokenizer(vocab=learner.get_vocab()).save_pretrained(str(folder))
    if sentence_encoder:
        _write_sentence_files(folder)
    return folder


def _write_sentence_files(folder: Path) -> None:
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def write_recipe(folder: Path, **changes: Any) -> Path:
    """A recipe file; ``changes`` replace whole sections."""
    file = folder / "microscopic.yaml"
    file.write_text(yaml.safe_dump(RECIPE | changes, sort_keys=False), encoding="utf-8")
    return file
