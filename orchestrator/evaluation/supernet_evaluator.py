"""Scores architectures by the loss of their path through a trained supernet.

Shape legend: A architectures, B batch, T tokens, D hidden size of the teacher, N masked positions, V vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.errors import UserError
from orchestrator.evaluation.device import ready_device
from orchestrator.evaluation.evaluator import Score
from spaces.architecture import Architecture
from spaces.encoder_shape import EncoderShape
from spaces.registry import load_space
from spaces.space import BlockwiseSpace
from spaces.supernet import BlockwiseSupernet, Supernet
from trainers.corpus import PackedCorpus
from trainers.errors import TrainingInputError
from trainers.losses import masked_mse
from trainers.masking import MaskedBatch, Masking
from trainers.network_evaluation import last_states
from trainers.precision import Precision, autocast
from trainers.prediction import mask_batches, summed_loss
from trainers.prefix_evaluation import PrefixEvaluator
from trainers.supernet_store import load_weights, supernet_with
from trainers.teacher import TeacherSource
from trainers.validation import ValidationBatch, validation_batches


@dataclass(frozen=True)
class SupernetEvaluatorFactory:
    """Makes a :class:`SupernetEvaluator` from folders; picklable, called once in each process.

    Attributes:
        teacher_folder: a Hugging Face folder.
        corpus_folder: a packed corpus of validation text.
        weights: of the trained supernet.
        space_name: of its space.
        space_options: the recipe's options of the space.
        batches: validation batches to keep in memory.
        batch_size: sequences of a batch.
        precision: number format of the supernet's forward passes.
        device: where to evaluate.
        threads: for forward passes on a processor; 0 leaves PyTorch's setting.
        mask_probability: share of the tokens that are hidden, to measure the masked-LM loss, too; 0: it is not.
        seed: of the tokens that are hidden.
        space_shape: what the space is made for; ``None``: the teacher's shape.
    """

    teacher_folder: Path
    corpus_folder: Path
    weights: Path
    space_name: str
    space_options: Mapping[str, Any]
    batches: int
    batch_size: int
    precision: Precision = "auto"
    device: str = "cpu"
    threads: int = 0
    mask_probability: float = 0.0
    seed: int = 0
    space_shape: EncoderShape | None = None

    def __call__(self) -> SupernetEvaluator:
        """Load everything into this process and make the evaluator of it; errors as in :meth:`load`."""
        return self.make(self.load())

    def load(self) -> EvaluationMaterial:
        """What all evaluators of these settings have in common, read and computed once; its tensors are on the CPU.

        The teacher runs on the validation batches, and all of it but the head (if that is needed) is forgotten.

        Raises:
            TrainingInputError: the masked-LM loss is to be measured, and the teacher has no masked-LM head.
        """
        device = ready_device(self.device, self.threads)
        teacher = TeacherSource(str(self.teacher_folder)).load()
        if self.mask_probability and teacher.masked_lm_head is None:
            raise TrainingInputError(lacks_head("masked_lm", self.teacher_folder))
        teacher.to(device)
        shape = self.space_shape or teacher.shape
        space = load_space(self.space_name, self.space_options, shape)
        blocks = space.num_blocks if isinstance(space, BlockwiseSpace) else 1
        corpus = PackedCorpus(self.corpus_folder)
        found = validation_batches(teacher, corpus, blocks, self.batches, self.batch_size, device=device)
        batches = [batch.to("cpu") for batch in found]
        prediction = None
        if self.mask_probability:
            assert teacher.masked_lm_head is not None
            masking = Masking.of_tokenizer(teacher.tokenizer, self.mask_probability)
            text = [(batch.input_ids_BT, batch.mask_BT) for batch in batches]
            head = teacher.masked_lm_head.to("cpu").requires_grad_(False)
            prediction = MaskedText(mask_batches(text, masking, self.seed), head)
        return EvaluationMaterial(shape, load_weights(self.weights), batches, prediction)

    def make(self, material: EvaluationMaterial) -> SupernetEvaluator:
        """The evaluator of this process; on a processor its tensors are the material's own, which stay as they are."""
        device = ready_device(self.device, self.threads)
        space = load_space(self.space_name, self.space_options, material.shape)
        supernet = supernet_with(space, material.weights).to(device)
        batches = [batch.to(device) for batch in material.batches]
        prediction = None if material.prediction is None else material.prediction.to(device)
        return SupernetEvaluator(supernet, batches, self.precision, prediction)


@dataclass(frozen=True)
class EvaluationMaterial:
    """What evaluators are made of; nobody changes it, so processes of one machine can share its memory.

    Attributes:
        shape: that the space is made for.
        weights: of the supernet, by name.
        batches: validation text with the teacher's answers.
        prediction: what the masked-LM loss is measured with, if it is.
    """

    shape: EncoderShape
    weights: Mapping[str, Tensor]
    batches: Sequence[ValidationBatch]
    prediction: MaskedText | None


@dataclass(frozen=True)
class MaskedText:
    """What networks predict hidden tokens with.

    Attributes:
        batches: the validation batches with tokens hidden.
        head: the teacher's masked-LM head; maps ``hidden_ND`` to ``logits_NV``.
    """

    batches: Sequence[MaskedBatch]
    head: nn.Module

    def to(self, device: torch.device) -> MaskedText:
        """The same on a device; where that is another one, this one's head moves there."""
        return MaskedText([batch.to(device) for batch in self.batches], self.head.to(device))


def lacks_head(found: str, teacher: Path | str) -> str:
    """What is wrong with ranking by the masked-LM loss where the teacher cannot predict tokens."""
    return (
        f"found {found}, but the teacher {teacher} has no masked-LM head; expected one that was saved as "
        f"BertForMaskedLM, or leave it at hidden_states"
    )


class SupernetEvaluator:
    """Holds a supernet and validation batches in memory and scores whole networks, those of one shape together.

    Args:
        supernet: trained, in evaluation mode.
        batches: validation text with the teacher's answers.
        precision: number format of forward passes.
        prediction: what the masked-LM loss is measured with; ``None``: it is not.
    """

    def __init__(
        self,
        supernet: Supernet[Any],
        batches: Sequence[ValidationBatch],
        precision: Precision,
        prediction: MaskedText | None = None,
    ) -> None:
        self.supernet = supernet
        self.batches = batches
        self.precision = precision
        self.prediction = prediction

    def score(self, architectures: Sequence[Architecture], fidelity: int) -> list[Score]:
        """The error of whole networks, blocks chained on their own outputs, relative to the teacher's variance.

        Where there is something to predict, also the cross entropy of hidden tokens by the teacher's head on the last
        state: a mean over all hidden tokens of the batches, not one of means over batches.

        Args:
            architectures: of the supernet's space.
            fidelity: validation batches to use, from the first on.
        """
        started = time.perf_counter()
        losses = self._losses(architectures, fidelity)
        predicted: Sequence[float | None] = [None] * len(losses)
        if self.prediction is not None:
            predicted = self._masked_lm_losses(architectures, self.prediction, fidelity)
        seconds = (time.perf_counter() - started) / max(1, len(losses))
        return [
            Score("ok", loss, seconds, masked_lm_loss=masked_lm_loss)
            for loss, masked_lm_loss in zip(losses, predicted, strict=True)
        ]

    def blocks(self) -> PrefixEvaluator:
        """What scores the paths of single blocks, on the same batches.

        Raises:
            UserError: the supernet has no blocks that can be scored alone.
        """
        if not isinstance(self.supernet, BlockwiseSupernet):
            raise UserError("space.name: found a space whose supernet has no blocks, expected one of blocks")
        return PrefixEvaluator(self.supernet, self.batches, self.precision)

    def _losses(self, architectures: Sequence[Architecture], fidelity: int) -> list[float]:
        used = self.batches[:fidelity]

        def error(number: int, output_BTD: Tensor) -> Tensor:
            return masked_mse(output_BTD, used[number].states_BTD[-1], used[number].mask_BT)

        columns = self._judged(architectures, [(batch.input_ids_BT, batch.mask_BT) for batch in used], error)
        tokens = [batch.tokens for batch in used]
        variance = sum(batch.variances[-1] * count for batch, count in zip(used, tokens, strict=True))
        return [sum(value * count for value, count in zip(one, tokens, strict=True)) / variance for one in columns]

    def _masked_lm_losses(
        self, architectures: Sequence[Architecture], prediction: MaskedText, fidelity: int
    ) -> list[float]:
        used = [batch for batch in prediction.batches[:fidelity] if bool(batch.chosen_BT.any())]
        if not used:
            return [math.nan] * len(architectures)
        labels = [batch.labels() for batch in used]

        def loss(number: int, hidden_BTD: Tensor) -> Tensor:
            with torch.autocast(self._device.type, enabled=False):
                logits_NV = prediction.head(hidden_BTD[used[number].chosen_BT].float())
            return summed_loss(logits_NV, labels[number])

        columns = self._judged(architectures, [(batch.input_ids_BT, batch.attention_mask_BT) for batch in used], loss)
        positions = sum(map(len, labels))
        return [sum(one) / positions for one in columns]

    def _judged(
        self,
        architectures: Sequence[Architecture],
        texts: Sequence[tuple[Tensor, Tensor]],
        judge: Callable[[int, Tensor], Tensor],
    ) -> list[list[float]]:
        """Run all networks on all texts.

        Args:
            architectures: of the networks.
            texts: input ids and mask of each batch.
            judge: given the number of a batch and a network's last state on it, a scalar.

        Returns:
            For each network what was said of it, batch by batch. It leaves an accelerator in one transfer: reading each
            scalar by itself would wait for it each time.
        """
        said_NA = [[torch.empty(0)] * len(architectures) for _ in texts]
        with torch.inference_mode(), autocast(self.precision, self._device):
            for number, text in enumerate(texts):
                for place, output_BTD in last_states(self.supernet, architectures, *text):
                    said_NA[number][place] = judge(number, output_BTD)
        if not architectures:
            return []
        read: list[list[float]] = torch.stack([torch.stack(said_A) for said_A in said_NA], dim=1).tolist()
        return read

    @property
    def _device(self) -> torch.device:
        return self.batches[0].input_ids_BT.device
