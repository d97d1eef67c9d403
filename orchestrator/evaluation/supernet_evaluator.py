"""Scores architectures by the loss of their path through a trained supernet.

Shape legend: B batch, T tokens, D hidden size of the teacher.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Score
from spaces.architecture import Architecture
from spaces.registry import load_space
from spaces.supernet import BlockwiseSupernet, Supernet
from trainers.corpus import PackedCorpus
from trainers.losses import masked_mse
from trainers.precision import Precision, autocast
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

    def __call__(self) -> SupernetEvaluator:
        """Load everything, run the teacher on the validation batches, and forget the teacher."""
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
        return SupernetEvaluator(supernet, batches, self.precision)


class SupernetEvaluator:
    """Holds a supernet and validation batches in memory and scores whole networks one by one.

    Args:
        supernet: trained, in evaluation mode.
        batches: validation text with the teacher's answers.
        precision: number format of forward passes.
    """

    def __init__(self, supernet: Supernet[Any], batches: Sequence[ValidationBatch], precision: Precision) -> None:
        self.supernet = supernet
        self.batches = batches
        self.precision = precision

    def score(self, architectures: Sequence[Architecture], fidelity: int) -> list[Score]:
        """The error of whole networks, blocks chained on their own outputs, relative to the teacher's variance.

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
        return Score("ok", squared / variance, time.perf_counter() - started)
