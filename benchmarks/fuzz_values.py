"""Inputs for `fuzz.py`: arrays as images, tags, visual objects, rows of training data, stores and adapters.

A store or an adapter of which any byte was changed gives an error, or what was written: never other values.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_files import NESTED, change_weights, copy_base, mutate, write
from fuzz_files import change_json as change_any_json
from fuzz_text import ODD, box, damage, objects, picture, sound_box, text
from PIL import Image
from safetensors.torch import save_file

from lyrics.assets import draw_table
from lyrics.datasets_lyrics.conversations import read_conversation
from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.modeling_lyrics.adapter_checks import mark_base, write_adapter_file
from lyrics.processing_lyrics import LyricsProcessor, VisualObjects
from lyrics.processing_lyrics.model_inputs import tags_of_each
from lyrics.refinement import RefinementStore, refine_dataset

DTYPES = [np.uint8, np.uint8, np.float32, np.float64, np.float16, bool, np.uint16, np.int16, np.int32, np.int64, object]
TORCH_DTYPES = [torch.uint8, torch.float32, torch.bfloat16, torch.float16, torch.bool, torch.int64, torch.complex64]
SIDES = [0, 1, 2, 3, 4, 5, 28]
STORE_FILES = ("manifest.json", "failures.jsonl", "shards/*.json", "shards/*.arrow", "index/*.npy")
PHOTOS = 5


# ---------------------------------------------------------------------------------------------------- single values


def array(draw: random.Random) -> Any:
    """An array or a tensor, some of them images."""
    shape = draw.choice(
        ([draw.choice(SIDES), draw.choice(SIDES), draw.choice((1, 3, 4))], [3, 28, 5], [4, 4], [2, 4, 4, 3])
    )
    shape = shape if draw.random() < 0.9 else [draw.choice(SIDES) for _ in range(draw.randrange(5))]
    scale = draw.choice((1.0, 1.0, 1.0, 2.0, 255.0, 4095.0, 65535.0, 1e30, math.inf, math.nan, -1.0))
    values = np.random.default_rng(draw.randrange(2**32)).random(shape)
    with np.errstate(all="ignore"):
        values = values * scale if draw.random() < 0.8 else np.round(values) * scale
        if draw.random() < 0.7:
            return values.astype(draw.choice(DTYPES))
    tensor = torch.from_numpy(np.asarray(np.nan_to_num(values, posinf=300, neginf=-1))).to(draw.choice(TORCH_DTYPES))
    return tensor.requires_grad_() if tensor.is_floating_point() and draw.random() < 0.3 else tensor


def check_array(draw: random.Random, processor: LyricsProcessor) -> None:
    """Upright RGB images of the array's size; bytes in RGB stay what they are."""
    given = array(draw)
    found = processor.load_pictures([given] if draw.random() < 0.5 else given)
    for image in found:
        assert isinstance(image, Image.Image)
        assert image.mode == "RGB"
        assert set(image.size) <= set(given.shape)
    if isinstance(given, np.ndarray) and given.dtype == np.uint8 and given.ndim == 3 and given.shape[2] == 3:
        transposed = given.shape[0] in (1, 3)
        assert transposed or np.array_equal(np.asarray(found[0]), given)


def check_tags(draw: random.Random, processor: LyricsProcessor) -> None:
    """One list of words for each image, never letters."""
    words: list[Any] = [text(draw, 4) for _ in range(draw.randrange(4))]
    tags: Any = draw.choice(
        (words, [words, words[:1]], tuple(words), {*words}, dict.fromkeys(words), iter(words), *ODD)
    )
    if isinstance(tags, list) and draw.random() < 0.3:
        tags = [*tags, draw.choice(ODD)]
    count = draw.choice((0, 1, 1, 2, 2, 3))
    if draw.random() < 0.02:
        images = [draw_table(48, 32) for _ in range(count)]
        assert len(processor.refine(images, tags=tags, batch_size=draw.choice((1, 2, 0, -1, 8)))) == count
        return
    found = tags_of_each(tags, count)
    assert len(found) == count
    assert all(isinstance(word, str) for one in found for word in one)
    assert all(list(one) in (words, words[:1], list(one)) for one in found)


def check_objects(draw: random.Random, _: LyricsProcessor) -> None:
    """Boxes in [0, 1], as many of everything; what goes out comes in again."""
    count = draw.randrange(4)
    values: dict[str, Any] = {
        "labels": [text(draw, 4) for _ in range(count)],
        "boxes": [draw.choice((sound_box, sound_box, sound_box, box))(draw) for _ in range(count)],
        "scores": [draw.random() for _ in range(count)],
        "region_features": np.ones((count, 4), draw.choice((np.float32, np.float16, np.float64))),
        "tags": [text(draw, 4)],
    }
    if draw.random() < 0.3:
        values["masks"] = np.ones((count, 4, 5), draw.choice((bool, np.uint8, np.float32)))
    for _ in range(draw.choice((0, 0, 1, 1, 2))):
        name = draw.choice((*values, "region_feature_size", "x"))
        values[name] = draw.choice((*ODD, array(draw), mutate(draw, [[1, 0.5], ["a"]]), torch.ones(count, 4)))
    if draw.random() < 0.5:
        values.pop("region_feature_size", None)
        values.pop("x", None)
        found = VisualObjects(**values)
    else:
        found = VisualObjects.from_dict(values if draw.random() < 0.95 else draw.choice(ODD))
    assert len(found.labels) == len(found.boxes) == len(found.scores)
    assert found.boxes.shape == (len(found), 4)
    assert np.isfinite(found.boxes).all()
    assert VisualObjects.from_dict(found.to_dict()) == found


# ---------------------------------------------------------------------------------------------------- rows


def block(draw: random.Random) -> Any:
    """A block of a message."""
    kind = draw.choice(("text", "text", "image", "box", "image_url", "audio"))
    found: dict[str, Any] = {"type": kind}
    if kind == "text":
        found["text"] = text(draw, 5)
    elif kind == "box":
        found |= {"box": sound_box(draw), "label": text(draw, 3)} if draw.random() < 0.7 else {}
        found |= {"image": draw.choice((0, 1, -1, None, "0", 2.0, [0]))} if draw.random() < 0.3 else {}
    elif draw.random() < 0.3:
        found[draw.choice(("image", "path", "url", "image_url", "base64"))] = draw.choice((picture(draw), *ODD))
    return found


def message(draw: random.Random, role: str, form: str, num_images: int) -> Any:
    """A message with places for images; in LLaVA's form, or in blocks, or as text."""
    words = text(draw, 6).replace("<image>", "").replace("<box>", "")
    if form == "conversations":
        return {"from": "human" if role == "user" else role, "value": "<image>\n" * num_images + words}
    if num_images == 0 and draw.random() < 0.5:
        return {"role": role, "content": words}
    blocks: list[Any] = [{"type": "image"} for _ in range(num_images)]
    blocks += [{"type": "text", "text": words}, {"type": "box", "box": sound_box(draw), "label": "cup", "image": 0}]
    blocks = blocks if num_images else blocks[:1]
    return {"role": role, "content": blocks if draw.random() < 0.8 else [*blocks, block(draw)]}


def row(draw: random.Random) -> Any:
    """A row of training data, most of them right or nearly so."""
    form = draw.choice(("messages", "messages", "conversations", "prompt"))
    images = [picture(draw) for _ in range(draw.choice((0, 1, 1, 2)))]
    roles = draw.choice((("user", "assistant"), ("user", "assistant"), ("system", "user", "assistant")))
    turns = [message(draw, role, form, len(images) * (role == "user")) for role in roles]
    found: dict[str, Any] = {form: turns}
    if form == "prompt":
        found = {"prompt": turns[:-1], "completion": turns[-1:]}
    found |= {"images": images} if images else {}
    found |= {"visual_objects": [objects(draw) for _ in images]} if draw.random() < 0.4 else {}
    found |= {"boxes": [draw.choice((sound_box(draw), {"box": sound_box(draw)}, *ODD))]} if draw.random() < 0.1 else {}
    for _ in range(draw.choice((0, 0, 1, 2))):
        key = draw.choice(list(found))
        found[key] = draw.choice(
            (*ODD, *NESTED, mutate(draw, found[key]), mutate(draw, found[key]), [draw.choice(ODD)])
        )
    return found if draw.random() < 0.98 else draw.choice(ODD)


def check_row(draw: random.Random, processor: LyricsProcessor) -> None:
    """Messages of blocks with as many places as images, or a reason that a reader of the data understands."""
    if draw.random() < 0.3:
        from lyrics.trainers import LyricsSFTCollator

        collator = LyricsSFTCollator(processor, max_length=draw.choice((None, 200)))
        prepared = collator.prepare(row(draw), "0", 0)
        assert len(prepared.images) == len(prepared.objects)
        return
    found = read_conversation(row(draw))
    places = [one for turn in found.messages for one in turn["content"] if one["type"] == "image"]
    assert len(places) == len(found.pictures)
    assert all(turn["role"] in ("system", "user", "assistant") for turn in found.messages)
    assert all(isinstance(one.get("text", ""), str) for turn in found.messages for one in turn["content"])


# ---------------------------------------------------------------------------------------------------- folders


def write_value_bases(folder: Path, processor: LyricsProcessor) -> None:
    """A store of a few images, and an adapter of the checkpoint `whole`."""
    from peft import LoraConfig, get_peft_model

    photos = folder / "photos"
    photos.mkdir()
    for number in range(PHOTOS - 1):
        draw_table(40 + 8 * number, 32).save(photos / f"{number}.png")
    (photos / "broken.png").write_bytes(b"no image")
    refine_dataset(photos, folder / "store", processor, shard_size=2, max_failure_rate=1.0)
    base = LyricsForConditionalGeneration.from_pretrained(folder / "whole")
    mark = mark_base(base)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["language_projection"])
    get_peft_model(base, config).save_pretrained(folder / "adapter")
    details = {"base_model": str(folder / "whole"), "base_mark": mark, "trained_parts": ["language_projection"]}
    write_adapter_file(folder / "adapter", details | {"base_revision": None, "arguments": {}})


def flip(draw: random.Random, content: bytes) -> bytes:
    """Change one bit, or a few bytes."""
    if not content or draw.random() < 0.5:
        return damage(draw, content)
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def change_file(draw: random.Random, path: Path) -> None:
    """Change a file of a store: its bytes, or a value of its JSON with or without the right checksum."""
    content = path.read_bytes()
    if path.suffix != ".json" or draw.random() < 0.5:
        write(path, flip(draw, content))
        return
    value = mutate(draw, json.loads(content))
    if path.name == "manifest.json" and isinstance(value, dict) and draw.random() < 0.7:
        from lyrics.refinement.storage.manifest import _checksum

        value.pop("checksum", None)
        value["checksum"] = _checksum(value)  # written on purpose: only the checks of the values are left
    write(path, json.dumps(value).encode())


def check_store(draw: random.Random, bases: Path, work: Path) -> None:
    """Rows that are read are those that were written, and a store that passes `verify` is the one that was written."""
    folder = work / "checkpoint-store"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bases / "store", folder)
    path = draw.choice(sorted(folder.glob(draw.choice(STORE_FILES))))
    before = path.read_bytes()
    try:
        change_file(draw, path) if draw.random() < 0.95 else path.unlink()
        written = RefinementStore.open(bases / "store")
        opened = RefinementStore.open(folder)
        crafted = path.name == "manifest.json"  # with a checksum of its own, which says what it says
        for key in written.keys():  # noqa: SIM118  (not a dictionary)
            found = opened.row(key)
            assert found is None or crafted or found.objects == written[key], f"{path} gives other objects for {key}"
        list(opened.keys())
        opened.stats()
        opened.verify()
        is_same = path.exists() and path.read_bytes() == before
        is_same = is_same or (path.suffix == ".json" and json.loads(path.read_bytes()) == json.loads(before))
        assert is_same or crafted, f"{path} was changed, and `verify` passes"
        if not crafted:
            assert list(opened.keys()) == list(written.keys())
            assert opened.failure_count == written.failure_count
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_adapter(draw: random.Random, bases: Path, work: Path) -> None:
    """An adapter with a damaged file."""
    folder = copy_base(bases / "adapter", work / "checkpoint-adapter")
    try:
        name = draw.choice(("adapter_config.json", "lyrics_adapter.json", "adapter_model.safetensors"))
        how = draw.random()
        if how < 0.05:
            (folder / name).unlink()
        elif name.endswith(".json"):
            change_any_json(draw, folder / name)
        elif how < 0.2:
            save_file({"x": torch.zeros(1)}, folder / "x.safetensors")
            write(folder / name, (folder / "x.safetensors").read_bytes())
        else:
            change_weights(draw, folder / name)
        LyricsForConditionalGeneration.from_pretrained(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


VALUES: list[Callable[[random.Random, LyricsProcessor], None]] = [
    check_array,
    check_tags,
    check_objects,
    check_row,
    check_row,
]
FOLDERS: dict[Callable[[random.Random, Path, Path], None], int] = {check_store: 3, check_adapter: 1}


def check_values(draw: random.Random, processor: LyricsProcessor) -> None:
    """One value."""
    draw.choice(VALUES)(draw, processor)


def check_folder(draw: random.Random, bases: Path, work: Path) -> None:
    """One damaged folder."""
    work.mkdir(parents=True, exist_ok=True)
    draw.choices(list(FOLDERS), weights=list(FOLDERS.values()))[0](draw, bases, work)
