"""The original packages as parts of the refiner: they give the results of Transformers' classes.

Most need the packages, which need torchvision and with it CUDA: `make test-original` has an environment for them.
"""

import sys

import pytest
import torch
from PIL import Image
from torch import nn
from transformers import AutoConfig, AutoTokenizer

from lyrics.conversion import load_grounding_dino, load_original_refiner, load_ram, load_sam
from lyrics.conversion.original_grounding_dino import load_grounding_dino_package
from lyrics.conversion.original_packages import (
    OriginalPackagesRefiner,
    OriginalRam,
    load_ram_package,
    load_sam_package,
)
from lyrics.modeling_lyrics import LyricsVisualRefiner
from lyrics.modeling_lyrics.refiner_images import segmenter_view

from ..conftest import SHARED_GOLDEN, assert_golden
from .conftest import SAM

HEADS = {"num_attention_heads": 4, "num_text_attention_heads": 4}


@pytest.fixture(scope="module")
def words(published):
    return AutoTokenizer.from_pretrained(published / "bert-base-uncased")


@pytest.fixture(scope="module")
def native(originals, published):
    """RAM and SAM in Transformers' classes."""
    ram = load_ram(originals / "ram.pth", published / "ram_tag_list.txt", image_size=96)
    ram.config.threshold = 0.41269
    return ram, load_sam(originals / "sam.pth", num_decoder_attention_heads=4)


@pytest.mark.original
@pytest.mark.parametrize("row", [0, 1])
def test_segment_anything(originals, native, row):
    sam = load_sam_package(originals / "sam.pth", num_decoder_attention_heads=4)
    picture = Image.open(SAM / f"image_{row}.png").convert("RGB")
    view, _ = segmenter_view(picture, 128, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    boxes = torch.tensor([[[10.0, 20.0, 60.0, 70.0], [0.0, 0.0, 100.0, 50.0]]])
    with torch.no_grad():
        seen, expected = (each.get_image_embeddings(view[None]) for each in (sam, native[1]))
        assert_golden(seen, expected)
        for several in (False, True):
            one, other = (
                each(image_embeddings=expected, input_boxes=boxes, multimask_output=several)
                for each in (sam, native[1])
            )
            assert_golden(one.pred_masks, other.pred_masks)
            assert_golden(one.iou_scores, other.iou_scores)


@pytest.fixture(scope="module")
def wide():
    """Grounding DINO of the package's width: the native model, the package's model, and the tokenizer."""
    folder = SHARED_GOLDEN / "groundingdino_original_tiny"
    if not folder.is_dir():
        pytest.skip("the full golden data is not beside this checkout")
    file, words = folder / "groundingdino_d256.pth", AutoTokenizer.from_pretrained(folder / "bert-base-uncased")
    heads = AutoConfig.from_pretrained(folder / "bert-base-uncased").num_attention_heads
    settings = {"num_attention_heads": 4, "num_text_attention_heads": heads}
    native, package = load_grounding_dino(file, **settings), load_grounding_dino_package(file, words, **settings)
    return native, package, words


@pytest.mark.original
def test_grounding_dino(wide, golden):
    """For a batch of texts of different lengths, whose masks the package itself would mix."""
    native, package, words = wide
    text = words(["a red cup. a table.", "dog."], padding=True, return_tensors="pt")
    pixels = golden("inputs")["grounding_image_0"].expand(2, -1, -1, -1)
    with torch.no_grad():
        ours, theirs = package(pixels, **text), native(pixels, **text)
    for row, length in enumerate(text["attention_mask"].sum(dim=1).tolist()):
        assert_golden(ours.logits[row, :, :length], theirs.logits[row, :, :length])
    for name in ("pred_boxes", "last_hidden_state"):
        assert_golden(ours[name], theirs[name])
    assert_golden(ours.intermediate_reference_points[:, -1], theirs.intermediate_reference_points[:, -1])


@pytest.mark.original
def test_grounding_dino_of_another_width_is_refused(originals, words):
    with pytest.raises(ValueError, match=r"dino\.pth has the width 32; groundingdino-py supports 256 only"):
        load_grounding_dino_package(originals / "dino.pth", words, **HEADS)


@pytest.mark.original
@pytest.mark.parametrize("packages", [{"sam"}, {"grounding_dino"}, {"grounding_dino", "sam"}])
def test_a_refiner_gives_the_same_results_with_them(originals, native, wide, golden_pictures, tmp_path, packages):
    ram, sam = native
    dino, dino_package, words = wide
    settings = {"detector_shortest_edge": 96, "detector_longest_edge": 160, "box_threshold": 0.0, "text_threshold": 0.0}
    expected = LyricsVisualRefiner.from_parts(ram, dino, sam, words, **settings).refine(golden_pictures)
    refiner = OriginalPackagesRefiner.from_parts(
        ram,
        dino_package if "grounding_dino" in packages else dino,
        load_sam_package(originals / "sam.pth", num_decoder_attention_heads=4) if "sam" in packages else sam,
        words,
        **settings,
    )
    assert not any(parameter.requires_grad for parameter in refiner.parameters())
    for one, other in zip(refiner.refine(golden_pictures), expected, strict=True):
        assert len(one.labels) > 0
        assert one.labels == other.labels
        assert_golden(one.boxes, other.boxes)
        assert_golden(one.region_features, other.region_features)
    assert len(refiner.fingerprint()) == 64
    with pytest.raises(ValueError, match="cannot be saved"):
        refiner.save_pretrained(tmp_path)


class StandIn(nn.Module):
    """Replacement of recognize-anything's model, which is in no package index: a head, and tags as text."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 1)

    def generate_tag(self, pixel_values):
        features = pixel_values.mean((1, 2, 3))[:, None, None].expand(-1, 3, 4) * torch.arange(1.0, 4.0)[:, None]
        return [" | ".join("abc") for _ in self.fc(features)]


def test_recognize_anything_gives_its_scores(native):
    config = native[0].config
    model, pixels = StandIn(), torch.rand(2, 3, 8, 8)
    logits = OriginalRam(config, model)(pixels).logits
    scale = pixels.mean((1, 2, 3))[:, None] * torch.arange(1.0, 4.0)
    torch.testing.assert_close(logits, scale * model.fc.weight.sum() + model.fc.bias)
    assert not model.fc._forward_hooks


@pytest.mark.parametrize(
    ("part", "package", "command"),
    [
        ("ram", "recognize-anything", r"pip install git\+https"),
        ("grounding_dino", "groundingdino-py", r"pip install 'ziya-lyrics\[original\]'"),
        ("sam", "segment-anything", r"pip install 'ziya-lyrics\[original\]'"),
    ],
)
def test_a_missing_package_is_named_with_the_way_to_install_it(
    originals, published, monkeypatch, part, package, command
):
    for module in ("ram", "groundingdino", "segment_anything"):
        monkeypatch.setitem(sys.modules, module, None)
    load = {
        "ram": lambda: load_ram_package(originals / "ram.pth", published / "ram_tag_list.txt"),
        "grounding_dino": lambda: load_grounding_dino_package(originals / "dino.pth", None),
        "sam": lambda: load_sam_package(originals / "sam.pth"),
    }[part]
    with pytest.raises(ImportError, match=rf"{package} cannot be imported .*{command}"):
        load()


def test_an_unknown_package_is_refused(originals, published):
    with pytest.raises(ValueError, match="`packages` has no part dino; the parts are ram"):
        load_original_refiner(
            ram=originals / "ram.pth",
            tag_list=published / "ram_tag_list.txt",
            grounding_dino=originals / "dino.pth",
            tokenizer=published / "bert-base-uncased",
            packages=["dino"],
        )
