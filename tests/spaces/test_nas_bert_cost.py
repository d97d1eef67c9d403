from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.encoder_shape import EncoderShape
from spaces.nas_bert.cost import operation_flops, operation_parameters, projection_widths
from spaces.nas_bert.operations import build_operation
from spaces.nas_bert.options import NasBertOptions
from spaces.nas_bert.space import NasBertSpace
from tests.spaces.microscopic import architecture, make_space, parameters_of

TABLE_3_3 = {
    128: {"M": 66_304, "F": 131_968, "S3": 34_560, "S5": 35_072, "S7": 35_584},
    192: {"M": 148_608, "F": 296_256, "S3": 76_416, "S5": 77_184, "S7": 77_952},
    256: {"M": 263_680, "F": 526_080, "S3": 134_656, "S5": 135_680, "S7": 136_704},
    384: {"M": 592_128, "F": 1_182_336, "S3": 300_288, "S5": 301_824, "S7": 303_360},
    512: {"M": 1_051_648, "F": 2_100_736, "S3": 531_456, "S5": 533_504, "S7": 535_552},
}
TABLE_10 = {
    "60M": "E512|512:S3-M-M-S7-F-F|512:F-M-M-S7-F-F|512:M-S5-M-F-S3-F|512:M-M-S5-F-F-F",
    # Where the paper's 30M row is cut into blocks is a guess; all blocks are 512 wide, so no count depends on it.
    "30M": "E256|512:S3-M-S5-S7-F|512:S5-M-S7-S5-F|512:S3-S5-M-F|512:S3-S7-M-S3-F-S5",
    "10M": "E128|384:S3-S5-M|384:S3-S5-M|384:S7-M-S3|384:S7-M-S3",
    "5M": "E64|192:S3-S7-M|192:S7-S7-M|192:S3-M-S7|192:S5-M-S3",
}
NER = "E128|384:S3-S5-F|384:S3-S5-F|384:S7-F-S3|384:S7-F-S3"
ROBERTA = NasBertSpace(NasBertOptions(shape=EncoderShape(vocab_size=50_265)))


@pytest.mark.parametrize("hidden_size", TABLE_3_3)
@pytest.mark.parametrize("operation", ["M", "F", "S3", "S5", "S7"])
def test_operations_have_the_parameters_of_table_3_3(hidden_size, operation):
    expected = TABLE_3_3[hidden_size][operation]
    assert operation_parameters(operation, hidden_size, head_size=64, separable_units=2) == expected
    with torch.device("meta"):
        module = build_operation(
            operation, hidden_size, head_size=64, separable_units=2, dropout=0.1, layer_norm_eps=1e-12
        )
    assert parameters_of(module) == expected


@pytest.mark.parametrize("operation", ["M1", "M3", "M4", "M", "F1", "F2", "F4", "F9", "S1", "S9", "S31"])
@pytest.mark.parametrize("separable_units", [1, 2])
def test_other_operations_are_counted_as_built(operation, separable_units):
    with torch.device("meta"):
        module = build_operation(
            operation, 64, head_size=16, separable_units=separable_units, dropout=0.1, layer_norm_eps=1e-12
        )
    assert parameters_of(module) == operation_parameters(operation, 64, head_size=16, separable_units=separable_units)


def test_separable_units_switch_between_the_paper_s_sizes_and_its_text():
    single = {"head_size": 64, "separable_units": 1}
    for hidden_size, row in TABLE_3_3.items():
        for operation in ("S3", "S5", "S7"):
            assert 2 * operation_parameters(operation, hidden_size, **single) == row[operation]


@pytest.mark.parametrize(("name", "millions"), [("60M", 58.6), ("30M", 32.1), ("10M", 11.3), ("5M", 4.5)])
def test_table_10_is_built_with_its_size(name, millions):
    """V = 50,265, tied: nothing but token and position table, embedding norm, linear maps and operations counts."""
    value = ROBERTA.parse(TABLE_10[name])
    cost = ROBERTA.cost(value)
    with torch.device("meta"):
        assert parameters_of(ROBERTA.build(value)) == cost.parameters
    assert round(cost.parameters / 1e6, 1) == millions


def test_the_ner_model_has_its_checkpoint_s_size():
    assert round(ROBERTA.cost(ROBERTA.parse(NER)).parameters / 1e6, 2) == 13.69
    single = NasBertSpace(dataclasses.replace(ROBERTA.options, separable_units=1))
    assert round(single.cost(single.parse(NER)).parameters / 1e6, 2) == 12.48


@pytest.mark.parametrize(("text", "entries"), [(NER, 126), (TABLE_10["5M"], 142)])
def test_state_dict_entries(text, entries):
    """Token and position table count one each; the paper's options have no segment (type) table."""
    with torch.device("meta"):
        model = ROBERTA.build(ROBERTA.parse(text))
    names = list(model.state_dict())
    assert len(names) == entries
    assert [name for name in names if name.startswith("embeddings")] == [
        "embeddings.token.weight",
        "embeddings.position.weight",
        "embeddings.norm.weight",
        "embeddings.norm.bias",
    ]
    assert [name for name in names if name.startswith("projections")] == [
        "projections.0.weight",
        "projections.0.bias",
    ]


@pytest.mark.parametrize(("name", "paper"), [("60M", 1.3e10), ("30M", 7.0e9), ("10M", 2.3e9), ("5M", 8.7e8)])
def test_flops_are_the_paper_s_by_electra_s_rule(name, paper):
    """V = 30,522 and 128 tokens, the defaults."""
    space = NasBertSpace()
    value = space.parse(TABLE_10[name])
    flops = space.cost(value, flops_rule="electra").flops
    assert flops == pytest.approx(paper, rel=0.05)
    assert flops - space.cost(value).flops == 2 * value.embedding_size * 30_522 * 128
    single = NasBertSpace(NasBertOptions(separable_units=1)).cost(value, flops_rule="electra").flops
    assert abs(single - paper) > abs(flops - paper), "two units fit the paper better than one"


def test_flops_by_hand():
    """4 projections, scores and their sum for attention; a multiply-add counts as two."""

    def flops(operation, units=2):
        return operation_flops(operation, 8, head_size=2, separable_units=units, sequence_length=5)

    assert flops("M") == 2 * (4 * 8 * 8 * 5 + 2 * 5 * 5 * 8)
    assert flops("M4") == flops("M")
    assert flops("M3") == 2 * (4 * 8 * 6 * 5 + 2 * 5 * 5 * 6)
    assert flops("F2") == 2 * (2 * 8 * 16 * 5)
    assert flops("S3") == 2 * 2 * (8 * 8 * 5 + 3 * 8 * 5)
    assert flops("S3", units=1) == 2 * (8 * 8 * 5 + 3 * 8 * 5)


@pytest.mark.parametrize(
    ("projections", "text", "widths"),
    [
        ("paper", "E16|16:M|16:F", [None, None, None]),
        ("paper", "E48|16:M|32:F", [(48, 16), (16, 32), None]),
        ("paper", "E32|32:M|16:F", [None, (32, 16), None]),
        ("supernet", "E32|32:M|32:F", [None, None, None]),
        ("supernet", "E16|16:M|16:F", [(16, 16), (16, 16), (16, 32)]),
        ("supernet", "E48|32:M|16:F", [(48, 32), (32, 16), (16, 32)]),
    ],
)
def test_linear_maps_of_both_kinds(projections, text, widths):
    space = make_space(projections=projections)
    value = space.parse(text)
    assert projection_widths(value, space.options) == widths
    model = space.build(value)
    assert [module.__class__.__name__ for module in model.projections] == [
        "Identity" if pair is None else "Linear" for pair in widths
    ]
    assert model.config.hidden_size == (16 if projections == "paper" and "|16:F" in text else 32)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    units=st.sampled_from([1, 2]),
    projections=st.sampled_from(["paper", "supernet"]),
    types=st.sampled_from([0, 2]),
)
def test_arithmetic_equals_the_built_model(seed, units, projections, types):
    space = make_space(separable_units=units, projections=projections, type_vocab_size=types)
    value = space.sample(random.Random(seed))
    with torch.device("meta"):
        model = space.build(value)
    cost = space.cost(value)
    assert cost.parameters == parameters_of(model)
    assert cost.encoder_parameters == parameters_of(model) - parameters_of(model.embeddings)


def test_more_layers_and_wider_blocks_cost_more():
    space = make_space(embedding_sizes=(32,))
    for text, larger in [
        ("E32|16:M|16:M", "E32|16:M-F1|16:M"),
        ("E32|16:M|16:M", "E32|16:M-S3|16:M"),
        ("E32|16:M|16:M", "E32|24:M|16:M"),
        ("E32|16:S3|16:M", "E32|16:S5|16:M"),
        ("E32|16:F1|16:M", "E32|16:F|16:M"),
    ]:
        small, large = space.cost(architecture(text)), space.cost(architecture(larger))
        assert small.parameters < large.parameters
        assert small.flops < large.flops
