"""Whatever a file says, the answer is a recipe, or lines for a person; never another error."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.recipe import Recipe, load_recipe, resolved_yaml
from orchestrator.recipe.keys import all_keys
from orchestrator.recipe.yaml_text import dump

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["50%", "4ms", "auto"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=8), inner, max_size=2)),
    max_leaves=5,
)
KEYS = st.sampled_from(sorted(all_keys()))


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("recipes") / "recipe.yaml"


def load(file: Path, text: str) -> Recipe | None:
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        return load_recipe(str(file))
    except UserError as error:
        for line in str(error).splitlines():
            assert line.startswith(str(file)), line
        return None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(KEYS, VALUES)
@example("seed", 10**400)
@example("supernet.learning_rate", 10**400)
@example("budgets.0.encoder_parameters", 10**400)
@example("seed", [[[[[[[[[[]]]]]]]]]])
def test_any_value_under_any_key(file, key, value):
    for part in reversed(key.split(".")):
        value = [value] if part == "0" else {part: value}
    recipe = load(file, dump(value))
    if recipe is not None:
        file.write_text(resolved_yaml(recipe), encoding="utf-8")
        assert load_recipe(str(file)) == recipe


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60))
@example('seed: "\\ud800"')
@example("seed: " + "[" * 150 + "]" * 150)
@example("space: {options: {a: " + "[" * 300 + "]" * 300 + "}}")
@example("\ufeffseed: 1")
@example("seed: 1\r\nname: x\r\n")
def test_any_text(file, text):
    load(file, text)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(file):
    file.write_bytes(b"\xef\xbb\xbfseed: 7\r\nname: x\r\n")
    assert load_recipe(str(file)).seed == 7
