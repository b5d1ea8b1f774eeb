"""Vision encoders of many families as the eyes of a model: image size and normalization follow the encoder."""

import pytest
import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    OPTConfig,
    Siglip2VisionConfig,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from lyrics.conversion.compose import replace_parts
from lyrics.conversion.compose_checks import PartPlaces
from lyrics.conversion.image_processor import build_image_processor
from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.processing_lyrics import LyricsProcessor

SIDE = 56
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": SIDE, "patch_size": 14}
TEXT = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}


def blip2():
    vision = SIZES | {"intermediate_size": 64}
    queries = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = OPTConfig(hidden_size=32, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=32)
    return Blip2ForConditionalGeneration(Blip2Config(vision_config=vision, qformer_config=queries, text_config=text))


ENCODERS = {  # model, mean of its image processor, and the layer that is used
    "clip": (lambda: CLIPVisionModel(CLIPVisionConfig(**SIZES, intermediate_size=64)), 0.48, -2),
    "siglip": (lambda: SiglipVisionModel(SiglipVisionConfig(**SIZES, intermediate_size=64)), 0.5, -1),
    # a checkpoint of SigLIP 2 with a fixed resolution is a SigLIP with text and vision
    "siglip2": (
        lambda: SiglipModel(SiglipConfig(vision_config=SIZES | {"intermediate_size": 64}, text_config=TEXT)),
        0.5,
        -1,
    ),
    "dinov2": (lambda: Dinov2Model(Dinov2Config(**SIZES)), 0.485, -1),
    "dinov3": (
        lambda: DINOv3ViTModel(DINOv3ViTConfig(**SIZES, intermediate_size=64, num_register_tokens=2)),
        0.485,
        -1,
    ),
    "blip2": (blip2, 0.481, -1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder(name, saved, picture, tmp_path):
    """In place of the micro model's; saved and loaded again, it gives the same logits."""
    build, mean, layer = ENCODERS[name]
    torch.manual_seed(0)
    build().save_pretrained(tmp_path / "vision")
    CLIPImageProcessor(image_mean=[mean] * 3, image_std=[0.5] * 3).save_pretrained(tmp_path / "vision")
    model, processor = replace_parts(saved, PartPlaces(vision=tmp_path / "vision"))
    assert model.config.vision_feature_layer == layer
    assert dict(processor.image_processor.size) == {"height": SIDE, "width": SIDE}
    assert list(processor.image_processor.image_mean) == [mean] * 3
    for part in (model, processor):
        part.save_pretrained(tmp_path / "out")
    again = LyricsForConditionalGeneration.from_pretrained(tmp_path / "out")
    inputs = LyricsProcessor.from_pretrained(tmp_path / "out")(
        images=picture, text="<image> What?", return_tensors="pt"
    )
    assert inputs["pixel_values"].shape[-2:] == (SIDE, SIDE)
    with torch.inference_mode():
        torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)


def test_an_encoder_without_a_size_is_refused():
    with pytest.raises(ValueError, match="siglip2_vision_model has no fixed image_size"):
        build_image_processor(None, Siglip2VisionConfig())
