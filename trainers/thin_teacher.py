"""Width-wise extraction: a thin BERT cut out of the teacher by index sets (Extract Then Distill, section 2).

Shape legend: V vocabulary, D hidden size, S size of a head, I inner size of the feed-forward.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertForMaskedLM

from spaces.extraction import TeacherImportance, leading, random_indices, uniform_layers
from trainers.errors import TrainingInputError


@dataclass(frozen=True)
class ThinSizes:
    """Sizes of a thin BERT; heads keep the teacher's size, so there are hidden size / that size of them.

    Attributes:
        num_layers: layers.
        hidden_size: width of the residual stream.
        intermediate_size: inner width of the feed-forwards.
    """

    num_layers: int
    hidden_size: int
    intermediate_size: int


@dataclass(frozen=True)
class Kept:
    """What is kept of a teacher, ascending indices all.

    Attributes:
        layers: of the teacher, from 0.
        hidden: dimensions of the residual stream, one set for the whole model.
        heads: of each kept layer.
        neurons: of each kept layer.
    """

    layers: Sequence[int]
    hidden: Tensor
    heads: Sequence[Tensor]
    neurons: Sequence[Tensor]


def keep_important(config: Any, sizes: ThinSizes, importance: TeacherImportance) -> Kept:
    """The most important parts, ties to the lower index, of evenly spaced layers: the extraction called ETD-Impt."""
    layers = uniform_layers(config.num_hidden_layers, sizes.num_layers)
    heads = _num_heads(config, sizes)
    return Kept(
        layers,
        leading(importance.hidden_D, sizes.hidden_size),
        [leading(importance.heads[layer], heads) for layer in layers],
        [leading(importance.neurons[layer], sizes.intermediate_size) for layer in layers],
    )


def keep_random(config: Any, sizes: ThinSizes, seed: int) -> Kept:
    """Parts at random, of evenly spaced layers: the extraction called ETD-Rand."""
    layers = uniform_layers(config.num_hidden_layers, sizes.num_layers)
    heads = _num_heads(config, sizes)
    seeds = iter(range(seed * 10_000, (seed + 1) * 10_000))
    return Kept(
        layers,
        random_indices(config.hidden_size, sizes.hidden_size, next(seeds)),
        [random_indices(config.num_attention_heads, heads, next(seeds)) for _ in layers],
        [random_indices(config.intermediate_size, sizes.intermediate_size, next(seeds)) for _ in layers],
    )


def _num_heads(config: Any, sizes: ThinSizes) -> int:
    size = config.hidden_size // config.num_attention_heads
    if sizes.hidden_size % size:
        raise TrainingInputError(
            f"hidden_size: found {sizes.hidden_size}, expected a multiple of the size of the teacher's heads, {size}"
        )
    return int(sizes.hidden_size // size)


@torch.no_grad()
def extract_thin(teacher: BertForMaskedLM, kept: Kept) -> BertForMaskedLM:
    """Cut a thin BERT out of a teacher with a masked-LM head; nothing is re-scaled.

    Args:
        teacher: is left as it is.
        kept: what stays.
    """
    config = copy.deepcopy(teacher.config)
    size = config.hidden_size // config.num_attention_heads
    config.num_hidden_layers, config.hidden_size = len(kept.layers), len(kept.hidden)
    config.num_attention_heads, config.intermediate_size = len(kept.heads[0]), len(kept.neurons[0])
    thin = BertForMaskedLM(config)
    source: Any = teacher
    target: Any = thin
    hidden = kept.hidden
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        mine, theirs = getattr(target.bert.embeddings, name), getattr(source.bert.embeddings, name)
        mine.weight.copy_(theirs.weight[:, hidden])
    _copy_norm(target.bert.embeddings.LayerNorm, source.bert.embeddings.LayerNorm, hidden)
    for number, layer in enumerate(kept.layers):
        mine, theirs = target.bert.encoder.layer[number], source.bert.encoder.layer[layer]
        rows = (kept.heads[number][:, None] * size + torch.arange(size)).flatten()
        for name in ("query", "key", "value"):
            _copy(getattr(mine.attention.self, name), getattr(theirs.attention.self, name), rows, hidden)
        _copy(mine.attention.output.dense, theirs.attention.output.dense, hidden, rows)
        _copy_norm(mine.attention.output.LayerNorm, theirs.attention.output.LayerNorm, hidden)
        _copy(mine.intermediate.dense, theirs.intermediate.dense, kept.neurons[number], hidden)
        _copy(mine.output.dense, theirs.output.dense, hidden, kept.neurons[number])
        _copy_norm(mine.output.LayerNorm, theirs.output.LayerNorm, hidden)
    mine, theirs = target.cls.predictions, source.cls.predictions
    _copy(mine.transform.dense, theirs.transform.dense, hidden, hidden)
    _copy_norm(mine.transform.LayerNorm, theirs.transform.LayerNorm, hidden)
    mine.bias.copy_(theirs.bias)
    thin.tie_weights()
    thin.eval()
    return thin


def _copy(mine: nn.Linear, theirs: nn.Linear, rows: Tensor, columns: Tensor) -> None:
    mine.weight.copy_(theirs.weight[rows][:, columns])
    mine.bias.copy_(theirs.bias[rows])


def _copy_norm(mine: nn.LayerNorm, theirs: nn.LayerNorm, hidden: Tensor) -> None:
    mine.weight.copy_(theirs.weight[hidden])
    mine.bias.copy_(theirs.bias[hidden])
