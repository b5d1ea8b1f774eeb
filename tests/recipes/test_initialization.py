"""Initialization of embeddings, attention and queries of the micro model."""

import pytest
import torch
from transformers import LlamaForCausalLM, LlamaModel

from lyrics.modeling_lyrics import LyricsMQFormerConfig, LyricsMQFormerModel
from lyrics.recipes.micro.common.initialization import (
    init_coordinate_embeddings,
    init_name_embeddings,
    init_queries_one_per_region,
    scale_attention_logits,
    zero_residual_branches,
)
from lyrics.recipes.micro.configs import (
    MQFORMER,
    build_micro_bert_tokenizer,
    build_micro_text_tokenizer,
    language_model_config,
)
from lyrics.recipes.micro.world.names import all_names


@pytest.fixture
def tokenizer():
    return build_micro_text_tokenizer()


@pytest.fixture
def language_model(tokenizer):
    torch.manual_seed(0)
    model = LlamaForCausalLM(language_model_config(tokenizer)).eval()
    init_name_embeddings(model.get_input_embeddings().weight.data, tokenizer, all_names())
    return model


def test_names_with_a_common_word_have_similar_embeddings(language_model, tokenizer):
    names = ["small red ring", "red ring", "red objects", "rings", "large pink cross"]
    ids = tokenizer.convert_tokens_to_ids(names)
    for name, token in zip(names, ids, strict=True):
        assert token in tokenizer(f"The {name}?", add_special_tokens=False)["input_ids"]
    one, *related, unrelated = language_model.get_input_embeddings().weight[ids]
    similarity = [torch.cosine_similarity(one, other, dim=0).item() for other in (*related, unrelated)]
    assert min(similarity[:3]) > 0.35 > 0.3 > abs(similarity[3])
    assert 0.6 < one.std() / language_model.config.initializer_range < 1.6  # as of any other word


def test_initial_layers_add_nothing(language_model):
    embedded = torch.randn(2, 5, language_model.config.hidden_size)
    zero_residual_branches(language_model)
    output = language_model.model(inputs_embeds=embedded).last_hidden_state
    torch.testing.assert_close(output, language_model.model.norm(embedded))


def test_near_coordinates_have_similar_embeddings():
    tokenizer = build_micro_bert_tokenizer()
    torch.manual_seed(0)
    table = torch.randn(len(tokenizer), 96)
    before = table.clone()
    init_coordinate_embeddings(table, tokenizer)
    changed = (table != before).any(dim=1).nonzero().flatten().tolist()
    coordinates = tokenizer.convert_tokens_to_ids([f"{value / 100:.2f}" for value in range(101)])
    assert changed == sorted(coordinates)
    similarity = torch.cosine_similarity(table[coordinates[30]], table[coordinates], dim=1)
    assert similarity[30] > similarity[31] > similarity[32] > 0.5 > similarity[50].abs()
    assert 0.7 < table[coordinates].std() < 1.3  # as of any other word


def test_each_grounding_query_attends_to_a_region_of_its_own():
    torch.manual_seed(0)
    mqformer = LyricsMQFormerModel(LyricsMQFormerConfig(vocab_size=50, **MQFORMER)).eval()
    mqformer.set_attn_implementation("eager")
    init_queries_one_per_region(mqformer)
    regions, pixels = torch.randn(4, 12, mqformer.config.region_hidden_size), torch.randn(4, 7, 96)
    output = mqformer(encoder_hidden_states=pixels, region_features=regions, output_grounding_attentions=True)
    weights = output.grounding_attentions[0].mean(1)
    assert weights[:, :12].diagonal(dim1=1, dim2=2).amin() > 0.9
    assert weights[:, 12:].sum(-1).amax() < 0.3  # queries without a region attend to the learned zero value


def test_half_of_the_attention_logits_gives_the_root_of_the_weights():
    torch.manual_seed(0)
    config = language_model_config(build_micro_text_tokenizer())
    config.initializer_range = 0.3
    model = LlamaModel(config).eval()
    model.set_attn_implementation("eager")
    tokens = torch.randint(9, 300, (3, 20))
    before = model(tokens, output_attentions=True).attentions[0]
    scale_attention_logits(model, 0.5)
    after = model(tokens, output_attentions=True).attentions[0]
    torch.testing.assert_close((after * after).div((after * after).sum(-1, keepdim=True)), before)
