"""Files of a checkpoint that are damaged, missing or hostile: the message names them, and no code runs."""

import json
import shutil

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from lyrics import MICRO_CHECKPOINT
from lyrics.modeling_lyrics import (
    LyricsConfig,
    LyricsForConditionalGeneration,
    LyricsMQFormerConfig,
    LyricsPreTrainingConfig,
    LyricsRefinerConfig,
    LyricsVisualRefiner,
    RamConfig,
    configuration_base,
)
from lyrics.modeling_lyrics.adapter_checks import find_base_model, mark_base, write_adapter_file
from lyrics.processing_lyrics.processor_checks import find_adapter_base

LOADERS = {
    "": LyricsForConditionalGeneration.from_pretrained,
    "refiner": lambda folder: LyricsVisualRefiner.from_pretrained(folder, subfolder="refiner"),
}
NAMES = {"": "lm_head.weight", "refiner": "segmenter.mask_decoder.iou_token.weight"}


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


class Trap:
    """A pickle that would write a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


# ---------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("part", LOADERS)
@pytest.mark.parametrize(
    "fault", ["half", "header", "empty", "noise", "missing", "pickle", "numbers", "names", "shape"]
)
def test_damaged_weights_are_named(damaged, part, fault):
    path, name, message = damaged / part / "model.safetensors", NAMES[part], r"model\.safetensors' is damaged"
    content = path.read_bytes()
    if fault in ("half", "header", "empty", "noise"):
        path.write_bytes(
            {"half": content[: len(content) // 2], "header": content[:99], "empty": b""}.get(fault, b"\xff" * 99)
        )
    elif fault == "shape":
        save_file(load_file(path) | {name: torch.zeros(3, 3)}, path, metadata={"format": "pt"})
        message = rf"{name} is \(3, 3\) and not \("
    else:
        path.unlink()
        pickled = {"pickle": {name: Trap(damaged / "sprung")}, "numbers": [1, 2]}
        if fault in pickled:
            torch.save(pickled[fault], path.with_name("pytorch_model.bin"))
        if fault == "names":  # a name that is no text, in the older form of the file
            torch.save({"abc": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
            path.with_name("pytorch_model.bin").write_bytes(path.read_bytes().replace(b"abc", b"\xffbc"))
            path.unlink()
        message = {
            "pickle": r"pytorch_model\.bin' is not a file of weights alone",
            "numbers": r"pytorch_model\.bin' holds no weights by name",
            "names": r"pytorch_model\.bin' is damaged",
        }.get(fault, "no file named model.safetensors")
    with pytest.raises(OSError if fault == "missing" else ValueError, match=message):
        LOADERS[part](damaged)
    assert not (damaged / "sprung").exists()


@pytest.mark.parametrize("part", LOADERS)
def test_weights_that_are_missing_or_unknown(damaged, part, caplog):
    """Transformers' report names them; a refiner, which nobody trains, is refused."""
    path, name = damaged / part / "model.safetensors", NAMES[part]
    weights = load_file(path)
    save_file(
        {f"other.{name}" if key == name else key: weights[key] for key in weights}, path, metadata={"format": "pt"}
    )
    if part:
        with pytest.raises(ValueError, match=rf"lacks weights of the refiner: {name}\."):
            LOADERS[part](damaged)
    else:
        _, report = LyricsForConditionalGeneration.from_pretrained(damaged, output_loading_info=True)
        assert report["missing_keys"] == {name}
        assert report["unexpected_keys"] == {f"other.{name}"}


def test_other_shapes_can_be_asked_for(damaged):
    """As in Transformers; nothing is allocated for shapes that were not."""
    edit(damaged / "config.json", lambda config: config["text_config"].update(vocab_size=300))
    model = LyricsForConditionalGeneration.from_pretrained(damaged, ignore_mismatched_sizes=True)
    assert model.lm_head.out_features == 300
    edit(damaged / "config.json", lambda config: config["text_config"].update(vocab_size=10**12))
    with pytest.raises(ValueError, match=r"not \(1000000000000, 128\)"):
        LyricsForConditionalGeneration.from_pretrained(damaged)


@pytest.fixture(scope="module")
def sharded(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    model.save_pretrained(folder, max_shard_size="1MB")
    return folder


@pytest.mark.parametrize("variant", [None, "half"])
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("../outside.safetensors", ValueError),
        ("/{parent}/outside.safetensors", ValueError),
        ("C:\\outside.safetensors", ValueError),
        ("sub/../../outside.safetensors", ValueError),
        ("", ValueError),
        (3, ValueError),
        (None, ValueError),
        ("missing.safetensors", OSError),
    ],
)
def test_shards_lie_within_the_checkpoint(sharded, tmp_path, name, variant, error):
    """An index may name any file of the machine, and Transformers would read it."""
    folder = shutil.copytree(sharded, tmp_path / "checkpoint")
    shard = min(folder.glob("model-*"))
    shutil.copy(shard, tmp_path / "outside.safetensors")
    index = folder / "model.safetensors.index.json"
    name = name.format(parent=str(tmp_path).lstrip("/")) if isinstance(name, str) else name
    edit(index, lambda value: value["weight_map"].update(dict.fromkeys(load_file(shard), name)))
    if variant:
        index = index.rename(folder / f"model.safetensors.index.{variant}.json")
    with pytest.raises(error, match="is no file of this checkpoint" if error is ValueError else "missing.safetensors"):
        LyricsForConditionalGeneration.from_pretrained(folder, variant=variant)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 10**5]
)
def test_a_damaged_index_is_named(sharded, tmp_path, content):
    folder = shutil.copytree(sharded, tmp_path / "checkpoint")
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json' (is not JSON|holds no object|is no index)"):
        LyricsForConditionalGeneration.from_pretrained(folder)


# ---------------------------------------------------------------------------------------------------- configurations


@pytest.mark.parametrize(
    ("part", "name"),
    [("", "config.json"), ("", "generation_config.json")]
    + [("refiner", name) for name in ("config.json", "tokenizer.json", "tokenizer_config.json")],
)
@pytest.mark.parametrize(
    "content", [b"{nope", b"null", b"[]", b"\xff\xfe\x00", b"[" * 10**5], ids=lambda text: ascii(text[:5])
)
def test_what_is_no_json_object_is_named(damaged, part, name, content):
    (damaged / part / name).write_bytes(content)
    with pytest.raises((OSError, ValueError), match=name.replace(".", r"\.")):
        LOADERS[part](damaged)


@pytest.mark.parametrize("part", LOADERS)
def test_weights_without_a_configuration_are_refused(damaged, part):
    """Transformers would load what fits into a model of the default configuration."""
    (damaged / part / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        LOADERS[part](damaged)


@pytest.mark.parametrize(
    ("part", "keys", "value", "message"),
    [
        ("", ["mqformer_config", "hidden_size"], "wide", "LyricsConfig: mqformer_config: .*'hidden_size'"),
        ("", ["mqformer_config", "num_visual_queries"], -1, "LyricsConfig: mqformer_config: .*num_visual_queries=-1"),
        ("", ["mqformer_config"], 3, "LyricsConfig: .*mqformer_config"),
        ("", ["vision_config", "num_attention_heads"], 0, "LyricsConfig: vision_config: ZeroDivisionError"),
        ("", ["vision_config", "model_type"], "nope", "LyricsConfig: vision_config: .*nope"),
        ("", ["text_config", "vocab_size"], None, "LyricsConfig: text_config: .*'vocab_size'"),
        (
            "",
            ["text_config", "hidden_act"],
            "nope",
            "cannot be loaded as LyricsForConditionalGeneration: KeyError: 'nope'",
        ),
        (
            "",
            ["mqformer_config", "num_hidden_layers"],
            0,
            "mqformer_config: .*num_hidden_layers must be positive, got 0",
        ),
        ("", ["mqformer_config", "num_attention_heads"], 0, "num_attention_heads must be positive, got 0"),
        ("", ["mqformer_config", "hidden_dropout_prob"], 1.5, r"hidden_dropout_prob must be in \[0, 1\), .* got 1.5"),
        ("", ["mqformer_config", "layer_norm_eps"], float("nan"), "layer_norm_eps must be positive, got nan"),
        ("", ["vision_config", "num_hidden_layers"], 0, "num_hidden_layers must be positive, got 0"),
        ("", ["text_config", "num_hidden_layers"], 0, "num_hidden_layers must be positive, got 0"),
        ("refiner", ["box_threshold"], 1.5, r"box_threshold must be in \[0, 1\], got 1.5"),
        ("refiner", ["text_threshold"], -0.1, r"text_threshold must be in \[0, 1\], got -0.1"),
        ("refiner", ["iou_threshold"], float("nan"), r"iou_threshold must be in \[0, 1\], got nan"),
        ("refiner", ["image_std"], [0.2, 0, 0.2], "image_std must be positive, got"),
        ("refiner", ["detector_std"], 0, "detector_std must be positive, got 0"),
        ("refiner", ["image_mean"], float("inf"), "image_mean must be finite, got inf"),
        ("refiner", ["tagger_config", "threshold"], 2, r"tagger_config: .*threshold must be in \[0, 1\], got 2"),
        ("refiner", ["tagger_config", "image_std"], [0, 0, 0], "tagger_config: .*image_std must be positive"),
        ("refiner", ["tagger_config", "num_hidden_layers"], 0, "num_hidden_layers must be positive, got 0"),
        ("", ["image_token_id"], -1, "LyricsConfig: .*image_token_id must be a token id, got -1"),
        ("", ["vision_feature_layer"], "last", "LyricsConfig: .*'vision_feature_layer'"),
        ("", ["dtype"], "float17", "LyricsConfig: .*float17"),
        ("", ["transformers_weights"], "../model.safetensors", "must reference a file inside"),
        ("", ["transformers_weights"], "x", "neither a safetensors file"),
        ("refiner", ["region_feature_type"], "both", "LyricsRefinerConfig: .*'region_feature_type'"),
        ("refiner", ["max_regions"], 0, "LyricsRefinerConfig: .*max_regions must be positive, got 0"),
        ("refiner", ["tagger_config", "id2label"], {"a": "b"}, "LyricsRefinerConfig: tagger_config: "),
        (
            "refiner",
            ["tagger_config", "threshold"],
            [0.5],
            "LyricsRefinerConfig: tagger_config: .*threshold has 1 entries",
        ),
        ("refiner", ["tagger_config", "image_mean"], ["red"], "LyricsRefinerConfig: tagger_config: .*'image_mean'"),
        ("refiner", ["detector_config", "d_model"], "wide", "LyricsRefinerConfig: detector_config: .*'d_model'"),
    ],
)
def test_wrong_values_are_named(damaged, part, keys, value, message):
    """The checkpoint, the configuration, the sub-model and the key."""

    def change(config):
        for key in keys[:-1]:
            config = config[key]
        config[keys[-1]] = value

    edit(damaged / part / "config.json", change)
    with pytest.raises(ValueError, match=f"(?s)damaged.*{message}"):
        LOADERS[part](damaged)


def test_wrong_values_are_named_by_the_auto_class(damaged):
    edit(damaged / "config.json", lambda config: config["mqformer_config"].update(hidden_size="wide"))
    with pytest.raises(ValueError, match=r"damaged: wrong LyricsConfig: mqformer_config: .*'hidden_size'"):
        AutoConfig.from_pretrained(damaged)


def test_wrong_settings_of_generation_are_named(damaged):
    edit(damaged / "generation_config.json", lambda config: config.update(max_new_tokens="many"))
    with pytest.raises(ValueError, match=r"generation_config\.json holds wrong settings"):
        LyricsForConditionalGeneration.from_pretrained(damaged)


@pytest.mark.parametrize(
    ("config_class", "key", "advice"),
    [
        (LyricsConfig, "vision_feature_layers", "did you mean 'vision_feature_layer'?"),
        (LyricsMQFormerConfig, "num_visual_query", "did you mean 'num_visual_queries'?"),
        (LyricsPreTrainingConfig, "itc_weigth", "did you mean 'itc_weight'?"),
        (LyricsRefinerConfig, "box_treshold", "did you mean 'box_threshold'?"),
        (RamConfig, "zzz", "it has no effect."),
    ],
)
def test_unknown_keys_are_warned_of_once(config_class, key, advice, caplog):
    configuration_base.logger.warning_once.cache_clear()
    for _ in range(2):
        config_class(**{key: 1})
    assert caplog.messages == [f"{config_class.__name__} does not know the key {key!r}: {advice}"]


def test_keys_of_transformers_are_known(saved, tmp_path, caplog):
    """What Transformers, its trainers and remote code write, and old files hold, gives no warning."""
    configuration_base.logger.warning_once.cache_clear()
    config = LyricsConfig.from_pretrained(saved)
    config.use_cache = False
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
    config.auto_map = {"AutoConfig": "configuration_lyrics.LyricsConfig"}
    config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    config.save_pretrained(tmp_path)
    edit(
        tmp_path / "config.json", lambda values: values.update(torch_dtype="float32", _name_or_path="x", max_length=20)
    )
    AutoConfig.from_pretrained(tmp_path, attn_implementation="eager")
    AutoConfig.from_pretrained(saved, subfolder="refiner")
    LyricsConfig.from_pretrained(tmp_path, output_attentions=True)
    assert "does not know" not in caplog.text


def write_nan(folder, part="", dtype=torch.float32):
    """Copy the shipped model with one value that is no number, and return the pattern of its error."""
    shutil.copytree(MICRO_CHECKPOINT, folder)
    path = folder / part / "model.safetensors"
    weights = {name: weight.to(dtype) for name, weight in load_file(path).items()}
    name = max(weights, key=lambda one: weights[one].numel())
    weights[name].view(-1)[7] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})
    return rf"nan.*{name.split('.')[-2]}\.\w+ has values that are not numbers"


@pytest.mark.parametrize("part", ["", "refiner"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_no_numbers_are_named(part, dtype, tmp_path):
    """Of the shipped model; one value is enough."""
    message = write_nan(tmp_path / "nan", part, dtype)
    with pytest.raises(ValueError, match=message):
        LOADERS[part](tmp_path / "nan")


@pytest.fixture
def _distributed():
    """A group of one process, as a launcher makes it."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_distributed")
def test_weights_that_are_no_numbers_are_named_by_the_processes_that_hold_them(tmp_path, monkeypatch):
    """With FSDP, only the first process of a machine reads the file."""
    message = write_nan(tmp_path / "nan")
    for fsdp, rank in (("false", "0"), ("false", "1"), ("true", "0")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        monkeypatch.setenv("ACCELERATE_USE_FSDP", fsdp)
        monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", fsdp)
        with pytest.raises(ValueError, match=message):
            LyricsForConditionalGeneration.from_pretrained(tmp_path / "nan")
    monkeypatch.setenv("LOCAL_RANK", "1")
    LyricsForConditionalGeneration.from_pretrained(tmp_path / "nan")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "temperature must be positive, got 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), .* got 1.0"),
        ({"itc_weight": float("nan")}, "itc_weight must be finite, got nan"),
        ({"vision_config": {"num_hidden_layers": 0}}, "num_hidden_layers must be positive, got 0"),
    ],
)
def test_wrong_settings_of_the_first_stage_are_named(settings, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        LyricsPreTrainingConfig(**settings)


# ---------------------------------------------------------------------------------------------------- adapters


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """Folder of an adapter of the shipped model."""
    folder = tmp_path_factory.mktemp("adapter") / "whole"
    model = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT)
    details = {"base_model": str(MICRO_CHECKPOINT), "base_mark": mark_base(model), "trained_parts": []}
    get_peft_model(model, LoraConfig(r=2, target_modules=r".*language_model.*\.q_proj")).save_pretrained(folder)
    write_adapter_file(folder, details)
    LyricsForConditionalGeneration.from_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_config.json", b"["),
        ("adapter_config.json", b"[1]"),
        ("adapter_config.json", b"[" * 50_000),
        ("lyrics_adapter.json", b"\xff"),
        ("lyrics_adapter.json", b"[1]"),
        ("lyrics_adapter.json", b'{"base_model": 3, "base_mark": "a", "trained_parts": []}'),
        ("lyrics_adapter.json", b'{"base_model": "a", "base_mark": "a", "trained_parts": 3}'),
        ("lyrics_adapter.json", b"{}"),
        ("adapter_model.safetensors", b"no weights"),
    ],
)
def test_damaged_files_of_an_adapter_are_named(adapter, tmp_path, name, content):
    folder = shutil.copytree(adapter, tmp_path / "copied")
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match="copied"):
        LyricsForConditionalGeneration.from_pretrained(folder)
    if name.endswith(".json"):
        with pytest.raises(ValueError, match=name):
            find_base_model(folder)
    if name.endswith(".json") and b'"base_model": "a"' not in content and content != b"{}":
        with pytest.raises(ValueError, match=name):
            find_adapter_base(folder)


def test_an_adapter_with_weights_of_other_shapes_is_refused(adapter, tmp_path):
    folder = shutil.copytree(adapter, tmp_path / "copied")
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    name = min(weights)
    save_file(weights | {name: torch.zeros(3, 5)}, path)
    with pytest.raises(ValueError, match=r"copied cannot be loaded: weights have other shapes"):
        LyricsForConditionalGeneration.from_pretrained(folder)
