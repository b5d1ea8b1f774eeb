"""Inputs for `fuzz.py`: checkpoints with damaged, hostile and impossible files.

Sizes in configurations are replaced by small numbers only: a checkpoint may ask for any memory and number of layers.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fuzz_text import damage, objects, text
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from lyrics.assets import random_parts
from lyrics.modeling_lyrics import (
    LyricsConfig,
    LyricsForConditionalGeneration,
    LyricsRefinerConfig,
    LyricsVisualRefiner,
)
from lyrics.modeling_lyrics.checkpoint_files import is_inside
from lyrics.processing_lyrics import LyricsProcessor, VisualObjects

SMALL = [None, True, False, -1, 0, 1, 2, 3, 7, 0.5, -2.5, math.nan, math.inf]
STRINGS = ["", "x", "gelu", "float16", "../x", "/etc/hostname", "lyrics", "eager", "\0", "日本", "{{ 7*7 }}"]
NESTED = [[], {}, [1], [[]], {"a": 1}, {"model_type": "x"}, [None, "x"], {"0": "a"}]
RAW = [b"", b"{", b"null", b"[]", b"{}", b"3", b'"x"', b"\xff\xfe", b"[" * 50_000, b'{"a":' * 50_000, b"{} {}", b"NaN"]
ESCAPES = [
    "../outside.safetensors",
    "a/../../outside.safetensors",
    "..\\outside.safetensors",
    "C:\\outside.safetensors",
]
TEMPLATES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch sprung') }}",
    "{{ messages[0].content.__class__ }}",
    "{% for a in range(10**9) %}{% endfor %}",
    "{{ raise_exception('no') }}",
    "{{ 1/0 }}",
    "{% if %}",
    "{{ bos_token + messages }}",
    "",
]


class Trap:
    """A pickle that would write the file `sprung`."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "sprung")

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def write_bases(folder: Path) -> LyricsProcessor:
    """Write the checkpoints that inputs are made of, whole and in shards, and return their processor."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, processor = random_parts()
    for name, size in (("whole", "1GB"), ("sharded", "1MB")):
        model.save_pretrained(folder / name, max_shard_size=size)
        processor.save_pretrained(folder / name)
    shutil.copy(min((folder / "sharded").glob("model-*")), folder / "outside.safetensors")
    return processor


def copy_base(base: Path, target: Path) -> Path:
    """Small files are copied and large ones linked; what is changed is written anew."""
    shutil.rmtree(target, ignore_errors=True)
    return shutil.copytree(base, target, copy_function=lambda one, other: _copy(one, other))


def _copy(one: str, other: str) -> None:
    if os.path.getsize(one) > 100_000:
        os.symlink(one, other)
    else:
        shutil.copyfile(one, other)


def write(path: Path, content: bytes) -> None:
    """Also where the file was a link."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def mutate(draw: random.Random, value: Any) -> Any:
    """Change one place of nested JSON: another value, another key, something more, something less."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.15:
        return draw.choice(draw.choice((SMALL, STRINGS, NESTED)))
    if isinstance(value, list):
        at, how = draw.randrange(len(value)), draw.random()
        if how < 0.2:
            return value[:at] + value[at + 1 :]
        return [*value[:at], mutate(draw, value[at]), *value[at + 1 :]]
    key, how = draw.choice(list(value)), draw.random()
    if how < 0.15:
        return {name: one for name, one in value.items() if name != key}
    if how < 0.25:
        return {(f"{name}s" if name == key else name): one for name, one in value.items()}
    if how < 0.35:
        return value | {
            draw.choice(("zzz", "auto_map", "model_type", "transformers_weights", "_x")): draw.choice(STRINGS)
        }
    return value | {key: mutate(draw, value[key])}


def change_json(draw: random.Random, path: Path) -> None:
    """A changed value, changed bytes, or something else altogether."""
    how, content = draw.random(), path.read_bytes()
    if how < 0.75:
        value = json.loads(content)
        for _ in range(draw.choice((1, 1, 2, 4))):
            value = mutate(draw, value)
        content = json.dumps(value).encode()
    elif how < 0.9:
        content = damage(draw, content)
    else:
        content = draw.choice(RAW)
    write(path, content)


def change_weights(draw: random.Random, path: Path) -> None:
    """Another shape, type or name of a weight, a changed header, or changed bytes."""
    how = draw.random()
    if how < 0.5:
        weights = load_file(path)
        name = draw.choice(sorted(weights))
        weight = weights.pop(name)
        kind = draw.randrange(5)
        if kind == 0:
            weights[name] = torch.zeros([draw.randrange(4) for _ in range(draw.randrange(4))])
        elif kind == 1:
            weights[name] = weight.to(
                draw.choice((torch.int64, torch.bool, torch.bfloat16, torch.float64, torch.uint8))
            )
        elif kind == 2:
            weights[f"{name}.{text(draw, 4).encode('utf-8', 'replace').decode()}"] = weight
        elif kind == 3:
            weights[name] = weight.flatten().contiguous()
        path.unlink()
        save_file(weights, path, metadata={"format": draw.choice(("pt", "pt", "tf", "x"))})
        return
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size]
    changed = mutate(draw, mutate(draw, json.loads(header)))
    header = json.dumps(changed).encode() if how < 0.75 else damage(draw, header)
    size = len(header) if draw.random() < 0.7 else draw.choice((0, 1, size, 2**40, 2**63 + 1))
    body = content[8 + int.from_bytes(content[:8], "little") :]
    body = body if draw.random() < 0.7 else body[: draw.randrange(len(body))]
    write(path, size.to_bytes(8, "little") + header + body)


def write_pickle(draw: random.Random, path: Path) -> None:
    """A `pytorch_model.bin` instead of the safetensors file: a trap, odd values, or changed bytes."""
    path.unlink()
    target = path.with_name("pytorch_model.bin")
    content = draw.choice(
        (
            Trap(path.parent),
            {"lm_head.weight": Trap(path.parent)},
            [1, 2],
            {"a": 3},
            {},
            None,
            torch.zeros(3),
            {1: torch.zeros(1)},
        )
    )
    torch.save(content, target, _use_new_zipfile_serialization=draw.random() < 0.7)
    if draw.random() < 0.3:
        target.write_bytes(damage(draw, target.read_bytes()))


# ---------------------------------------------------------------------------------------------------- what is loaded


def load_config(draw: random.Random, bases: Path, work: Path) -> None:
    """A configuration of the model or of the refiner."""
    folder = copy_base(bases / "whole", work)
    config_class, part = draw.choice(((LyricsConfig, ""), (LyricsRefinerConfig, "refiner")))
    change_json(draw, folder / part / "config.json")
    config_class.from_pretrained(folder, subfolder=part).to_dict()


def load_model(draw: random.Random, bases: Path, work: Path) -> None:
    """The model, of one file."""
    folder = copy_base(bases / "whole", work)
    how = draw.random()
    if how < 0.5:
        change_json(draw, folder / draw.choice(("config.json", "config.json", "generation_config.json")))
    elif how < 0.85:
        change_weights(draw, folder / "model.safetensors")
    else:
        write_pickle(draw, folder / "model.safetensors")
    LyricsForConditionalGeneration.from_pretrained(folder)


def load_shards(draw: random.Random, bases: Path, work: Path) -> None:
    """The model in shards; an index that names a file outside must be refused."""
    folder = copy_base(bases / "sharded", work)
    index = folder / "model.safetensors.index.json"
    how, escapes = draw.random(), False
    if how < 0.4:
        change_json(draw, index)
    elif how < 0.7:
        value = json.loads(index.read_text())
        name = draw.choice((*ESCAPES, str(bases / "outside.safetensors"), *STRINGS, *SMALL))
        for key in draw.sample(sorted(value["weight_map"]), draw.randrange(1, 9)):
            value["weight_map"][key] = name
        index.write_text(json.dumps(value))
        escapes = not is_inside(name)
    else:
        shard = draw.choice(sorted(folder.glob("model-*.safetensors")))
        change_weights(draw, shard) if draw.random() < 0.8 else shard.unlink()
    LyricsForConditionalGeneration.from_pretrained(folder)
    assert not escapes, "a shard outside the checkpoint was read"


def load_refiner(draw: random.Random, bases: Path, work: Path) -> None:
    """The refiner, its tokenizer included."""
    folder = copy_base(bases / "whole", work) / "refiner"
    how = draw.random()
    if how < 0.6:
        change_json(draw, folder / draw.choice(("config.json", "tokenizer.json", "tokenizer_config.json")))
    elif how < 0.9:
        change_weights(draw, folder / "model.safetensors")
    else:
        write_pickle(draw, folder / "model.safetensors")
    LyricsVisualRefiner.from_pretrained(folder.parent, subfolder="refiner")


def load_processor(draw: random.Random, bases: Path, work: Path) -> None:
    """The processor, and a prompt with its template."""
    folder = copy_base(bases / "whole", work)
    names = ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    name = draw.choice((*names, *(f"mqformer_tokenizer/{name}" for name in names[1:3])))
    if name == "chat_template.jinja":
        (folder / name).write_text(draw.choice((*TEMPLATES, text(draw).encode("utf-8", "replace").decode())))
    elif draw.random() < 0.1:
        (folder / name).unlink()
    else:
        change_json(draw, folder / name)
    processor = LyricsProcessor.from_pretrained(folder)
    if name == "chat_template.jinja":
        processor.apply_chat_template([{"role": "user", "content": "a"}])


def load_objects(draw: random.Random, bases: Path, work: Path) -> None:
    """A file of visual objects."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / "picture.safetensors"
    while not isinstance(found := objects(draw), VisualObjects):
        pass
    found.save(path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    if draw.random() < 0.5:
        header = json.loads(content[8 : 8 + size])
        if draw.random() < 0.5:
            words = json.loads(header["__metadata__"]["words"])
            header["__metadata__"]["words"] = json.dumps(mutate(draw, words))
        else:
            header = mutate(draw, header)
        written = json.dumps(header).encode()
        path.write_bytes(len(written).to_bytes(8, "little") + written + content[8 + size :])
    else:
        path.write_bytes(damage(draw, content))
    loaded = VisualObjects.load(path)
    assert VisualObjects.from_dict(loaded.to_dict()) == loaded


LOADERS: dict[Callable[[random.Random, Path, Path], None], int] = {
    load_config: 20,
    load_objects: 25,
    load_processor: 25,
    load_shards: 10,
    load_model: 15,
    load_refiner: 5,
}


def check_loader(draw: random.Random, bases: Path, work: Path) -> None:
    """Load one damaged checkpoint; nothing of it may run."""
    loader = draw.choices(list(LOADERS), weights=list(LOADERS.values()))[0]
    try:
        loader(draw, bases, work / "checkpoint")
    finally:
        sprung = list(work.rglob("sprung")) + [path for path in (Path("sprung"),) if path.exists()]
        assert not sprung, f"code has run: {sprung}"
        shutil.rmtree(work / "checkpoint", ignore_errors=True)
