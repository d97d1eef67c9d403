from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.recipe.yaml_text import YamlTextError, dump, parse_document, parse_value

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.from_regex(r"\A[-+]?[0-9_.:eEx]{1,8}\Z"),
    st.sampled_from(["yes", "no", "on", "~", "null", "True", "2024-01-01", "12:30", "1e-3", "0x1F", "<<", "=", ""]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_dumped_is_read_back(value):
    assert parse_value(dump(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("5.0e-4", 5e-4),
        (".5", 0.5),
        ("1_000_000", 1_000_000),
        ("-3", -3),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("0x10", "0x10"),
        (".inf", ".inf"),
        ("'1'", "1"),
        ("50%", "50%"),
        ("", None),
        ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)
def test_scalars_mean_what_people_expect(text, value):
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_every_key_and_entry_has_its_line():
    lines = parse_document("a: 1\nb:\n  c:\n    - x\n    - {d: 2}\n").lines
    assert lines[("a",)] == 1
    assert lines[("b", "c")] == 3
    assert lines[("b", "c", 0)] == 4
    assert lines[("b", "c", 1, "d")] == 5


@pytest.mark.parametrize(
    ("text", "line", "names"),
    [
        ("a: 1\nb: {a: 1, b: 2}\na: 3\n", 3, "a: duplicate key, first given on line 1"),
        ("s:\n  x: 1\n  y: 2\n  x: 3\n", 4, "s.x: duplicate key, first given on line 2"),
        ("a: !!python/object/apply:os.system ['true']\n", 1, "tag"),
        ("a: 1\nb: !mine 3\n", 2, "tag"),
        ("1: a\n", 1, "as a key"),
        ("? [a]\n: b\n", 1, "as a key"),
        ("a: [1, 2\nb: 3\n", 2, "not readable as YAML"),
        ("a:\n\t- b\n", 2, "not readable as YAML"),
        ("a: 1\n---\nb: 2\n", 2, "not readable as YAML"),
        ("a: &x [*x]\n", 1, "contains itself"),
        ("a: " + "9" * 5000, 1, "no usable int"),
        ("a: !!int x", 1, "no usable int"),
        ("a: \x07", 1, "not readable as YAML"),
        ("a: " + "[" * 5000, 1, "nested too deeply"),
    ],
)
def test_what_is_not_readable_is_named_with_its_line(text, line, names):
    with pytest.raises(YamlTextError) as caught:
        parse_document(text)
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.line == line


def test_aliases_that_multiply_are_refused():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(YamlTextError, match="more than 10000 values"):
        parse_document(bomb)


def test_aliases_share_a_section():
    assert parse_value("{a: &s {workers: 2}, b: *s}") == {"a": {"workers": 2}, "b": {"workers": 2}}
