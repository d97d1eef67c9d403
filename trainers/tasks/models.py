"""Encoders with a head for a task: loading, what they predict, and saving.

Shape legend: B batch, T tokens, C classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from cluster.hub import look_up, only_the_cache
from spaces.huggingface import (
    PooledEncoderConfig,
    PooledEncoderForQuestionAnswering,
    PooledEncoderForSequenceClassification,
    own_family,
)
from trainers.errors import TrainingInputError
from trainers.tasks.answers import Answerability
from trainers.tasks.catalogue import Task
from trainers.teacher import PACKAGE_PREFIX, TeacherSource, quieten_transformers

Pooling = Literal["first", "mean", "own"]
"""What a sequence's class is read from: the first token or the mean of all, both by dropout and one linear map on any
encoder; or the head that Hugging Face gives the architecture."""

_CLASSES: Mapping[str, Any] = {
    "classification": AutoModelForSequenceClassification,
    "regression": AutoModelForSequenceClassification,
    "tagging": AutoModelForTokenClassification,
    "answering": AutoModelForQuestionAnswering,
}
_HEAD_NAMES = {
    "classification": "ForSequenceClassification",
    "regression": "ForSequenceClassification",
    "tagging": "ForTokenClassification",
    "answering": "ForQuestionAnswering",
}
_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
    "qa_dropout",
)
TASK_KEY = "netsuke_task"
"""Where a configuration says which task its head was trained for."""


def locate(source: str, key: str = "MODEL") -> str:
    """The folder or hub id of a model.

    Args:
        source: a folder, ``package:<distribution>``, or a hub id.
        key: what the person wrote it for, for the error message.

    Raises:
        TrainingInputError: there is no such folder or package, or it holds no model.
    """
    if source.startswith(PACKAGE_PREFIX):
        try:
            return TeacherSource(source).location()
        except TrainingInputError as error:
            raise TrainingInputError(str(error).replace("teacher.source", key, 1)) from error
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise TrainingInputError(f"{key}: '{source}' has no config.json; expected a Hugging Face model folder")
        return str(folder)
    if folder.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        raise TrainingInputError(
            f"{key}: '{source}' is not a folder; expected a Hugging Face model folder, a hub id, or package:<name>"
        )
    return source


def load_tokenizer(location: str) -> PreTrainedTokenizerBase:
    """The fast tokenizer beside a model.

    Raises:
        TrainingInputError: there is none.
    """
    try:
        with _reached(location):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(location)
    except TrainingInputError:
        raise
    except Exception as error:
        raise TrainingInputError(f"model '{location}': its tokenizer cannot be loaded: {_line(error)}") from error
    if not tokenizer.is_fast or len(tokenizer) <= len(tokenizer.all_special_ids):
        raise TrainingInputError(
            f"model '{location}': found no fast tokenizer that knows words; save tokenizer.json or vocab.txt beside it"
        )
    return tokenizer


@contextmanager
def _reached(location: str) -> Iterator[None]:
    """Look a model up on the hub or, where that does not answer, in the cache; one line where it is nowhere."""
    if Path(location).is_dir():
        yield
        return
    answer = look_up(location, "model")
    if answer == "absent":
        raise TrainingInputError(
            f"model '{location}': found no such folder, and the hub has no such model (or it is private); check the "
            f"name, such as google-bert/bert-base-uncased"
        )
    try:
        with only_the_cache(answer == "unreachable"):
            yield
    except Exception as error:
        if answer != "unreachable":
            raise
        raise TrainingInputError(
            f"model '{location}': found no such folder, the hub cannot be reached, and its copy in the cache cannot be "
            f"used; check name and network"
        ) from error


def longest_input(config: Any, tokenizer: PreTrainedTokenizerBase, wanted: int) -> int:
    """Tokens a model can take, at most ``wanted``."""
    positions = getattr(config, "max_position_embeddings", None) or wanted
    if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
        positions -= (config.pad_token_id or 0) + 1  # their positions start behind the padding's number
    return int(min(wanted, positions, tokenizer.model_max_length))


def has_head_for(config: Any, task: Task) -> bool:
    """Whether a model comes with a head of the task's kind and size (one trained for another task does not count)."""
    names = getattr(config, "architectures", None) or []
    fits = any(str(name).endswith(_HEAD_NAMES[task.kind]) for name in names)
    trained_for = getattr(config, TASK_KEY, None)
    return fits and config.num_labels == task.num_outputs and trained_for in (None, task.name)


def load_for_task(
    location: str,
    task: Task,
    *,
    pooling: Pooling = "first",
    dropout: float | None = None,
    keep_head: bool = False,
    answerability: Answerability = "span",
) -> PreTrainedModel:
    """Load an encoder with a head for a task, in evaluation mode.

    Args:
        location: folder or hub id, of an encoder or of a model with any head.
        task: with its labels.
        pooling: of the head that is put on; a head that is kept has its own.
        dropout: probability everywhere in the model; ``None``: the model's own.
        keep_head: whether the head comes from the checkpoint too; otherwise it starts at random (from the global
            generator) even if the checkpoint has one.
        answerability: how a new head tells that a question has no answer, where the task has such questions.

    Raises:
        TrainingInputError: the model cannot be loaded, or is to keep a head it does not have.
    """
    quieten_transformers()
    config = load_config(location)
    if keep_head:
        if not has_head_for(config, task):
            raise TrainingInputError(
                f"model '{location}': found no head for the task '{task.name}' ({task.num_outputs} outputs), expected "
                f"one that was trained for it; fine-tune it first"
            )
        if isinstance(config, PooledEncoderConfig) and task.kind == "tagging":
            raise TrainingInputError(f"model '{location}': its head classifies sequences, not {task.kind}")
        return _load(_CLASSES[task.kind], location, _with_dropout(config, dropout))
    is_own = own_family(config) is not None
    if task.kind in ("classification", "regression") and pooling != "own" and not is_own:
        model = _pooled(location, task, pooling, dropout, PooledEncoderForSequenceClassification)
    elif task.unanswerable and answerability == "layer" and not is_own:
        model = _pooled(location, task, pooling, dropout, PooledEncoderForQuestionAnswering)
    else:
        config = _with_dropout(config, dropout)
        if task.kind == "answering":
            config.answerability = answerability if task.unanswerable else "span"
        describe_head(config, task, pooling)
        model = _load(_CLASSES[task.kind], _encoder_folder(location, config), config, ignore_mismatched_sizes=True)
        _start_head(model, config)
    describe_head(model.config, task, pooling)
    model.eval()
    return model


def load_encoder(location: str, dropout: float | None = None) -> PreTrainedModel:
    """The encoder of any model, without a head or an unused pooler.

    Raises:
        TrainingInputError: it cannot be loaded.
    """
    quieten_transformers()
    config = load_config(location)
    if isinstance(config, PooledEncoderConfig):
        pooled: Any = _load(PooledEncoderForSequenceClassification, location, config)
        encoder: PreTrainedModel = pooled.encoder
        return encoder
    options = {"add_pooling_layer": False} if config.model_type in ("bert", "roberta") else {}
    return _load(AutoModel, location, _with_dropout(config, dropout), **options)


def _pooled(location: str, task: Task, pooling: str, dropout: float | None, kind: Any) -> PreTrainedModel:
    return with_head(load_encoder(location), task, pooling, dropout, kind)


def with_head(
    encoder: PreTrainedModel,
    task: Task,
    pooling: str = "first",
    dropout: float | None = None,
    kind: Any = PooledEncoderForSequenceClassification,
) -> PreTrainedModel:
    """The same head on any encoder; its weights are drawn from the global generator, the encoder's are copied.

    Args:
        encoder: without a head, of an architecture that Hugging Face knows.
        task: with its labels.
        pooling: what a sequence's class is read from.
        dropout: probability everywhere in the model; ``None``: the encoder's own.
        kind: the class of the model.
    """
    inner = _with_dropout(copy.deepcopy(encoder.config), dropout)
    own = getattr(inner, "hidden_dropout_prob", 0.1)
    pooled = PooledEncoderConfig(inner.to_dict(), pooling, own if dropout is None else dropout)
    pooled.num_labels = task.num_outputs
    pooled.pad_token_id = inner.pad_token_id
    model: Any = kind(pooled)
    model.encoder.load_state_dict(encoder.state_dict())
    found: PreTrainedModel = model
    return found


def _encoder_folder(location: str, config: Any) -> str:
    if isinstance(config, PooledEncoderConfig):
        raise TrainingInputError(
            f"model '{location}': found a classifier of whole sequences, expected an encoder for tags or answers"
        )
    return location


def load_config(location: str) -> Any:
    """The configuration of a model.

    Raises:
        TrainingInputError: it is nowhere, or cannot be read.
    """
    try:
        with _reached(location):
            return AutoConfig.from_pretrained(location)
    except TrainingInputError:
        raise
    except Exception as error:
        raise TrainingInputError(f"model '{location}': its configuration cannot be read: {_line(error)}") from error


def _load(kind: Any, location: str, config: Any, **options: Any) -> PreTrainedModel:
    try:
        with _reached(location):
            model: PreTrainedModel = kind.from_pretrained(
                location, config=config, use_safetensors=True, dtype=torch.float32, **options
            )
    except TrainingInputError:
        raise
    except Exception as error:
        raise TrainingInputError(
            f"model '{location}': cannot be loaded: {_line(error)}; expected a Hugging Face encoder with safetensors"
        ) from error
    model.eval()
    return model


def _start_head(model: PreTrainedModel, config: Any) -> None:
    """Draw the head anew: a checkpoint's own was trained for something else."""
    encoder = getattr(model, model.base_model_prefix, None)
    inside = set() if encoder is None else set(encoder.modules())
    for module in model.modules():
        if module not in inside and isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=float(getattr(config, "initializer_range", 0.02)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _with_dropout(config: Any, dropout: float | None) -> Any:
    if dropout is not None:
        for name in _DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, dropout)
    return config


def describe_head(config: Any, task: Task, pooling: str) -> None:
    """Write into a configuration what its model's head is for.

    Args:
        config: of a model with a new head.
        task: with its labels.
        pooling: what a sequence's class is read from.
    """
    config.num_labels = task.num_outputs
    if task.labels:
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {label: number for number, label in enumerate(task.labels)}
    if own_family(config) is not None:
        config.classifier_pooling = "first" if pooling == "own" else pooling
        config.classifier_pooler = False  # one that an earlier head had went with it
    setattr(config, TASK_KEY, task.name)


def label_order(config: Any, task: Task) -> list[int]:
    """For each of the task's classes, which of the model's outputs stands for it.

    Models of others may count their classes otherwise; where their names are the task's, the names decide.
    """
    named = {str(name).lower(): int(number) for name, number in (getattr(config, "label2id", None) or {}).items()}
    if task.labels and set(named) == {label.lower() for label in task.labels}:
        return [named[label.lower()] for label in task.labels]
    return list(range(task.num_outputs))


def task_logits(model: nn.Module, task: Task, inputs: Mapping[str, Tensor]) -> Tensor:
    """What a model predicts: ``[B, C]`` for sequences, ``[B, T, C]`` for tags, ``[B, T, 2]`` for spans; float32.

    A model that tells by a layer whether there is an answer gives ``[B, T, 3]``, that score at every token.
    """
    outputs = model(**inputs)
    if task.kind == "answering":
        parts_BT = [outputs.start_logits, outputs.end_logits]
        answerable_B = getattr(outputs, "answerable_logits", None)
        if answerable_B is not None:
            parts_BT.append(answerable_B[:, None].expand_as(parts_BT[0]))
        logits: Tensor = torch.stack(parts_BT, dim=-1)
    else:
        logits = outputs.logits
    return logits.float()


def save_for_task(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model with its head and tokenizer; models of the project's own families bring their code along."""
    family = own_family(model.config)
    if family is not None:
        family.send_code_along(model.config, folder)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
