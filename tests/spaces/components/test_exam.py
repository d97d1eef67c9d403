"""The space of components sits the exam of every space: whole, narrowed, and with other things to choose."""

from __future__ import annotations

from orchestrator.testing import SpaceExam
from spaces.components.options import PRESETS, ComponentsOptions
from spaces.components.space import ComponentsSpace
from spaces.encoder_shape import EncoderShape
from tests.spaces.components.microscopic import WITHIN, make_space

TINY = EncoderShape(
    num_layers=2, hidden_size=8, num_heads=2, intermediate_size=16, vocab_size=20, max_positions=8, activation="relu"
)


def make_tiny(**changes) -> ComponentsSpace:
    return make_space(**{"shape": TINY, "feed_forward_slices": 2, "query_key_slices": 1, **changes})


class TestPaper(SpaceExam):
    """BERT-base."""

    samples = 10
    builds = 1

    def make_space(self) -> ComponentsSpace:
        return ComponentsSpace()


class TestMicroscopic(SpaceExam):
    samples = 50

    def make_space(self) -> ComponentsSpace:
        return make_space()

    def make_tiny_space(self) -> ComponentsSpace:
        return make_tiny(fixed_feed_forward=("F1>2", "0"))


class TestWithoutSegments(SpaceExam):
    samples = 50

    def make_space(self) -> ComponentsSpace:
        return make_tiny(shape=EncoderShape(4, 24, 3, 36, 50, 16, 0), feed_forward_slices=3, query_key_slices=4)


class TestEverythingMayVanish(SpaceExam):
    """All but the network of which nothing is left."""

    samples = 50

    def make_space(self) -> ComponentsSpace:
        return make_tiny()

    def make_tiny_space(self) -> ComponentsSpace:
        return make_tiny(vertical=(), fixed_attention=("0", "0"))


class TestAllAlike(SpaceExam):
    samples = 50

    def make_space(self) -> ComponentsSpace:
        return make_space(drawing="architectures")


class TestPruning(SpaceExam):
    samples = 50

    def make_space(self) -> ComponentsSpace:
        return make_space(**PRESETS["pruning"])

    def make_tiny_space(self) -> ComponentsSpace:
        return make_tiny(**PRESETS["pruning"], fixed_feed_forward=("F1", "F1-2.M"))


class TestParallelHeads(SpaceExam):
    samples = 50

    def make_space(self) -> ComponentsSpace:
        return make_space(**PRESETS["parallel_heads"])

    def make_tiny_space(self) -> ComponentsSpace:
        return make_tiny(**PRESETS["parallel_heads"], fixed_attention=("H1.M", "0"))


class TestNarrowed(SpaceExam):
    samples = 50

    def make_space(self) -> ComponentsSpace:
        whole = make_space()
        return whole.narrowed(whole.parse("H1-2>4.Q2.M/F1|0|0|F2-3.M"), ["attention"])


class TestWithin(SpaceExam):
    """What lies within a student, of which some layers have lost more than others."""

    samples = 50

    def make_space(self) -> ComponentsSpace:
        return make_space(within=WITHIN)

    def make_tiny_space(self) -> ComponentsSpace:
        return make_tiny(within="H2.Q1.M/F1>2|F2.M")


class TestWithinForPruning(SpaceExam):
    samples = 50

    def make_space(self) -> ComponentsSpace:
        return make_space(within="H2-4.Q1/F2,7|0|H1.M|F1-8.M", drawing="architectures", **PRESETS["pruning"])

    def make_tiny_space(self) -> ComponentsSpace:
        return make_tiny(within="H1-2.M/F2|F1-2.M", **PRESETS["pruning"])


class TestWithinAndFixed(SpaceExam):
    samples = 50

    def make_space(self) -> ComponentsSpace:
        return make_space(within=WITHIN, fixed_attention=("H1>4.Q2", "0", "0", "0"))

    def make_tiny_space(self) -> ComponentsSpace:
        return make_tiny(within="H2.Q1.M/F1>2|F2.M", fixed_feed_forward=("F1>2", "0"))


class TestWithinOneComponent(SpaceExam):
    """The network of which nothing is left is none, so that there is nothing to choose."""

    samples = 5

    def make_space(self) -> ComponentsSpace:
        return make_tiny(within="0|F2")

    make_tiny_space = make_space


class TestOnlyOneArchitecture(SpaceExam):
    """Nothing to choose: mutation returns the same architecture."""

    samples = 5

    def make_space(self) -> ComponentsSpace:
        return make_tiny(fixed_attention=("H1.Q1.M", "0"), fixed_feed_forward=("F1>2", "0"))

    make_tiny_space = make_space


def test_the_options_of_the_exam_are_those_of_the_presets():
    assert [ComponentsOptions.from_mapping({"preset": name}).vertical for name in PRESETS] == [
        ("attention", "feed_forward"),
        ("feed_forward",),
        (),
    ]
