"""Original checkpoints of RAM, Grounding DINO and SAM: they give the original results, alone and in one refiner.

RAM's and Grounding DINO's are cut out of the published checkpoint, in their own layouts. The full golden data has
others, of other sizes, which are used where they are at hand.
"""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer

from lyrics.conversion import load_grounding_dino, load_original_refiner, load_ram, load_sam
from lyrics.conversion.weights import read_weights
from lyrics.modeling_lyrics import LyricsVisualRefiner
from lyrics.modeling_lyrics.refiner_images import segmenter_view

from ..conftest import SHARED_GOLDEN, assert_golden
from ..modeling_lyrics.test_published_checkpoint import Trap
from .conftest import SAM

needs_shared = pytest.mark.skipif(not SHARED_GOLDEN.is_dir(), reason="the full golden data is not beside this checkout")


# ---------------------------------------------------------------------------------------------------- numbers


def test_ram(originals, published, golden):
    ram = load_ram(
        originals / "ram.pth",
        published / "ram_tag_list.txt",
        chinese_tag_list=published / "ram_tag_list_chinese.txt",
        image_size=96,
    )
    with torch.no_grad():
        assert_golden(ram(golden("inputs")["ram_pixel_values"]).logits, golden("ram")["logits"])
    assert ram.config.id2label[18] == "chair"
    assert ram.config.chinese_labels[18] == "椅子"
    assert ram.config.threshold == 0.68


@pytest.mark.parametrize("row", [0, 1])
def test_grounding_dino(originals, golden, row):
    detector = load_grounding_dino(originals / "dino.pth", num_attention_heads=4, num_text_attention_heads=4)
    expected = golden(f"grounding_single_{row}")
    with torch.no_grad():
        output = detector(golden("inputs")[f"grounding_image_{row}"][None], expected["input_ids"])
    finite = expected["pred_logits"].isfinite()
    assert_golden(output.logits[finite], expected["pred_logits"][finite])
    assert_golden(output.pred_boxes, expected["pred_boxes"])


@pytest.mark.parametrize("row", [0, 1])
def test_sam(originals, row):
    sam = load_sam(originals / "sam.pth", num_decoder_attention_heads=4)
    expected = load_file(SAM / "expected.safetensors")
    picture = Image.open(SAM / f"image_{row}.png").convert("RGB")
    view, size = segmenter_view(picture, 128, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    if row == 0:
        assert_golden(view[None], expected["input_image_0"])
    scale = torch.tensor([size[1] / picture.width, size[0] / picture.height]).repeat(2)
    assert_golden(expected[f"boxes_{row}"] * scale, expected[f"boxes_resized_{row}"].float())
    with torch.no_grad():
        embedding = sam.get_image_embeddings(view[None])
        assert_golden(embedding, expected[f"image_embeddings_{row}"])
        for name, several in (("multimask", True), ("singlemask", False)):
            boxes = expected[f"boxes_resized_{row}"][None].float()
            output = sam(image_embeddings=embedding, input_boxes=boxes, multimask_output=several)
            assert_golden(output.pred_masks[0], expected[f"{name}_low_res_masks_{row}"])
            assert_golden(output.iou_scores[0], expected[f"{name}_iou_predictions_{row}"])


def test_masks_of_the_native_refiner(originals, published_refiner):
    """Full-size masks of SAM from the refiner's own code, for given boxes."""
    from lyrics.modeling_lyrics.refiner_segmentation import segment

    sam, expected = (
        load_sam(originals / "sam.pth", num_decoder_attention_heads=4),
        load_file(SAM / "expected.safetensors"),
    )
    picture = Image.open(SAM / "image_0.png").convert("RGB")
    view, size = segmenter_view(picture, 128, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    boxes = expected["boxes_0"].float() / torch.tensor([picture.width, picture.height]).repeat(2)
    with torch.no_grad():
        features, masks = segment(
            sam, view[None], torch.tensor([size]), [boxes], torch.tensor([[picture.height, picture.width]]), 1
        )
    logits = expected["singlemask_mask_logits_0"].view(masks[0].shape)
    clear = logits.abs() > 1e-4
    assert torch.equal(masks[0][clear], (logits > 0)[clear])
    assert features[0].shape == (2, 36)
    assert torch.equal(features[0][:, 32:], boxes)


def test_one_refiner_of_three_files(originals, published, golden_pictures, tmp_path):
    """It refines images, and is saved and loaded as any refiner."""
    refiner = LyricsVisualRefiner.from_parts(
        load_ram(originals / "ram.pth", published / "ram_tag_list.txt", image_size=96),
        load_grounding_dino(originals / "dino.pth", num_attention_heads=4, num_text_attention_heads=4),
        load_sam(originals / "sam.pth", num_decoder_attention_heads=4),
        AutoTokenizer.from_pretrained(published / "bert-base-uncased"),
        detector_shortest_edge=96,
        detector_longest_edge=160,
    )
    refiner.config.tagger_config.threshold = 0.41269
    refined = refiner.refine(golden_pictures)
    assert all(one.region_features.shape == (len(one.labels), 36) for one in refined)
    assert all(one.labels for one in refined)
    refiner.save_pretrained(tmp_path)
    again = LyricsVisualRefiner.from_pretrained(tmp_path).refine(golden_pictures)
    assert all(torch.equal(a.region_features, b.region_features) for a, b in zip(refined, again, strict=True))


@needs_shared
def test_original_ram():
    folder = SHARED_GOLDEN / "ram_original_tiny"
    ram = load_ram(
        folder / "ram_tiny.pth",
        folder / "ram_tag_list.txt",
        tag_thresholds=folder / "ram_tag_list_threshold.txt",
        image_size=96,
    )
    expected = load_file(folder / "expected.safetensors")
    with torch.no_grad():
        image, output = ram.model(expected["pixel_values"]), ram(expected["pixel_values"])
    assert_golden(image.last_hidden_state, expected["visual_encoder_output"])
    assert_golden(image.image_embeds, expected["image_embeds"])
    assert_golden(output.logits, expected["logits"])
    tags = [
        " | ".join(ram.config.id2label[tag] for tag in row.nonzero().flatten().tolist())
        for row in ram.fired(output.logits)
    ]
    assert tags == json.loads((folder / "expected.json").read_text())["tags_english"]


@needs_shared
@pytest.mark.parametrize("variant", ["d32", "d256"])
def test_original_grounding_dino(variant):
    folder = SHARED_GOLDEN / "groundingdino_original_tiny"
    heads = json.loads((folder / "bert-base-uncased/config.json").read_text())["num_attention_heads"]
    detector = load_grounding_dino(
        folder / f"groundingdino_{variant}.pth", num_attention_heads=4, num_text_attention_heads=heads
    )
    pixels, expected = (load_file(folder / f"expected_{name}.safetensors") for name in ("d32", variant))
    for row in range(2):
        with torch.no_grad():
            output = detector(
                pixels[f"pixel_values_{row}"].view(1, 3, *pixels[f"pixel_values_{row}"].shape[-2:]),
                expected[f"single_{row}_input_ids"],
            )
        finite = expected[f"single_{row}_pred_logits"].isfinite()
        assert_golden(output.logits[finite], expected[f"single_{row}_pred_logits"][finite])
        assert_golden(output.pred_boxes, expected[f"single_{row}_pred_boxes"])


# ---------------------------------------------------------------------------------------------------- faults


def load(kind, path, published):
    if kind == "ram":
        return load_ram(path, published / "ram_tag_list.txt", image_size=96)
    if kind == "dino":
        return load_grounding_dino(path, num_attention_heads=4, num_text_attention_heads=4)
    return load_sam(path, num_decoder_attention_heads=4)


@pytest.mark.parametrize("kind", ["ram", "dino", "sam"])
@pytest.mark.parametrize(
    "fault", ["missing file", "truncated", "code", "other layout", "missing weight", "wrong shape"]
)
def test_the_error_of_a_bad_file_names_it(originals, published, tmp_path, kind, fault):
    path, source = tmp_path / f"{kind}.pth", originals / f"{kind}.pth"
    trap = tmp_path / "sprung"
    weights = read_weights(source)
    name = next(name for name in weights if name.endswith(("fc1.bias", "lin1.bias", "linear1.bias")))
    message = rf"{kind}\.pth"
    if fault == "truncated":
        path.write_bytes(source.read_bytes()[:5000])
        message += ".*damaged"
    elif fault == "code":
        torch.save({"model": Trap(str(trap))}, path)
        message += ".*could run code"
    elif fault == "other layout":
        torch.save({"model": {"weight": torch.ones(1)}}, path)
        message += ".*not in the expected layout: it has no"
    elif fault == "missing weight":
        torch.save({key: value for key, value in weights.items() if key != name}, path)
        message += ".*missing keys: "
    elif fault == "wrong shape":
        torch.save(weights | {name: torch.zeros(7)}, path)
        message += ".*mismatched keys: "
    with pytest.raises(ValueError, match=message):
        load(kind, path, published)
    assert not trap.exists()


def test_tags_must_match_the_weights(originals, tmp_path):
    (tmp_path / "tags.txt").write_text("one\ntwo\n")
    with pytest.raises(ValueError, match=r"tags\.txt has 2 tags, but .*ram\.pth has 40"):
        load_ram(originals / "ram.pth", tmp_path / "tags.txt", image_size=96)
    with pytest.raises(ValueError, match=r"tags\.txt has 2 tags"):
        load_original_refiner(
            ram=originals / "ram.pth",
            tag_list=tmp_path / "tags.txt",
            grounding_dino=originals / "dino.pth",
            tokenizer=tmp_path,
        )


def test_safetensors_are_read_as_well(originals, published, tmp_path, golden):
    from safetensors.torch import save_file

    weights = {name: value.clone() for name, value in read_weights(originals / "ram.pth").items()}
    save_file(weights, tmp_path / "ram.safetensors")
    ram = load_ram(tmp_path / "ram.safetensors", published / "ram_tag_list.txt", image_size=96)
    with torch.no_grad():
        assert_golden(ram(golden("inputs")["ram_pixel_values"]).logits, golden("ram")["logits"])
