"""The text of a run: where it comes from, what of it is held out, and how it is packed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from cluster.hub import ask_hub
from cluster.storage import sha256_of_file
from orchestrator.recipe import Recipe
from trainers.corpus import (
    BUNDLED_PREFIX,
    DATASET_PREFIX,
    CorpusDescription,
    CorpusSource,
    Rows,
    hold_out,
    pack,
    save_corpus,
)


def training_source(recipe: Recipe) -> CorpusSource:
    """Where the training text comes from."""
    return CorpusSource(recipe.corpus.source, recipe.corpus.split, recipe.corpus.text_column)


def validation_source(recipe: Recipe) -> CorpusSource | None:
    """Where the held-out text comes from; ``None`` if it is held out of the training text."""
    settings = recipe.corpus
    if settings.validation_source is None and not settings.source.startswith(BUNDLED_PREFIX):
        return None
    source = settings.validation_source or settings.source
    return CorpusSource(source, settings.validation_split, settings.text_column, "corpus.validation_source")


def contents_of(source: CorpusSource | None) -> dict[str, str]:
    """Hashes of a source's files by name; nothing for a data set."""
    if source is None or source.source.startswith(DATASET_PREFIX):
        return {}
    return {file.name: sha256_of_file(file) for file in source.files()}


def text_dependencies(recipe: Recipe) -> list[Any]:
    """What packed text depends on: the recipe's corpus, the contents of its files and, for held-out text, the seed."""
    contents = [contents_of(training_source(recipe)), contents_of(validation_source(recipe))]
    return [recipe.corpus, contents, recipe.seed]


def pack_training_text(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    held_out: list[Rows],
    on_rows: Callable[[int], None],
) -> CorpusDescription:
    """Tokenise, pack and save the training text.

    Args:
        recipe: names the text.
        tokenizer: the teacher's.
        folder: where to.
        held_out: gets the rows that are held out, where there is no other held-out text.
        on_rows: told how many sequences each portion has.
    """
    settings = recipe.corpus
    rows = pack(training_source(recipe).documents(), tokenizer, settings.sequence_length, settings.max_tokens)
    if validation_source(recipe) is None:
        rows = hold_out(rows, settings.validation_fraction, recipe.seed, held_out)

    def counted() -> Any:
        for portion in rows:
            yield portion
            on_rows(len(portion[1]))

    return save_corpus(folder, counted())


def not_looked_up(what: str) -> str:
    """A sentence about data that a run will fetch from the hub, and whether that can be done now.

    Args:
        what: the data, with the recipe's key.
    """
    hub = ask_hub()
    if hub.answers:
        return f"{what} was not looked up on the hub; the run does it"
    return f"{what} could not be checked: {hub.words}; the run fails there unless this machine's cache has it"
