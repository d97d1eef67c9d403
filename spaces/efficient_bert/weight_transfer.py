"""Weights by cropping: from the supernet to a network of its space, or to a supernet of another size.

The smaller tensor gets the leading slice of the larger one in every dimension, as the authors do it. Of attention that
means leading channels of all heads together: where the width shrinks, the borders between heads move. Tensors belong
together by name; blocks may be repeated, so that block j of 6 becomes the blocks 2j and 2j+1 of 12 (from 0).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spaces.errors import SpaceError

if TYPE_CHECKING:
    from spaces.efficient_bert.supernet import EfficientBertSupernet

_BLOCK = re.compile(r"^blocks\.(\d+)\.")


@torch.no_grad()
def copy_leading(source: nn.Module, target: nn.Module, repeats: int = 1) -> None:
    """Fill a module with the leading slices of the tensors that another one has by the same names.

    Args:
        source: as large as the target or larger in every dimension of every tensor.
        target: its weights are overwritten, all or none of them.
        repeats: how many blocks of the target come from each of the source's.

    Raises:
        SpaceError: a tensor of the target is missing in the source, or larger there.
    """
    given = dict(source.named_parameters())
    pairs: list[tuple[Tensor, Tensor]] = []
    for name, parameter in target.named_parameters():
        found = given.get(_BLOCK.sub(lambda match: f"blocks.{int(match[1]) // repeats}.", name))
        if found is None or any(want > have for want, have in zip(parameter.shape, found.shape, strict=True)):
            have = "nothing" if found is None else list(found.shape)
            raise SpaceError(
                f"weights of {name}: found {have} to inherit from, expected {list(parameter.shape)} or more; inherit "
                f"from a network that is at least as wide, with at least as many stacked feed-forwards"
            )
        pairs.append((parameter, found[tuple(slice(length) for length in parameter.shape)]))
    for mine, theirs in pairs:
        mine.copy_(theirs)


def transfer(source: EfficientBertSupernet, target: EfficientBertSupernet) -> None:
    """Start a supernet at the weights of one that is wider, shallower, or both.

    Args:
        source: for example 6 blocks of width 540.
        target: for example 6 or 12 blocks of width 360; for the same teacher. Its weights are overwritten.

    Raises:
        SpaceError: the one cannot be cut out of the other.
    """
    ours, theirs = target.options, source.options
    same = (
        ("embedding_size", ours.embedding_size, theirs.embedding_size),
        ("the teacher's hidden size", ours.shape.hidden_size, theirs.shape.hidden_size),
        ("the teacher's vocabulary", ours.shape.vocab_size, theirs.shape.vocab_size),
    )
    for name, found, expected in same:
        if found != expected:
            raise SpaceError(f"{name}: found {found}, expected {expected} as in the supernet that is inherited from")
    if ours.layers % theirs.layers:
        raise SpaceError(
            f"layers: found {ours.layers}, expected {theirs.layers} or a multiple of it, as the supernet that is "
            f"inherited from has"
        )
    copy_leading(source, target, ours.layers // theirs.layers)
