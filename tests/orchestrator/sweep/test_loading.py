"""Sweep files: what is wrong with one is told in a line, before anything runs."""

from __future__ import annotations

import pytest

from orchestrator.errors import UserError
from orchestrator.recipe import load_recipe
from orchestrator.sweep.loading import list_sweeps, load_sweep
from orchestrator.sweep.members import members_of

WHOLE = "recipe: quickstart\nstrategies:\n- {name: random}\n"


@pytest.fixture
def write(tmp_path):
    def write_file(text: str) -> str:
        file = tmp_path / "sweep.yaml"
        file.write_text(text)
        return str(file)

    return write_file


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (WHOLE + "seed: [1]\n", "sweep.yaml:4: seed: unknown key; did you mean 'seeds'?"),
        (WHOLE + "frobnicate: 1\n", "sweep.yaml:4: frobnicate: unknown key; keys here: name, description, recipe"),
        ("recipe: quickstart\n", "strategies: missing; expected strategies to compare"),
        ("strategies:\n- {name: random}\n", "recipe: missing; expected the base"),
        (WHOLE.replace("random", "random, optoins: {}"), "strategies.0.optoins: unknown key; did you mean 'options'?"),
        (
            WHOLE + "- {name: random}\n",
            "strategies.1.name: found 'random' a second time, expected each only once; give",
        ),
        (WHOLE + "seeds: [1, 1]\n", "sweep.yaml:4: seeds.1: found '1' a second time"),
        (WHOLE + "evaluations: [0]\n", "evaluations.0: found 0, expected at least 1"),
        (WHOLE + "objectives: [flops]\n", "objectives: found flops, expected 'loss' among them"),
        (WHOLE + "budgets: [{name: a}]\n", "budgets.0: found no limit"),
        (WHOLE + "set: {supernet.step: 3}\n", "sweep.yaml:4: supernet.step: unknown key; did you mean 'steps'?"),
        (WHOLE + "spaces: [{name: nas_bret}]\n", "space.name: found 'nas_bret', expected one of"),
        (WHOLE.replace("quickstart", "quickstrt"), "quickstrt: no such file"),
        (WHOLE + f"seeds: {list(range(200))}\nevaluations: {list(range(1, 100))}\n", "19,800 combinations, expected"),
        ("- a\n", "sweep.yaml:1: found a list of 1, expected keys such as 'strategies:'"),
    ],
)
def test_each_mistake_gets_one_line(write, text, line):
    with pytest.raises(UserError) as error:
        load_sweep(write(text))
    assert len(str(error.value).splitlines()) == 1
    assert line in str(error.value)


def test_axes_are_multiplied_and_members_named_by_their_places(write):
    text = WHOLE + "- {name: optuna, label: tpe, options: {sampler: tpe}}\nseeds: [1, 2]\nevaluations: [5, 9]\n"
    text += "budgets: [{name: half, encoder_parameters: 50%}, {name: fast, latency_ms: 9}]\n"
    members = members_of(load_sweep(write(text)))
    assert len(members) == 2 * 2 * 2 * 2
    labels = [member.label for member in members]
    assert labels[:2] == ["nas_bert-random-half-e5-s1", "nas_bert-random-half-e5-s2"]
    assert labels[-1] == "nas_bert-tpe-fast-e9-s2"
    assert len(set(labels)) == len(labels)


def test_each_space_has_the_base_recipe_with_the_changes(write):
    text = WHOLE + "set: {supernet.steps: 7, corpus.max_tokens: 5000}\n"
    text += "spaces: [{name: nas_bert, label: wide, options: {preset: small}}, {name: nas_bert, label: narrow}]\n"
    recipes = load_sweep(write(text)).recipes
    assert list(recipes) == ["wide", "narrow"]
    assert {recipe.supernet.steps for recipe in recipes.values()} == {7}
    assert recipes["wide"].space.options == {"preset": "small"}
    assert recipes["narrow"].space.options == {}
    assert recipes["wide"].budgets == load_recipe("quickstart").budgets


def test_paths_start_at_the_sweep_file(write, tmp_path):
    (tmp_path / "base.yaml").write_text("corpus: {source: ./text.txt}\n")
    text = WHOLE.replace("quickstart", "base.yaml") + "set: {corpus.validation_source: ./other.txt}\n"
    (recipe,) = load_sweep(write(text)).recipes.values()
    assert recipe.corpus.source == str(tmp_path / "text.txt")
    assert recipe.corpus.validation_source == str(tmp_path / "other.txt")


def test_shipped_sweeps_are_right():
    assert "quickstart_strategies" in {sweep.name for sweep in list_sweeps()}
    for shipped in list_sweeps():
        assert shipped.description
        assert members_of(load_sweep(shipped.name))


def test_dry_run_tells_every_member(netsuke, place, tmp_path):
    file = tmp_path / "plan.yaml"
    recipe = place / "microscopic.yaml"
    file.write_text(f"recipe: {recipe}\nstrategies: [{{name: random}}]\nseeds: [1, 2]\nevaluations: [7]\n")
    answer = netsuke("sweep", file, "--run-dir", tmp_path / "swept", "--dry-run", "--json")
    assert answer.code == 0, answer.err
    stages = answer.json["stages"]
    shared = [f"nas_bert: {name}" for name in ("teacher", "corpus", "latency", "supernet")]
    assert [stage["name"] for stage in stages[:4]] == shared
    assert [stage["name"].rsplit("-", 1)[0] for stage in stages[4:]] == [
        "nas_bert-random-e7-s1",
        "nas_bert-random-e7-s2",
    ]
    assert {stage["evaluations"] for stage in stages[4:]} == {7}
    assert not (tmp_path / "swept").exists()


def test_a_strategys_wrong_option_is_told_with_its_place(netsuke, place, tmp_path):
    file = tmp_path / "plan.yaml"
    recipe = place / "microscopic.yaml"
    file.write_text(
        f"recipe: {recipe}\nstrategies:\n- {{name: random}}\n- {{name: nsga2, options: {{populaton: 3}}}}\n"
    )
    answer = netsuke("sweep", file, "--run-dir", tmp_path / "swept", "--dry-run")
    assert answer.code == 2
    expected = f"{file}:4: strategies.1: strategy nsga2 has no option 'populaton'; did you mean 'population'?"
    assert answer.error == expected
    answer = netsuke("sweep", file, "--run-dir", place)
    assert answer.code == 2
    assert "found files of something else" in answer.error


def test_a_recipe_in_phases_is_refused_unless_the_sweep_takes_them_out(netsuke, place, tmp_path):
    base, file = place / "wide_and_long.yaml", tmp_path / "plan.yaml"
    base.write_text((place / "microscopic.yaml").read_text() + "phases: [{name: wide}, {name: long}]\n")
    sweep = f"recipe: {base}\nstrategies: [{{name: random}}]\n"
    file.write_text(sweep)
    command = ("sweep", file, "--run-dir", tmp_path / "swept")
    real, dry = netsuke(*command), netsuke(*command, "--dry-run")
    assert (real.code, dry.code) == (2, 2)
    assert (
        real.error
        == dry.error
        == (
            f"{file}:1: recipe: 'nas_bert' has the phases wide, long, but a sweep compares strategies of one search; "
            f"put phases: [] under set"
        )
    )
    assert not (tmp_path / "swept").exists()
    file.write_text(f"{sweep}set: {{phases: []}}\n")
    assert netsuke(*command, "--dry-run").code == 0


def test_lists_and_asks_for_a_sweep(netsuke):
    assert "quickstart_strategies" in netsuke("sweep", "--list").out
    assert netsuke("sweep", "--list", "--json").json[0]["name"] == "quickstart_strategies"
    assert "SWEEP: missing" in netsuke("sweep").error
    assert "did you mean 'quickstart_strategies'?" in netsuke("sweep", "quickstart_strategy").error
    assert "found no run there" in netsuke("sweep", "quickstart_strategies", "--reuse", "nowhere").error
