from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.errors import ArchitectureSyntaxError, SpaceError
from spaces.nas_bert.architecture import BlockArchitecture, NasBertArchitecture
from tests.spaces.microscopic import architecture, make_space

OPERATIONS = st.sampled_from(["M", "M1", "M12", "F", "F1", "F9", "S3", "S5", "S7", "S31"])
BLOCKS = st.builds(BlockArchitecture, st.integers(1, 4096), st.lists(OPERATIONS, min_size=1, max_size=6).map(tuple))
ARCHITECTURES = st.builds(
    NasBertArchitecture, st.integers(1, 4096), st.lists(BLOCKS, min_size=1, max_size=5).map(tuple)
)


@given(ARCHITECTURES)
def test_text_round_trips(value):
    assert NasBertArchitecture.parse(str(value)) == value


@given(BLOCKS)
def test_text_of_a_block_round_trips(value):
    assert BlockArchitecture.parse(str(value)) == value


@given(ARCHITECTURES, ARCHITECTURES)
def test_different_architectures_have_different_texts(first, second):
    assert (str(first) == str(second)) == (first == second)


def test_canonical_text_and_identity():
    value = NasBertArchitecture(64, (BlockArchitecture(192, ("S3", "S7", "M")), BlockArchitecture(128, ("F2",))))
    assert str(value) == "E64|192:S3-S7-M|128:F2"
    assert value.arch_id == hashlib.sha256(b"E64|192:S3-S7-M|128:F2").hexdigest()[:12]
    assert list(value.layers()) == [(0, 0, "S3"), (0, 1, "S7"), (0, 2, "M"), (1, 0, "F2")]


@pytest.mark.parametrize(
    ("text", "column", "found"),
    [
        ("", 1, "''"),
        ("384:M-F", 1, "'384:M-F'"),
        ("e128|384:M", 1, "'e128'"),
        ("E0|384:M", 1, "'E0'"),
        ("E0128|384:M", 1, "'E0128'"),
        ("E128 |384:M", 1, "'E128 '"),
        ("E128", 5, "at least one block"),
        ("E128|", 6, "''"),
        ("E128|384", 6, "'384'"),
        ("E128|384:", 6, "'384:'"),
        ("E128|:M", 6, "':M'"),
        ("E128|0:M", 6, "'0:M'"),
        ("E128|M-F", 6, "'M-F'"),
        ("E128|384:X", 10, "'X'"),
        ("E128|384:M-X", 12, "'X'"),
        ("E128|384:M--F", 12, "''"),
        ("E128|384:M-F-", 14, "''"),
        ("E128|384:M-F0", 12, "'F0'"),
        ("E128|384:M-F10", 12, "'F10'"),
        ("E128|384:M-M0", 12, "'M0'"),
        ("E128|384:M-M02", 12, "'M02'"),
        ("E128|384:M-M1000", 12, "'M1000'"),
        ("E128|384:M-S", 12, "'S'"),
        ("E128|384:M-S03", 12, "'S03'"),
        ("E128|384:M-I-F", 12, "'I'"),
        ("E128|384:M||256:F", 12, "''"),
        ("E128|384:M|256:F-", 18, "''"),
        ("E128|384:M|256:F,M", 16, "'F,M'"),
        ("E128|384:M|256:F|", 18, "''"),
        ("E128|384:M\n", 6, r"'384:M\n'"),
        ("E" + "9" * 5000 + "|384:M", 1, "expected the embedding size"),
        ("E128|" + "9" * 5000 + ":M", 6, "expected a block"),
    ],
)
def test_syntax_errors_point_at_the_column(text, column, found):
    with pytest.raises(ArchitectureSyntaxError) as raised:
        NasBertArchitecture.parse(text)
    message = str(raised.value)
    assert f", column {column}: expected" in message
    assert found in message.split(", column ")[-1]
    assert "an example: E128|384:S3-S5-M|384:M-F" in message
    assert "\n" not in message


@given(ARCHITECTURES, st.data())
def test_a_wrong_operation_is_pointed_at_wherever_it_is(value, data):
    text = str(value)
    places = [found.start() for found in re.finditer(r"(?<=[:-])[MFS]", text)]
    place = data.draw(st.sampled_from(places))
    with pytest.raises(ArchitectureSyntaxError, match=f", column {place + 1}: expected an operation"):
        NasBertArchitecture.parse(text[:place] + "x" + text[place + 1 :])


@given(st.text() | st.text(alphabet="E0123456789|:-MFS\n", max_size=30))
def test_any_text_is_an_architecture_or_one_line_of_explanation(text):
    explanation = ""
    try:
        assert str(NasBertArchitecture.parse(text)) == text
    except ArchitectureSyntaxError as error:
        explanation = str(error)
    assert "\n" not in explanation


@pytest.mark.parametrize(
    ("text", "explanation"),
    [
        ("E64|16:M|16:M", "embedding size 64 is not one of 16, 32, 48"),
        ("E16|16:M", "it has 1 block, expected 2"),
        ("E16|16:M|16:M|16:M", "it has 3 blocks, expected 2"),
        ("E16|16:M|40:M", "block 2: hidden size 40 is not one of 16, 24, 32"),
        ("E16|16:M-M-M-M-M|16:M", "block 1: 5 layers, expected 1 to 4"),
        ("E16|16:M|16:M-S4", "block 2: operation S4 is not one of M, F, F1, S3, S5"),
        ("E16|16:M|16:M1", "block 2: operation M1 is not one of M, F, F1, S3, S5"),
        ("E16|16:M|16:S7", "block 2: operation S7 is not one of M, F, F1, S3, S5"),
    ],
)
def test_what_lies_outside_is_named(text, explanation):
    space = make_space()
    with pytest.raises(SpaceError) as raised:
        space.parse(text)
    assert not isinstance(raised.value, ArchitectureSyntaxError)
    assert str(raised.value) == f"architecture '{text}' is not in the space: {explanation}"
    assert not space.contains(architecture(text))


def test_blocks_without_layers_lie_outside():
    empty = NasBertArchitecture(16, (BlockArchitecture(16, ()), BlockArchitecture(16, ("M",))))
    assert not make_space().contains(empty)
