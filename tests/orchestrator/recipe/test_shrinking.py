"""The section ``supernet.shrinking``: absent by default, and without contradictions."""

from __future__ import annotations

import pytest

from orchestrator.errors import UserError
from orchestrator.recipe import load_recipe, signature


def load(*changes: str):
    return load_recipe("quickstart", changes)


def test_nothing_is_shrunk_unless_it_is_asked_for():
    settings = load().supernet
    assert settings.shrinking is None
    assert (settings.sampling, settings.teacher_cache) == ("architectures", "off")


def test_the_paper_s_values_are_the_defaults():
    shrinking = load("supernet.steps=400", "supernet.shrinking={}").supernet.shrinking
    assert (shrinking.bins, shrinking.sample, shrinking.keep, shrinking.validation_batches) == (10, 2000, 10, 5)
    assert (shrinking.warm_epochs, shrinking.latency_rule, shrinking.latency_from) == (3, "two_sided", "table")
    assert (shrinking.evaluate, shrinking.remove, shrinking.by) == ("sample", "half_sampled", "architectures")
    assert shrinking.operation_share == 0.3
    assert shrinking.stop_when_done


def test_an_override_reaches_inside():
    shrinking = load("supernet.steps=400", "supernet.shrinking.keep=3").supernet.shrinking
    assert (shrinking.keep, shrinking.bins) == (3, 10)


@pytest.mark.parametrize(
    ("shrinking", "message"),
    [
        ("{remove: half_bin}", "supernet.shrinking.remove: found half_bin, expected half_sampled where evaluate is"),
        (
            "{remove: half_bin, evaluate: all, by: operations}",
            "supernet.shrinking.remove: found half_bin, expected half_sampled where by is operations",
        ),
        ("{sample: 1}", "supernet.shrinking.sample: found 1, expected at least 2"),
        ("{operation_share: 1.0}", "supernet.shrinking.operation_share: found 1.0, expected less than 1"),
        ("{latency_rule: lower}", "supernet.shrinking.latency_rule: found 'lower', expected two_sided, upper or none"),
        ("{steps_per_epoch: 101}", "supernet.steps: found 400, expected at least 404 for one round of shrinking"),
    ],
)
def test_contradictions_are_named(shrinking, message):
    with pytest.raises(UserError) as raised:
        load("supernet.steps=400", f"supernet.shrinking={shrinking}")
    assert message in str(raised.value)


def test_every_key_of_it_changes_what_the_supernet_is():
    plain = load("supernet.steps=400", "supernet.shrinking={}").supernet
    for change in (
        "shrinking.keep=9",
        "sampling=operations",
        "teacher_cache=bfloat16",
        "shrinking.stop_when_done=false",
    ):
        changed = load("supernet.steps=400", "supernet.shrinking={}", f"supernet.{change}").supernet
        assert signature(changed) != signature(plain), change
