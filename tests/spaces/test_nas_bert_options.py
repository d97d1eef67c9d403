from __future__ import annotations

import dataclasses

import pytest

from spaces.encoder_shape import EncoderShape
from spaces.errors import SpaceError
from spaces.nas_bert.options import NasBertOptions
from spaces.nas_bert.space import NasBertSpace
from spaces.registry import load_space, space_names
from tests.spaces.microscopic import SHAPE, make_space, parameters_of


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "tiny"}, "space.options.preset: found 'tiny', expected one of paper, small, minilm"),
        ({"preset": ["small"]}, "space.options.preset: found ['small'], expected one of paper, small"),
        ({"shape": {}}, "space.options.shape: cannot be set, it is the teacher's; remove the key"),
        ({"num_block": 4}, "space.options.num_block: unknown key; did you mean 'num_blocks'?"),
        ({"presets": "small"}, "space.options.presets: unknown key; did you mean 'preset'?"),
        ({"zzz": 4}, "space.options.zzz: unknown key; expected one of num_blocks, layers_per_block,"),
        ({"num_blocks": 0}, "space.options.num_blocks: found 0; input should be greater than or equal to 1"),
        ({"num_blocks": True}, "space.options.num_blocks: found True; input should be a valid integer"),
        ({"num_blocks": None}, "space.options.num_blocks: found None; input should be a valid integer"),
        ({"operations": [3]}, "space.options.operations.0: found 3; input should be a valid string"),
        ({"operations": "M"}, "space.options.operations: found 'M'; input should be a valid tuple, as a list of names"),
        ({"dropout": "0.1"}, "space.options.dropout: found '0.1'; input should be a valid number"),
        ({"separable_units": True}, "space.options.separable_units: found True; input should be 1 or 2"),
        ({"separable_units": [1]}, "space.options.separable_units: found [1]; input should be 1 or 2"),
        ({"num_blocks": "many"}, "space.options.num_blocks: found 'many'; input should be a valid integer"),
        ({"layers_per_block": 1.5}, "space.options.layers_per_block: found 1.5; input should be a valid integer"),
        ({"hidden_sizes": 384}, "space.options.hidden_sizes: found 384; input should be a valid tuple"),
        ({"hidden_sizes": [64, "x"]}, "space.options.hidden_sizes.1: found 'x'; input should be a valid integer"),
        ({"hidden_sizes": []}, "space.options.hidden_sizes: found [], expected one or more different values"),
        ({"hidden_sizes": [64, 64]}, "space.options.hidden_sizes: found [64, 64], expected one or more different"),
        ({"hidden_sizes": [100]}, "space.options.hidden_sizes: 100 is not a multiple of head_size 64"),
        ({"hidden_sizes": [0]}, "space.options.hidden_sizes: 0 is not a multiple of head_size 64"),
        ({"head_size": 0}, "space.options.head_size: found 0; input should be greater than or equal to 1"),
        ({"operations": []}, "space.options.operations: found [], expected one or more different values"),
        ({"operations": ["M", "M"]}, "space.options.operations: found ['M', 'M'], expected one or more different"),
        ({"operations": ["S4"]}, "space.options.operations: found 'S4', expected M, M with a number of heads, F, F1"),
        ({"operations": ["S03"]}, "space.options.operations: found 'S03', expected M, M with a number of heads, F, F1"),
        ({"operations": ["F0"]}, "space.options.operations: found 'F0', expected M, M with a number of heads, F, F1"),
        ({"operations": ["I"]}, "space.options.operations: found 'I', expected M, M with a number of heads, F, F1"),
        ({"operations": ["M0"]}, "space.options.operations: found 'M0', expected M, M with a number of heads, F, F1"),
        (
            {"operations": ["M", "M8"]},
            "space.options.operations: found M8, but the widest hidden size, 512, has 8 heads of 64; expected fewer",
        ),
        ({"operations": ["M9"]}, "space.options.operations: found M9, but the widest hidden size, 512, has 8 heads of"),
        (
            {"operations": ["M3"]},
            "space.options.hidden_sizes: no operation fits 128; remove it or add M, F or a convol",
        ),
        ({"operations": ["F", "F4"]}, "space.options.operations: F and F4 are the same operation; keep F"),
        ({"embedding_sizes": [0]}, "space.options.embedding_sizes: found 0, expected a positive number"),
        ({"embedding_sizes": [8, 8]}, "space.options.embedding_sizes: found [8, 8], expected one or more different"),
        ({"separable_units": 3}, "space.options.separable_units: found 3; input should be 1 or 2"),
        ({"projections": "none"}, "space.options.projections: found 'none'; input should be 'paper' or 'supernet'"),
        ({"sampling": "operation"}, "space.options.sampling: unknown key; "),
        ({"dropout": 1.0}, "space.options.dropout: found 1.0; input should be less than 1"),
        ({"dropout": -0.1}, "space.options.dropout: found -0.1; input should be greater than or equal to 0"),
        ({"type_vocab_size": -1}, "space.options.type_vocab_size: found -1; input should be greater than or equal"),
        ({3: 4}, "space.options.3: "),
    ],
)
def test_wrong_options_are_named_in_one_line(options, message):
    with pytest.raises(SpaceError) as raised:
        NasBertSpace.from_options(options)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_blocks_that_do_not_divide_the_teacher():
    shape = EncoderShape(num_layers=6, hidden_size=384, num_heads=12)
    with pytest.raises(SpaceError) as raised:
        NasBertSpace.from_options({"num_blocks": 4}, shape)
    assert str(raised.value) == (
        "space.options.num_blocks: found 4, which does not divide the teacher's 6 layers; expected one of 1, 2, 3, 6"
    )


def test_segments_the_teacher_does_not_have():
    with pytest.raises(SpaceError, match=r"type_vocab_size: found 5, .* has 2 rows; set 2, or 0 for none"):
        NasBertSpace.from_options({"type_vocab_size": 5, "num_blocks": 2}, SHAPE)


def test_presets_are_overridden_key_by_key():
    space = NasBertSpace.from_options({"preset": "small", "operations": ["M"], "dropout": 0})
    assert space.options.operations == ("M",)
    assert space.options.dropout == 0.0
    assert space.options.hidden_sizes == (192, 256, 384)
    assert space.options.projections == "supernet"
    assert NasBertSpace.from_options({}).options == NasBertSpace.from_options({"preset": "paper"}).options


@pytest.mark.parametrize(
    ("preset", "blocks"), [("paper", 97_650), ("small", 3 * 780), ("minilm", 2 * 2_800 + 3 * 4_680)]
)
def test_presets_fit_their_own_teacher(preset, blocks):
    space = NasBertSpace.from_options({"preset": preset})
    space.options.check_teacher()
    space.options.check_start("teacher")
    assert space.block_cardinality() == blocks


def test_attention_with_fewer_heads_is_offered_where_it_is_narrower():
    space = make_space(hidden_sizes=(16, 24, 32), operations=("M", "M2", "M3", "F"))
    assert [space.options.operations_at(size) for size in (16, 24, 32)] == [
        ("M", "F"),
        ("M", "M2", "F"),
        ("M", "M2", "M3", "F"),
    ]
    with pytest.raises(SpaceError, match="block 1: operation M2 is not narrower than attention at hidden size 16"):
        space.parse("E16|16:M2|16:M")
    names = [f"{part.size}:{part.name}" for part in space.parts() if part.kind == "operation"]
    assert names == ["16:M", "16:F", "24:M", "24:M2", "24:F", "32:M", "32:M2", "32:M3", "32:F"]
    assert list(space.supernet().block(0).layers[0]) == [name.replace(":", "_") for name in names]
    without_m = make_space(hidden_sizes=(16, 24), operations=("M2", "F"))
    assert without_m.options.operations_at(16) == ("M2", "F"), "with no M it is the only attention"


def test_choices_of_layers_are_shared_by_sizes_that_offer_the_same():
    space = make_space(num_blocks=1, layers_per_block=1, operations=("M", "M2", "F"))
    assert [(decision.name, decision.choices) for decision in space.decisions()[3:]] == [
        ("block_1_layer_1_at_16", ("M", "F")),
        ("block_1_layer_1_at_24_32", ("M", "M2", "F")),
    ]


def test_the_preset_minilm_reaches_five_million_parameters():
    """With embeddings, which is more than half of it; the teacher's own form is among its paths."""
    space = NasBertSpace.from_options({"preset": "minilm"})
    assert space.cost(space.parse("E64|192:M-F-M-F|192:M-F-M-F|192:M-F-M-F")).parameters < 5e6
    teacher = space.parse("E384|384:M-F-M-F|384:M-F-M-F|384:M-F-M-F")
    assert teacher in space.anchors()
    assert space.cost(teacher).encoder_parameters == space.options.shape.encoder_parameters


def test_options_do_not_change():
    options = NasBertOptions()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.num_blocks = 3


@pytest.mark.parametrize("wrong", [{"num_blocks": 0}, {"operations": ["I"]}, {"dropout": float("nan")}])
def test_options_made_without_a_recipe_are_checked_too(wrong):
    (key,) = wrong
    with pytest.raises(SpaceError, match=rf"space\.options\.{key}: found "):
        NasBertOptions(**wrong)


def test_spaces_are_found_by_name():
    assert "nas_bert" in space_names()
    space = load_space("nas_bert", {"num_blocks": 2, "dropout": 0.2}, SHAPE)
    assert isinstance(space, NasBertSpace)
    assert (space.options.dropout, space.options.shape) == (0.2, SHAPE)


@pytest.mark.parametrize(
    ("name", "hint"), [("nas-bert", "did you mean 'nas_bert'?"), ("zzz", "installed: "), ("", "installed: ")]
)
def test_unknown_spaces(name, hint):
    with pytest.raises(SpaceError) as raised:
        load_space(name)
    assert str(raised.value).startswith(f"space.name: found '{name}', which is not an installed space; {hint}")


@pytest.mark.parametrize("target", ["no_such_module_anywhere:Space", "spaces.space:NoSuchClass"])
def test_spaces_of_broken_packages(tmp_path, monkeypatch, target):
    """A package that is installed (its metadata lies on the path), but whose space is not there."""
    metadata = tmp_path / "broken_space-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-space\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[netsuke.spaces]\nbroken = {target}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "broken" in space_names()
    with pytest.raises(SpaceError, match=r"space\.name: 'broken' cannot be imported: .*; reinstall the package"):
        load_space("broken")


def test_encoder_shape_counts_what_bert_has(real_teacher):
    model, shape = real_teacher.model, real_teacher.shape
    assert shape.encoder_parameters == parameters_of(model.encoder)
    assert shape.embedding_parameters == parameters_of(model.embeddings)
    assert shape.head_size == 32


def test_students_inherit_only_what_is_counted():
    shape = EncoderShape()
    with pytest.raises(SpaceError, match=r"space\.options\.projections: found paper, .*initialisation: scratch"):
        NasBertOptions(shape=shape).check_inheritance()
    NasBertOptions(shape=shape, projections="supernet").check_inheritance()
    NasBertOptions(shape=shape, hidden_sizes=(768,), embedding_sizes=(768,)).check_inheritance()
