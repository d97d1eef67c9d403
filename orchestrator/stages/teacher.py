"""The stage that brings the teacher into the run folder, fetched or pre-trained; all later ones read it there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from cluster.resources import ResourceRequest
from cluster.storage import sha256_of_file
from orchestrator.export import copy_sentence_files
from orchestrator.formatting import plural
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Recipe
from orchestrator.recipe.teacher import PretrainingSettings as RecipeSettings
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.text import pack_training_text, text_dependencies, training_source
from orchestrator.stages.training import (
    estimated_seconds,
    optimiser_settings,
    remove_checkpoints,
    resources,
    teacher_flops,
    train,
    training_name,
)
from trainers.corpus import CorpusSource
from trainers.pretraining import (
    PretrainingFactory,
    PretrainingSettings,
    TeacherBlueprint,
    first_characters,
    pretrained_teacher,
)
from trainers.task import WEIGHTS
from trainers.teacher import Teacher, TeacherSource

_CHARACTERS_PER_TOKEN = 8
"""Text read for a vocabulary is limited to so many characters for each token that is packed at most."""


def teacher_source(recipe: Recipe) -> TeacherSource | TeacherBlueprint:
    """Where the recipe's teacher is, or what it will be like once it is pre-trained."""
    settings = recipe.teacher
    if settings.pretraining is None:
        return TeacherSource(settings.source, settings.revision, settings.trust_remote_code)
    wanted = settings.pretraining
    return TeacherBlueprint(
        num_layers=wanted.num_layers,
        hidden_size=wanted.hidden_size,
        num_heads=wanted.num_heads,
        intermediate_size=wanted.inner_size,
        max_positions=wanted.max_positions,
        type_vocab_size=wanted.type_vocab_size,
        dropout=wanted.dropout,
        vocabulary=None if wanted.vocabulary is None else Path(wanted.vocabulary),
        vocabulary_size=wanted.rows_of_vocabulary,
        lowercase=wanted.lowercase,
    )


def tokenizer_for(recipe: Recipe, text: CorpusSource) -> PreTrainedTokenizerBase:
    """The teacher's tokenizer before the teacher is there; a vocabulary still to be trained is trained on ``text``.

    Raises:
        TrainingInputError: there is none, or no text to train one on.
    """
    source = teacher_source(recipe)
    return source.tokenizer() if isinstance(source, TeacherSource) else source.tokenizer(text.documents)


class TeacherStage(Stage):
    """Loads the teacher, or pre-trains it, and saves it as an ordinary Hugging Face folder."""

    name = "teacher"
    resumable = True

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's teacher and the contents of its files; of one that is pre-trained also the text and the seed."""
        settings = plan.recipe.teacher
        if settings.pretraining is None:
            return [settings, _hashes(Path(self._source(plan.recipe).location()), "*.json", "*.safetensors")]
        vocabulary = settings.pretraining.vocabulary
        words = {} if vocabulary is None else _hashes(Path(vocabulary), "*.json", "*.txt")
        return [settings, words, *text_dependencies(plan.recipe)]

    @staticmethod
    def _source(recipe: Recipe) -> TeacherSource:
        source = teacher_source(recipe)
        assert isinstance(source, TeacherSource)
        return source

    def check(self, plan: RunPlan) -> None:
        """Nothing more: the plan's shape was read from the teacher, and the corpus checks its text."""

    def requests(self, plan: RunPlan) -> ResourceRequest | None:
        """What the workers of a pre-training need of the cluster; ``None`` for a teacher that is fetched."""
        settings = plan.recipe.teacher.pretraining
        return None if settings is None else resources("teacher.pretraining", settings)

    def planned(self, plan: RunPlan) -> PlannedStage:
        """Loading or training, and saving."""
        recipe, shape = plan.recipe, plan.shape
        settings = recipe.teacher.pretraining
        parameters = shape.encoder_parameters + shape.embedding_parameters
        size = f"({parameters / 1e6:.1f}M parameters, {shape.num_layers} layers)"
        if settings is None:
            work = f"load {recipe.teacher.source} {size}"
            return PlannedStage(self.name, "run", work, seconds=3.0, disk_bytes=4 * parameters)
        length = recipe.corpus.sequence_length
        flops = teacher_flops(shape.num_layers, shape.hidden_size, shape.intermediate_size, length)
        return PlannedStage(
            self.name,
            "run",
            f"pre-train a BERT {size} on masked tokens on {plural(settings.scaling.workers, 'worker')}",
            steps=settings.steps,
            tokens=settings.steps * settings.batch_size * length,
            seconds=estimated_seconds(settings, 3 * flops),
            disk_bytes=4 * parameters,
        )

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Load or train the teacher and save it."""
        settings = context.recipe.teacher.pretraining
        if settings is None:
            teacher = self._source(context.recipe).load()
        else:
            teacher = self._pretrain(context, settings, progress)
        shutil.rmtree(context.folder.teacher, ignore_errors=True)
        teacher.save(context.folder.teacher)
        if settings is None:
            location = Path(self._source(context.recipe).location())
            if location.is_dir():
                copy_sentence_files(location, context.folder.teacher)
        head = "with" if teacher.masked_lm_head is not None else "without"
        made = "" if settings is None else f", pre-trained in {settings.steps} steps"
        detail = (
            f"{teacher.shape.num_layers} layers, {teacher.shape.hidden_size} wide, "
            f"{teacher.shape.encoder_parameters / 1e6:.2f}M encoder parameters, {head} masked-LM head{made}"
        )
        return StageResult(detail)

    def _pretrain(self, context: RunContext, settings: RecipeSettings, progress: StageProgress) -> Teacher:
        # What serves the training only lies beside its checkpoints and goes with them.
        folder = context.folder.training / f"{training_name(context, self.name)}-text"
        _prepare(context.recipe, folder, progress)
        factory = PretrainingFactory(
            folder,
            folder / "corpus",
            PretrainingSettings(
                batch_size=settings.batch_size,
                seed=context.recipe.seed,
                precision=settings.precision,
                mask_probability=settings.mask_probability,
                optimiser=optimiser_settings(settings),
            ),
        )
        checkpoint = train(context, self.name, settings, factory, progress)
        return pretrained_teacher(folder, load_file(checkpoint / WEIGHTS))

    def clean_up(self, context: RunContext) -> None:
        """Checkpoints and packed text have served."""
        remove_checkpoints(context, self.name)

    def is_complete(self, plan: RunPlan) -> bool:
        """Whether the saved teacher is there."""
        return (plan.folder.teacher / "config.json").is_file()


def _prepare(recipe: Recipe, folder: Path, progress: StageProgress) -> None:
    """Make configuration, tokenizer and packed text, unless an interrupted start has.

    The text is cut as the stage ``corpus`` will cut it, so that nothing of what is held out there is seen here.
    """
    if (folder / "config.json").is_file():
        return
    blueprint = teacher_source(recipe)
    assert isinstance(blueprint, TeacherBlueprint)
    limit = recipe.corpus.max_tokens
    characters = None if limit is None else limit * _CHARACTERS_PER_TOKEN
    text = training_source(recipe)
    progress.message("making the vocabulary and packing the text")
    tokenizer = blueprint.tokenizer(lambda: first_characters(text.documents(), characters))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
    progress.follow(None, "sequences")
    pack_training_text(recipe, tokenizer, folder / "corpus", [], progress.advance)
    blueprint.config().save_pretrained(folder)  # last: a folder that has it is complete


def _hashes(source: Path, *patterns: str) -> dict[str, str]:
    files = [source] if source.is_file() else sorted(file for pattern in patterns for file in source.glob(pattern))
    return {file.name: sha256_of_file(file) for file in files}
