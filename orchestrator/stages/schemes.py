"""By which scheme a space's supernet is trained, and which keys of the recipe belong to which scheme."""

from __future__ import annotations

from typing import Any, Literal

from orchestrator.errors import UserError
from orchestrator.recipe.supernet import SupernetSettings
from orchestrator.stages.base import RunPlan
from spaces.layer_states import LayerwiseSupernet
from spaces.sampled_space import SampledSpace
from spaces.space import BlockwiseSpace, SearchSpace

Scheme = Literal["blocks", "layers", "oneshot"]
"""Block by block (NAS-BERT), compared layer by layer (EfficientBERT), or together with a distribution over paths."""

_KEYS: dict[str, tuple[Scheme, ...]] = {
    "paths_per_step": ("blocks", "oneshot"),
    "shared_layers": ("blocks",),
    "sampling": ("blocks",),
    "shrinking": ("blocks",),
    "mask_probability": ("blocks",),
    "teacher_cache": ("blocks",),
    "architectures": ("layers",),
    "layer_padding": ("layers",),
    "layer_scale": ("layers",),
    "inherit": ("layers",),
    "oneshot": ("oneshot",),
}
"""Keys of the section ``supernet`` that not every scheme has."""

_BECAUSE: dict[Scheme, str] = {
    "blocks": "the blocks of '{}' are trained by themselves",
    "layers": "'{}' is trained layer by layer, as a whole",
    "oneshot": "'{}' is trained together with the distribution that its paths are drawn from",
}


def scheme_of(space: SearchSpace[Any], name: str) -> Scheme:
    """The scheme that trains a space's supernet.

    Args:
        space: of the run.
        name: it has in the recipe.

    Raises:
        UserError: none does.
    """
    if isinstance(space, BlockwiseSpace):
        return "blocks"
    if isinstance(space, SampledSpace):
        return "oneshot"
    if is_layerwise(space):
        return "layers"
    raise UserError(
        f"space.name: found '{name}', which is no space of blocks, has no distribution to learn, and whose supernet "
        f"does not say its layers' states; expected one whose supernet can be trained, such as nas_bert, "
        f"efficient_bert or components"
    )


def is_layerwise(space: SearchSpace[Any]) -> bool:
    """Whether a space's supernet can be compared with its teacher layer by layer; no weights are made."""
    import torch

    with torch.device("meta"):
        return isinstance(space.supernet(), LayerwiseSupernet)


def checked_scheme(plan: RunPlan) -> Scheme:
    """:func:`scheme_of` a run, after making sure that its recipe asks for nothing of another scheme.

    Raises:
        UserError: no scheme trains the supernet, or a key belongs to another one.
    """
    name = plan.recipe.space.name
    scheme = scheme_of(plan.space, name)
    for key, owners in _KEYS.items():
        if scheme not in owners:
            _require_default(plan.recipe.supernet, key, _BECAUSE[scheme].format(name))
    return scheme


def _require_default(settings: SupernetSettings, key: str, because: str) -> None:
    found, default = getattr(settings, key), type(settings).model_fields[key].default
    if found != default:
        shown = "a section" if key in ("shrinking", "oneshot") else found
        expected = "null" if default is None else default
        raise UserError(f"supernet.{key}: found {shown}, expected {expected}, since {because}; leave the key out")
