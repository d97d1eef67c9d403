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


@pytest.mark.parametrize(
    ("phases", "message"),
    [
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
    ],
)
def test_contradictions_get_one_line(phases, message):
    with pytest.raises(UserError) as raised:
        load(f"phases={phases}")
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
