"""Adapters are loaded whole, or not at all."""

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, VeraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from lyrics import MICRO_CHECKPOINT
from lyrics.conversion import merge_adapter
from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.processing_lyrics import LyricsProcessor

LOADERS = (LyricsForConditionalGeneration.from_pretrained, merge_adapter)


def save_adapter(folder, checkpoint=MICRO_CHECKPOINT, kind=LoraConfig, **options):
    """Save an adapter of a model whose weights are all random, and return its `PeftModel`."""
    torch.manual_seed(0)
    base = LyricsForConditionalGeneration.from_pretrained(checkpoint)
    settings = {"target_modules": r".*language_model\..*\.(q_proj|v_proj)", "modules_to_save": ["language_projection"]}
    tuned = get_peft_model(base, kind(**settings | options))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.rand_like(parameter))
    tuned.save_pretrained(folder)
    LyricsProcessor.from_pretrained(checkpoint).save_pretrained(folder, save_refiner=False)
    return tuned.eval()


def embed_and_predict(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(1, 9)[None]).logits


KINDS = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "loha": {"kind": LoHaConfig},
    "lokr": {"kind": LoKrConfig},
    "ia3": {"kind": IA3Config, "feedforward_modules": []},
    "oft": {"kind": OFTConfig, "oft_block_size": 8},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_loaded_adapter_is_the_saved_one(any_checkpoint, tmp_path, options):
    """Every weight, the magnitudes of DoRA among them, and the predictions; loaded and merged."""
    tuned = save_adapter(tmp_path, any_checkpoint, **options)
    model = LyricsForConditionalGeneration.from_pretrained(tmp_path).eval()
    loaded = {f"base_model.model.{name}": one for name, one in model.state_dict().items()}
    kinds = {name.split(".")[-3] for name, one in tuned.named_parameters() if one.requires_grad}
    assert ("lora_magnitude_vector" in kinds) == options.get("use_dora", False)
    assert all(torch.equal(one, loaded[name]) for name, one in tuned.state_dict().items())
    for one in (model, merge_adapter(tmp_path)[0]):
        torch.testing.assert_close(embed_and_predict(one), embed_and_predict(tuned), atol=1e-4, rtol=1e-4)


def test_an_adapter_that_peft_alone_can_load_is_named(tmp_path):
    """Transformers puts adapters into layers, and VeRA has weights that all layers share."""
    save_adapter(tmp_path, kind=VeraConfig, r=8)
    with pytest.raises(ValueError, match=r"does not support PeftType\.VERA"):
        LyricsForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["lora", "dora"])
@pytest.mark.parametrize("load", LOADERS, ids=["loaded", "merged"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("without LoRA", r"layers\.1\.self_attn\.v_proj\.lora_A.* is missing"),
        ("without part", r"language_projection.*\.bias.* is missing"),
        ("with more", r"layers\.9\.self_attn\.v_proj\.lora_A.* has no place in the model"),
    ],
)
def test_a_missing_or_unexpected_weight_is_named(tmp_path, options, load, change, message):
    save_adapter(tmp_path, **options)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "layers.1.self_attn.v_proj.lora_A" in name)
    match change:
        case "without LoRA":
            del tensors[name]
        case "without part":
            del tensors[next(name for name in tensors if "language_projection.bias" in name)]
        case _:
            tensors[name.replace("layers.1", "layers.9")] = tensors[name].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_all_files_of_an_adapter_come_from_the_same_place(tmp_path, options):
    """The mark of the base model and the magnitudes of DoRA too, which are read beside Transformers' loading."""
    tuned = save_adapter(tmp_path / "of" / "v1", **options)
    model = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT).eval()
    model.load_adapter(str(tmp_path / "of"), adapter_kwargs={"subfolder": "v1"})
    torch.testing.assert_close(embed_and_predict(model), embed_and_predict(tuned), atol=1e-4, rtol=1e-4)
