"""What a run is known by: the resolved recipe as text, and hashes of its parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from orchestrator.recipe.models import Recipe
from orchestrator.recipe.section import HowItRuns, as_before
from orchestrator.recipe.yaml_text import dump

SIGNATURE_LENGTH = 16
"""Hexadecimal digits of a signature (64 bits)."""


def resolved_yaml(recipe: Recipe) -> str:
    """The recipe with every default written out; :func:`orchestrator.recipe.load_recipe` reads it back unchanged."""
    return dump(recipe.model_dump(mode="json"))


def signature(*parts: Any) -> str:
    """A stable hash of parts of a recipe and of anything else made of plain values.

    Fields that only say how a run is carried out (workers, actors, intervals of checkpoints and reports, the cluster,
    the description) do not count, nor do those that came later, as long as they have their defaults.

    Args:
        parts: sections of a recipe, other signatures, and mappings, sequences, text, numbers, booleans or ``None``.

    Returns:
        16 hexadecimal digits: equal for equal parts, on every machine and in every process.

    Raises:
        TypeError: a part is none of these.
    """
    canonical = json.dumps([_plain(part) for part in parts], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:SIGNATURE_LENGTH]


def _plain(part: Any) -> Any:
    if isinstance(part, BaseModel):
        fields = type(part).model_fields
        serialised = part.model_dump(mode="json")
        return {
            name: _plain(value) if isinstance(value := getattr(part, name), (BaseModel, tuple)) else serialised[name]
            for name, field in fields.items()
            if not any(isinstance(mark, HowItRuns) for mark in field.metadata)
            and not as_before(field, getattr(part, name))
        }
    if isinstance(part, Mapping):
        if not all(isinstance(key, str) for key in part):
            raise TypeError(f"a signature's mappings have text as keys, found {sorted(map(repr, part))}")
        return {key: _plain(value) for key, value in part.items()}
    if isinstance(part, Sequence) and not isinstance(part, (str, bytes)):
        return [_plain(value) for value in part]
    if part is None or isinstance(part, (str, int, float, bool)):
        return part
    raise TypeError(f"a signature covers plain values and sections of a recipe, found {type(part).__name__}")
