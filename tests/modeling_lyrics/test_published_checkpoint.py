"""The published layout loads as it stands, and gives the original code's numbers."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import PIL
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, Blip2Config, Blip2Model
from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration

import lyrics
from lyrics.assets import MICRO_CHECKPOINT
from lyrics.modeling_lyrics import (
    LyricsConfig,
    LyricsForConditionalGeneration,
    LyricsModel,
    LyricsRefinerConfig,
    LyricsVisualRefiner,
    configuration_base,
    configuration_lyrics,
)
from lyrics.modeling_lyrics.published_checkpoint import DROPPED_BY_MODEL, DROPPED_BY_REFINER
from lyrics.processing_lyrics import LyricsProcessor

from ..conftest import GOLDEN, assert_golden

QUERIES = 10
IMPLEMENTATIONS = ["eager", "sdpa", pytest.param("flex_attention", marks=pytest.mark.slow)]  # it compiles every shape


def with_placeholders(model, tokens, value=None):
    """Tokens of the golden data with the positions of the image before them."""
    value = model.config.image_token_id if value is None else value
    return torch.cat([torch.full((len(tokens), QUERIES), value), tokens], dim=1)


@pytest.fixture(scope="module")
def image_inputs(golden):
    """The golden batch: pixels, the detector's stored output and the instruction."""
    text = golden("text")
    return {
        "pixel_values": golden("inputs")["pixel_values"],
        "region_features": golden("grounding_batch")["hidden_state"],
        "mqformer_input_ids": text["qformer_input_ids"],
        "mqformer_attention_mask": text["qformer_attention_mask"],
    }


# ---------------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize(
    ("auto_class", "expected"),
    [
        (AutoModel, LyricsModel),
        (AutoModelForImageTextToText, LyricsForConditionalGeneration),
        (LyricsForConditionalGeneration, LyricsForConditionalGeneration),
    ],
)
def test_model_loads_without_missing_or_unexpected_weights(published, auto_class, expected):
    model, report = auto_class.from_pretrained(published, output_loading_info=True)
    assert type(model) is expected
    assert not any(report.values()), report


def test_refiner_loads_through_auto_model(published):
    config = LyricsRefinerConfig.from_pretrained(published)
    refiner, report = AutoModel.from_pretrained(published, config=config, output_loading_info=True)
    assert type(refiner) is LyricsVisualRefiner
    assert not any(report.values()), report
    assert refiner.tokenizer is not None
    assert not any(parameter.requires_grad for parameter in refiner.parameters())


def test_every_weight_is_loaded_or_dropped_by_name(published):
    """Nothing that the model or the refiner reads is on the other's list of dropped names by mistake."""
    names = json.loads((published / "pytorch_model.bin.index.json").read_text())["weight_map"]
    for_model = {name for name in names if not any(re.search(pattern, name) for pattern in DROPPED_BY_MODEL)}
    for_refiner = {name for name in names if not any(re.search(pattern, name) for pattern in DROPPED_BY_REFINER)}
    assert not for_model & for_refiner
    neither = {name.split(".")[1] for name in names if name not in for_model | for_refiner and name.startswith("ram.")}
    assert {"tag_encoder", "text_decoder"} <= neither
    assert all(DROPPED_BY_MODEL.values())
    assert all(DROPPED_BY_REFINER.values())


def test_plain_blip_2_stays_blip_2(tmp_path):
    """The dispatch of `"blip-2"` changes nothing for BLIP-2 itself, bit for bit."""
    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Blip2Config(
        vision_config={**tiny, "image_size": 28},
        qformer_config={**tiny, "vocab_size": 40},
        text_config={
            "model_type": "opt",
            "vocab_size": 40,
            "hidden_size": 16,
            "ffn_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "word_embed_proj_dim": 16,
            "max_position_embeddings": 32,
        },
        num_query_tokens=2,
    )
    original = Blip2ForConditionalGeneration(config)
    original.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is Blip2Config
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert type(loaded) is Blip2ForConditionalGeneration
    assert type(AutoModel.from_config(config)) is Blip2Model
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_importing_the_models_is_enough(published):
    """One import of `lyrics.modeling_lyrics` makes model, processor and refiner known to the auto classes."""
    code = (
        "import sys, lyrics.modeling_lyrics; from transformers import AutoModel, AutoProcessor;"
        "processor = AutoProcessor.from_pretrained(sys.argv[1]);"
        "print(type(AutoModel.from_pretrained(sys.argv[1])).__name__, type(processor).__name__,"
        " type(processor.refiner).__name__)"
    )
    run = subprocess.run([sys.executable, "-c", code, published], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["LyricsModel", "LyricsProcessor", "LyricsVisualRefiner"]


def test_saved_in_the_native_layout(published, published_model, tmp_path, golden_pictures):
    processor = LyricsProcessor.from_pretrained(published)
    published_model.save_pretrained(tmp_path, max_shard_size="1MB")
    processor.save_pretrained(tmp_path)
    assert not list(tmp_path.rglob("*.bin"))
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    names = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert {name.split(".")[0] for name in names} == {"model", "lm_head"}
    assert type(AutoConfig.from_pretrained(tmp_path)) is LyricsConfig
    model, report = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in published_model.state_dict().items())
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again.refine(golden_pictures) == processor.refine(golden_pictures)
    assert again.refiner.fingerprint() == processor.refiner.fingerprint() == again.refiner_fingerprint


def test_thresholds_of_the_tags(published, tmp_path, caplog):
    """The checkpoint holds none: a file gives them, and the default says so."""
    configuration_lyrics.logger.warning_once.cache_clear()
    LyricsRefinerConfig.from_pretrained(published)
    assert "holds no thresholds of its own" in caplog.text
    file = tmp_path / "thresholds.txt"
    values = [round(0.3 + 0.01 * index, 2) for index in range(40)]
    file.write_text("\n".join(map(str, values)) + "\n")
    processor = LyricsProcessor.from_pretrained(published, refiner_kwargs={"tag_thresholds": file})
    assert processor.refiner.config.tagger_config.threshold == values
    file.write_text("0.5\nmuch\n")
    with pytest.raises(ValueError, match=r"thresholds.txt, line 2: 'much' is not a number"):
        LyricsRefinerConfig.from_pretrained(published, tag_thresholds=file)
    file.write_text("0.5\n0.6\n")
    with pytest.raises(ValueError, match=r"thresholds\.txt has 2 thresholds for 40 tags"):
        LyricsRefinerConfig.from_pretrained(published, tag_thresholds=file)


def test_generation_settings_are_not_those_of_an_old_release(published_model):
    """The published `config.json` carries an old release's `max_length` of 20."""
    settings = published_model.generation_config
    assert (settings.bos_token_id, settings.eos_token_id, settings.pad_token_id) == (1, 2, 360)
    assert settings.max_length != 20


class Trap:
    """A pickle that would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_shard_that_would_run_code_is_refused(published, tmp_path):
    checkpoint = shutil.copytree(published, tmp_path / "checkpoint")
    trap = tmp_path / "sprung"
    torch.save({"query_tokens": Trap(str(trap))}, checkpoint / "pytorch_model-00001-of-00003.bin")
    with pytest.raises(ValueError, match=r"00001-of-00003.bin' is not a file of weights alone; it is not loaded"):
        LyricsForConditionalGeneration.from_pretrained(checkpoint)
    assert not trap.exists()


@pytest.mark.parametrize("missing", ["ram_tag_list.txt", "bert-base-uncased"])
def test_missing_files(published, tmp_path, missing):
    """What is missing is named; BERT's tokenizer has a second place."""
    checkpoint = shutil.copytree(published, tmp_path / "checkpoint")
    path = checkpoint / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if missing == "ram_tag_list.txt":
        with pytest.raises(OSError, match=missing):
            LyricsRefinerConfig.from_pretrained(checkpoint)
    else:
        shutil.rmtree(checkpoint / "vicuna-13b_processor")
        config = LyricsRefinerConfig.from_pretrained(published)
        with pytest.raises(OSError, match=r"searched .*bert-base-uncased"):
            LyricsVisualRefiner.from_pretrained(checkpoint, config=config)


@pytest.mark.parametrize(
    "name", ["../outside.txt", "//etc/hostname", "/../outside.txt", "..\\outside.txt", "C:outside.txt"]
)
def test_files_outside_the_checkpoint_are_not_read(published, tmp_path, name):
    """The configuration names its tag list, but not just any file."""
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (tmp_path / "outside.txt").write_text("secret")
    config = json.loads((published / "config.json").read_text())
    config["ram_config"]["tag_list"] = name
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"names .*(outside\.txt|hostname)"):
        LyricsRefinerConfig.from_pretrained(checkpoint)


def test_a_configuration_translates_as_remote_code_without_any_model(published, tmp_path):
    """Only the configuration's file and those that it imports are fetched; none of them is the model's."""
    folder = tmp_path / "code"
    folder.mkdir()
    for file in Path(lyrics.modeling_lyrics.__file__).parent.glob("*.py"):
        shutil.copy(file, folder)
    code = f"""
import sys
sys.modules["lyrics"] = None
from transformers.dynamic_module_utils import get_class_from_dynamic_module
for name in ("LyricsConfig", "LyricsRefinerConfig"):
    config = get_class_from_dynamic_module(f"configuration_lyrics.{{name}}", {str(folder)!r})
    print(config.from_pretrained({str(published)!r}).model_type)
assert not [name for name in sys.modules if name.endswith("modeling_lyrics")]
"""
    environment = {"HF_HOME": str(tmp_path / "home"), "PATH": "", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == ["lyrics", "lyrics_refiner"]


@pytest.mark.parametrize("config_class", [LyricsConfig, LyricsRefinerConfig])
@pytest.mark.parametrize(
    ("section", "key", "message"),
    [("detection_config", "hidden_dim", "lacks 'hidden_dim'"), ("qformer_config", None, "is wrong"), (None, None, "")],
)
def test_what_the_published_configuration_lacks_is_named(
    published, tmp_path, config_class, section, key, message, caplog
):
    """Nothing else in the file is unknown after the translation."""
    config = json.loads((published / "config.json").read_text())
    if key is not None:
        del config[section][key]
    elif section is not None:
        config[section] = config["ram_config"] = 3
    shutil.copytree(published, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.bin", "vicuna*"))
    (tmp_path / "config.json").write_text(json.dumps(config))
    if section is None:
        configuration_base.logger.warning_once.cache_clear()
        config_class.from_pretrained(tmp_path)
        assert "does not know" not in caplog.text
    else:
        with pytest.raises(ValueError, match=f"config.json of type 'blip-2' {message}"):
            config_class.from_pretrained(tmp_path)


# ---------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("instruction", [True, False], ids=["instruction", "no_instruction"])
def test_image_features_logits_and_loss(published, golden, image_inputs, implementation, instruction):
    """Vision, MQ-Former, projection, logits on real positions, and loss; the detector's output is the stored one."""
    model = LyricsForConditionalGeneration.from_pretrained(published, attn_implementation=implementation)
    expected = golden("lm_with_instruction" if instruction else "lm_no_instruction")
    text = golden("text")
    inputs = {name: value for name, value in image_inputs.items() if instruction or not name.startswith("mqformer")}
    with torch.no_grad():
        image = model.get_image_features(**inputs)
        output = model(
            input_ids=with_placeholders(model, text["input_ids"]),
            attention_mask=with_placeholders(model, text["attention_mask"], 1),
            labels=with_placeholders(model, text["labels"], -100),
            **inputs,
        )
        ids = inputs.get("mqformer_input_ids")
        embeddings = model.model.mqformer.embeddings(model.model.mqformer.query_tokens.expand(2, -1, -1), ids, None)
        vision = model.model.vision_model(inputs["pixel_values"])
    assert_golden(image.last_hidden_state, golden("vision")["last_hidden_state"])
    assert_golden(vision.pooler_output, golden("vision")["pooler_output"])
    assert_golden(embeddings, expected["qformer_embeddings"])
    states = image.mqformer_output.last_hidden_state
    assert_golden(states, expected["qformer_last_hidden_state"][:, : states.shape[1]])
    assert_golden(image.pooler_output, expected["language_projection"])
    real = with_placeholders(model, text["attention_mask"], 1).bool()
    assert_golden(output.logits[real], expected["logits"][real])
    assert_golden(output.loss.view(1), expected["loss"])


@pytest.mark.parametrize("row", [0, 1])
def test_from_picture_to_logits(published_model, published_processor, golden, golden_pictures, row):
    """End to end: image -> RAM -> Grounding DINO -> MQ-Former -> LLaMA, with the stored text."""
    expected = golden(f"lm_single_{row}")
    inputs = published_processor(images=golden_pictures[row], return_tensors="pt")
    assert_golden(inputs["region_features"], golden(f"grounding_single_{row}")["hidden_state"])
    with torch.no_grad():
        output = published_model(
            input_ids=with_placeholders(published_model, expected["input_ids"]),
            labels=with_placeholders(published_model, expected["labels"], -100),
            pixel_values=inputs["pixel_values"],
            region_features=inputs["region_features"],
            mqformer_input_ids=expected["qformer_input_ids"],
        )
    assert_golden(output.image_hidden_states, expected["language_projection"])
    assert_golden(output.logits, expected["logits"])
    assert_golden(output.loss.view(1), expected["loss"])


@pytest.mark.parametrize("instruction", [True, False], ids=["instruction", "no_instruction"])
def test_greedy_tokens_of_a_padded_batch(published_model, golden, image_inputs, instruction):
    expected = golden("generate")
    inputs = {name: value for name, value in image_inputs.items() if instruction or not name.startswith("mqformer")}
    ids = with_placeholders(published_model, expected["left_input_ids"])
    output = published_model.generate(
        input_ids=ids,
        attention_mask=with_placeholders(published_model, expected["left_attention_mask"], 1),
        max_new_tokens=12,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        **inputs,
    )
    prefix = "left" if instruction else "left_no_instruction"
    assert torch.equal(output.sequences[:, ids.shape[1] :], expected[f"{prefix}_new_tokens"])
    if instruction:
        assert_golden(torch.stack(output.logits, dim=1), expected["left_scores"])


@pytest.mark.parametrize("row", [0, 1])
def test_greedy_tokens_from_picture_and_prompt(published_model, published_processor, golden, golden_pictures, row):
    """The processor's prompt is the published one: image, BOS, bare text. Prompts were cut to 24 tokens in tuning."""
    expected = json.loads((GOLDEN / "published/expected/expected.json").read_text())["text"]
    message = {
        "role": "user",
        "content": [
            {"type": "image", "image": golden_pictures[row]},
            {"type": "text", "text": expected["prompts"][row]},
        ],
    }
    inputs = published_processor.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids = inputs["input_ids"]
    longest = expected["max_prompt_tokens"] + QUERIES
    if ids.shape[1] > longest:
        kept = torch.tensor([*range(QUERIES + 1), *range(ids.shape[1] - longest + QUERIES + 1, ids.shape[1])])
        inputs["input_ids"], inputs["attention_mask"] = ids[:, kept], inputs["attention_mask"][:, kept]
    output = published_model.generate(**inputs, max_new_tokens=12, do_sample=False)
    new_tokens = output[:, inputs["input_ids"].shape[1] :]
    assert torch.equal(new_tokens, golden("generate")[f"single_{row}_new_tokens"])
    assert torch.equal(inputs["mqformer_input_ids"], golden(f"lm_single_{row}")["qformer_input_ids"])


def test_preprocessing_is_exact(published_processor, golden, golden_pictures):
    """Exact with Pillow 13, which made the golden images; older ones round some resized pixels to the next level."""
    expected = golden("inputs")
    one_level = 0.0 if int(PIL.__version__.split(".")[0]) >= 13 else 1.01 / 255 / 0.22  # divided by the smallest std
    views = {"pixel_values": published_processor(images=golden_pictures, return_tensors="pt")["pixel_values"]}
    for row, picture in enumerate(golden_pictures):
        refiner_views = published_processor.refiner.preprocess([picture.convert("RGB")])
        views[f"ram_pixel_values {row}"] = refiner_views["tagger_pixel_values"][0]
        views[f"grounding_image_{row}"] = refiner_views["pixel_values"][0]
    for name, view in views.items():
        key, _, row = name.partition(" ")
        golden_view = expected[key][int(row)] if row else expected[key]
        torch.testing.assert_close(view, golden_view, atol=one_level, rtol=0)


def test_settings_of_the_refiner_are_those_that_are_given(published):
    settings = {"box_threshold": 0.125, "dtype": torch.bfloat16}
    processor = LyricsProcessor.from_pretrained(published, refiner_kwargs=settings)
    assert processor.refiner_config.box_threshold == processor.refiner.config.box_threshold == 0.125
    assert processor.refiner.dtype == torch.bfloat16


def test_thresholds_of_tags_need_a_tagger(tmp_path):
    """By the folder and by a configuration, which stays as it was."""
    file = tmp_path / "thresholds.txt"
    file.write_text("0.5\n" * 10)
    config = LyricsRefinerConfig.from_pretrained(MICRO_CHECKPOINT, subfolder="refiner")
    config.tagger_config = None
    config.save_pretrained(tmp_path / "refiner")
    with pytest.raises(ValueError, match="has no effect: this refiner has no tagger"):
        LyricsRefinerConfig.from_pretrained(tmp_path / "refiner", tag_thresholds=file)
    with pytest.raises(ValueError, match="has no effect: this refiner has no tagger"):
        LyricsVisualRefiner.from_pretrained(MICRO_CHECKPOINT / "refiner", config=config, tag_thresholds=file)
    assert config.tagger_config is None
