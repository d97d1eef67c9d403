"""The stage that tokenises and packs the corpus once, for all later stages to map into memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from orchestrator.errors import UserError
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Recipe
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.teacher import tokenizer_for
from orchestrator.stages.text import (
    not_looked_up,
    pack_training_text,
    text_dependencies,
    training_source,
    validation_source,
)
from trainers.corpus import DATASET_PREFIX, Rows, hold_out, pack, save_corpus
from trainers.teacher import TeacherSource

_BYTES_PER_TOKEN_OF_TEXT = 4.5
_TOKENS_PER_SECOND = 300_000

_SMALL_BYTES_PER_TOKEN_OF_A_SEQUENCE = 1_000
"""Text of at most so many bytes for each token of a sequence is packed when a run is planned, to see whether it does.

Only so little text can turn out to be empty, shorter than a sequence, or too short to hold some out.
"""


class CorpusStage(Stage):
    """Packs training and held-out text."""

    name = "corpus"
    inputs = ("teacher",)

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's corpus, the contents of its files and, for text held out at random, the seed."""
        return text_dependencies(plan.recipe)

    def check(self, plan: RunPlan) -> None:
        """Files and columns exist, there is text enough, and the sequences fit the teacher's positions."""
        recipe = plan.recipe
        if recipe.corpus.sequence_length > plan.shape.max_positions:
            raise UserError(
                f"corpus.sequence_length: found {recipe.corpus.sequence_length}, but the teacher has only "
                f"{plan.shape.max_positions} positions; set it to {plan.shape.max_positions} or less"
            )
        training_source(recipe).check()
        held_out = validation_source(recipe)
        if held_out is not None:
            held_out.check()
        self._try_small_text(recipe)

    @staticmethod
    def _try_small_text(recipe: Recipe) -> None:
        """Pack sources that may be too small for one sequence, and throw the result away."""
        settings, held_out = recipe.corpus, validation_source(recipe)
        for source in filter(None, (training_source(recipe), held_out)):
            if source.source.startswith(DATASET_PREFIX):
                continue
            size = sum(file.stat().st_size for file in source.files())
            if size > _SMALL_BYTES_PER_TOKEN_OF_A_SEQUENCE * settings.sequence_length:
                continue
            tokenizer = tokenizer_for(recipe, source)
            limit = settings.max_tokens if source is not held_out else None
            rows = pack(source.documents(), tokenizer, settings.sequence_length, limit, source.key)
            if held_out is None:
                rows = hold_out(rows, settings.validation_fraction, recipe.seed, [])
            deque(rows, maxlen=0)

    def unchecked(self, plan: RunPlan) -> Sequence[str]:
        """Text that is a data set of the hub."""
        sources = filter(None, (training_source(plan.recipe), validation_source(plan.recipe)))
        hub = [source for source in sources if source.source.startswith(DATASET_PREFIX)]
        return [not_looked_up(f"{source.key}: '{source.source}'") for source in hub]

    def planned(self, plan: RunPlan) -> PlannedStage:
        """Reading and packing; sizes are known for files only."""
        settings = plan.recipe.corpus
        source = training_source(plan.recipe)
        work = f"tokenise {settings.source} into sequences of {settings.sequence_length} tokens"
        tokens = settings.max_tokens
        if not settings.source.startswith(DATASET_PREFIX):
            compressed = 3.0 if any(file.suffix == ".parquet" for file in source.files()) else 1.0
            text_bytes = sum(file.stat().st_size for file in source.files()) * compressed
            known = int(text_bytes / _BYTES_PER_TOKEN_OF_TEXT)
            tokens = known if tokens is None else min(known, tokens)
        if tokens is None:
            return PlannedStage(self.name, "run", work)
        seconds = 2.0 + tokens / _TOKENS_PER_SECOND
        return PlannedStage(self.name, "run", work, tokens=tokens, seconds=seconds, disk_bytes=4 * tokens)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Tokenise, pack and save both parts."""
        recipe = context.recipe
        tokenizer = TeacherSource(str(context.folder.teacher)).tokenizer()
        progress.follow(None, "sequences")
        held_out: list[Rows] = []
        train = pack_training_text(recipe, tokenizer, context.folder.corpus, held_out, progress.advance)
        other = validation_source(recipe)
        if other is not None:
            length = recipe.corpus.sequence_length
            held_out.extend(pack(other.documents(), tokenizer, length, key="corpus.validation_source"))
        validation = save_corpus(context.folder.validation, held_out)
        detail = (
            f"{train.tokens:,} training tokens in {train.sequences:,} sequences, "
            f"{validation.tokens:,} held-out tokens in {validation.sequences:,}"
        )
        return StageResult(detail, {"tokens": train.tokens, "sequences": train.sequences})

    def is_complete(self, plan: RunPlan) -> bool:
        """Whether both packed parts are there."""
        return all((folder / "corpus.json").is_file() for folder in (plan.folder.corpus, plan.folder.validation))
