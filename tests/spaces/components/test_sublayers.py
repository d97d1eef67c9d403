"""What a sublayer can be: every choice once, genes and stages, and values that are none."""

from __future__ import annotations

import random
from itertools import product

import pytest

from spaces.components.sublayers import Gene, SublayerChoice, SublayerKind, stages_of
from spaces.components.variation import draw, neighbour
from spaces.errors import SpaceError

KINDS = [
    SublayerKind(*names, components, query_key, vertical)
    for names, components, query_key, vertical in (
        (("attention", "head"), 4, 2, True),
        (("attention", "head"), 5, 1, False),
        (("feed_forward", "slice"), 5, 0, True),
        (("feed_forward", "slice"), 1, 0, False),
    )
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_choice_has_one_place(kind):
    choices = [kind.at(place) for place in range(kind.count)]
    assert len(set(choices)) == kind.count
    assert choices[0] == SublayerChoice()
    assert kind.whole in choices
    assert all(kind.misfit(choice) is None for choice in choices)


@pytest.mark.parametrize("kind", KINDS)
def test_the_count_is_that_of_all_genes_without_repeats(kind):
    """Every combination of genes and bits, made into a choice."""
    slices = product((False, True), repeat=kind.query_key)
    bits = [tuple(index for index, kept in enumerate(one) if kept) for one in slices]
    found = [
        SublayerChoice(stages_of(genes), query_key, mean)
        for genes in product(kind.genes, repeat=kind.components)
        for query_key in bits
        for mean in (False, True)
    ]
    assert len(found) == kind.codes
    assert len(set(found)) == kind.count


@pytest.mark.parametrize("kind", KINDS)
def test_stages_follow_from_genes_and_genes_from_stages(kind):
    for choice in map(kind.at, range(kind.count)):
        genes = choice.genes(kind.components)
        assert stages_of(genes) == choice.stages
        assert sum(gene == Gene.VERTICAL for gene in genes) == len(choice.stages)
        assert tuple(index for index, gene in enumerate(genes) if gene) == choice.components


def test_genes_by_hand():
    dropped, beside, behind = Gene
    assert stages_of([beside, behind, dropped, beside, beside]) == ((0, 1), (3, 4))
    assert stages_of([beside, behind, dropped, beside, behind]) == ((0, 1), (3, 4))
    assert stages_of([dropped, dropped]) == ()
    assert SublayerChoice(((0, 1), (3,))).genes(5) == [beside, behind, dropped, behind, dropped]


def test_an_absent_sublayer_is_one_value():
    assert SublayerChoice((), (0, 1), True) == SublayerChoice()
    assert SublayerChoice().is_absent
    assert not SublayerChoice(((0,),)).is_absent


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((((1, 0),),), "components: found [1, 0], expected different numbers from 0 on, ascending"),
        ((((0,), (0,)),), "components: found [0, 0], expected different numbers"),
        ((((-1,),),), "components: found [-1], expected different numbers from 0 on"),
        ((((0,),), (1, 1)), "query-key slices: found [1, 1], expected different numbers"),
        ((((0,), ()),), "stages: found [(0,), ()], expected one component or more in each"),
    ],
)
def test_values_that_are_none(values, message):
    with pytest.raises(SpaceError) as raised:
        SublayerChoice(*values)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_differ_and_reach_everything(kind):
    rng = random.Random(0)
    met, current = set(), kind.whole
    for _ in range(40 * kind.count):
        following = neighbour(current, kind, rng)
        assert following != current
        assert kind.misfit(following) is None
        met.add(following)
        current = following
    assert len(met) > 0.9 * kind.count


def test_each_component_is_kept_by_the_share():
    kind, rng = KINDS[0], random.Random(1)
    drawn = [draw(kind, 0.25, rng) for _ in range(2000)]
    for component in range(kind.components):
        assert 440 < sum(component in choice.components for choice in drawn) < 560
    assert draw(kind, 0.0, rng) == SublayerChoice()
    assert draw(kind, 1.0, rng).components == (0, 1, 2, 3)
