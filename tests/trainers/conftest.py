from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainers.corpora import make_corpus
from tests.trainers.teachers import load_real_teacher, make_teacher
from trainers.corpus import PackedCorpus
from trainers.teacher import Teacher


@pytest.fixture(scope="session")
def real_teacher() -> Teacher:
    """all-MiniLM-L6-v2, loaded once for the tests of all packages."""
    return load_real_teacher()


@pytest.fixture
def teacher() -> Teacher:
    """4 layers of width 32."""
    return make_teacher()


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 sequences of 12 tokens, some padded."""
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(corpus_folder: Path) -> PackedCorpus:
    return PackedCorpus(corpus_folder)
