from __future__ import annotations

from typing import Any

from orchestrator.testing import BlockwiseSpaceExam
from spaces.encoder_shape import EncoderShape
from spaces.nas_bert.options import NasBertOptions
from spaces.nas_bert.space import NasBertSpace
from tests.spaces.microscopic import make_space

TINY: dict[str, Any] = {"layers_per_block": 2, "hidden_sizes": (16,), "operations": ("M", "S3"), "num_blocks": 2}


class TestPaper(BlockwiseSpaceExam):
    """The paper's options; only the vocabulary is small, so that building is quick."""

    builds = 2

    def make_space(self) -> NasBertSpace:
        return NasBertSpace(NasBertOptions(shape=EncoderShape(vocab_size=99)))

    def make_tiny_space(self) -> NasBertSpace:
        return make_space(**TINY)  # 3 embedding sizes x (2 + 4)^2 = 108


class TestSmall(BlockwiseSpaceExam):
    """The quickstart's preset for a 6-layer teacher of width 384."""

    builds = 2

    def make_space(self) -> NasBertSpace:
        shape = EncoderShape(num_layers=6, hidden_size=384, num_heads=12, intermediate_size=1536, vocab_size=99)
        return NasBertSpace.from_options({"preset": "small"}, shape)


class TestMiniLm(BlockwiseSpaceExam):
    builds = 2

    def make_space(self) -> NasBertSpace:
        return NasBertSpace.from_options({"preset": "minilm"})


class TestMicroscopic(BlockwiseSpaceExam):
    builds = 20

    def make_space(self) -> NasBertSpace:
        return make_space()

    def make_tiny_space(self) -> NasBertSpace:
        return make_space(**{**TINY, "num_blocks": 1, "hidden_sizes": (16, 32)})


class TestAttentionWithFewerHeads(BlockwiseSpaceExam):
    builds = 20

    def make_space(self) -> NasBertSpace:
        return make_space(hidden_sizes=(32, 16, 24), operations=("M2", "M", "M1", "M3", "F1"))

    def make_tiny_space(self) -> NasBertSpace:
        return make_space(**{**TINY, "hidden_sizes": (16, 24), "operations": ("M", "M2"), "embedding_sizes": (16,)})


class TestOnlyOneArchitecture(BlockwiseSpaceExam):
    """Nothing to choose: mutation returns the same architecture."""

    def make_space(self) -> NasBertSpace:
        one = {"layers_per_block": 1, "hidden_sizes": (16,), "operations": ("F",), "embedding_sizes": (16,)}
        return make_space(**one)

    make_tiny_space = make_space


class TestPlainOperationChoices(BlockwiseSpaceExam):
    """One operation name only, so that depth and width are all there is to vary."""

    def make_space(self) -> NasBertSpace:
        return make_space(operations=("F1",), embedding_sizes=(32,), separable_units=1, projections="paper")
