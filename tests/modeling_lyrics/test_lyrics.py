"""LyricsModel and LyricsForConditionalGeneration: placeholders, padding, generation, parts, saving."""

import copy
import warnings

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    StaticCache,
    pipeline,
)

from lyrics.modeling_lyrics import (
    LyricsConfig,
    LyricsForConditionalGeneration,
    LyricsModel,
    LyricsMQFormerConfig,
    LyricsMQFormerModel,
    modeling_lyrics,
)
from lyrics.modeling_lyrics.modeling_lyrics import LyricsImageFeatures

GREEDY = {"max_new_tokens": 6, "do_sample": False, "min_new_tokens": 6}


@pytest.fixture(scope="module")
def batch(processor, pictures, objects):
    """Three prompts of different lengths with two, no and one image."""
    texts = ["<image> and <image>: which is larger?", "No image here.", "<image> What is on the table, please?"]
    return processor(
        images=[pictures[:2], [], pictures[2:]],
        text=texts,
        visual_objects=objects,
        padding=True,
        return_tensors="pt",
    )


@pytest.fixture(scope="module")
def single(processor, pictures, objects):
    """The last prompt alone."""
    return processor(
        images=pictures[2:],
        text="<image> What is on the table, please?",
        visual_objects=objects[2:],
        return_tensors="pt",
    )


def forward(model, inputs, **changes):
    with torch.no_grad():
        return model(**inputs | changes)


# ---------------------------------------------------------------------------------------------------- placeholders


def test_placeholders_and_images_must_match(model, single):
    ids = single["input_ids"]
    both = {name: value.repeat(2, *[1] * (value.dim() - 1)) for name, value in single.items()}
    with pytest.raises(ValueError, match=r"do not match, tokens: 25, features: 24 \(1 images of 24 each\)"):
        model(**single | {"input_ids": torch.cat([ids[:, :2], ids[:, 1:]], dim=1), "attention_mask": None})
    with pytest.raises(ValueError, match="tokens: 24, features: 48"):
        model(**both | {"input_ids": ids, "attention_mask": None})
    with pytest.raises(ValueError, match="tokens: 24, features: 0"):
        model(input_ids=ids)


def test_the_placeholder_lies_outside_the_embedding_table(model, single):
    """Its row is never looked up, the vocabulary of the head does not grow, and its label never counts."""
    table = model.get_input_embeddings()
    assert model.config.image_token_id == table.num_embeddings == model.lm_head.out_features
    output = forward(model, single, labels=single["input_ids"])
    assert output.logits.shape[-1] == table.num_embeddings
    masked = single["input_ids"].masked_fill(single["input_ids"] == model.config.image_token_id, -100)
    assert torch.equal(output.loss, forward(model, single, labels=masked).loss)


def test_what_stands_at_the_placeholders(model, single):
    image = model.get_image_features(
        **{name: single[name] for name in single if "input_ids" != name != "attention_mask"}
    )
    output = forward(model, single)
    assert torch.equal(output.image_hidden_states, image.pooler_output)
    again = forward(
        model,
        {"input_ids": single["input_ids"], "attention_mask": single["attention_mask"]},
        mm_encoder_outputs={"image": image},
    )
    assert torch.equal(again.logits, output.logits)


def test_inputs_embeds(model, single):
    """With ids beside them they are used as they are; without ids, images must be encoded, and found in the table."""
    ids = single["input_ids"]
    text = ids.masked_fill(ids == model.config.image_token_id, 0)
    embeds = model.get_input_embeddings()(text)
    expected = forward(model, single).logits
    torch.testing.assert_close(forward(model, single, inputs_embeds=embeds).logits, expected)
    with pytest.raises(ValueError, match="lies outside the embedding table"):
        model(**single | {"input_ids": None, "inputs_embeds": embeds})
    names = [name for name in single if name not in ("input_ids", "attention_mask")]
    image = {"image": model.get_image_features(**{name: single[name] for name in names})}
    with pytest.raises(ValueError, match="lies outside the embedding table"):
        model(inputs_embeds=embeds, mm_encoder_outputs=image)
    inside = copy.deepcopy(model)
    inside.config.image_token_id = 5
    merged = inside.get_input_embeddings()(ids.masked_fill(ids == model.config.image_token_id, 5))
    torch.testing.assert_close(forward(inside, {"inputs_embeds": merged, "mm_encoder_outputs": image}).logits, expected)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "Pass input_ids, inputs_embeds, or both"),
        (
            {
                "input_ids": torch.ones(1, 3, dtype=torch.long),
                "pixel_values": torch.zeros(1, 3, 64, 64),
                "mm_encoder_outputs": {"image": 1},
            },
            "not both",
        ),
    ],
)
def test_contradictions(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        model(**inputs)


def test_image_tensors_must_count_the_same_images(model, single):
    with pytest.raises(ValueError, match=r"one row per image, but count \{'pixel_values': 1, 'region_features': 2"):
        model(**single | {"region_features": single["region_features"].repeat(2, 1, 1)})


def test_images_without_objects(model, single, caplog):
    """A warning once, or an error where the configuration requires objects."""
    blind = {name: value for name, value in single.items() if not name.startswith("region")}
    modeling_lyrics.logger.warning_once.cache_clear()
    first = forward(model, blind).logits
    forward(model, blind)
    assert caplog.text.count("come without region_features") == 1
    assert not torch.allclose(first, forward(model, single).logits)
    strict = copy.deepcopy(model)
    strict.config.require_objects = True
    with pytest.raises(ValueError, match="come without region_features"):
        strict(**blind)


def test_text_alone(model):
    text = torch.tensor([[1, 40, 41, 42]])
    expected = model.model.language_model(input_ids=text).last_hidden_state
    torch.testing.assert_close(model.model(input_ids=text).last_hidden_state, expected)


# ---------------------------------------------------------------------------------------------------- generation


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3},
        {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
        {"cache_implementation": "static"},
        {"use_cache": False},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_mode_of_generation(model, batch, options):
    """In every mode each row gives what it gives alone."""
    torch.manual_seed(0)
    options = GREEDY | options
    output = model.generate(**batch, **options)
    rows = options.get("num_return_sequences", 1)
    assert output.shape == (3 * rows, batch["input_ids"].shape[1] + 6)
    if not options["do_sample"]:
        last = {name: batch[name][2:] for name in ("input_ids", "attention_mask")}
        images = {name: batch[name][2:] for name in batch if name not in last}
        alone = model.generate(**last, **images, **options)
        assert torch.equal(output[2 * rows :], alone)
    if options.keys() & {"cache_implementation", "use_cache"}:
        assert torch.equal(output, model.generate(**batch, **GREEDY))


def test_one_static_cache_serves_many_answers(model, batch):
    """Kept and reset between answers, it gives what a new one gives; what an earlier answer left does not count."""
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=batch["input_ids"].shape[1] + 16)
    other = batch | {"pixel_values": -batch["pixel_values"]}
    for inputs in (batch, other, batch):
        expected = model.generate(**inputs, **GREEDY)
        assert torch.equal(model.generate(**inputs, **GREEDY, cache=cache), expected)
        cache.reset()


@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_cache_may_be_given_by_its_new_and_its_old_name(model, single, name):
    """Transformers 5.24 renamed the argument; both names give what a full prompt gives, in forward and generate."""
    prompt = {key: value for key, value in single.items() if key not in ("input_ids", "attention_mask")}
    ids, mask = single["input_ids"], single["attention_mask"]
    full = forward(model, single, use_cache=True)
    assert full.past_key_values is full.cache
    first = forward(model, prompt, input_ids=ids[:, :-1], attention_mask=mask[:, :-1], use_cache=True)
    kept = copy.deepcopy(first.cache)
    rest = forward(model, {}, input_ids=ids[:, -1:], attention_mask=mask, **{name: first.cache})
    torch.testing.assert_close(rest.logits[:, -1], full.logits[:, -1], atol=1e-5, rtol=1e-4)
    base = forward(model.model, {}, input_ids=ids[:, -1:], attention_mask=mask, **{name: copy.deepcopy(kept)})
    torch.testing.assert_close(model.lm_head(base.last_hidden_state), rest.logits, atol=0, rtol=0)
    expected = model.generate(**single, **GREEDY)
    assert torch.equal(model.generate(**single, **GREEDY, **{name: kept}), expected)


def test_outputs_hold_the_encoded_images(model, single):
    for part in (model, model.model):
        image = forward(part, single).image_outputs
        assert image.pooler_output.shape == (1, model.config.mqformer_config.num_queries, 128)
        torch.testing.assert_close(forward(part, single).image_hidden_states, image.pooler_output)
    text_only = {"input_ids": torch.tensor([[70, 71, 72]])}
    assert forward(model, text_only).image_outputs is None
    assert forward(model, text_only).image_hidden_states is None


def test_nothing_that_is_deprecated_is_used(model, batch, caplog):
    """Neither forward nor training nor generation warns: the code follows the release that it is written for."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        warnings.simplefilter("error", DeprecationWarning)
        labels = batch["input_ids"].clone()
        model(**batch, labels=labels, output_hidden_states=True).loss.backward()
        model.zero_grad()
        model.generate(**batch, **GREEDY)
        model.generate(**batch, **GREEDY, num_beams=2)
    assert not caplog.records


def test_a_prompt_padded_on_the_right_is_refused(model, single):
    """Transformers would continue after the padding, with other tokens and a warning at most."""
    padded = dict(single)
    padded["input_ids"] = torch.nn.functional.pad(single["input_ids"], (0, 3))
    padded["attention_mask"] = torch.nn.functional.pad(single["attention_mask"], (0, 3))
    with pytest.raises(ValueError, match=r"Rows \[0\] of attention_mask end with padding.*Pad prompts "):
        model.generate(**padded, max_new_tokens=2)


def test_assisted_decoding(model, micro, single):
    """An assistant, the same model or another one, proposes tokens; it is given the encoded image."""
    expected = model.generate(**single, **GREEDY)
    assert torch.equal(model.generate(**single, **GREEDY, prompt_lookup_num_tokens=3), expected)
    for assistant in (model, micro[0]):
        assert torch.equal(model.generate(**single, **GREEDY, assistant_model=assistant), expected)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, torch.OutOfMemoryError])
@pytest.mark.parametrize("part", ["model.vision_model", "model.mqformer", "model.language_model.layers.2", "lm_head"])
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"cache_implementation": "static"}], ids=["greedy", "beams", "static"]
)
def test_an_interrupted_generation_leaves_the_model_usable(model, single, interruption, part, options):
    """Ctrl-C, or too little memory, in the encoders or at the third token."""
    expected = model.generate(**single, **GREEDY, **options)
    text = {name: single[name] for name in ("input_ids", "attention_mask")}
    encoded = {"image": model.get_image_features(**{name: single[name] for name in single if name not in text})}
    inputs = single if part.endswith(("vision_model", "mqformer")) else text | {"mm_encoder_outputs": encoded}
    calls = []

    def interrupt(*_):
        calls.append(1)
        if inputs is single or len(calls) == 3:
            raise interruption

    hook = model.get_submodule(part).register_forward_hook(interrupt)
    try:
        with pytest.raises(interruption):
            model.generate(**inputs, **GREEDY, **options)
    finally:
        hook.remove()
    assert torch.equal(model.generate(**inputs, **GREEDY, **options), expected)
    assert torch.is_grad_enabled()


def test_images_encoded_by_another_model_are_refused(model, single):
    """As when an assistant model has another width."""
    image = LyricsImageFeatures(pooler_output=torch.zeros(1, 24, 32))
    with pytest.raises(ValueError, match="encoded images have width 32, but this language model has width 128"):
        model(input_ids=single["input_ids"], mm_encoder_outputs={"image": image})


def test_an_image_is_encoded_once(model, single):
    calls = []
    hook = model.model.vision_model.register_forward_hook(lambda *_: calls.append(1))
    model.generate(**single, **GREEDY)
    hook.remove()
    assert len(calls) == 1


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_an_encoded_image_survives_generation(model, single, options):
    """Transformers expands for beams in place; here the caller's image stays as it was."""
    text = {name: single[name] for name in ("input_ids", "attention_mask")}
    image = model.get_image_features(**{name: single[name] for name in single if name not in text})
    encoded = {"image": image}
    shape = image.pooler_output.shape
    first = model.generate(**text, mm_encoder_outputs=encoded, **GREEDY, **options)
    second = model.generate(**text, mm_encoder_outputs=encoded, **GREEDY, **options)
    assert torch.equal(first, second)
    assert torch.equal(first, model.generate(**single, **GREEDY, **options))
    assert encoded["image"] is image
    assert image.pooler_output.shape == shape


@pytest.mark.parametrize("given", ["all images", "new images", "nothing"])
@pytest.mark.parametrize("new_image", [False, True])
def test_a_cached_turn_equals_a_full_one(model, single, given, new_image):
    """The second turn reuses the cache of the first, whichever images the caller gives again."""
    text = ("input_ids", "attention_mask")
    images = {name: value for name, value in single.items() if name not in text}
    first = model.generate(**single, **GREEDY, return_dict_in_generate=True)
    more = single["input_ids"].flip(1) if new_image else torch.tensor([[70, 71, 72]])
    ids = torch.cat([first.sequences, more], dim=1)
    new = {name: value.flip(1) if name == "region_features" else value for name, value in images.items()}
    both = {name: torch.cat([value, new[name]]) for name, value in images.items()} if new_image else images
    expected = model.generate(input_ids=ids, **both, **GREEDY)
    again = {"all images": both, "new images": new if new_image else {}, "nothing": {}}[given]
    call = {"input_ids": ids, "cache": first.cache, **again, **GREEDY}
    if new_image and given == "nothing":
        with pytest.raises(ValueError, match="tokens: 24, features: 0"):
            model.generate(**call)
    else:
        assert torch.equal(model.generate(**call), expected)


def test_pipeline(model, processor, picture):
    """Without torchvision."""
    answer = pipeline("image-text-to-text", model=model, processor=processor)
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What?"}]
    chat = answer(text=[{"role": "user", "content": content}], max_new_tokens=4)
    assert chat[0]["generated_text"][-1]["role"] == "assistant"
    plain = answer(images=picture, text="<image> What?", max_new_tokens=4)
    assert plain[0]["generated_text"].startswith("<image>")


# ---------------------------------------------------------------------------------------------------- parts and files


@pytest.fixture
def parts():
    torch.manual_seed(0)
    vision = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=24,
            intermediate_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        )
    )
    text = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=60,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            pad_token_id=0,
        )
    )
    return vision.eval(), text.eval()


def queries(**changes):
    return LyricsMQFormerConfig(
        **{
            "vocab_size": 40,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_visual_queries": 2,
            "num_grounding_queries": 2,
            "encoder_hidden_size": 24,
            "region_hidden_size": 8,
        }
        | changes
    )


@pytest.mark.parametrize("from_files", [False, True])
def test_from_parts(parts, from_files, tmp_path):
    """A new model starts from pretrained parts, and their weights are not copied."""
    vision, text = parts
    mqformer = LyricsMQFormerModel(queries())
    if from_files:
        vision.save_pretrained(tmp_path / "vision")
        text.save_pretrained(tmp_path / "text")
        model = LyricsForConditionalGeneration.from_parts(tmp_path / "vision", queries(), str(tmp_path / "text"))
    else:
        model = LyricsForConditionalGeneration.from_parts(vision, mqformer, text)
        assert model.model.vision_model is vision
        assert model.model.mqformer is mqformer
        assert model.lm_head is text.lm_head
    assert model.config.vision_feature_layer == -2
    assert model.config.image_token_id == 60
    ids = torch.tensor([[1, 60, 60, 60, 60, 7, 8]])
    pixels = torch.rand(1, 3, 28, 28)
    with torch.no_grad():
        output = model(input_ids=ids, pixel_values=pixels, region_features=torch.rand(1, 3, 8))
        vision_features = vision(pixels, output_hidden_states=True).hidden_states[-2]
        image = model.get_image_features(pixel_values=pixels, region_features=torch.rand(1, 3, 8))
    assert output.logits.shape == (1, 7, 60)
    torch.testing.assert_close(image.last_hidden_state, vision_features)
    text_ids = torch.tensor([[1, 7, 8]])
    torch.testing.assert_close(model(input_ids=text_ids).logits, text(input_ids=text_ids).logits)
    model.save_pretrained(tmp_path / "joined")
    assert str(tmp_path) not in (tmp_path / "joined" / "config.json").read_text()  # where the parts lay is private
    again = LyricsForConditionalGeneration.from_pretrained(tmp_path / "joined")
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_from_parts_that_do_not_fit(parts):
    vision, text = parts
    with pytest.raises(ValueError, match="vision features of width 20, but the vision encoder gives 24"):
        LyricsForConditionalGeneration.from_parts(vision, LyricsMQFormerModel(queries(encoder_hidden_size=20)), text)


def test_tied_embeddings(parts, tmp_path):
    vision, text = parts
    text.config.tie_word_embeddings = True
    text.tie_weights()
    model = LyricsForConditionalGeneration.from_parts(vision, queries(), text)
    assert model.config.tie_word_embeddings
    model.save_pretrained(tmp_path)
    again = LyricsForConditionalGeneration.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.model.language_model.embed_tokens.weight
    assert torch.equal(again.lm_head.weight, text.lm_head.weight)


def test_save_and_load(model, batch, tmp_path):
    """Sharded, through every auto class, bit for bit."""
    model.save_pretrained(tmp_path, max_shard_size="1MB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert type(AutoConfig.from_pretrained(tmp_path)) is LyricsConfig
    expected = forward(model, batch).logits
    for auto_class in (LyricsForConditionalGeneration, AutoModelForImageTextToText):
        loaded, report = auto_class.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(report.values()), report
        assert torch.equal(forward(loaded, batch).logits, expected)
    base, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(base) is LyricsModel
    assert not any(report.values()), report
    base.save_pretrained(tmp_path / "base")
    headed, report = LyricsForConditionalGeneration.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert report["missing_keys"] == {"lm_head.weight"}
    assert torch.equal(headed.model.mqformer.query_tokens, model.model.mqformer.query_tokens)


def test_configuration_round_trip(model, tmp_path):
    model.config.save_pretrained(tmp_path)
    assert LyricsConfig.from_pretrained(tmp_path).to_dict() | {"_name_or_path": ""} == model.config.to_dict() | {
        "_name_or_path": ""
    }


def test_training_reaches_every_trainable_weight(model, batch):
    """Gradients flow through projection, MQ-Former and queries; the encoder's unused last layer has none."""
    model = copy.deepcopy(model).train()
    model(**batch, labels=batch["input_ids"]).loss.backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert all("vision_model" in name or ".text_mlp." in name for name in without), without
    last = model.config.vision_config.num_hidden_layers - 1
    assert all(
        f"encoder.layers.{last}." in name or "post_layernorm" in name for name in without if "vision_model" in name
    )
    last_text = f"mqformer.layers.{model.config.mqformer_config.num_hidden_layers - 1}.text_mlp."
    assert all(last_text in name for name in without if ".text_mlp." in name)
