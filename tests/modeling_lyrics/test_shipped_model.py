"""The shipped micro model: dtypes, offloading, generation with placeholders outside the vocabulary, threads."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from PIL import Image

from lyrics import MICRO_CHECKPOINT, SCENE_PICTURE, LyricsForConditionalGeneration, LyricsProcessor

GREEDY = {"max_new_tokens": 12, "do_sample": False}


@pytest.fixture(scope="module")
def shipped():
    return LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT)


@pytest.fixture(scope="module")
def shipped_processor():
    return LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)


@pytest.fixture(scope="module")
def question(shipped_processor):
    """A question about the scene, as inputs of the model."""
    text = {"type": "text", "text": "What color is the star?"}
    messages = [{"role": "user", "content": [{"type": "image", "image": Image.open(SCENE_PICTURE)}, text]}]
    return shipped_processor.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )


@pytest.fixture(scope="module")
def answered(shipped, question):
    """The tokens of question and answer."""
    return shipped.generate(**question, **GREEDY)


# ---------------------------------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_asked_for_reaches_every_level(dtype, tmp_path):
    """The saved configuration has a dtype on each level, which must not win over the one that is asked for."""
    processor = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT, refiner_kwargs={"dtype": dtype})
    model = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT, dtype=dtype)
    assert {weight.dtype for weight in (*processor.refiner.parameters(), *model.parameters())} == {dtype}
    assert processor.refine(Image.open(SCENE_PICTURE))[0].labels
    processor.save_pretrained(tmp_path)
    again = LyricsProcessor.from_pretrained(tmp_path)
    assert {weight.dtype for weight in again.refiner.parameters()} == {dtype}
    assert again.refine(Image.open(SCENE_PICTURE))[0].labels


def test_a_model_that_was_cast_loads_in_its_dtype(shipped_processor, tmp_path):
    """Casting leaves the dtype of nested configurations as it was."""
    LyricsProcessor.from_pretrained(MICRO_CHECKPOINT).to(dtype=torch.bfloat16).save_pretrained(tmp_path)
    loaded = LyricsProcessor.from_pretrained(tmp_path)
    assert {weight.dtype for weight in loaded.refiner.parameters()} == {torch.bfloat16}


# ---------------------------------------------------------------------------------------------------- offloading


def offload(kind, folder):
    """Return the shipped model with its weights offloaded."""
    if kind == "auto":
        return LyricsForConditionalGeneration.from_pretrained(
            MICRO_CHECKPOINT, device_map="auto", max_memory={"cpu": "1MB"}, offload_folder=folder
        )
    model = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT)
    if kind == "cpu":
        return cpu_offload(model, execution_device=torch.device("cpu"))
    return disk_offload(model, folder, execution_device=torch.device("cpu"))


@pytest.mark.parametrize("kind", ["auto", "cpu", "disk"])
def test_an_offloaded_model_gives_the_same_answer(kind, question, answered, tmp_path):
    assert torch.equal(offload(kind, tmp_path).generate(**question, **GREEDY), answered)
