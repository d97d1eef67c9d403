"""Spaces, supermodels and models of components so small that a test takes milliseconds."""

from __future__ import annotations

from typing import Any

import torch

from spaces.components.options import ComponentsOptions
from spaces.components.space import ComponentsSpace
from spaces.components.supernet import ComponentsSupernet
from spaces.components.text import parse_architecture
from tests.spaces.microscopic import SHAPE, make_bert, shaken

TEXT = "H1-2>4.Q2.M/F1,3>4-5>8|H2-3.M|0|H1-4.Q1-2/F1-8.M"
"""Four layers: both halves in stages, attention without queries and keys alone, nothing, and nearly the teacher's."""
WITHIN = "H1-2>4.Q2.M/F1,3>4-5>8|H2-3.M/F2.M|0|F5"
"""What a student may have left: stages, fewer slices, a mean or none, halves and a layer that are gone."""


def make_space(**changes: Any) -> ComponentsSpace:
    return ComponentsSpace(ComponentsOptions(**{"shape": SHAPE, **changes}))


def make_supernet(**changes: Any) -> ComponentsSupernet:
    """A supermodel of which every weight matters, in evaluation mode."""
    torch.manual_seed(0)
    supernet: ComponentsSupernet = shaken(make_space(**changes).supernet())
    return supernet.eval()


def make_started(**changes: Any) -> tuple[ComponentsSupernet, Any]:
    """A supermodel that holds a microscopic BERT, and that BERT."""
    teacher, supernet = make_bert(), make_space(**changes).supernet().eval()
    supernet.start(teacher)
    return supernet, teacher


def make_model(text: str = TEXT, **changes: Any) -> Any:
    """A stand-alone model of which every weight matters, in evaluation mode."""
    torch.manual_seed(0)
    return shaken(make_space(**changes).build(parse_architecture(text))).eval()
