"""Models and images that many tests share: the golden published checkpoint, and the random micro model."""

import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from hypothesis import settings
from PIL import Image
from safetensors.torch import load_file
from transformers.utils import logging

from lyrics.assets import MICRO_CHECKPOINT, draw_table, random_parts
from lyrics.modeling_lyrics import LyricsForConditionalGeneration, LyricsVisualRefiner
from lyrics.processing_lyrics import LyricsProcessor, VisualObjects

from .optional_settings import parts_with_every_option

constants.HF_HUB_OFFLINE = True  # pytest imports the package's root, and with it this constant, before this file
logging.disable_progress_bar()
settings.register_profile("lyrics", deadline=None, derandomize=True)  # the same examples every time, however slow
settings.load_profile("lyrics")
torch.set_num_threads(1)
# Torch 2.13 writes C++ that does not compile for flex attention of dynamic shapes on a CPU: compile each shape.
torch._dynamo.config.automatic_dynamic_shapes = False
torch._dynamo.config.recompile_limit = 64

GOLDEN = Path(__file__).parent / "golden"
SHARED_GOLDEN = Path(__file__).parents[2] / "shared" / "golden"


def assert_golden(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal within the tolerance that the golden data states."""
    torch.testing.assert_close(actual, expected, atol=5e-5, rtol=1e-4)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, torch.Tensor]]:
    """Tensors of a file of the published checkpoint's golden data."""
    return lambda name: load_file(GOLDEN / "published" / "expected" / f"{name}.safetensors")


@pytest.fixture(scope="session")
def full_golden() -> Callable[[str], dict[str, torch.Tensor]]:
    """As `golden`, with every tensor of the file where the full golden data is at hand."""
    folder = SHARED_GOLDEN / "legacy_lyrics_tiny" / "expected"
    folder = folder if folder.is_dir() else GOLDEN / "published" / "expected"
    return lambda name: load_file(folder / f"{name}.safetensors")


@pytest.fixture(scope="session")
def golden_pictures() -> list[Image.Image]:
    """The two images that the golden data was computed from."""
    return [Image.open(GOLDEN / "published" / "expected" / f"image_{index}.png") for index in range(2)]


@pytest.fixture(scope="session")
def published() -> Path:
    """A checkpoint in the published layout."""
    return GOLDEN / "published" / "checkpoint"


@pytest.fixture(scope="session")
def published_model(published: Path) -> LyricsForConditionalGeneration:
    """The model of the published checkpoint, not to be changed."""
    return LyricsForConditionalGeneration.from_pretrained(published)


@pytest.fixture(scope="session")
def published_processor(published: Path) -> LyricsProcessor:
    """The processor of the published checkpoint; its refiner takes images as small as the golden data's."""
    processor = LyricsProcessor.from_pretrained(published)
    processor.refiner.config.detector_shortest_edge = 96
    processor.refiner.config.detector_longest_edge = 160
    return processor


@pytest.fixture(scope="session")
def published_refiner(published_processor: LyricsProcessor) -> LyricsVisualRefiner:
    """The refiner of `published_processor`."""
    return published_processor.refiner


@pytest.fixture(scope="session")
def micro() -> tuple[LyricsForConditionalGeneration, LyricsProcessor]:
    """A small model with random weights, and its processor with a refiner as small."""
    return random_parts(seed=0)


@pytest.fixture(scope="session")
def model(micro) -> LyricsForConditionalGeneration:
    """The random micro model."""
    return micro[0]


@pytest.fixture(scope="session")
def processor(micro) -> LyricsProcessor:
    """The processor of the random micro model."""
    return micro[1]


@pytest.fixture(scope="session")
def refiner(processor: LyricsProcessor) -> LyricsVisualRefiner:
    """The refiner of the random micro model."""
    return processor.refiner


@pytest.fixture(scope="session")
def saved(micro, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint of the random micro model in our layout; not to be changed."""
    folder = tmp_path_factory.mktemp("saved")
    for part in micro:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def with_every_option() -> tuple[LyricsForConditionalGeneration, LyricsProcessor]:
    """A small model with random weights in which every setting differs from its default, and its processor."""
    return parts_with_every_option()


@pytest.fixture(scope="session", params=["random", "every option", "shipped"])
def any_checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Complete checkpoints of every kind of model, one after the other; not to be changed."""
    if request.param == "shipped":
        return MICRO_CHECKPOINT
    folder = tmp_path_factory.mktemp("any")
    for part in request.getfixturevalue("micro" if request.param == "random" else "with_every_option"):
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def damaged(saved: Path, tmp_path: Path) -> Path:
    """A copy of `saved`, to be damaged."""
    return shutil.copytree(saved, tmp_path / "damaged")


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """A drawn table with objects."""
    return draw_table()


@pytest.fixture(scope="session")
def pictures(picture: Image.Image) -> list[Image.Image]:
    """Three images of different sizes."""
    return [picture, picture.transpose(Image.Transpose.ROTATE_90), picture.crop((60, 120, 300, 240))]


@pytest.fixture(scope="session")
def objects(processor: LyricsProcessor, pictures: list[Image.Image]) -> list[VisualObjects]:
    """The objects that the random micro refiner finds in `pictures`."""
    return processor.refine(pictures)
