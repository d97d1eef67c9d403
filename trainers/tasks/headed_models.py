"""From a tuned model to shared heads and back: where a supernet's head starts, and the model that it ends in.

Shape legend: B batch, D width of the encoder's states, C classes (or 1 for a number).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from spaces.architecture import Architecture
from spaces.huggingface import PooledEncoderConfig, own_family
from spaces.model_parts.task_heads import Pooling
from spaces.space import SearchSpace
from trainers.errors import TrainingInputError
from trainers.supernet_store import load_supernet, load_weights
from trainers.tasks.catalogue import Task
from trainers.tasks.models import describe_head, label_order
from trainers.tasks.shared_heads import SharedHeads


def check_head(heads: SharedHeads, model: PreTrainedModel, source: str) -> None:
    """Make sure that :func:`copy_head` can be done.

    BERT's own head is a pooler on the first token and a classifier; under the others that teachers of a run are tuned
    with there is a classifier alone.

    Args:
        heads: that are to start at the model's.
        model: with a head that was tuned.
        source: where it is from, for errors.

    Raises:
        TrainingInputError: it is no BERT, or has another head.
    """
    config: Any = model.config
    if isinstance(config, PooledEncoderConfig):
        found, kind = config.classifier_pooling, config.encoder["model_type"]
    else:
        found, kind = "own", config.model_type
    if kind != "bert":
        raise TrainingInputError(
            f"teacher '{source}': found a model of type '{kind}', expected a BERT, at which a supernet of the run's "
            f"teacher can start; name another, or start at the run's teacher"
        )
    expected = heads.pooling if heads.pooler is None else "own"
    if found != expected:
        raise TrainingInputError(
            f"finetuning.pooling: found {expected}, but the head of '{source}', at which the search starts, has "
            f"{found}; set it to {found}, or start at the run's teacher"
        )


@torch.no_grad()
def copy_head(heads: SharedHeads, task: Task, model: PreTrainedModel) -> None:
    """Copy the head of a tuned BERT, so that on the same states the same is predicted.

    Its outputs are put into the order of the task's labels.

    Args:
        heads: with a classifier for the task.
        task: with its labels.
        model: tuned on it, see :func:`check_head`.
    """
    tuned: Any = model
    classifier: Any = heads.classifiers[task.name]
    order = label_order(model.config, task)
    classifier.weight.copy_(tuned.classifier.weight[order])
    classifier.bias.copy_(tuned.classifier.bias[order])
    if heads.pooler is not None:
        heads.pooler.load_state_dict(tuned.bert.pooler.dense.state_dict())


@torch.no_grad()
def with_shared_head(encoder: PreTrainedModel, heads: SharedHeads, task: Task) -> PreTrainedModel:
    """A stand-alone model with one of the heads of a supernet, in evaluation mode; everything is copied.

    Args:
        encoder: of a family of the project's own, such as a supernet's extracted model.
        heads: with a classifier for the task.
        task: a classification or regression, with its labels.

    Raises:
        TrainingInputError: the encoder is of another family.
    """
    family = own_family(encoder.config)
    if family is None:
        raise TrainingInputError(
            f"space.name: found models of type '{encoder.config.model_type}', which take no head of a supernet's; "
            f"expected those of a space such as efficient_bert or components"
        )
    config: Any = copy.deepcopy(encoder.config)
    describe_head(config, task, heads.pooling)
    config.classifier_pooler = heads.pooler is not None
    model: Any = family.task_classes[AutoModelForSequenceClassification](config)
    model.encoder.load_state_dict(encoder.state_dict())
    model.classifier.load_state_dict(heads.classifiers[task.name].state_dict())
    if heads.pooler is not None:
        model.pooler.load_state_dict(heads.pooler.state_dict())
    model.eval()
    found: PreTrainedModel = model
    return found


def task_model(
    space: SearchSpace[Any], architecture: Architecture, weights: Path, heads: Path, task: Task, pooling: Pooling
) -> PreTrainedModel:
    """The stand-alone model of an architecture of a supernet that was trained with heads, with the head of a task.

    Its predictions are those of supernet and head to 1e-5 in float32. :func:`~trainers.tasks.models.save_for_task`
    writes it, with the code it needs.

    Args:
        space: of the supernet.
        architecture: one of it.
        weights: of the supernet, a safetensors file.
        heads: of the heads, a safetensors file.
        task: one that the heads know, with its labels.
        pooling: as the heads were trained.
    """
    encoder: Any = load_supernet(space, weights).extract(architecture)
    return with_shared_head(encoder, SharedHeads.with_weights(load_weights(heads), pooling), task)
