"""The URL at which a run's tables lie, as a recipe writes it: what it may hold, and what people are shown of it.

Only text is handled here; :mod:`orchestrator.results.storage` opens what a URL names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

RESULTS_KEY = "results.url"
"""The key of recipes and sweeps that names the URL."""

PLACEHOLDERS = {"run": "the name of the run's folder", "run_id": "the run's id, which no other run has"}
"""What may stand in braces in a URL, and what takes its place."""

_ARROW_SCHEMES = frozenset({"file", "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss"})
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_KEYS_OF_A_USER = re.compile(r"(?<=://)[^/?#\s:@]*:(?!\d+(?:[/?#]|$))[^?#\s]*@")  # a port is no password
_SECRET_OPTION = re.compile(
    r"(?P<option>[?&][^=&#\s]*(?:key|secret|token|passw|credential|signature|sas)[^=&#\s]*=)[^&#\s\"']*", re.IGNORECASE
)
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def is_url(place: str) -> bool:
    """Whether a text is a URL rather than a path."""
    return "://" in place


def without_keys(text: str) -> str:
    """A text (a URL, or a sentence with URLs in it) with user names and passwords, and secret options, masked."""
    return _SECRET_OPTION.sub(r"\g<option>***", _KEYS_OF_A_USER.sub("***@", text))


def shown_url(url: str) -> str:
    """A URL as people call the place: without keys, options and a slash at its end."""
    place = re.split(r"[?#]", url, maxsplit=1)[0]
    return _KEYS_OF_A_USER.sub("", place).rstrip("/")


def check_results_url(url: str) -> str:
    """Validate the form of a URL for tables; whether its storage can be reached, and written to, is found out later.

    Args:
        url: may hold :data:`PLACEHOLDERS` in braces.

    Returns:
        The URL unchanged.

    Raises:
        ValueError: it is no URL, of a scheme nobody knows, names an unknown placeholder, or holds keys; the message
            repeats no keys.
    """
    shown = without_keys(url)
    match = _SCHEME.match(url)
    if match is None or re.search(r"\s", url):
        raise ValueError(f"found {shown!r}, expected a URL such as s3://bucket/netsuke/{{run}}/results")
    if shown != url:
        raise ValueError(
            f"found a URL that holds keys ({shown!r}), expected one without: recipes are copied and shown; give keys "
            f"in the environment instead, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    _check_placeholders(url)
    _check_scheme(match["scheme"].lower())
    return url


def filled_in(url: str, folder: str, run_id: str) -> str:
    """A URL with its placeholders replaced.

    Args:
        url: checked.
        folder: name of the run's folder, for ``{run}``.
        run_id: for ``{run_id}``.

    Raises:
        ValueError: the folder's name cannot be a part of a URL.
    """
    if "{run}" in url and not _SAFE_NAME.fullmatch(folder):
        raise ValueError(
            f"found {{run}}, and a run folder called {folder!r}, expected one of letters, digits, '.', '_' and '-'; "
            f"choose another --run-dir, or write {{run_id}}"
        )
    values: Mapping[str, str] = {"run": folder, "run_id": run_id}
    return _PLACEHOLDER.sub(lambda match: values[match[1]], url)


def _check_placeholders(url: str) -> None:
    known = " or ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    for name in _PLACEHOLDER.findall(url):
        if name not in PLACEHOLDERS:
            raise ValueError(f"found the placeholder {{{name}}}, expected {known}")
    if re.search(r"[{}]", _PLACEHOLDER.sub("", url)):
        raise ValueError(f"found a single brace in {url!r}, expected braces around placeholders only: {known}")


def _check_scheme(scheme: str) -> None:
    if scheme in _ARROW_SCHEMES:
        return
    import fsspec  # type: ignore[import-untyped]  # here, because nothing else of a recipe needs it

    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"found a URL of the scheme '{scheme}', which needs a package that is not here: {reason}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"found a URL of the scheme '{scheme}', expected one that pyarrow or fsspec knows, such as s3, gs, abfs or "
            f"file"
        ) from error
