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


PUBLISHED = (
    "4_2:tanh(linear2(gelu(linear1(x))))|2_1:elu(linear2(gelu(linear1(x))))|1_2:sigmoid(linear2(relu(linear1(x))))|"
    "2_2:linear2(gelu(linear1(max(x,tanh(x)))))|1_2:linear2(relu(mul(linear1(x),x)))|"
    "2_3:leaky_relu(linear2(gelu(linear1(x))))"
)


@pytest.mark.parametrize(("nodes", "valid", "serial"), [(6, 7, 7), (7, 111, 111), (8, 811, 706)])
def test_the_valid_trees_of_efficient_bert(netsuke, nodes, valid, serial):
    """An option of the space may be written as one of the command."""
    answer = netsuke("space", "count", "efficient_bert", "--max-nodes", nodes, "--json").json
    assert answer == netsuke("space", "count", "efficient_bert", "--set", f"max_nodes={nodes}", "--json").json
    assert (answer["valid_trees"], answer["serial_trees"]) == (valid, serial)
    assert sum(answer["valid_trees_by_nodes"].values()) == sum(answer["valid_trees_by_height"].values()) == valid
    assert sum(answer["serial_trees_by_nodes"].values()) == sum(answer["serial_trees_by_height"].values()) == serial
    assert answer["blocks"] == 6
    assert answer["choices_of_blocks"] == [16 * serial] * 6
    assert answer["cardinality"] == (16 * serial) ** 6
    assert answer["parameters"] == {"least": 12_712_014, "most": 25_875_324}


def test_counts_for_people(netsuke):
    printed = netsuke("space", "count", "efficient_bert", "--max-nodes=8").out.splitlines()
    assert printed[:3] == [
        f"{(16 * 706) ** 6:,} architectures (2.08e+24)",
        "valid trees: 811",
        "serial trees: 706",
    ]
    assert "valid trees by nodes: 6: 7, 7: 104, 8: 700" in printed


def test_the_published_networks_of_efficient_bert(netsuke):
    """The hidden size is what the text says; projection and pooler are named."""
    for hidden_size, parameters in ((540, 15_737_724), (360, 9_375_144)):
        answer = netsuke("space", "params", "efficient_bert", f"{hidden_size}|{PUBLISHED}", "--json").json
        counts = answer["parameter_counts"]
        assert answer["parameters"] == counts["with_projection_without_pooler"] == parameters
        assert counts["without_projection_without_pooler"] == parameters - counts["projection"]
        assert counts["with_projection_with_pooler"] == parameters + counts["pooler"]
        printed = netsuke("space", "params", "efficient_bert", f"{hidden_size}|{PUBLISHED}").out
        assert all(f"{count:,}" in printed for count in counts.values())
    twice = "|".join(["360", *(block for block in PUBLISHED.split("|") for _ in range(2))])
    answer = netsuke("space", "params", "efficient_bert", twice, "--preset", "plus_plus", "--json").json
    assert round(answer["parameters"] / 1e6, 1) == 16.0
    assert netsuke("space", "params", "nas_bert", FIVE_MILLION, "--json").json["parameter_counts"] == {}


def test_components_of_bert_base(netsuke):
    """The paper notes count codes of genes: 4.3e8 a layer where heads are only kept or dropped."""
    counts = netsuke("space", "count", "components", "--preset", "parallel_heads", "--json").json
    assert counts["gene_codes_of_layer"] == 429_981_696
    assert counts["cardinality"] == counts["choices_of_layer"] ** 12 - 1
    teacher = "|".join(["H1-12.Q1-2.M/F1-8.M"] * 12)
    assert netsuke("space", "params", "components", teacher, "--json").json["parameters"] == 108_891_648
    half = netsuke("space", "params", "components", "H1-12.Q1-2.M/F1-8.M|0|" * 5 + "F1-8.M|0", "--json").json
    assert half["genes"]["layers"] == 6


def test_components_within_a_student(netsuke):
    """Layers differ, so that there is a number for each."""
    within = "H1-2.M/F3|" + "0|" * 10 + "F1>8"
    counts = netsuke("space", "count", "components", "--within", within, "--json").json
    assert counts["choices_of_attention"] == [1 + 4 * 2] + [1] * 11
    assert counts["choices_of_layer"] == [(1 + 4 * 2) * 2] + [1] * 10 + [1 + 4]
    assert counts["cardinality"] == 18 * 5 - 1
    printed = netsuke("space", "count", "components", "--within", within).out
    assert "choices of layer: 18, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 5" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("params", "components", "H1-12.Q1-2.M/G1"),
            "architecture 'H1-12.Q1-2.M/G1', column 14: expected F and the numbers of slices behind '/', found 'G'",
        ),
        (
            ("count", "efficient_bert", "--max-nods", 8),
            "space.options.max_nods: unknown key; did you mean 'max_nodes'?",
        ),
        (("count", "efficient_bert", "--max-nodes"), "--max-nodes: found nothing behind it, expected a value"),
        (
            ("count", "efficient_bert", "--max-nodes", "many"),
            "space.options.max_nodes: found 'many'; input should be a",
        ),
        (("count", "efficient_bert", "8"), "found '8', expected an option of the space such as --set KEY=VALUE"),
        (
            ("count", "efficientbert"),
            "space.name: found 'efficientbert', which is not an installed space; did you mean",
        ),
        (
            ("params", "efficient_bert", "540|1_1:gelu(y)"),
            "architecture '540|1_1:gelu(y)', column 14: found 'y', which",
        ),
        (
            ("params", "efficient_bert", "540|1_1:linear2(linear1(x))"),
            "architecture '540|1_1:linear2(linear1(x))' is not in the space: block 1: linear2(linear1(x)) breaks the",
        ),
        (
            ("params", "efficient_bert", "50|1_1:x"),
            "space.options.heads: found 12, which does not divide hidden_size 50",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(netsuke, arguments, message):
    answer = netsuke("space", *arguments)
    assert answer.code == 2
    assert answer.error.startswith(message)
