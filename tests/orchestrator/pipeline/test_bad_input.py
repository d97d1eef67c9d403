"""Mistakes that are found before anything runs: one line, exit code 2, and no run folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import GPT2Config

from tests.orchestrator.pipeline.microscopic_run import RECIPE, STAGES, write_teacher


@pytest.fixture
def mistake(netsuke, place, tmp_path):
    """The line that both ``netsuke run`` and its dry run answer, having made nothing."""

    def answer(*changes: str) -> str:
        folder = tmp_path / "run"
        command = ["run", place / "microscopic.yaml", "--run-dir", folder]
        for change in changes:
            command += ["--set", change]
        real, dry = netsuke(*command), netsuke(*command, "--dry-run")
        assert (real.code, dry.code) == (2, 2), (real, dry)
        assert real.error == dry.error
        assert not folder.exists()
        return real.error

    return answer


def test_a_text_that_is_not_there(mistake):
    line = mistake("corpus.source=/nowhere/novel.txt")
    assert line.startswith("corpus.source: '/nowhere/novel.txt' does not exist; expected a .txt or .parquet file")


@pytest.mark.parametrize("content", ["", " \n\n\t\n"])
def test_a_text_without_words(mistake, tmp_path, content):
    (tmp_path / "empty.txt").write_text(content)
    line = mistake(f"corpus.source={tmp_path / 'empty.txt'}")
    assert line == "corpus.source: the corpus is empty; expected at least one document with text"


def test_a_text_shorter_than_one_sequence(mistake, tmp_path):
    (tmp_path / "short.txt").write_text("fo re fo re sa")
    line = mistake(f"corpus.source={tmp_path / 'short.txt'}")
    assert line.startswith("corpus.sequence_length: found 16, but all of corpus.source has only 5 tokens; give more")


def test_a_text_too_short_to_hold_some_out(mistake, tmp_path):
    (tmp_path / "short.txt").write_text("fo re fo re sa " * 3)
    line = mistake(f"corpus.source={tmp_path / 'short.txt'}", "corpus.validation_fraction=0.01")
    assert line.startswith("corpus.validation_fraction: found 0.01, but the corpus has only 2 sequences")


def test_a_held_out_text_shorter_than_one_sequence(mistake, tmp_path):
    (tmp_path / "short.txt").write_text("fo re fo re sa")
    line = mistake(f"corpus.validation_source={tmp_path / 'short.txt'}")
    assert "all of corpus.validation_source has only 5 tokens" in line


def test_a_text_that_is_not_utf8(mistake, tmp_path):
    (tmp_path / "latin.txt").write_bytes("Zoë".encode("latin-1") * 20)
    line = mistake(f"corpus.source={tmp_path / 'latin.txt'}")
    assert line.startswith("corpus.source: ")
    assert "is not UTF-8 text" in line


def test_sequences_longer_than_the_teachers_positions(mistake):
    assert mistake("corpus.sequence_length=32") == (
        "corpus.sequence_length: found 32, but the teacher has only 24 positions; set it to 24 or less"
    )
    assert mistake("tables.latency.sequence_length=32").startswith("tables.latency.sequence_length: found 32, but")


def test_a_teacher_that_is_a_decoder(mistake, tmp_path):
    GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=50).save_pretrained(tmp_path / "gpt2")
    (tmp_path / "gpt2" / "model.safetensors").touch()
    line = mistake(f"teacher.source={tmp_path / 'gpt2'}")
    assert line.startswith("teacher.source: ")
    assert "is a model of type 'gpt2'; expected a BERT-type encoder" in line


def test_a_folder_without_a_teacher(mistake, tmp_path):
    assert "has no config.json; expected a Hugging Face model folder" in mistake(f"teacher.source={tmp_path}")


def test_blocks_that_do_not_divide_the_teacher(mistake):
    assert mistake("space.options.num_blocks=3") == (
        "space.options.num_blocks: found 3, which does not divide the teacher's 4 layers; expected one of 1, 2, 4"
    )


def test_layers_that_the_spaces_students_do_not_say(mistake):
    line = mistake("distillation.objective=layer_states")
    assert line.startswith("space.name: found 'nas_bert', whose supernet does not say its layers' states, which its")


@pytest.mark.parametrize("changes", [[], ["supernet.init=paper", "distillation.initialisation=extracted"]])
def test_heads_that_cannot_be_cut_out_of_the_teacher(mistake, changes):
    line = mistake("space.options.head_size=8", *changes)
    assert line.startswith("space.options.head_size: found 8, but init: teacher copies the teacher's heads, which are")


def test_heads_of_another_size_do_not_matter_to_random_starts(netsuke, place, tmp_path):
    command = ["run", place / "microscopic.yaml", "--run-dir", tmp_path / "run", "--dry-run"]
    answer = netsuke(*command, "--set", "space.options.head_size=8", "--set", "supernet.init=paper")
    assert answer.code == 0, answer.err


def test_a_teacher_with_another_activation(mistake, tmp_path):
    folder = write_teacher(tmp_path / "teacher")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    assert mistake(f"teacher.source={folder}") == (
        "supernet.init: teacher needs a teacher with GELU, found hidden_act 'relu'; use init: paper"
    )


def test_a_budget_that_no_architecture_meets(mistake):
    line = mistake("budgets.1.encoder_parameters=2%")
    assert line.startswith("budgets.some.encoder_parameters: found 2% (1,016), but no architecture of the space ")
    assert line.endswith("raise the budget or give the space smaller sizes")


def test_a_budget_below_every_uniform_model(mistake):
    line = mistake("budgets.1.encoder_parameters=8%")
    assert line.startswith("budgets: no uniform BERT of width 32 has only 4065 encoder parameters")


@pytest.mark.parametrize("key", ["supernet.scaling", "distillation.scaling", "search.actors"])
def test_more_workers_than_the_machine_holds(mistake, key):
    trains = key != "search.actors"
    changes = [f"{key}.workers=512", f"{key.split('.')[0]}.batch_size=512"] if trains else [f"{key}=512"]
    line = mistake(*changes)
    assert line.startswith(f"{key} asks for 512 workers with 1 CPU each, but there is room for ")
    assert "lower it to" in line


def test_ranking_by_predictions_of_a_teacher_without_a_head(mistake):
    line = mistake("search.rank_by=masked_lm")
    assert line.startswith("search.rank_by: found masked_lm, but the teacher ")
    assert line.endswith(
        "has no masked-LM head; expected one that was saved as BertForMaskedLM, or leave it at hidden_states"
    )


def test_an_option_no_strategy_has(mistake):
    line = mistake("search.strategies.0.options.populaton=9")
    assert line == "strategy regularised_evolution has no option 'populaton'; did you mean 'population'?"


def test_a_callback_that_is_none(mistake):
    line = mistake("search.callbacks=[{name: 'ray.tune:TuneConfig'}]")
    assert line == "search.callbacks.0.name: found 'ray.tune:TuneConfig', expected a subclass of ray.tune.Callback"


def test_an_option_the_space_does_not_have(mistake):
    line = mistake("space.options.hiden_sizes=[16]")
    assert line == "space.options.hiden_sizes: unknown key; did you mean 'hidden_sizes'?"


@pytest.fixture
def folder_mistake(netsuke, place, tmp_path):
    """The line that ``netsuke run`` and its dry run answer to a run folder, having changed nothing in it."""

    def answer(folder: Path) -> str:
        before = sorted(folder.rglob("*"))
        command = ["run", place / "microscopic.yaml", "--run-dir", folder]
        real, dry = netsuke(*command), netsuke(*command, "--dry-run")
        assert (real.code, dry.code) == (2, 2), (real, dry)
        assert real.error == dry.error
        assert sorted(folder.rglob("*")) == before
        return real.error

    return answer


def described(**changes: object) -> str:
    about = {"format_version": 1, "run_id": "r-1", "recipe": "microscopic", "attempt": 1, "netsuke_version": "0.1.0"}
    return json.dumps(about | changes)


def test_a_folder_of_something_else(folder_mistake, tmp_path):
    (tmp_path / "thesis.tex").touch()
    assert "found files of something else (thesis.tex), expected a new or empty folder" in folder_mistake(tmp_path)


def test_a_run_of_another_recipe(folder_mistake, tmp_path):
    (tmp_path / "run.json").write_text(described(recipe="quickstart"))
    assert "it was made by the recipe 'quickstart', not 'microscopic'" in folder_mistake(tmp_path)


def test_a_run_of_a_newer_version(folder_mistake, tmp_path):
    (tmp_path / "run.json").write_text(described(format_version=9, netsuke_version="7.0"))
    line = folder_mistake(tmp_path)
    assert "it was made by netsuke 7.0 (format 9), newer than this one (format 2); upgrade netsuke or" in line


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"format_version": 1}', described(attempt="x"), described(format_version="one")]
)
def test_a_damaged_run(folder_mistake, tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    line = folder_mistake(tmp_path)
    assert line.startswith(f"{tmp_path / 'run.json'}: cannot be read (")
    assert line.endswith("restore it, or choose another --run-dir")


def test_a_dry_run_shows_every_stage_and_makes_nothing(netsuke, place, tmp_path):
    command = ["run", place / "microscopic.yaml", "--run-dir", tmp_path / "run", "--dry-run"]
    shown, answer = netsuke(*command), netsuke(*command, "--json")
    assert (shown.code, answer.code) == (0, 0)
    assert all(stage in shown.out for stage in STAGES)
    stages = {stage["name"]: stage for stage in answer.json["stages"]}
    assert tuple(stages) == STAGES
    assert {stage["action"] for stage in stages.values()} == {"run"}
    assert stages["supernet"]["steps"] == RECIPE["supernet"]["steps"]
    assert stages["search"]["evaluations"] == 36
    assert answer.json["seconds"] > 0
    assert answer.json["disk_bytes"] > 0
    assert list(tmp_path.iterdir()) == []
