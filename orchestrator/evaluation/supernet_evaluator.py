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
from torch import Tensor

from orchestrator.evaluation.evaluator import Score
from spaces.architecture import Architecture
from spaces.registry import load_space
from spaces.supernet import BlockwiseSupernet, Supernet
from trainers.corpus import PackedCorpus
from trainers.losses import masked_mse, masked_variance
from trainers.precision import Precision, autocast
from trainers.supernet_store import load_supernet
from trainers.teacher import TeacherSource

SEARCH_SHARE = (0, 2)
"""Rows of the held-out text that candidates are scored on."""

JUDGING_SHARE = (1, 2)
"""Rows of the held-out text that finished models are judged on; no search has seen them."""


@dataclass(frozen=True)
class ValidationBatch:
    """One batch with the teacher's answers.

    Attributes:
        input_ids_BT: int64 token ids.
        mask_BT: 1 for valid tokens.
        states_BTD: the teacher's hidden states at the block borders, float32.
        variances: of each of these states.
    """

    input_ids_BT: Tensor
    mask_BT: Tensor
    states_BTD: list[Tensor]
    variances: list[float]


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
        batches = []
        for rows in PackedCorpus(self.corpus_folder).even_batches(self.batches, self.batch_size, SEARCH_SHARE):
            input_ids_BT, mask_BT = (tensor.to(device) for tensor in rows)
            states = teacher.states(input_ids_BT, mask_BT, teacher.block_layers(blocks))
            variances = [masked_variance(state, mask_BT).item() for state in states]
            batches.append(ValidationBatch(input_ids_BT, mask_BT, states, variances))
        return SupernetEvaluator(supernet, batches, self.precision)


class SupernetEvaluator:
    """Holds a supernet and validation batches in memory and scores architectures one by one.

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
        return [self._timed(lambda batch, a=a: self._network_error(a, batch), fidelity) for a in architectures]

    def score_block(self, index: int, block: Any, fidelity: int) -> Score:
        """The error of one path of one block that is fed with the teacher's states."""
        supernet = self.supernet
        assert isinstance(supernet, BlockwiseSupernet)

        def error(batch: ValidationBatch) -> tuple[Tensor, float]:
            visible_BT = batch.mask_BT.to(torch.bool)
            output_BTD = supernet.forward_block(index, block, batch.states_BTD[index], visible_BT)
            return masked_mse(output_BTD, batch.states_BTD[index + 1], batch.mask_BT), batch.variances[index + 1]

        return self._timed(error, fidelity)

    def _network_error(self, architecture: Architecture, batch: ValidationBatch) -> tuple[Tensor, float]:
        output_BTD = self.supernet(architecture, batch.input_ids_BT, batch.mask_BT)
        return masked_mse(output_BTD, batch.states_BTD[-1], batch.mask_BT), batch.variances[-1]

    def _timed(self, error: Any, fidelity: int) -> Score:
        started = time.perf_counter()
        device = self.batches[0].input_ids_BT.device
        squared = variance = 0.0
        with torch.inference_mode(), autocast(self.precision, device):
            for batch in self.batches[:fidelity]:
                tokens = float(batch.mask_BT.sum())
                mse, batch_variance = error(batch)
                squared += mse.item() * tokens
                variance += batch_variance * tokens
        return Score("ok", squared / variance, time.perf_counter() - started)
