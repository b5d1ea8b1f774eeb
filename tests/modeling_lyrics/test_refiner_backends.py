"""The refiner with other detectors and segmenters of Transformers: what holds for each of them."""

import itertools

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    EdgeTamConfig,
    EdgeTamModel,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Sam2Config,
    Sam2Model,
    SamHQConfig,
    SamHQModel,
)
from transformers.modeling_outputs import BaseModelOutput

from lyrics.assets import draw_table
from lyrics.assets.random_model import build_bert_tokenizer, micro_refiner_config
from lyrics.modeling_lyrics import LyricsRefinerConfig, LyricsVisualRefiner

TAGS = ["ball", "cup", "book"]
WIDTH = 32


def build_clip_tokenizer():
    """Letters; as in CLIP, the end of a text has the highest number."""
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*characters, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ends = [(token, vocabulary[token]) for token in ("<|startoftext|>", "<|endoftext|>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|startoftext|>", eos_token="<|endoftext|>", pad_token="!"
    )


def build_owl():
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Owlv2Config(
        text_config={**text, "vocab_size": 300, "max_position_embeddings": 40},
        vision_config={**text, "image_size": 96, "patch_size": 16},
        projection_dim=32,
    )
    model = Owlv2ForObjectDetection(config)
    with torch.no_grad():  # else random boxes are as large as the image or have no size
        for parameter in model.box_head.parameters():
            parameter.mul_(0.1)
    return model, build_clip_tokenizer()


def build_grounding_dino(cls=None):
    tokenizer = build_bert_tokenizer()
    config = micro_refiner_config(len(tokenizer)).detector_config
    if cls is not None:
        fields = {name: value for name, value in config.to_dict().items() if name != "model_type"}
        return cls(MMGroundingDinoConfig(**fields)), tokenizer
    from transformers import GroundingDinoForObjectDetection

    return GroundingDinoForObjectDetection(config), tokenizer


def build_sam_hq():
    vision = {
        "hidden_size": 32,
        "output_channels": WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 96,
        "patch_size": 8,
        "window_size": 4,
        "global_attn_indexes": [1, 3],
        "num_pos_feats": WIDTH // 2,
        "mlp_dim": 64,
        "initializer_range": 0.02,
    }
    decoder = {"hidden_size": WIDTH, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32, "vit_dim": 32}
    prompts = {"hidden_size": WIDTH, "image_size": 96, "patch_size": 8}
    return SamHQModel(SamHQConfig(vision_config=vision, mask_decoder_config=decoder, prompt_encoder_config=prompts))


def build_sam2():
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 16,
        "image_size": [128, 128],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 4, 4],
        "global_attention_blocks": [3],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": WIDTH,
    }
    decoder = {"hidden_size": WIDTH, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
    prompts = {"hidden_size": WIDTH, "image_size": 128, "patch_size": 16}
    return Sam2Model(Sam2Config(vision_config=vision, mask_decoder_config=decoder, prompt_encoder_config=prompts))


class TinyPyramidConfig(PreTrainedConfig):
    """Configuration of `TinyPyramid`."""

    model_type = "tiny_pyramid"


class TinyPyramid(PreTrainedModel):
    """Feature maps at 1/4 to 1/32 of the image, as timm's RepViT gives them to EdgeTAM; timm needs torchvision."""

    config_class = TinyPyramidConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        sides, widths = (4, 2, 2, 2), (3, 16, 32, 64, 128)
        self.stages = nn.ModuleList(
            nn.Conv2d(*channels, side, side) for channels, side in zip(itertools.pairwise(widths), sides, strict=True)
        )
        self.post_init()

    def forward(self, pixel_values, **kwargs):
        maps = []
        for stage in self.stages:
            maps.append(stage(maps[-1] if maps else pixel_values).relu())
        return BaseModelOutput(last_hidden_state=maps)


AutoConfig.register("tiny_pyramid", TinyPyramidConfig)
AutoModel.register(TinyPyramidConfig, TinyPyramid)


def build_edgetam():
    vision = {
        "backbone_config": {"model_type": "tiny_pyramid"},
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": WIDTH,
    }
    decoder = {"hidden_size": WIDTH, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
    prompts = {"hidden_size": WIDTH, "image_size": 128, "patch_size": 16}
    return EdgeTamModel(EdgeTamConfig(vision_config=vision, mask_decoder_config=decoder, prompt_encoder_config=prompts))


PARTS = {
    "mm-grounding-dino": (lambda: build_grounding_dino(MMGroundingDinoForObjectDetection), build_sam_hq),
    "owlv2": (build_owl, build_sam_hq),
    "sam_hq": (build_grounding_dino, build_sam_hq),
    "sam2": (build_grounding_dino, build_sam2),
    "owlv2 and sam2": (build_owl, build_sam2),
    "edgetam": (build_grounding_dino, build_edgetam),
}


@pytest.fixture(params=PARTS, scope="module")
def refiner(request):
    """Random weights: everything is found everywhere, at thresholds that keep some of it."""
    detector, segmenter = PARTS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, tokenizer = detector()
        edges = {"detector_shortest_edge": 96, "detector_longest_edge": 160}
        return LyricsVisualRefiner.from_parts(
            None, model.eval(), segmenter().eval(), tokenizer, max_regions=6, box_threshold=0.01, text_threshold=0.01,
            boxes_per_batch=4, **edges,
        )  # fmt: skip


@pytest.fixture(scope="module")
def pictures():
    return [draw_table(), draw_table(200, 320), draw_table(320, 320)]


def assert_same(one, other):
    assert one.labels == other.labels
    for name in ("boxes", "scores", "region_features"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-4, rtol=1e-4)


def test_objects_are_complete(refiner, pictures):
    for picture, seen in zip(pictures, refiner.refine(pictures, [TAGS] * 3, return_masks=True), strict=True):
        assert 0 < len(seen.labels) <= 6
        assert set(seen.labels) <= set(TAGS)
        assert seen.region_features.shape == (len(seen.labels), WIDTH + 4)
        assert seen.region_features.isfinite().all()
        assert (seen.region_features[:, -4:] == seen.boxes).all()
        assert ((seen.boxes >= 0) & (seen.boxes <= 1)).all()
        assert seen.masks.shape == (len(seen.labels), picture.height, picture.width)


@pytest.mark.parametrize("lost", ["logits", "pred_boxes"])
def test_a_detector_that_overflows_is_named(refiner, pictures, caplog, lost):
    """Half precision may overflow. Nothing is found then, although the image may hold objects."""

    def overflow(module, args, output):
        output[lost] = output[lost] * torch.nan
        return output

    hook = refiner.detector.register_forward_hook(overflow)
    try:
        assert refiner.refine(pictures[:1], [TAGS])[0].labels == []
    finally:
        hook.remove()
    assert "The refiner's detector computed" in caplog.text
    assert "not finite, in torch.float32" in caplog.text
    caplog.clear()
    assert refiner.refine(pictures[:1], [TAGS])[0].labels
    assert not caplog.text


def test_batched_is_one_by_one(refiner, pictures):
    tags = [TAGS, TAGS[:1], []]
    together = refiner.refine(pictures, tags, batch_size=3)
    assert not together[2].labels
    for index, seen in enumerate(together):
        assert_same(seen, refiner.refine([pictures[index]], [tags[index]])[0])


def test_saved_is_loaded(refiner, pictures, tmp_path):
    refiner.save_pretrained(tmp_path)
    loaded = LyricsVisualRefiner.from_pretrained(tmp_path)
    assert loaded.fingerprint() == refiner.fingerprint()
    assert_same(loaded.refine(pictures[:1], [TAGS])[0], refiner.refine(pictures[:1], [TAGS])[0])


def test_owl_finds_what_transformers_own_processing_finds():
    torch.manual_seed(0)
    model, tokenizer = build_owl()
    everything = {"iou_threshold": 1.0, "box_threshold": 0.0, "text_threshold": 0.0}
    refiner = LyricsVisualRefiner.from_parts(None, model.eval(), build_sam2().eval(), tokenizer, **everything)
    picture = draw_table(200, 320)
    pixels = refiner.preprocess([picture])["pixel_values"]
    text = tokenizer([f"a photo of a {tag}" for tag in TAGS], padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(pixel_values=pixels, **text)
    expected = Owlv2ImageProcessorPil().post_process_object_detection(output, 0.0, [(320, 200)])[0]
    seen = refiner.refine([picture], [TAGS])[0]
    boxes = (expected["boxes"] / torch.tensor([200, 320, 200, 320])).clamp(0, 1)
    order = expected["scores"].argsort(descending=True, stable=True)
    order = order[(boxes[order, 2:] > boxes[order, :2]).all(dim=1)]  # the others lie beside the image
    assert 10 < len(order) < len(boxes)
    torch.testing.assert_close(seen.boxes, boxes[order])
    torch.testing.assert_close(seen.scores, expected["scores"][order])
    assert seen.labels == [TAGS[index] for index in expected["labels"][order].tolist()]


@pytest.mark.parametrize("build", [build_sam_hq, build_sam2, build_edgetam])
def test_segmenters_outline_as_when_they_are_asked_at_once(build):
    torch.manual_seed(0)
    segmenter = build().eval()
    detector, tokenizer = build_grounding_dino()
    refiner = LyricsVisualRefiner.from_parts(None, detector.eval(), segmenter, tokenizer, box_threshold=0.01,
                                             text_threshold=0.01, boxes_per_batch=2, max_regions=5)  # fmt: skip
    picture = draw_table(320, 320)
    seen = refiner.refine([picture], [TAGS], return_masks=True)[0]
    pixels = refiner.preprocess([picture])["segmenter_pixel_values"]
    with torch.no_grad():
        boxes = seen.boxes[None] * refiner.config.segmenter_side
        logits = segmenter(pixel_values=pixels, input_boxes=boxes, multimask_output=False).pred_masks[0, :, 0]
    side = (refiner.config.segmenter_side,) * 2
    full = torch.nn.functional.interpolate(logits[:, None], side, mode="bilinear")
    full = torch.nn.functional.interpolate(full, (320, 320), mode="bilinear")[:, 0] > 0
    assert (full == seen.masks).float().mean() > 0.999


def test_a_tag_that_is_too_long_for_owl_is_named():
    model, tokenizer = build_owl()
    refiner = LyricsVisualRefiner.from_parts(None, model, build_sam2(), tokenizer)
    with pytest.raises(ValueError, match=r"The tag 'xxx.* takes \d+ tokens; the detector takes 40"):
        refiner.refine([Image.new("RGB", (64, 64))], [["x" * 50]])


def test_owl_has_no_queries_to_describe_regions_by():
    with pytest.raises(StrictDataclassError, match=r"owlv2 has none"):
        LyricsRefinerConfig(detector_config=Owlv2Config(), region_feature_type="detection")


def test_the_fast_configuration_takes_other_fields():
    """Fast parts, at real sizes but without weights; each field can be given."""
    with torch.device("meta"):
        refiner = LyricsVisualRefiner(LyricsRefinerConfig.fast(max_regions=16))
    assert [type(part).__name__ for part in (refiner.tagger, refiner.detector, refiner.segmenter)] == [
        "RamForImageTagging",
        "GroundingDinoForObjectDetection",
        "Sam2Model",
    ]
    assert refiner.config.max_regions == 16
    assert refiner.config.segmenter_stretches
    assert refiner._detector_size(Image.new("RGB", (640, 480))) == (853, 640)
    assert LyricsRefinerConfig.fast(tagger_config=None).tagger_config is None
