"""The stage that builds the winners and their uniform baselines and distils them together on Ray Train."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from safetensors.torch import load_file

from cluster.resources import ResourceRequest
from orchestrator.errors import UserError
from orchestrator.export import save_model
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe.distillation import DistillationSettings as RecipeSettings
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.teacher import teacher_source
from orchestrator.stages.training import (
    estimated_seconds,
    optimiser_settings,
    remove_checkpoints,
    resources,
    teacher_flops,
    train,
)
from orchestrator.stages.workshop import Workshop, save_student
from spaces.architecture import Architecture
from spaces.extraction import uniform_layers
from trainers.distillation import DistillationFactory, Student, finished_student
from trainers.distillation_settings import DistillationSettings, resolve_objective
from trainers.errors import TrainingInputError
from trainers.students import fresh_bert, has_masked_lm_head
from trainers.task import WEIGHTS
from trainers.uniform import UniformArchitecture, extract_uniform, uniform_of_size
from trainers.warm_up import check_layerwise

WINNER, UNIFORM = "winner", "uniform"


@dataclass(frozen=True)
class Prepared:
    """A model of the run before distillation.

    Attributes:
        label: of the model; a student that several budgets share is distilled under the first one's label.
        student: as the trainers see it.
        role: winner or uniform.
        budget: the budget it stands for.
        architecture: canonical text, or the uniform BERT's description.
        initialisation: where its weights start.
        matched_on: what a baseline has as many of as the winner, ``encoder_parameters`` or ``parameters``; ``None`` for
            a winner.
    """

    label: str
    student: Student
    role: str
    budget: str
    architecture: str
    initialisation: str
    matched_on: str | None = None

    @property
    def same_as(self) -> str | None:
        """The label of the model that is distilled for this one too; ``None`` where it is distilled itself."""
        return None if self.label == self.student.label else self.student.label

    def as_output(self) -> dict[str, Any]:
        """Plain values for later stages."""
        return {
            "label": self.label,
            "same_as": self.same_as,
            "role": self.role,
            "budget": self.budget,
            "arch_id": self.student.arch_id,
            "architecture": self.architecture,
            "initialisation": self.initialisation,
            "matched_on": self.matched_on,
        }


def trainers_settings(settings: RecipeSettings, seed: int) -> DistillationSettings:
    """The trainers' view of a recipe's section ``distillation``."""
    return DistillationSettings(
        batch_size=settings.batch_size,
        seed=seed,
        precision=settings.precision,
        optimiser=optimiser_settings(settings),
        objective=settings.objective,
        kl_share=settings.kl_share,
        kl_positions=settings.kl_positions,
        temperature=settings.temperature,
        mask_probability=settings.mask_probability,
        layer_padding=settings.layer_padding,
        layer_scale=settings.layer_scale,
        train_embeddings=settings.embeddings_learn,
        hidden_weight=settings.hidden_weight,
        intermediate_weight=settings.intermediate_weight,
        embedding_weight=settings.embedding_weight,
    )


class DistillationStage(Stage):
    """Distils all students of the run on the same batches; one that several budgets chose, once for all of them."""

    name = "distillation"
    inputs = ("teacher", "corpus", "supernet", "selection")
    resumable = True
    version = 3

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's distillation and the seed."""
        return [plan.recipe.distillation, plan.recipe.seed]

    def check(self, plan: RunPlan) -> None:
        """The labels of winners and baselines do not collide, and students can start as the recipe says."""
        settings = plan.recipe.distillation
        has_head = teacher_source(plan.recipe).has_masked_lm_head()
        if has_head is not None:
            resolve_objective(settings.objective, settings.kl_share, has_head)
        if settings.objective == "layer_states":
            check_layerwise(plan.space, plan.recipe.space.name, plan.shape)
        if settings.initialisation != "scratch":
            plan.space.check_inheritance()
        if settings.initialisation == "extracted":
            plan.space.check_start("teacher")
        for budget in plan.recipe.budgets:
            if settings.uniform_baseline and budget.encoder_parameters is not None:
                limit = budget.encoder_parameters.resolve(plan.shape.encoder_parameters)
                uniform_of_size(plan.shape, limit, settings.uniform_shape)
        names = {budget.name for budget in plan.recipe.budgets}
        for name in sorted(names):
            if settings.uniform_baseline and f"{name}-{UNIFORM}" in names:
                raise UserError(
                    f"budgets: the name '{name}-{UNIFORM}' is taken by the baseline of '{name}'; rename that budget"
                )

    def requests(self, plan: RunPlan) -> ResourceRequest:
        """What the workers need of the cluster."""
        return resources(self.name, plan.recipe.distillation)

    def planned(self, plan: RunPlan) -> PlannedStage:
        """Steps and tokens are exact; time is a rough estimate."""
        recipe, shape = plan.recipe, plan.shape
        settings, length = recipe.distillation, recipe.corpus.sequence_length
        flops = teacher_flops(shape.num_layers, shape.hidden_size, shape.intermediate_size, length)
        share = sum(
            budget.encoder_parameters.resolve(shape.encoder_parameters) / shape.encoder_parameters
            if budget.encoder_parameters
            else 1.0
            for budget in recipe.budgets
        )
        students = len(recipe.budgets) * (2 if settings.uniform_baseline else 1)
        passes = 1 + 3 * share * (2 if settings.uniform_baseline else 1)
        at_most = "up to " if len(recipe.budgets) > 1 else ""  # budgets that choose the same architecture share it
        work = f"distil {at_most}{students} students together ({settings.initialisation} start)"
        return PlannedStage(
            self.name,
            "run",
            work,
            steps=settings.steps,
            tokens=settings.steps * settings.batch_size * length,
            seconds=estimated_seconds(settings, flops * passes),
        )

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Build, distil and save the students."""
        recipe, folder = context.recipe, context.folder
        settings = recipe.distillation
        prepared = _Preparation(context).prepare_all(progress.message)
        distilled = [one for one in prepared if one.same_as is None]
        factory = DistillationFactory(
            teacher_folder=folder.teacher,
            corpus_folder=folder.corpus,
            students=tuple(one.student for one in distilled),
            settings=trainers_settings(settings, recipe.seed),
        )
        checkpoint = train(context, self.name, settings, factory, progress)
        tensors = load_file(checkpoint / WEIGHTS)
        for one in prepared:
            shutil.rmtree(folder.model(one.label), ignore_errors=True)
            if one.same_as is None:
                save_model(
                    finished_student(one.student.folder, tensors, one.label), folder.teacher, folder.model(one.label)
                )
            else:  # each budget has its model where a person looks for it; the first of them comes before its copies
                shutil.copytree(folder.model(one.same_as), folder.model(one.label))
        objective = settings.objective
        if objective == "auto":
            objective = "masked_lm" if has_masked_lm_head(prepared[0].student.folder) else "hidden_states"
        outputs = {"models": [one.as_output() for one in prepared], "steps": settings.steps, "objective": objective}
        shared = "".join(f", '{one.label}' is '{one.same_as}'" for one in prepared if one.same_as is not None)
        return StageResult(f"{len(distilled)} students, {settings.steps} steps each, {objective}{shared}", outputs)

    def clean_up(self, context: RunContext) -> None:
        """The checkpoints have served."""
        remove_checkpoints(context, self.name)

    def is_complete(self, plan: RunPlan) -> bool:
        """Whether every model of every budget is there."""
        return all((plan.folder.model(budget.name) / "config.json").is_file() for budget in plan.recipe.budgets)


class _Preparation:
    """Builds the winners and their baselines before distillation and saves them where the workers find them.

    All start and learn alike but for their architecture, so equal architectures are one student under several labels.
    """

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.workshop = Workshop(context)
        self._dropout = 0.0
        self._built: dict[tuple[str, str], Prepared] = {}

    def prepare_all(self, notice: Callable[[str], None]) -> list[Prepared]:
        """A winner for every budget and, if the recipe asks for it, its uniform baseline.

        Args:
            notice: gets a line where a winner is smaller than any uniform BERT.
        """
        prepared = []
        for budget, choice in self.context.outputs["selection"]["chosen"].items():
            architecture = self.context.space.parse(choice["architecture"])
            prepared.append(self._winner(budget, architecture))
            if not self.context.recipe.distillation.uniform_baseline:
                continue
            try:
                prepared.append(self._uniform(budget, architecture))
            except TrainingInputError as error:  # limits were checked, but a winner may be far below them
                notice(f"'{budget}' has no uniform baseline: {str(error).removeprefix('budgets: ').partition(';')[0]}")
        return prepared

    def _winner(self, budget: str, architecture: Architecture) -> Prepared:
        """The winner before distillation."""
        shared = self._shared(budget, WINNER, budget, str(architecture))
        if shared is not None:
            return shared
        start = self.context.recipe.distillation.initialisation
        model = self.workshop.build(architecture, start)
        student = self.workshop.student(budget, architecture, model, self.context.folder.student(budget))
        self._dropout = float(getattr(model.config, "hidden_dropout_prob", 0.0))
        return self._keep(Prepared(budget, student, WINNER, budget, str(architecture), start))

    def _uniform(self, budget: str, winner: Architecture) -> Prepared:
        """The baseline of the winner's size; it is distilled with the winners' dropout."""
        label, teacher = f"{budget}-{UNIFORM}", self.workshop.teacher
        architecture, matched_on = self._matching(budget, winner)
        shared = self._shared(label, UNIFORM, budget, str(architecture))
        if shared is not None:
            return replace(shared, matched_on=matched_on)
        start = "scratch" if self.context.recipe.distillation.initialisation == "scratch" else "extracted"
        cut = extract_uniform(
            teacher.model, architecture, *self.workshop.calibration, importance=self.workshop.importance
        )
        cut.config.hidden_dropout_prob = cut.config.attention_probs_dropout_prob = self._dropout
        model = fresh_bert(cut.config, self.context.recipe.seed) if start == "scratch" else cut
        layers = uniform_layers(teacher.shape.num_layers, architecture.num_layers)
        alignment = tuple((index + 1, layer + 1) for index, layer in enumerate(layers[:-1]))
        folder = self.context.folder.student(label)
        save_student(self.workshop.for_objective(model), folder)
        student = Student(label, "", folder, alignment)
        return self._keep(Prepared(label, student, UNIFORM, budget, str(architecture), start, matched_on))

    def _matching(self, budget: str, winner: Architecture) -> tuple[UniformArchitecture, str]:
        """The uniform BERT that is as large as a winner, and by which count.

        It has the teacher's embeddings, which may be wider than the winner's. Where the budget limits all weights, it
        has as many in all, unless its embeddings alone leave too little of them; everywhere else it has as many behind
        the embeddings.
        """
        shape, how = self.workshop.teacher.shape, self.context.recipe.distillation.uniform_shape
        cost = self.context.space.cost(winner)
        limits = {one.name: one for one in self.context.recipe.budgets}.get(budget)
        if limits is not None and limits.parameters is not None and limits.encoder_parameters is None:
            behind = cost.parameters - shape.embedding_parameters
            with suppress(TrainingInputError):
                return uniform_of_size(shape, behind, how), "parameters"
        return uniform_of_size(shape, cost.encoder_parameters, how), "encoder_parameters"

    def _keep(self, built: Prepared) -> Prepared:
        self._built[built.role, built.architecture] = built
        return built

    def _shared(self, label: str, role: str, budget: str, architecture: str) -> Prepared | None:
        """The student that an earlier budget has of this architecture, under this budget's name."""
        built = self._built.get((role, architecture))
        return None if built is None else replace(built, label=label, budget=budget)
