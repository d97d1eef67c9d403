"""EfficientBERT's space sits the exam of every space, whole and narrowed, with and without a window."""

from __future__ import annotations

from typing import Any

from orchestrator.testing import SpaceExam
from spaces.efficient_bert.options import EfficientBertOptions
from spaces.efficient_bert.space import EfficientBertSpace
from tests.spaces.efficient_bert.microscopic import make_options

TINY: dict[str, Any] = {"max_nodes": 7, "max_height": 3, "stacked": (1, 2), "divisors": (1, 3)}
"""13 expressions (7 plain ones, 6 in which linear1 is combined with x) at 4 sizes: 52 choices of a block."""


def make_space(**changes: Any) -> EfficientBertSpace:
    return EfficientBertSpace(make_options(**changes))


class TestPaper(SpaceExam):
    samples = 30
    builds = 1

    def make_space(self) -> EfficientBertSpace:
        return EfficientBertSpace()


class TestWindow(SpaceExam):
    """The first stage as the paper searches it."""

    samples = 30
    builds = 1

    def make_space(self) -> EfficientBertSpace:
        return EfficientBertSpace(EfficientBertOptions(parameter_window=(15_000_000, 16_000_000)))

    def make_tiny_space(self) -> EfficientBertSpace:
        whole = make_space(**TINY)
        sizes = sorted({whole.cost(architecture).parameters for architecture in whole.anchors()})
        return make_space(**TINY, parameter_window=(sizes[0] + 1, sizes[-1] - 1))


class TestMicroscopic(SpaceExam):
    samples = 60

    def make_space(self) -> EfficientBertSpace:
        return make_space(max_nodes=8)

    def make_tiny_space(self) -> EfficientBertSpace:
        return make_space(**TINY)


class TestParallelTrees(SpaceExam):
    """Some sizes run more expressions than others."""

    samples = 40

    def make_space(self) -> EfficientBertSpace:
        return make_space(parallel=True, projection=False, inner_width=48, divisors=(1, 2, 3))

    def make_tiny_space(self) -> EfficientBertSpace:
        return make_space(**{**TINY, "layers": 1}, parallel=True, min_height=2)


class TestPadding(SpaceExam):
    samples = 40

    def make_space(self) -> EfficientBertSpace:
        return make_space(width_rule="pad", inner_width=48)


class TestManyForms(SpaceExam):
    """So many forms of expressions that they are asked in two steps."""

    samples = 8

    def make_space(self) -> EfficientBertSpace:
        return make_space(max_nodes=13, max_height=8)


class TestProposals(SpaceExam):
    samples = 10

    def make_space(self) -> EfficientBertSpace:
        return make_space(mutation="proposal", parameter_window=(1, 10**9))


class TestGivenSizes(SpaceExam):
    """The second stage: only expressions are searched."""

    samples = 40

    def make_space(self) -> EfficientBertSpace:
        return make_space(fixed_linear_ids=("4_2", "1_1"))

    def make_tiny_space(self) -> EfficientBertSpace:
        return make_space(**TINY, fixed_linear_ids=("2_1", "1_3"))


class TestGivenExpressions(SpaceExam):
    """The third stage: only sizes are searched."""

    samples = 40

    def make_space(self) -> EfficientBertSpace:
        given = ("tanh(linear2(gelu(linear1(x))))", "linear2(relu(mul(linear1(x),x)))")
        return make_space(fixed_expressions=given)

    make_tiny_space = make_space


class TestOnlyOneArchitecture(SpaceExam):
    """Nothing to choose: mutation returns the same architecture."""

    samples = 5

    def make_space(self) -> EfficientBertSpace:
        given = ("tanh(linear2(gelu(linear1(x))))", "linear2(relu(mul(linear1(x),x)))")
        return make_space(fixed_expressions=given, fixed_linear_ids=("2_1", "1_4"))

    make_tiny_space = make_space
