"""Heads for tasks: what they predict, and that they travel with the encoder."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from spaces.huggingface import PooledEncoderConfig, PooledEncoderForSequenceClassification, own_family
from spaces.model_parts.task_heads import pool
from tests.spaces.components.microscopic import make_model as make_components
from tests.spaces.efficient_bert.microscopic import make_model as make_efficient_bert
from tests.spaces.elsewhere import run_elsewhere
from tests.spaces.microscopic import make_batch, make_bert, make_space, shaken

AUTO = (AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoModelForQuestionAnswering)

LOAD_ELSEWHERE = """
import sys
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForQuestionAnswering, AutoModelForSequenceClassification
for folder in sys.argv[1:]:
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True, num_labels=3)
    model = AutoModelForSequenceClassification.from_pretrained(folder, config=config, trust_remote_code=True).eval()
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    config.answerability = "layer"
    answers = AutoModelForQuestionAnswering.from_pretrained(folder, config=config, trust_remote_code=True).eval()
    assert answers(torch.tensor([[2, 5, 3]])).answerable_logits.shape == (1,)
    encoder = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    with torch.no_grad():
        hidden = encoder(torch.tensor([[2, 5, 3]])).last_hidden_state
    weights = {"weight": model.encoder.embeddings.token.weight, "head": model.classifier.weight, "hidden": hidden}
    save_file({name: tensor.detach().contiguous() for name, tensor in weights.items()}, f"{folder}.found")
"""


def make_nas_bert():
    torch.manual_seed(0)
    space = make_space()
    return shaken(space.build(space.parse("E48|16:M-F1|32:S3-F-S5")))


FAMILIES = (make_nas_bert, make_efficient_bert, make_components)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    """An encoder of each family on the disk."""
    model = request.param()
    path = tmp_path_factory.mktemp("encoder")
    model.save_pretrained(path)
    return path


def load(auto_class, folder, **changes):
    config = AutoConfig.from_pretrained(folder, num_labels=changes.pop("num_labels", 3))
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(1)
    return auto_class.from_pretrained(folder, config=config).eval()


@pytest.mark.parametrize("auto_class", AUTO)
def test_an_encoder_takes_a_head_and_keeps_its_weights(folder, auto_class, tmp_path):
    model = load(auto_class, folder)
    encoder = AutoModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(tensor, encoder[name]) for name, tensor in model.encoder.state_dict().items())
    assert float(model.classifier.weight.detach().std()) == pytest.approx(0.02, rel=0.3)
    assert not model.classifier.bias.any()
    model.save_pretrained(tmp_path)
    again, report = auto_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    with torch.no_grad():
        assert torch.equal(model(*make_batch())[0], again.eval()(*make_batch())[0])
    alone = AutoModel.from_pretrained(tmp_path)
    assert type(alone) is type(AutoModel.from_pretrained(folder)), "the encoder alone loads too"


def test_shapes_and_losses(folder):
    input_ids_BT, mask_BT = make_batch()
    batch, tokens = input_ids_BT.shape
    with torch.no_grad():
        classes_B = torch.arange(batch) % 3
        out = load(AUTO[0], folder)(input_ids_BT, mask_BT, labels=classes_B)
        assert out.logits.shape == (batch, 3)
        torch.testing.assert_close(out.loss, F.cross_entropy(out.logits, classes_B))
        number = load(AUTO[0], folder, num_labels=1)(input_ids_BT, mask_BT, labels=torch.ones(batch))
        torch.testing.assert_close(number.loss, (number.logits[:, 0] - 1).square().mean())
        labels_BT = torch.full((batch, tokens), -100)
        labels_BT[:, 1] = 2
        tags = load(AUTO[1], folder)(input_ids_BT, mask_BT, labels=labels_BT)
        assert tags.logits.shape == (batch, tokens, 3)
        torch.testing.assert_close(tags.loss, F.cross_entropy(tags.logits[:, 1], labels_BT[:, 1]))
        ones_B = torch.ones(batch, dtype=torch.int64)
        answers = load(AUTO[2], folder)(input_ids_BT, mask_BT, start_positions=ones_B, end_positions=ones_B)
        assert answers.start_logits.shape == answers.end_logits.shape == (batch, tokens)
        expected = F.cross_entropy(answers.start_logits, ones_B) + F.cross_entropy(answers.end_logits, ones_B)
        torch.testing.assert_close(answers.loss, expected / 2)


def test_pooling_is_the_first_token_or_the_mean_of_valid_ones():
    hidden_BTD = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    mask_BT = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert torch.equal(pool(hidden_BTD, mask_BT, "first"), hidden_BTD[:, 0])
    torch.testing.assert_close(pool(hidden_BTD, mask_BT, "mean")[0], hidden_BTD[0, :2].mean(0))
    torch.testing.assert_close(pool(hidden_BTD, mask_BT, "mean")[1], hidden_BTD[1].mean(0))
    with pytest.raises(ValueError, match="found 'max', expected first or mean"):
        pool(hidden_BTD, mask_BT, "max")


def test_the_configured_pooling_and_dropout_are_used(folder):
    with torch.no_grad():
        first = load(AUTO[0], folder)(*make_batch()).logits
        mean = load(AUTO[0], folder, classifier_pooling="mean")(*make_batch()).logits
    assert not torch.allclose(first, mean)
    assert load(AUTO[0], folder, classifier_dropout=0.3).dropout.p == 0.3


def test_berts_pooler_may_come_before_the_classifier(folder, tmp_path):
    with torch.no_grad():
        model = shaken(load(AUTO[0], folder, classifier_pooler=True))
        hidden_BTD = model.encoder(*make_batch()).last_hidden_state
        expected_BC = model.classifier(torch.tanh(model.pooler(hidden_BTD[:, 0])))
        torch.testing.assert_close(model(*make_batch()).logits, expected_BC)
        model.save_pretrained(tmp_path)
        again = AUTO[0].from_pretrained(tmp_path).eval()
        assert torch.equal(again(*make_batch()).logits, model(*make_batch()).logits)
    assert load(AUTO[0], folder).pooler is None


def test_any_encoder_takes_the_same_head(tmp_path):
    bert = make_bert()
    config = PooledEncoderConfig(bert.config.to_dict(), "mean", 0.2, num_labels=3)
    model = PooledEncoderForSequenceClassification(config).eval()
    model.encoder.load_state_dict(bert.state_dict(), strict=False)
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert isinstance(again, PooledEncoderForSequenceClassification)
    assert again.config.max_position_embeddings == bert.config.max_position_embeddings
    with torch.no_grad():
        logits = again(*make_batch()).logits
        assert torch.equal(model(*make_batch()).logits, logits)
        hidden_BTD = bert(*make_batch()).last_hidden_state
        expected = again.classifier(pool(hidden_BTD, make_batch()[1], "mean"))
    torch.testing.assert_close(logits, expected)


def test_heads_travel_to_where_netsuke_is_not_installed(tmp_path):
    exported = {}
    for make in FAMILIES:
        model, out = make().eval(), tmp_path / make.__name__
        own_family(model.config).send_code_along(model.config, out)
        model.save_pretrained(out)
        exported[out] = model
        assert set(model.config.auto_map) == {
            "AutoConfig",
            "AutoModel",
            "AutoModelForMaskedLM",
            *(one.__name__ for one in AUTO),
        }
    run_elsewhere(LOAD_ELSEWHERE, tmp_path, *exported)
    for out, model in exported.items():
        found = load_file(f"{out}.found")
        assert torch.equal(found["weight"], model.embeddings.token.weight)
        assert found["head"].shape == (3, model.config.hidden_size)
        with torch.no_grad():
            assert torch.equal(found["hidden"], model(torch.tensor([[2, 5, 3]])).last_hidden_state)
