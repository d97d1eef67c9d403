from __future__ import annotations

import pytest

from orchestrator.testing import SpaceExam, ToyArchitecture, ToySpace
from spaces.decision_space import DecisionSpace
from spaces.errors import SpaceError


class DecidedToySpace(DecisionSpace[ToyArchitecture]):
    """The toy space, whose layers exist only as deep as the depth goes, told by its decisions alone."""

    name = "decided_toy"

    def __init__(self, layers: int = 4, widths: tuple[int, ...] = (4, 8)) -> None:
        self.toy = ToySpace(layers, widths)

    def owns(self, architecture):
        return isinstance(architecture, ToyArchitecture)

    def decisions(self):
        return self.toy.decisions()

    def from_decisions(self, chosen):
        return self.toy.from_decisions(chosen)

    def to_decisions(self, architecture):
        return self.toy.to_decisions(architecture)

    def parse(self, text):
        return self.require(ToySpace(layers=99, widths=range(99)).parse(text))

    def cost(self, architecture, sequence_length=128, flops_rule="encoder"):
        return self.toy.cost(architecture, sequence_length, flops_rule)

    def smallest(self):
        return self.toy.smallest()

    def build(self, architecture):
        return self.toy.build(architecture)

    def supernet(self):
        return self.toy.supernet()


class TestDecidedToySpace(SpaceExam):
    def make_space(self) -> DecidedToySpace:
        return DecidedToySpace()

    make_tiny_space = make_space


class TestOnlyOneChoice(SpaceExam):
    """Nothing to choose but operations of one layer."""

    def make_space(self) -> DecidedToySpace:
        return DecidedToySpace(layers=1, widths=(4,))

    make_tiny_space = make_space


def test_counts_what_the_toy_space_counts():
    assert DecidedToySpace().cardinality() == ToySpace(4, (4, 8)).cardinality()


def test_what_lies_outside_is_told_by_the_first_wrong_choice():
    space = DecidedToySpace()
    with pytest.raises(
        SpaceError, match=r"'6:L-W' lies outside the space decided_toy: width is 6, expected one of 4, 8"
    ):
        space.parse("6:L-W")
    with pytest.raises(SpaceError, match="depth is 5, expected one of 1, 2, 3, 4"):
        space.parse("4:L-L-L-L-L")


def test_an_unknown_choice_is_not_contained():
    space = DecidedToySpace()
    assert not space.contains(ToyArchitecture(4, ("L", "X")))
    assert space.contains(ToyArchitecture(4, ("L", "W")))


def test_a_space_without_from_options_says_so():
    with pytest.raises(SpaceError, match="DecidedToySpace cannot be made from a recipe: it defines no from_options"):
        DecidedToySpace.from_options({})
