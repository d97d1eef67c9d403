"""Errors of the place where a run happens."""

from __future__ import annotations


class ClusterError(RuntimeError):
    """The cluster, a disk or a device failed; the message is one line that says what and how to go on."""


class ClusterUserError(ValueError):
    """The user asked for something the cluster cannot give; the message is one line that says what to change."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """The first meaningful line of an exception's message, cut to ``limit`` characters.

    Libraries raise messages of several lines; a person's terminal gets one. The class name stands in for an empty
    message.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def type_and_text(error: BaseException) -> str:
    """An exception's type and whole message, without line breaks: for errors of code that is not ours."""
    return " ".join(f"{type(error).__name__}: {error}".split())
