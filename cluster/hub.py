"""Asking the Hugging Face hub once and shortly, before anybody waits for all the retries of a download.

The libraries themselves ask a hub that does not answer six times, with growing pauses, for every file: a mistyped name
or a missing network would cost minutes instead of seconds.
"""

from __future__ import annotations

import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

Looked = Literal["there", "absent", "unreachable"]

ASK_SECONDS = 5.0
"""How long the hub has to answer."""


@dataclass(frozen=True)
class HubAnswer:
    """What came of asking.

    Attributes:
        answers: whether something can be fetched from the hub.
        words: the same for people, as part of a sentence.
    """

    answers: bool
    words: str


@cache
def ask_hub() -> HubAnswer:
    """Ask the hub that this process is set to, once in its life; where it is set to be offline, nothing is asked."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return HubAnswer(False, "this process is set to be offline (HF_HUB_OFFLINE)")
    return ask(constants.ENDPOINT)


def ask(address: str, seconds: float = ASK_SECONDS) -> HubAnswer:
    """Ask a server whether it is there; any answer will do, a refusal too.

    Args:
        address: beginning with ``http://`` or ``https://``.
        seconds: how long to wait, name resolution included, which no socket's timeout covers.
    """
    host = address.partition("://")[2]
    found: list[HubAnswer] = []

    def request() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=seconds):
                found.append(HubAnswer(True, f"{host} answers"))
        except urllib.error.HTTPError:
            found.append(HubAnswer(True, f"{host} answers"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            found.append(HubAnswer(False, f"{host} does not answer (asked once: {reason})"))

    asking = threading.Thread(target=request, daemon=True)
    asking.start()
    asking.join(seconds)
    return found[0] if found else HubAnswer(False, f"{host} does not answer (asked once, for {seconds:g} s)")


@cache
def look_up(name: str, kind: Literal["dataset", "model"]) -> Looked:
    """Whether the hub has a repository; private ones that may not be seen count as absent.

    Args:
        name: such as ``nyu-mll/glue``.
        kind: of repository.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
        if not ask_hub().answers:
            return "unreachable"
        HfApi().repo_info(name, repo_type=kind, timeout=ASK_SECONDS)
    except (RepositoryNotFoundError, HFValidationError):
        return "absent"
    except Exception:  # of whatever HTTP library: no route any more, no answer, a broken one
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
