from __future__ import annotations

import pytest

from tests.trainers.teachers import load_real_teacher
from trainers.teacher import Teacher


@pytest.fixture(scope="session")
def real_teacher() -> Teacher:
    """all-MiniLM-L6-v2, loaded once for the tests of all packages."""
    return load_real_teacher()
