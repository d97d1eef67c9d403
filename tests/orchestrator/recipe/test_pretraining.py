"""Two keys say that a run trains its own teacher: each brings the other, and they may not contradict each other."""

from __future__ import annotations

import pytest

from orchestrator.errors import UserError
from orchestrator.recipe import load_recipe, resolved_yaml, signature


@pytest.fixture
def load(tmp_path):
    def call(text, *changes):
        (tmp_path / "recipe.yaml").write_text(text)
        return load_recipe(str(tmp_path / "recipe.yaml"), changes)

    return call


@pytest.mark.parametrize(
    "text",
    [
        "teacher: {source: pretrain}\n",
        "teacher: {pretraining: {}}\n",
        "teacher: {source: pretrain, pretraining: {num_layers: 12}}\n",
    ],
)
def test_each_key_brings_the_other(load, tmp_path, text):
    teacher = load(text).teacher
    assert (teacher.source, teacher.pretraining.num_layers, teacher.pretraining.inner_size) == ("pretrain", 12, 3072)
    (tmp_path / "again.yaml").write_text(resolved_yaml(load(text)))
    assert load_recipe(str(tmp_path / "again.yaml"), []).teacher == teacher


def test_overrides_reach_inside(load):
    teacher = load(
        "teacher: {source: pretrain}\n", "teacher.pretraining.hidden_size=120", "teacher.pretraining.steps=7"
    )
    assert (teacher.teacher.pretraining.hidden_size, teacher.teacher.pretraining.steps) == (120, 7)
    assert teacher.teacher.pretraining.checkpoint_every == 7


def test_a_folder_called_pretrain_is_not_meant(load, tmp_path):
    (tmp_path / "pretrain").mkdir()
    assert load("teacher: {source: pretrain}\n").teacher.source == "pretrain"


def test_paths_of_a_vocabulary_start_at_the_recipe(load, tmp_path):
    recipe = load("teacher: {pretraining: {vocabulary: words/vocab.txt}}\n")
    assert recipe.teacher.pretraining.vocabulary == str(tmp_path / "words" / "vocab.txt")


def test_how_the_teacher_is_trained_counts_but_not_by_how_many(load):
    plain = load("teacher: {source: pretrain}\n").teacher
    spread = load("teacher: {source: pretrain}\n", "teacher.pretraining.scaling.workers=2").teacher
    deeper = load("teacher: {source: pretrain}\n", "teacher.pretraining.num_layers=2").teacher
    assert signature(plain) == signature(spread) != signature(deeper)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "teacher: {source: a/b, pretraining: {}}\n",
            "teacher.source: found 'a/b', expected 'pretrain', since pretraining describes a teacher to be trained; "
            "set it so, or leave pretraining away",
        ),
        (
            "teacher: {source: pretrain, pretraining: null}\n",
            "teacher.pretraining: found null, expected the sizes of the teacher: source is 'pretrain'",
        ),
        (
            "teacher: {pretraining: {hidden_size: 100, num_heads: 12}}\n",
            "teacher.pretraining.hidden_size: found 100, expected a multiple of num_heads, which is 12",
        ),
        (
            "teacher: {pretraining: {vocabulary: v.txt, vocabulary_size: 500}}\n",
            "teacher.pretraining.vocabulary_size: found 500, expected null: the size of a given vocabulary is its own",
        ),
        ("teacher: {pretraining: {dropout: 1}}\n", "teacher.pretraining.dropout: found 1"),
        (
            "teacher: {pretraining: {layers: 3}}\n",
            "teacher.pretraining.layers: unknown key; did you mean 'num_layers'?",
        ),
    ],
)
def test_contradictions_are_one_line(load, text, line):
    with pytest.raises(UserError) as raised:
        load(text)
    (found,) = str(raised.value).splitlines()
    assert line in found
