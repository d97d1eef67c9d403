"""The section ``phases``: absent by default, in an order that can be, and out of sight of runs without it."""

from __future__ import annotations

import pytest

from orchestrator.errors import UserError
from orchestrator.phases import last_phase, phases_of
from orchestrator.recipe import load_recipe, resolved_yaml, signature

TWO = "phases=[{name: first, score: training}, {name: second, keep: [sizes]}]"


def load(*changes: str):
    return load_recipe("quickstart", changes)


def test_a_recipe_without_phases_has_one_search():
    recipe = load()
    assert recipe.phases == ()
    (only,) = phases_of(recipe)
    assert (only.name, only.search_stage, only.supernet_stage) == ("", "search", "supernet")
    assert only.strategies == recipe.search.strategies
    assert only.fidelity == recipe.search.validation_batches
    assert only.training is None


def test_phases_name_their_stages_and_what_they_build_on():
    first, second = phases_of(load(TWO))
    assert (first.search_stage, first.builds_on, first.fidelity) == ("search.first", (), 1)
    assert (second.search_stage, second.builds_on) == ("search.second", ("search.first",))
    assert second.narrowing({"search.first": {"winner": "some text"}}).architecture == "some text"
    own = load(TWO, "phases.1.supernet={steps: 20}")
    assert last_phase(own).supernet_stage == "supernet.second"
    assert last_phase(own).settings.supernet.architectures == "sampled"


def test_strategies_and_the_rule_to_stop_are_the_search_s_unless_a_phase_has_its_own():
    recipe = load(TWO, "search.stop=50", "phases.1.strategies=[{name: random}]", "phases.1.stop=7")
    first, second = phases_of(recipe)
    assert (first.strategies, first.stop, first.strategies_key) == (recipe.search.strategies, 50, "search.strategies")
    assert ([one.name for one in second.strategies], second.stop) == (["random"], 7)
    assert second.strategies_key == "phases.1.strategies"


def test_a_resolved_recipe_reads_back(tmp_path):
    recipe = load(TWO, "phases.0.training={task: sst2, task_teacher: ./tuned}")
    assert recipe.phases[0].training.task_teacher.startswith("/")
    (tmp_path / "again.yaml").write_text(resolved_yaml(recipe))
    assert load_recipe(str(tmp_path / "again.yaml")) == recipe


def test_keys_that_came_later_leave_signatures_alone_until_they_are_used():
    plain = load()
    dumped = plain.supernet.model_dump(mode="json")
    for changed in ("supernet.architectures=sampled", "supernet.layer_padding=masked", "supernet.layer_scale=relative"):
        assert signature(load(changed).supernet) != signature(plain.supernet)
    assert signature(load("supernet.architectures=largest").supernet) == signature(plain.supernet)
    assert {"architectures", "layer_padding"} <= set(dumped)
    without = type(plain.search).model_fields.keys() - {"stop"}
    shown = {name: value for name, value in plain.search.model_dump(mode="json").items() if name in without}
    running = {"actors", "cpus_per_actor", "gpus_per_actor", "callbacks", "keep_experiment"}
    before = {name: value for name, value in shown.items() if name not in running}
    assert signature(plain.search) == signature(before), "a search without a rule to stop is what it was"


def test_a_phase_s_supernet_can_be_tuned_on_tasks():
    recipe = load("phases=[{name: a}, {name: b, supernet: {steps: 20, tuning: {tasks: [mnli, STS-B], steps: 50}}}]")
    first, second = phases_of(recipe)
    assert (first.task_tuning, first.weights_stage) == (None, "supernet")
    assert (second.supernet_stage, second.weights_stage, second.fidelity) == ("supernet.b", "tuning.b", 1)
    tuning = second.task_tuning
    assert (tuning.tasks, tuning.judge, tuning.teachers, tuning.pooler) == (("mnli", "stsb"), "mnli", "tuned", "shared")
    assert (tuning.learning_rate, tuning.warmup_steps, tuning.training_share) == (4e-4, 5, 0.9)
    assert [phase.taught_tasks for phase in recipe.phases] == [(), ("mnli", "stsb")]
    untaught = load("phases=[{name: b, supernet: {tuning: {tasks: [mnli], teachers: null}}}]")
    assert untaught.phases[0].taught_tasks == ()
    plain = load("phases=[{name: b, supernet: {steps: 20}}]").phases[0].supernet
    fields = plain.model_dump(mode="json")
    fields = {name: value for name, value in fields.items() if name not in ("tuning", "layer_scale")}
    running = {"checkpoint_every", "report_every", "scaling"}
    before = {name: value for name, value in fields.items() if name not in running}
    assert signature(plain) == signature(before), "a phase without it is what it was"


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ("[{name: a, supernet: {tuning: {}}}]", "phases.0.supernet.tuning.tasks: missing"),
        ("[{name: a, supernet: {tuning: {tasks: []}}}]", "phases.0.supernet.tuning.tasks: found an empty list"),
        (
            "[{name: a, supernet: {tuning: {tasks: [sst2, squad_v1]}}}]",
            "phases.0.supernet.tuning.tasks.1: found squad_v1, a task of answering; expected one of texts with a class",
        ),
        (
            "[{name: a, supernet: {tuning: {tasks: [sst2, sst2]}}}]",
            "phases.0.supernet.tuning.tasks.1: found 'sst2' a second time",
        ),
        (
            "[{name: a, supernet: {tuning: {tasks: [sst2], judged_by: mnli}}}]",
            "phases.0.supernet.tuning.judged_by: found mnli, expected one of tasks: sst2",
        ),
        (
            "[{name: a, supernet: {tuning: {tasks: [sst2], training_share: 0.95}}}]",
            "phases.0.supernet.tuning.held_out_share: found 0.1, expected at most 1 - training_share",
        ),
        (
            "[{name: a, supernet: {tuning: {tasks: [sst2], teachers: mine}}}]",
            "phases.0.supernet.tuning.teachers: found 'mine', expected tuned",
        ),
        (
            "[{name: a, score: training, supernet: {tuning: {tasks: [sst2]}}}]",
            "phases.0.supernet.tuning: found a section, expected null where score is training",
        ),
        ("[{name: a, keep: [sizes]}]", "phases.0.keep: found sizes, expected nothing in the first phase"),
        ("[{name: a}, {name: a}]", "phases.1.name: found 'a' a second time"),
        ("[{name: a}, {name: b, keep: [sizes, sizes]}]", "phases.1.keep.1: found 'sizes' a second time"),
        ("[{name: a, training: {steps: 5}}]", "phases.0.training: found a section, expected null where score is"),
        ("[{name: a, score: training, training: {steps: 0}}]", "phases.0.training.steps: found 0 without a task"),
        (
            "[{name: a, score: training, training: {task: sst2, training_share: 0.8, held_out_share: 0.3}}]",
            "phases.0.training.held_out_share: found 0.3, expected at most 1 - training_share",
        ),
        ("[{name: a, strategies: [{name: rundom}]}]", "phases.0.strategies.0.name: found 'rundom', expected one of"),
        ("[{name: a, score: guess}]", "phases.0.score: found 'guess'"),
        ("[{keep: []}]", "phases.0.name: missing"),
        ("[{name: 'a/b'}]", "phases.0.name: found 'a/b'"),
        ("[{name: a, keeps: [sizes]}]", "phases.0.keeps: unknown key; did you mean 'keep'?"),
        ("[{name: a, keep: sizes}]", "phases.0.keep: found 'sizes', expected a list"),
        ("{name: a}", "phases: found"),
        ("[{name: a, strategies: []}]", "phases.0.strategies: found"),
        ("[{name: a, strategies: [{name: random}, {name: random}]}]", "phases.0.strategies.1.name: found 'random' a"),
        ("[{name: a, stop: 0}]", "phases.0.stop: found 0, expected at least 1"),
        ("[{name: a, supernet: {step: 5}}]", "phases.0.supernet.step: unknown key; did you mean 'steps'?"),
        ("[{name: a, supernet: {architectures: some}}]", "phases.0.supernet.architectures: found 'some', expected"),
        ("[{name: a, score: training, training: {fidelities: 0}}]", "phases.0.training.fidelities: found 0, expected"),
        ("[{name: a, score: training, training: {company: 0}}]", "phases.0.training.company: found 0, expected"),
        ("[{name: a, score: training, training: {start: warm}}]", "phases.0.training.start: found 'warm', expected"),
        ("[{name: a, score: training, training: {task: sst3}}]", "phases.0.training.task: found 'sst3', expected"),
        (
            "[{name: a, score: training, training: {task_teacher: ./tuned}}]",
            "phases.0.training.task_teacher: found './tuned' without a task",
        ),
        (
            "[{name: a, score: training, training: {task: sst2, tuning: {epochs: 0}}}]",
            "phases.0.training.tuning.epochs: found 0, expected at least 1",
        ),
    ],
)
def test_contradictions_get_one_line(phases, message):
    with pytest.raises(UserError) as raised:
        load(f"phases={phases}")
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
