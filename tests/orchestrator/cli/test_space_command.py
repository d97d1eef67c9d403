from __future__ import annotations

import pytest

FIVE_MILLION = "E64|192:S3-S7-M|192:S7-S7-M|192:S3-M-S7|192:S5-M-S3"


def test_list(netsuke):
    assert "nas_bert" in netsuke("space", "list").out.split()
    assert "nas_bert" in netsuke("space", "list", "--json").json


def test_the_papers_number_of_block_architectures(netsuke):
    answer = netsuke("space", "count", "nas_bert", "--json").json
    assert answer == {
        "space": "nas_bert",
        "block_cardinality": 97_650,
        "num_blocks": 4,
        "cardinality_per_embedding_size": 97_650**4,
        "embedding_sizes": [64, 128, 256, 512],
        "cardinality": 4 * 97_650**4,
    }
    assert netsuke("space", "count", "nas_bert").out.splitlines() == [
        "97,650 architectures of one block: a hidden size, and one or more operations in order",
        "90,926,189,348,006,250,000 networks for one embedding size: 4 blocks (9.09e+19)",
        "363,704,757,392,025,000,000 networks in all: 4 embedding sizes, 64, 128, 256, 512 (3.64e+20)",
    ]


def test_options_change_the_count(netsuke):
    answer = netsuke(
        "space", "count", "nas_bert", "--set", "num_blocks=1", "--set", "hidden_sizes=[64]",
        "--set", "operations=[M, F]", "--set", "layers_per_block=3", "--set", "embedding_sizes=[64]", "--json",
    )  # fmt: skip
    assert answer.json["cardinality"] == 2 + 4 + 8


def test_counts_beyond_floating_point(netsuke):
    answer = netsuke("space", "count", "nas_bert", "--set", "num_blocks=100")
    assert "100 blocks (9.27e+498)" in answer.out


def test_the_papers_smallest_model(netsuke):
    arguments = ("space", "params", "nas_bert", FIVE_MILLION, "--vocab-size", 50265)
    tied = netsuke(*arguments, "--tied", "--json").json
    operations = 4 * 77_952 + 3 * 76_416 + 77_184 + 4 * 148_608  # four S7, three S3, one S5, four M
    assert tied["parameters_without_embeddings"] == operations + (64 + 1) * 192
    assert tied["embedding_parameters"] == (50_265 + 512 + 2) * 64
    assert tied["parameters"] == 4_475_008  # Table 10's 5M row
    assert tied["parameters_without_embeddings"] + tied["embedding_parameters"] == tied["parameters"]
    assert (tied["vocab_size"], tied["tied"], tied["output_parameters"]) == (50_265, True, 0)
    untied = netsuke(*arguments, "--untied", "--json").json
    assert untied["parameters"] - tied["parameters"] == untied["output_parameters"] == 64 * 50265
    assert untied["parameters_without_embeddings"] == tied["parameters_without_embeddings"]


def test_flops_by_both_rules(netsuke):
    arguments = ("space", "params", "nas_bert", FIVE_MILLION, "--json")
    encoder = netsuke(*arguments).json
    assert (encoder["flops_rule"], encoder["sequence_length"]) == ("encoder", 128)
    electra = netsuke(*arguments, "--flops-rule", "electra").json
    assert electra["flops_rule"] == "electra"
    assert electra["flops"] - encoder["flops"] == 2 * 64 * 30_522 * 128
    assert electra["flops"] == pytest.approx(8.7e8, rel=0.05)  # the paper's Table 2
    half = netsuke(*arguments, "--flops-rule", "electra", "--sequence-length", 64).json
    assert half["flops"] < electra["flops"] / 2


def test_the_table_says_what_is_counted(netsuke):
    answer = netsuke("space", "params", "nas_bert", FIVE_MILLION, "--vocab-size", 50265, "--untied").out
    assert "vocabulary of 50,265, untied" in answer
    assert "128 tokens, rule encoder" in answer
    assert f"{4_475_008 + 64 * 50265:,}" in answer


def test_a_preset_is_counted_for_its_own_teacher(netsuke):
    """The last linear map leads to the teacher's width, 384."""
    arguments = ("space", "params", "nas_bert", "E384|192:M|384:M|192:M", "--set", "preset=small", "--json")
    maps = (384 + 1) * 192 + 2 * (192 + 1) * 384 + (384 + 1) * 192
    operations = 2 * (4 * 192**2 + 6 * 192) + 4 * 384**2 + 6 * 384
    for vocabulary in ([], ["--vocab-size", 99]):
        assert netsuke(*arguments, *vocabulary).json["parameters_without_embeddings"] == operations + maps


def test_show_names_every_decision(netsuke):
    answer = netsuke("space", "show", "nas_bert", "--set", "preset=small", "--json").json
    names = [decision["name"] for decision in answer["decisions"]]
    assert names[0] == "embedding_size"
    printed = netsuke("space", "show", "nas_bert", "--set", "preset=small").out
    assert all(name in printed for name in names)
