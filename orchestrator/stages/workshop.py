"""Building students before distillation: out of the supernet, out of the teacher, or anew.

Whoever distils architectures of the space (winners, finalists, the sample of the rank fidelity) gets them here, so that
all of them start alike.
"""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from orchestrator.errors import UserError
from orchestrator.phases import weights_of_found
from orchestrator.run_space import start_folder
from orchestrator.stages.base import RunContext
from spaces.architecture import Architecture
from spaces.extraction import TeacherImportance, random_importance
from spaces.layer_states import LayerwiseSupernet
from spaces.sampling_distribution import SampledSupernet
from spaces.supernet import StartableSupernet, Supernet
from trainers.blockwise import CALIBRATION_SEQUENCES
from trainers.corpus import PackedCorpus
from trainers.distillation import Student
from trainers.distillation_settings import resolve_objective
from trainers.importance import masked_calibration, taylor_importance
from trainers.oneshot import in_order
from trainers.oneshot_start import load_start
from trainers.students import with_masked_lm_head
from trainers.supernet_store import load_supernet
from trainers.teacher import Teacher, TeacherSource
from trainers.warm_up import calibration_text


class Workshop:
    """Builds students of the run's space and saves them where the workers find them.

    Args:
        context: of the stage; its teacher, corpus and supernet are finished.
    """

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.teacher: Teacher = TeacherSource(str(context.folder.teacher)).load()
        self.calibration = PackedCorpus(context.folder.corpus).even_batches(1, CALIBRATION_SEQUENCES)[0]
        self._supernets: dict[str, Supernet[Any]] = {}

    def build(self, architecture: Architecture, initialisation: str) -> PreTrainedModel:
        """A stand-alone model.

        Args:
            architecture: of the run's space.
            initialisation: ``inherited`` (the trained supernet, or for what another lambda has come to, the one that
                was trained with it), ``extracted`` (from the teacher) or ``scratch``.

        Raises:
            UserError: the space cannot start that way.
        """
        if initialisation == "scratch":
            torch.manual_seed(self.context.recipe.seed)
            model = self.context.space.build(architecture)
        else:
            own = self._own_weights.get(str(architecture)) if initialisation == "inherited" else None
            supernet = self._supernet(initialisation) if own is None else load_supernet(self.context.space, own)
            model = supernet.extract(architecture)
        assert isinstance(model, PreTrainedModel)
        return model

    def student(self, label: str, architecture: Architecture, model: PreTrainedModel, folder: Path) -> Student:
        """Save a model of the space, and say how its states line up with the teacher's layers."""
        aligned = self.context.space.aligned_states(architecture, self.teacher.shape.num_layers)
        if aligned is None:
            blocks: Any = model.blocks
            layers = self.teacher.block_layers(len(blocks))
            aligned = [(index, layer) for index, layer in enumerate(layers) if 0 < index < len(layers) - 1]
        save_student(self.for_objective(model), folder)
        return Student(label, architecture.arch_id, folder, tuple(aligned))

    def for_objective(self, encoder: PreTrainedModel) -> PreTrainedModel:
        """The encoder itself or, where students are to predict masked tokens, with a head for it.

        The head starts at the teacher's as far as it fits, but for students from scratch.
        """
        settings, teachers_head = self.context.recipe.distillation, self.teacher.masked_lm_head
        objective = resolve_objective(settings.objective, settings.kl_share, teachers_head is not None)
        if objective != "masked_lm":
            return encoder
        torch.manual_seed(self.context.recipe.seed)
        return with_masked_lm_head(encoder, None if settings.initialisation == "scratch" else teachers_head)

    @cached_property
    def _own_weights(self) -> dict[str, Path]:
        """Weights of architectures that were trained by themselves."""
        return weights_of_found(self.context.outputs, self.context.folder)

    def _supernet(self, initialisation: str) -> Supernet[Any]:
        if initialisation not in self._supernets:
            self._supernets[initialisation] = self._load(initialisation)
        return self._supernets[initialisation]

    def _load(self, initialisation: str) -> Supernet[Any]:
        space = self.context.space
        if initialisation == "inherited":
            return load_supernet(space, self.context.folder.supernet_weights)
        torch.manual_seed(self.context.recipe.seed)
        supernet = space.supernet()
        if isinstance(supernet, SampledSupernet):
            corpus = PackedCorpus(self.context.folder.corpus)
            length, folder = corpus.description.sequence_length, start_folder(self.context.recipe)
            start = load_start(folder, self.teacher, length, between=False)
            supernet.start(in_order(start.model, calibration_text(corpus), self.context.recipe.supernet.one_shot.order))
            return supernet
        if not isinstance(supernet, StartableSupernet):
            raise UserError(
                f"distillation.initialisation: '{initialisation}' needs a supernet that can start at the teacher, "
                f"which that of '{self.context.recipe.space.name}' cannot; set inherited or scratch"
            )
        text = self.calibration
        if isinstance(supernet, LayerwiseSupernet):
            text = calibration_text(PackedCorpus(self.context.folder.corpus))
        supernet.start(self.teacher.model, *text, init="teacher", importance=self.importance)
        return supernet

    @cached_property
    def importance(self) -> TeacherImportance | None:
        """What is extracted of the teacher; ``None``: heads and neurons by the variance they add."""
        measure, seed = self.context.recipe.distillation.importance, self.context.recipe.seed
        if measure == "variance":
            return None
        if measure == "random":
            shape = self.teacher.shape
            return random_importance(shape.num_layers, shape.num_heads, shape.intermediate_size, seed)
        batches = masked_calibration(self.teacher, *self.calibration, seed=seed)
        return taylor_importance(self.teacher, batches)


def save_student(model: PreTrainedModel, folder: Path) -> None:
    """Save a student before its distillation, in the place of whatever lies there."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
