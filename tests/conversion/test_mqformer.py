"""Initialization of the MQ-Former: the model of each layout and ours give the same states."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForPreTraining,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
)
from transformers.utils import logging

from lyrics.assets.random_model import STAGE_1_TOKENS, build_bert_tokenizer
from lyrics.conversion import load_mqformer
from lyrics.modeling_lyrics import LyricsForPreTraining

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
VISION = {**SIZES, "hidden_size": 24, "image_size": 28, "patch_size": 14}
NEW = {"num_grounding_queries": 5, "region_hidden_size": 7, "num_attention_heads": 2}
BASE = len(build_bert_tokenizer())


@pytest.fixture(scope="module")
def tokenizer():
    return build_bert_tokenizer(*STAGE_1_TOKENS)


def shake(model):
    """Set all weights to different random values, the queries included."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def bert():
    return shake(BertForPreTraining(BertConfig(vocab_size=BASE, **SIZES)))


def blip(config_class, model_class, vocab_size, **qformer):
    config = config_class(
        vision_config=VISION,
        qformer_config={**SIZES, "vocab_size": vocab_size, "encoder_hidden_size": 24, **qformer},
        text_config={"model_type": "llama", **SIZES, "vocab_size": 40, "num_key_value_heads": 2},
        num_query_tokens=4,
    )
    return shake(model_class(config))


@pytest.fixture(scope="module")
def instructblip():
    return blip(InstructBlipConfig, InstructBlipForConditionalGeneration, BASE + 1)


def test_bert(bert, tokenizer, tmp_path, caplog):
    """Text alone gives BERT's states and predictions; queries get copies of its feed-forward networks."""
    logging.enable_propagation()
    bert.save_pretrained(tmp_path)
    mqformer, head = load_mqformer(tmp_path, tokenizer, encoder_hidden_size=24, num_visual_queries=4, **NEW)
    ids = torch.randint(103, BASE, (2, 9))
    with torch.no_grad():
        expected = bert(ids, output_hidden_states=True)
        states = mqformer(input_ids=ids, text_only=True).last_hidden_state
        predictions = head(states)
    torch.testing.assert_close(states, expected.hidden_states[-1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(predictions[..., :BASE], expected.prediction_logits, atol=1e-4, rtol=1e-4)
    layer = mqformer.layers[1]
    assert torch.equal(layer.query_mlp.fc1.weight, layer.text_mlp.fc1.weight)
    assert layer.query_mlp.fc1.weight is not layer.text_mlp.fc1.weight
    assert all(name in caplog.text for name in ("query_tokens", "grounding_cross_attention", "visual_cross_attention"))


def test_rows_of_new_tokens(bert, instructblip, tokenizer, tmp_path):
    """Rows follow the tokenizer's ids; rows that the source lacks are copies, and `[DEC]` of BLIP-2 is kept."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in STAGE_1_TOKENS}
    for name, model in (("bert", bert), ("instructblip", instructblip)):
        model.save_pretrained(tmp_path / name)
        mqformer, _ = load_mqformer(tmp_path / name, tokenizer, encoder_hidden_size=24, num_visual_queries=4, **NEW)
        old = (bert.bert if name == "bert" else instructblip.qformer).embeddings.word_embeddings.weight
        words = mqformer.embeddings.word_embeddings.weight
        assert len(words) == len(tokenizer)
        assert torch.equal(words[:BASE], old[:BASE])
        assert torch.equal(words[ids["[BOS]"]], old[tokenizer.cls_token_id])
        assert torch.equal(words[ids["[MLM]"]], old[tokenizer.mask_token_id])
        assert torch.equal(words[ids["[DEC]"]], old[tokenizer.cls_token_id if name == "bert" else BASE])


def to_lavis(weights, prefix=""):
    """Rename the weights of an InstructBLIP as LAVIS names them."""
    renamed = {}
    for name, tensor in weights.items():
        if name.startswith("qformer."):
            name = name.replace("qformer.", "Qformer.bert.", 1).replace("attention.attention.", "attention.self.")
            name = name.replace("embeddings.layernorm", "embeddings.LayerNorm")
        elif name.startswith("vision_model.post_layernorm"):
            name = name.replace("vision_model.post_layernorm", "ln_vision")
        elif name.startswith("vision_model."):
            name = name.replace("vision_model.", "visual_encoder.")
        renamed[prefix + name] = tensor.clone()
    return renamed


@pytest.mark.parametrize("layout", ["transformers", "sharded", "lavis", "lavis of several GPUs"])
def test_instructblip(instructblip, tokenizer, tmp_path, layout):
    """Queries and text attend to vision features as in InstructBLIP."""
    source = tmp_path
    instructblip.save_pretrained(tmp_path, max_shard_size="100kB" if layout == "sharded" else "1GB")
    weights = instructblip.state_dict()
    if layout.startswith("lavis"):
        source = tmp_path / "lavis.pth"
        prefix = "module." if "GPUs" in layout else ""
        lavis = to_lavis({name.removeprefix("model."): tensor for name, tensor in weights.items()}, prefix)
        lavis[f"{prefix}Qformer.cls.predictions.bias"] = torch.arange(BASE + 1.0)
        lavis[f"{prefix}Qformer.cls.predictions.transform.dense.weight"] = torch.eye(32)
        lavis[f"{prefix}Qformer.cls.predictions.transform.dense.bias"] = torch.zeros(32)
        lavis[f"{prefix}Qformer.cls.predictions.transform.LayerNorm.weight"] = torch.ones(32)
        lavis[f"{prefix}Qformer.cls.predictions.transform.LayerNorm.bias"] = torch.zeros(32)
        torch.save({"model": lavis}, source)
    mqformer, head = load_mqformer(source, tokenizer, **NEW)
    assert (mqformer.config.num_visual_queries, mqformer.config.num_grounding_queries) == (4, 5)
    assert mqformer.config.normalize_vision_features == layout.startswith("lavis")
    assert (head is not None) == layout.startswith("lavis")
    without_objects = copy.deepcopy(mqformer)
    without_objects.config.num_grounding_queries = 0
    without_objects.query_tokens.data = mqformer.query_tokens[:, :4]
    for layer in without_objects.layers:
        layer.num_queries, layer.grounding_cross_attention = 4, None
    without_objects.vision_layer_norm = torch.nn.Identity()
    ids, features = torch.randint(103, BASE, (2, 6)), torch.randn(2, 5, 24)
    with torch.no_grad():
        expected = instructblip.qformer(
            input_ids=ids,
            query_embeds=instructblip.query_tokens.expand(2, -1, -1),
            encoder_hidden_states=features,
        ).last_hidden_state
        states = without_objects(input_ids=ids, encoder_hidden_states=features).last_hidden_state
    torch.testing.assert_close(states, expected, atol=1e-4, rtol=1e-4)


def test_blip2(tokenizer, tmp_path, caplog):
    """It has no word embeddings, and text gets copies of the queries' networks; the one for retrieval has both."""
    logging.enable_propagation()
    plain = blip(Blip2Config, Blip2ForConditionalGeneration, BASE + 1)
    plain.save_pretrained(tmp_path / "plain")
    mqformer, _ = load_mqformer(tmp_path / "plain", tokenizer, **NEW)
    assert "embeddings.word_embeddings" in caplog.text
    assert torch.equal(mqformer.query_tokens[:, :4], plain.query_tokens)
    assert torch.equal(mqformer.embeddings.layer_norm.weight, plain.qformer.layernorm.weight)
    layer = plain.qformer.encoder.layer[0]
    assert torch.equal(mqformer.layers[0].text_mlp.fc1.weight, layer.intermediate_query.dense.weight)
    retrieval = blip(Blip2Config, Blip2ForImageTextRetrieval, BASE + 1, use_qformer_text_input=True)
    retrieval.save_pretrained(tmp_path / "retrieval")
    mqformer, _ = load_mqformer(tmp_path / "retrieval", tokenizer, **NEW)
    words, layer = retrieval.embeddings.word_embeddings.weight, retrieval.qformer.encoder.layer[0]
    assert torch.equal(mqformer.embeddings.word_embeddings.weight[:BASE], words[:BASE])
    assert torch.equal(mqformer.layers[0].text_mlp.fc1.weight, layer.intermediate.dense.weight)


def test_a_first_stage_model_is_built_on_it(bert, tokenizer, instructblip, tmp_path):
    """With the vision encoder of any checkpoint, and BERT's head."""
    bert.save_pretrained(tmp_path)
    mqformer, head = load_mqformer(tmp_path, tokenizer, encoder_hidden_size=24, num_visual_queries=4, **NEW)
    model = LyricsForPreTraining.from_parts(instructblip.vision_model, mqformer, head, projection_size=8)
    assert model.config.vision_feature_layer == -1
    assert torch.equal(model.lm_head.dense.weight, bert.cls.predictions.transform.dense.weight)
    assert model.lm_head.decoder.weight is mqformer.embeddings.word_embeddings.weight
    model.save_pretrained(tmp_path / "stage1")
    again = LyricsForPreTraining.from_pretrained(tmp_path / "stage1")
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_an_index_that_leaves_its_folder_is_refused(instructblip, tokenizer, tmp_path):
    instructblip.save_pretrained(tmp_path / "model", max_shard_size="100kB")
    index = tmp_path / "model" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["query_tokens"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"the index puts query_tokens into '\.\./elsewhere\.safetensors'"):
        load_mqformer(tmp_path / "model", tokenizer, **NEW)


def test_sources_that_do_not_fit_are_errors(bert, instructblip, tokenizer, tmp_path):
    bert.save_pretrained(tmp_path / "bert")
    instructblip.save_pretrained(tmp_path / "instructblip")
    with pytest.raises(ValueError, match="attends to no vision features: give encoder_hidden_size"):
        load_mqformer(tmp_path / "bert", tokenizer)
    with pytest.raises(ValueError, match="vision features of width 24, not 25"):
        load_mqformer(tmp_path / "instructblip", tokenizer, encoder_hidden_size=25)
    with pytest.raises(ValueError, match=f"has {BASE} words and the tokenizer {BASE + 4} tokens"):
        load_mqformer(tmp_path / "bert", build_bert_tokenizer(*STAGE_1_TOKENS, "[X]"), encoder_hidden_size=24)
    with pytest.raises(ValueError, match="neither a checkpoint file nor a directory"):
        load_mqformer(tmp_path, tokenizer)
    weights = load_file(tmp_path / "bert" / "model.safetensors")
    others = {name: tensor for name, tensor in weights.items() if "encoder" not in name}
    save_file(others, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no BERT and no Q-Former"):
        load_mqformer(tmp_path / "other.safetensors", tokenizer)
    with pytest.raises(ValueError, match=r"embeddings\.position_embeddings\.weight has shape \(512, 32\)"):
        load_mqformer(tmp_path / "bert", tokenizer, encoder_hidden_size=24, max_position_embeddings=100)
