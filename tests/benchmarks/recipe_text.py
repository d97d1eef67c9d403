"""The teacher and the text of a shipped recipe, as benchmarks without Ray train on them."""

from __future__ import annotations

from pathlib import Path

from orchestrator.recipe import load_recipe
from orchestrator.stages.teacher import teacher_source
from orchestrator.stages.text import training_source, validation_source
from trainers.corpus import PackedCorpus, pack, save_corpus
from trainers.fidelity import Judgement
from trainers.teacher import Teacher, TeacherSource


def save_teacher_and_text(recipe_name: str, folder: Path, batches: int) -> tuple[Teacher, Judgement]:
    """Save ``teacher``, ``corpus`` and ``validation`` of a recipe in a folder.

    Args:
        recipe_name: of a recipe whose teacher is there, and that holds text out.
        folder: for all of it.
        batches: of 32 held-out sequences, to judge students by.

    Returns:
        The teacher, and its answers on the held-out batches.
    """
    recipe = load_recipe(recipe_name)
    place = teacher_source(recipe)
    assert isinstance(place, TeacherSource)
    teacher = place.load()
    teacher.save(folder / "teacher")
    held_out = validation_source(recipe)
    assert held_out is not None
    for name, source in (("corpus", training_source(recipe)), ("validation", held_out)):
        save_corpus(folder / name, pack(source.documents(), teacher.tokenizer, recipe.corpus.sequence_length))
    chosen = PackedCorpus(folder / "validation").even_batches(batches, 32)
    last = [teacher.shape.num_layers]
    return teacher, Judgement.of_teacher(lambda ids, mask: teacher.states(ids, mask, last)[0], chosen)
