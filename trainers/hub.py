"""Asking the Hugging Face hub once and soon, so that a mistyped name or a missing network costs seconds, not minutes.

The libraries themselves ask a hub that does not answer six times, with growing pauses, for every file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

Answer = Literal["there", "absent", "unreachable"]
_PATIENCE = 5.0
"""Seconds for the hub's first answer."""


@cache
def hub_answer(name: str, kind: Literal["dataset", "model"]) -> Answer:
    """Whether the hub has a repository; private ones that may not be seen count as absent.

    Args:
        name: such as ``nyu-mll/glue``.
        kind: of repository.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        HfApi().repo_info(name, repo_type=kind, timeout=_PATIENCE)
    except (RepositoryNotFoundError, HFValidationError):
        return "absent"
    except Exception:  # of whatever HTTP library: no name server, no route, no answer, a broken one
        return "unreachable"
    return "there"


@contextmanager
def only_the_cache(offline: bool = True) -> Iterator[None]:
    """Let Hugging Face's libraries look into their cache alone; they read HF_HUB_OFFLINE only when imported.

    Args:
        offline: whether to; false changes nothing.
    """
    import huggingface_hub.constants

    modules: list[Any] = [huggingface_hub.constants]
    if "datasets" in sys.modules:
        modules.append(sys.modules["datasets"].config)
    before = [module.HF_HUB_OFFLINE for module in modules]
    for module, value in zip(modules, before, strict=True):
        module.HF_HUB_OFFLINE = value or offline
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value
