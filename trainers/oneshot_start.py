"""What a one-shot search starts at where that is not its teacher: a distilled student (paper notes, section 6).

The student is the supermodel then, and the teacher is what is imitated still. A student is a BERT, or a stand-alone
model of the space of components, which has fewer components in some layers than in others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import AutoConfig, BertModel, PreTrainedModel

from spaces.components.stand_alone import supermodel_shape
from spaces.components.starting import is_stand_alone
from spaces.encoder_shape import EncoderShape
from spaces.huggingface import ComponentsModel  # which registers the family
from trainers.errors import TrainingInputError
from trainers.teacher import Teacher, check_encoder, first_line, quieten_transformers, shape_of

START_KEY = "supernet.oneshot.start"
"""The key of the recipe that names the folder."""


@dataclass(frozen=True)
class Start:
    """What a supermodel starts at.

    Attributes:
        model: a Hugging Face encoder, in evaluation mode.
        shape: what the space is made for.
    """

    model: PreTrainedModel
    shape: EncoderShape


def load_start(folder: Path | None, teacher: Teacher, sequence_length: int, between: bool) -> Start:
    """Load what a search starts at.

    Args:
        folder: of a student; ``None`` for the teacher itself.
        teacher: whose states are imitated.
        sequence_length: tokens of a sequence.
        between: whether states between the layers are compared, beside the last ones.

    Raises:
        TrainingInputError: the student cannot be loaded, or does not compare with the teacher; one line.
    """
    if folder is None:
        return Start(teacher.model, teacher.shape)
    student = StudentStart(folder)
    student.check(teacher.shape, sequence_length, between)
    return Start(student.load(), student.shape(teacher.shape))


@dataclass(frozen=True)
class StudentStart:
    """A student as a Hugging Face folder; picklable.

    Attributes:
        folder: with ``config.json`` and ``model.safetensors``.
    """

    folder: Path

    def shape(self, teacher: EncoderShape) -> EncoderShape:
        """The shape of the supermodel, which the space is made for, by the student's configuration alone.

        Args:
            teacher: its shape, for what exports of earlier versions do not say.

        Raises:
            TrainingInputError: there is no such folder, or it holds another kind of model.
        """
        config = self._config
        return supermodel_shape(config, teacher.intermediate_size) if is_stand_alone(config) else shape_of(config)

    @property
    def within(self) -> str | None:
        """What the option ``within`` of the space of components has to be; ``None`` for a BERT, which has all.

        Raises:
            TrainingInputError: as :meth:`shape` does.
        """
        return self._config.architecture if is_stand_alone(self._config) else None

    def check(self, teacher: EncoderShape, sequence_length: int, between: bool) -> None:
        """Make sure that the student's states compare with the teacher's.

        Args:
            teacher: its shape.
            sequence_length: tokens of a sequence.
            between: whether states between the layers are compared, beside the last ones.

        Raises:
            TrainingInputError: they do not; one line.
        """
        shape = self.shape(teacher)
        if shape.vocab_size != teacher.vocab_size:
            raise self._unlike("vocab_size", shape.vocab_size, f"{teacher.vocab_size}, that of the teacher's tokenizer")
        if shape.hidden_size != teacher.hidden_size:
            raise self._unlike("hidden_size", shape.hidden_size, f"the teacher's {teacher.hidden_size}")
        if between and shape.num_layers != teacher.num_layers:
            expected = f"the teacher's {teacher.num_layers}, whose states are compared layer by layer"
            raise self._unlike("number of layers", shape.num_layers, f"{expected}; or set intermediate_weight: 0")
        if shape.max_positions < sequence_length:
            expected = f"{sequence_length} or more, the tokens of a sequence"
            raise self._unlike("max_position_embeddings", shape.max_positions, expected)

    def load(self) -> PreTrainedModel:
        """Load the student's encoder, in evaluation mode.

        Raises:
            TrainingInputError: it cannot be loaded, or lacks weights.
        """
        quieten_transformers()
        own = is_stand_alone(self._config)
        model_class: Any = ComponentsModel if own else BertModel
        options: dict[str, Any] = {} if own else {"add_pooling_layer": False}
        try:
            model, loading = model_class.from_pretrained(
                self.folder, use_safetensors=True, output_loading_info=True, **options
            )
        except Exception as error:
            raise TrainingInputError(
                f"{START_KEY}: the weights in '{self.folder}' cannot be loaded: {first_line(error)}; expected "
                f"model.safetensors of the model that config.json describes"
            ) from error
        if loading["missing_keys"]:
            lacking = min(loading["missing_keys"])
            raise TrainingInputError(
                f"{START_KEY}: '{self.folder}' lacks weights of its encoder, such as '{lacking}'; expected all of them"
            )
        student: PreTrainedModel = model.eval()
        return student

    @cached_property
    def _config(self) -> Any:
        """The student's configuration, of one of the two kinds."""
        if not (self.folder / "config.json").is_file():
            raise TrainingInputError(
                f"{START_KEY}: '{self.folder}' has no config.json; expected the folder of a student, such as netsuke "
                f"export writes, or of a BERT"
            )
        try:
            config = AutoConfig.from_pretrained(self.folder)
        except Exception as error:
            raise TrainingInputError(
                f"{START_KEY}: '{self.folder}' cannot be read: {first_line(error)}; expected the folder of a student"
            ) from error
        if not is_stand_alone(config):
            check_encoder(config, str(self.folder), START_KEY)
        return config

    def _unlike(self, what: str, found: int, expected: str) -> TrainingInputError:
        return TrainingInputError(f"{START_KEY}: the {what} of '{self.folder}' is {found}, expected {expected}")
