from __future__ import annotations

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
def corpus(tmp_path_factory: pytest.TempPathFactory) -> PackedCorpus:
    """40 sequences of 12 tokens, some padded."""
    return make_corpus(tmp_path_factory.mktemp("corpus"))
