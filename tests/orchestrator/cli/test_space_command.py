from __future__ import annotations

import pytest

FIVE_MILLION = "E64|192:S3-S7-M|192:S7-S7-M|192:S3-M-S7|192:S5-M-S3"


def test_list(netsuke):
    assert "nas_bert" in netsuke("space", "list").out.split()
    assert "nas_bert" in netsuke("space", "list", "--json").json


def test_the_papers_number_of_block_architectures(netsuke):
    answer = netsuke("space", "count", "nas_bert", "--json").json
    assert answer["block_cardinality"] == 97_650
    assert answer["cardinality"] == 4 * 97_650**4
    assert "97,650 architectures of one block" in netsuke("space", "count", "nas_bert").out


def test_options_change_the_count(netsuke):
    answer = netsuke(
        "space", "count", "nas_bert", "--set", "num_blocks=1", "--set", "hidden_sizes=[64]",
        "--set", "operations=[M, F]", "--set", "layers_per_block=3", "--set", "embedding_sizes=[64]", "--json",
    )  # fmt: skip
    assert answer.json["cardinality"] == 2 + 4 + 8


def test_the_papers_smallest_model(netsuke):
    arguments = ("space", "params", "nas_bert", FIVE_MILLION, "--vocab-size", 50265)
    tied = netsuke(*arguments, "--tied", "--json").json
    assert tied["parameters"] == pytest.approx(4.5e6, rel=0.01)  # Table 10's 5M row
    assert tied["encoder_parameters"] + tied["embedding_parameters"] == tied["parameters"]
    untied = netsuke(*arguments, "--untied", "--json").json
    assert untied["parameters"] - tied["parameters"] == 64 * 50265
    assert "4,475,008" in netsuke(*arguments).out


def test_show_names_every_decision(netsuke):
    answer = netsuke("space", "show", "nas_bert", "--set", "preset=small", "--json").json
    names = [decision["name"] for decision in answer["decisions"]]
    assert names[0] == "embedding_size"
    printed = netsuke("space", "show", "nas_bert", "--set", "preset=small").out
    assert all(name in printed for name in names)
