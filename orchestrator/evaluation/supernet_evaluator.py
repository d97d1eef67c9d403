"""Scores architectures by the loss of their path through a trained supernet.

Shape legend: B batch, T tokens, D hidden size of the teacher, N masked positions, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Score
from spaces.architecture import Architecture
from spaces.registry import load_space
from spaces.supernet import BlockwiseSupernet, Supernet
from trainers.corpus import PackedCorpus
from trainers.errors import TrainingInputError
from trainers.losses import masked_mse
from trainers.masking import MaskedBatch, Masking
from trainers.precision import Precision, autocast
from trainers.prediction import mask_batches, measure_prediction
from trainers.prefix_evaluation import PrefixEvaluator
from trainers.supernet_store import load_supernet
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

    def __call__(self) -> SupernetEvaluator:
        """Load everything, run the teacher on the validation batches, and forget all of it but the head, if needed.

        Raises:
            TrainingInputError: the masked-LM loss is to be measured, and the teacher has no masked-LM head.
        """
        if self.threads:
            torch.set_num_threads(self.threads)
        device = torch.device(self.device)
        teacher = TeacherSource(str(self.teacher_folder)).load()
        teacher.to(device)
        space = load_space(self.space_name, self.space_options, teacher.shape)
        supernet = load_supernet(space, self.weights).to(device)
        assert isinstance(supernet, Supernet)
        blocks = supernet.num_blocks if isinstance(supernet, BlockwiseSupernet) else 1
        corpus = PackedCorpus(self.corpus_folder)
        batches = validation_batches(teacher, corpus, blocks, self.batches, self.batch_size, device=device)
        prediction = None
        if self.mask_probability:
            if teacher.masked_lm_head is None:
                raise TrainingInputError(lacks_head("masked_lm", self.teacher_folder))
            masking = Masking.of_tokenizer(teacher.tokenizer, self.mask_probability)
            text = [(batch.input_ids_BT.cpu(), batch.mask_BT.cpu()) for batch in batches]
            masked = [batch.to(device) for batch in mask_batches(text, masking, self.seed)]
            prediction = MaskedText(masked, teacher.masked_lm_head)
        return SupernetEvaluator(supernet, batches, self.precision, prediction)


@dataclass(frozen=True)
class MaskedText:
    """What networks predict hidden tokens with.

    Attributes:
        batches: the validation batches with tokens hidden.
        head: the teacher's masked-LM head; maps ``hidden_ND`` to ``logits_NV``.
    """

    batches: Sequence[MaskedBatch]
    head: nn.Module


def lacks_head(found: str, teacher: Path | str) -> str:
    """What is wrong with ranking by the masked-LM loss where the teacher cannot predict tokens."""
    return (
        f"found {found}, but the teacher {teacher} has no masked-LM head; expected one that was saved as "
        f"BertForMaskedLM, or leave it at hidden_states"
    )


class SupernetEvaluator:
    """Holds a supernet and validation batches in memory and scores whole networks one by one.

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
        return [self._score(architecture, fidelity) for architecture in architectures]

    def blocks(self) -> PrefixEvaluator:
        """What scores the paths of single blocks, on the same batches.

        Raises:
            UserError: the supernet has no blocks that can be scored alone.
        """
        if not isinstance(self.supernet, BlockwiseSupernet):
            raise UserError("space.name: found a space whose supernet has no blocks, expected one of blocks")
        return PrefixEvaluator(self.supernet, self.batches, self.precision)

    def _score(self, architecture: Architecture, fidelity: int) -> Score:
        started = time.perf_counter()
        squared = variance = 0.0
        with torch.inference_mode(), autocast(self.precision, self.batches[0].input_ids_BT.device):
            for batch in self.batches[:fidelity]:
                tokens = batch.tokens
                output_BTD = self.supernet(architecture, batch.input_ids_BT, batch.mask_BT)
                squared += masked_mse(output_BTD, batch.states_BTD[-1], batch.mask_BT).item() * tokens
                variance += batch.variances[-1] * tokens
        masked_lm_loss = (
            None if self.prediction is None else self._masked_lm_loss(architecture, self.prediction, fidelity)
        )
        return Score("ok", squared / variance, time.perf_counter() - started, masked_lm_loss=masked_lm_loss)

    def _masked_lm_loss(self, architecture: Architecture, prediction: MaskedText, fidelity: int) -> float:
        def predict(input_ids_BT: Tensor, mask_BT: Tensor, chosen_BT: Tensor) -> Tensor:
            with autocast(self.precision, input_ids_BT.device):
                hidden_BTD = self.supernet(architecture, input_ids_BT, mask_BT)
            logits_NV: Tensor = prediction.head(hidden_BTD[chosen_BT].float())
            return logits_NV

        return measure_prediction(predict, prediction.batches[:fidelity]).loss
