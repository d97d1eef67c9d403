"""Architectures of components as texts: what is read, what is printed, and where a mistake is found."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.components.architecture import ComponentsArchitecture, LayerChoice
from spaces.components.space import ComponentsSpace
from spaces.components.sublayers import SublayerChoice, SublayerKind
from spaces.components.text import parse_architecture, parse_sublayer
from spaces.errors import ArchitectureSyntaxError
from tests.spaces.components.microscopic import TEXT, make_space

ATTENTION = SublayerKind("attention", "head", 12, 3, True)
FEED_FORWARD = SublayerKind("feed_forward", "slice", 9, 0, True)
LAYERS = st.builds(
    LayerChoice,
    st.integers(0, ATTENTION.count - 1).map(ATTENTION.at),
    st.integers(0, FEED_FORWARD.count - 1).map(FEED_FORWARD.at),
)


@given(st.lists(LAYERS, min_size=1, max_size=5).map(tuple).map(ComponentsArchitecture))
def test_parsing_undoes_printing(architecture):
    twin = parse_architecture(str(architecture))
    assert twin == architecture
    assert (twin.arch_id, str(twin)) == (architecture.arch_id, str(architecture))
    assert ComponentsArchitecture.of_sublayers(architecture.sublayers) == architecture


@given(LAYERS, LAYERS)
def test_layers_are_equal_if_their_texts_are(first, second):
    assert (first == second) == (str(first) == str(second))


def test_what_a_text_says():
    architecture = parse_architecture(TEXT)
    attention, feed_forward = architecture.layers[0].sublayers
    assert attention == SublayerChoice(((0, 1), (3,)), (1,), True)
    assert feed_forward == SublayerChoice(((0, 2), (3, 4), (7,)))
    assert architecture.layers[1] == LayerChoice(SublayerChoice(((1, 2),), (), True))
    assert architecture.layers[2] == LayerChoice()
    assert str(architecture) == TEXT


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("H1,2,3.Q1,2", "H1-3.Q1-2"),
        (" H 1 - 3 > 4 . M / F 2 | 0 ", "H1-3>4.M/F2|0"),
        ("H9-11", "H9-11"),
    ],
)
def test_other_ways_to_write_it(text, canonical):
    assert str(parse_architecture(text)) == canonical


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "expected a layer: H and the numbers of heads, F and those of slices, or 0 for nothing, found the end"),
        ("G1", 1, "expected a layer: H and the numbers of heads, F and those of slices, or 0 for nothing, found 'G'"),
        ("0|", 3, "expected a layer"),
        ("0 0", 3, "expected '|' and another layer, found '0'"),
        ("H", 2, "expected the number of a head, found the end"),
        ("H0", 2, "expected the number of a head, found 0"),
        ("H01", 2, "expected the number of a head, found 01"),
        ("H1>", 4, "expected the number of a head, 2 or more, found the end"),
        ("H2,1", 4, "expected the number of a head, 3 or more, found 1"),
        ("H1-3>3", 6, "expected the number of a head, 4 or more, found 3"),
        ("H4-2", 4, "expected the number of a head, 5 or more, found 2"),
        ("H99999", 2, "expected the number of a head, 9999 at most, found 99999"),
        ("H" + "9" * 400, 2, "expected the number of a head, 9999 at most, found 999999999999..."),
        ("H1.", 4, "expected Q and the numbers of query-key slices, or M behind '.', found the end"),
        ("H1.M.Q1", 5, "expected '|' and another layer, found '.'"),
        ("H1.Q2,2", 7, "expected the number of a query-key slice, 3 or more, found 2"),
        ("H1.Q1.Q2", 7, "expected M behind '.', found 'Q'"),
        ("H1/0", 4, "expected F and the numbers of slices behind '/', found '0'"),
        ("H1/H2", 4, "expected F and the numbers of slices behind '/', found 'H'"),
        ("0|F1.Q1", 6, "expected M behind '.', found 'Q'"),
        ("F1/H1", 3, "expected '|' and another layer, found '/'"),
        ("H²", 2, "expected the number of a head, found '²'"),
    ],
)
def test_mistakes_are_found_in_their_column(text, column, message):
    with pytest.raises(ArchitectureSyntaxError) as raised:
        parse_architecture(text)
    assert str(raised.value).startswith(f"architecture {text!r}, column {column}: {message}")
    assert str(raised.value).endswith("; an example: H1-12.Q1-2.M/F1-8.M|H1-4>5-8/F1,3.M|0")
    assert "\n" not in str(raised.value)


def test_the_example_is_one():
    assert str(parse_architecture("H1-12.Q1-2.M/F1-8.M|H1-4>5-8/F1,3.M|0").layers[2]) == "0"


@given(st.text(alphabet="HFQM0123456789-,>./| ", max_size=20))
def test_any_text_is_read_or_refused(text):
    try:
        architecture = parse_architecture(text)
    except ArchitectureSyntaxError:
        return
    assert parse_architecture(str(architecture)) == architecture


@pytest.mark.parametrize(
    ("letter", "text", "message"),
    [
        ("H", "F1", "sublayer 'F1', column 1: expected H and the numbers of heads, or 0 for nothing, found 'F'"),
        ("F", "F1|0", "sublayer 'F1|0', column 3: expected nothing more, found '|'"),
        ("F", "00", "sublayer '00', column 2: expected nothing more, found '0'"),
    ],
)
def test_sublayers_alone(letter, text, message):
    assert parse_sublayer("F", "0") == SublayerChoice()
    with pytest.raises(ArchitectureSyntaxError) as raised:
        parse_sublayer(letter, text)
    assert str(raised.value).startswith(message)


def test_texts_of_bert_base_fit_a_line():
    """So that they can be read, and typed into a command."""
    assert len(str(ComponentsSpace().anchors()[0])) == 12 * len("H1-12.Q1-2.M/F1-8.M|") - 1
    assert all(len(str(make_space().sample(random.Random(seed)))) < 160 for seed in range(50))
