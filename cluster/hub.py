"""Whether the Hugging Face hub answers: asked once, shortly, before anybody waits for all the retries of a download."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cache

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
