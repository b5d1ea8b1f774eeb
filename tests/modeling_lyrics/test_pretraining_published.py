"""The published first stage: its weights load, and our modules give its numbers under its masks and inputs.

The published code differs from the paper in places (docs/stage1.md). What is compared here is each module, loss
function and gradient where both compute the same, with the published masks written out.
"""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoModelForPreTraining, AutoModelForZeroShotImageClassification
from transformers.utils import logging

from lyrics.modeling_lyrics import LyricsForPreTraining
from lyrics.modeling_lyrics.pretraining_objectives import Labels, own_columns, predict, smoothed_cross_entropy

from ..conftest import GOLDEN, assert_golden

FOLDER = GOLDEN / "published_pretraining"
DEC = 1272
ADAPTED = {
    "contrastive.vision_projection.weight": "[W/2 | W/2]",
    "contrastive.text_projection.weight": "[W/2 | W/2]",
    "model.mqformer.embeddings.word_embeddings.weight": "[BOS] (a copy of row 101), [MLM] (a copy of row 103)",
    "lm_head.decoder.weight": "[BOS] (a copy of row 101), [MLM] (a copy of row 103)",
    "lm_head.decoder.bias": "[BOS] (a copy of row 101), [MLM] (a copy of row 103)",
}


def expected(name):
    return load_file(FOLDER / "expected" / f"{name}.safetensors")


@pytest.fixture(scope="module")
def pretraining():
    return LyricsForPreTraining.from_pretrained(FOLDER / "checkpoint").eval()


def test_the_retrieval_model_takes_the_same_weights(pretraining):
    model, report = AutoModelForZeroShotImageClassification.from_pretrained(
        FOLDER / "checkpoint", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    weights = pretraining.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


@pytest.fixture(scope="module")
def text():
    return {name.removeprefix("text_input_"): tensor for name, tensor in expected("text").items()}


def test_nothing_is_missing_and_what_is_adapted_is_named(pretraining, tmp_path, caplog):
    logging.enable_propagation()
    model, report = AutoModelForPreTraining.from_pretrained(FOLDER / "checkpoint", output_loading_info=True)
    assert type(model) is LyricsForPreTraining
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert report["adapted_weights"].keys() == ADAPTED.keys()
    for name, change in ADAPTED.items():
        assert change in report["adapted_weights"][name]
        assert name in caplog.text
    words, head = model.get_input_embeddings().weight, model.lm_head.decoder.weight
    assert torch.equal(words[[1273, 1274]], words[[101, 103]])
    assert torch.equal(head[[1273, 1274]], head[[101, 103]])
    assert not torch.equal(words, head), "its head is not tied"
    model.save_pretrained(tmp_path)
    again, report = LyricsForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@pytest.fixture(scope="module")
def states(pretraining, text):
    """Everything that the published step computes, and its losses, with a gradient graph."""
    return compute(pretraining, text)


def compute(model, text):
    """The published step. Queries never see the text but in matching, where everything sees everything."""
    mqformer, detector, golden = model.model.mqformer, expected("detector"), expected("losses")
    images = mqformer(
        encoder_hidden_states=detector["image_embeds"], region_features=detector["hidden_state"], project_only=True
    ).image_key_values
    num_queries = mqformer.config.num_queries
    ids, positions, attended = text["tokens_ids"], text["position_ids"], text["attentions"]
    out = {"query_output": mqformer(image_key_values=images).last_hidden_state}
    out["text_output"] = mqformer(
        input_ids=ids, position_ids=positions, attention_mask=attended, text_only=True
    ).last_hidden_state

    own = torch.arange(3)
    text_rows = torch.cat([own, own, golden["negative_text_index"]])
    image_rows = torch.cat([own, golden["negative_image_index"], own])
    out["itm_query_output"] = mqformer(
        input_ids=ids[text_rows],
        position_ids=positions[text_rows],
        attention_mask=attended[text_rows],
        image_key_values=images.select(image_rows),
    ).last_hidden_state[:, :num_queries]

    length = ids.shape[1]
    blind = torch.ones(3, num_queries + length, num_queries + length, dtype=torch.bool)
    blind[:, :num_queries, num_queries:] = False
    blind[:, num_queries:, num_queries:] = attended.bool()[:, None, :]
    causal = blind.clone()
    causal[:, num_queries:, num_queries:] &= torch.ones(length, length, dtype=torch.bool).tril()
    written = ids.clone()
    written[:, 0] = DEC
    for name, tokens, mask in (
        ("lm_text_output", written, causal),
        ("mlm_text_output", text["tokens_ids_with_mask"], blind),
    ):
        out[name] = mqformer(
            input_ids=tokens, position_ids=positions, attention_mask=mask, image_key_values=images
        ).last_hidden_state[:, num_queries:]
    return out | losses(model, text, out)


def published_head(model):
    """Without the tokens that were appended: label smoothing counts the vocabulary."""
    return lambda hidden_states: model.lm_head(hidden_states)[..., : DEC + 1]


def losses(model, text, out):
    queries, first = out["query_output"], out["text_output"][:, 0]
    contrast = model.contrastive
    out = dict(out)
    out["image_feats"] = normalize(contrast.vision_projection(torch.cat([queries, queries], -1)), dim=-1)
    out["text_feat"] = normalize(contrast.text_projection(torch.cat([first, first], -1)), dim=-1)
    pairs = (
        (out["image_feats"] @ out["text_feat"].detach().T).max(1).values,
        (out["text_feat"] @ out["image_feats"].detach().mT).max(-1).values.T,
    )  # the published features of the other side are gathered without gradient
    own = own_columns(3, torch.zeros(3, 3))
    out["loss_itc"] = (
        sum(
            smoothed_cross_entropy(similarity / contrast.temperature, own, torch.zeros_like(own), 0.1).mean()
            for similarity in pairs
        )
        / 2
    )
    out["similarities"] = tuple(similarity.detach() / contrast.temperature.detach() for similarity in pairs)
    out["itm_logits"] = model.matching.head(out["itm_query_output"]).mean(1)
    out["loss_itm"] = cross_entropy(out["itm_logits"], torch.tensor([1] * 3 + [0] * 6))
    before = text["labels"][:, 1:]  # the label of a position is the token after it
    for name, labels, shift in (("lm", before, 0), ("mlm", text["labels_with_mask"][:, 1:], 1)):
        flat = labels.flatten()
        positions = (torch.arange(3)[:, None] * out["lm_text_output"].shape[1] + torch.arange(labels.shape[1])) + shift
        kept = flat != -100
        labels = Labels(positions.flatten()[kept], flat[kept])
        out[f"loss_{name}"] = predict(out[f"{name}_text_output"], labels, published_head(model), 0.1)[0].loss
    out["loss"] = sum(out[f"loss_{name}"] for name in ("itc", "itm", "lm", "mlm"))
    return out


@pytest.mark.parametrize(
    "name",
    [
        *("query_output", "text_output", "itm_query_output", "lm_text_output", "mlm_text_output", "image_feats"),
        *("text_feat", "itm_logits", "loss_itc", "loss_itm", "loss_lm", "loss_mlm", "loss"),
    ],
)
def test_published_numbers(states, text, name):
    """Texts are cut to the longest here and padded to 600 there: padding changes nothing."""
    actual, golden = states[name].detach(), expected("losses")[name]
    if "text_output" in name:
        real = text["attentions"].bool()
        actual, golden = actual[real], golden[real]
    assert_golden(actual, golden.reshape(actual.shape))


def test_published_gradients(pretraining, text):
    """Through keys and values that all passes share."""
    pretraining.zero_grad()
    pretraining.model.vision_model.requires_grad_(False)
    compute(pretraining, text)["loss"].backward()
    parameters = dict(pretraining.named_parameters())
    names = {
        "itm_head": "matching.head",
        "qformer.bert.encoder.layer.0.crossattention.attention.query": "model.mqformer.layers.0.visual_cross_attention"
        ".query",
        "qformer.bert.encoder.layer.0.detection_crossattention.attention.key": "model.mqformer.layers.0"
        ".grounding_cross_attention.key_value.key",
        "qformer.cls.predictions": "lm_head.decoder",
        "text_proj": "contrastive.text_projection",
        "vision_proj": "contrastive.vision_projection",
    }
    whole = {"query_tokens": "model.mqformer.query_tokens", "temp": "contrastive.temperature"}
    golden = expected("gradients")
    assert len(golden) == 9
    for name, gradient in golden.items():
        module, _, kind = name.rpartition(".")
        ours = parameters[whole.get(name) or f"{names[module]}.{kind}"].grad
        assert_golden(ours[: len(gradient)] if gradient.dim() else ours, gradient)
    norms = json.loads((FOLDER / "expected/expected.json").read_text())["gradient_norm_per_parameter"].values()
    gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
    adapted = {name for name in gradients if name.endswith("projection.weight")}  # both halves have the gradient of W
    ours = [gradient.norm() / (2**0.5 if name in adapted else 1) for name, gradient in gradients.items()]
    golden, ours = (sorted(float(norm) for norm in some if norm > 1e-6) for some in (norms, ours))  # the rest is noise
    assert_golden(torch.tensor(ours), torch.tensor(golden))


def test_negatives_are_drawn_with_the_published_weights(pretraining, states):
    """Every random number gives the column that the published weights give it."""
    golden, own = expected("losses"), own_columns(3, torch.zeros(3, 3))
    for name, similarity in zip(("i2t", "t2i"), states["similarities"], strict=True):
        weights = golden[f"weights_{name}_rows"]
        shares = weights / weights.sum(1, keepdim=True)
        for draw in torch.linspace(0, 0.999, 40):
            columns, found = pretraining.matching.draw_negatives(similarity, own, torch.full((3,), draw))
            wanted = (shares.cumsum(1) <= draw).sum(1)
            assert found.all()
            assert torch.equal(columns, wanted)
