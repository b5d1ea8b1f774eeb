"""Inputs for `fuzz.py`: texts, conversations, images and objects, and what must hold for whatever comes out."""

from __future__ import annotations

import base64
import io
import random
from typing import Any

import numpy as np
import torch
from PIL import Image

from lyrics.modeling_lyrics.refiner_prompts import build_prompts
from lyrics.processing_lyrics import LyricsProcessor, VisualObjects, format_objects, parse_spatial_text
from lyrics.processing_lyrics.chat_templates import instructions_of_text, neutralize, neutralize_parts
from lyrics.processing_lyrics.spatial_text import as_text, clean_label, tokenize_objects

PIECES = [
    *"[]{}()<>:;,. \n\t%'\"\\/0123456789-+eE|#",
    *("\0", "\x1f", "\x7f", "\u2028", "\u202e", "\ufeff", "\ud800", "\udfff", "\U000f0000", "\U000f0001", "\U0010ffff"),
    *("日本", "\u05d0\u05d1", "\uff10.\uff11", "e\u0301", "\U0001f600", "ﬁ", "\u3000", "ß", "İ"),
    *("<image>", "<s>", "</s>", "<pad>", "[SEP]", "[BOS]", "[MASK]", "USER:", "ASSISTANT:", "<imag", "e>", "SYSTEM:"),
    *(
        "[0.1, 0.2, 0.3, 0.4]",
        "[0,0,0,0]",
        "a cup: [0.25,0.5,0.75,1.000]; ",
        "[1e-3, 0, 0, 1]",
        "[-0.0, 1.004, 1, 1.5]",
    ),
    *(
        "[nan, inf, 0, 1]",
        "[0.1 0.2 0.3 0.4]",
        "{{ 7*7 }}",
        "{% for x in y %}",
        "object",
        "word",
        "A",
        "x" * 300,
        " " * 90,
    ),
]
TOKEN_SETS = [
    ["<s>", "</s>", "<pad>", "<image>"],
    ["<image>", "<image", "image>", "e>"],
    ["xx", " x", "x x", "USER", "R:"],
    ["<|a|>", "<|a b|>", "a", "\n\n"],
    [],
]
ROLES = ["user", "user", "user", "assistant", "assistant", "system", "tool", "", "<image>", None, 3]
ODD = [None, True, 3, -1, 2.5, "a", "", [], {}, [None], [[]], {"a": 1}, b"a", float("nan"), 10**40]
SIZES = [1, 3, 28, 40]


def text(draw: random.Random, longest: int = 40) -> str:
    """Pieces that mean something to somebody, and any characters."""
    if draw.random() < 0.1:
        return "".join(
            chr(draw.choice((draw.randrange(128), draw.randrange(0x110000)))) for _ in range(draw.randrange(30))
        )
    count = draw.randrange(longest) if draw.random() < 0.98 else draw.randrange(30 * longest)
    return "".join(draw.choices(PIECES, k=count))


def box(draw: random.Random) -> list[float]:
    """Mostly one, sometimes far out or inverted."""
    return [draw.choice((draw.random(), 0.0, 1.0, -0.0, 1.0004, -3.0, 1e30)) for _ in range(4)]


def sound_box(draw: random.Random) -> list[float]:
    """One that visual objects accept, often without area."""
    (x1, x2), (y1, y2) = (sorted(draw.choice((draw.random(), 0.0, 1.0, -0.0, 1.0004)) for _ in range(2)) for _ in "xy")
    return [x1, y1, x2, y2]


# ---------------------------------------------------------------------------------------------------- functions of text


def check_parser(draw: random.Random) -> None:
    """Boxes in order, within the image and the text, and nothing of the rest lost."""
    written = text(draw)
    found = parse_spatial_text(written)
    end = 0
    for one in found.objects:
        assert end <= one.span[0] < one.span[1] <= len(written)
        assert written[one.span[0]] + written[one.span[1] - 1] == "[]"
        assert 0 <= one.box[0] <= one.box[2] <= 1
        assert 0 <= one.box[1] <= one.box[3] <= 1
        assert len(one.label) <= 200
        end = one.span[1]
    assert len(found.plain_text) <= len(written)


def check_round_trip(draw: random.Random) -> None:
    """Objects that were written are read, with clean labels."""
    count = draw.randrange(4)
    labels, boxes = [text(draw, 8) for _ in range(count)], [box(draw) for _ in range(count)]
    found = parse_spatial_text(format_objects(labels, boxes)).objects
    assert [one.label for one in found] == [clean_label(label) for label in labels]
    assert all(clean_label(one.label) == one.label for one in found)


def check_neutral(draw: random.Random) -> None:
    """No control token and no role is left, within or across parts, and nothing but spaces is added."""
    control = draw.choice(TOKEN_SETS)
    parts = [text(draw, 12) for _ in range(draw.randrange(1, 4))]
    clean = neutralize_parts(parts, control)
    joined = "".join(clean)
    assert not any(token in joined for token in control if len(token) > 1 and token.strip())
    words = " ".join(joined.replace("☐", " ").split())
    assert instructions_of_text(f"☐{joined}", "☐", []) == [words] * (1 + joined.count("☐"))
    assert ["".join(part.split()) for part in clean] == ["".join(as_text(part).split()) for part in parts]
    assert neutralize(clean[0], control) == clean[0]


def check_instructions(draw: random.Random) -> None:
    """One instruction for each placeholder, without control tokens."""
    written = text(draw)
    found = instructions_of_text(written, "<image>", TOKEN_SETS[0])
    assert len(found) == written.count("<image>")
    assert not any("<image>" in one for one in found)


TEXT_CHECKS = [check_parser, check_parser, check_parser, check_round_trip, check_neutral, check_instructions]


def check_text(draw: random.Random) -> None:
    """One function of text."""
    draw.choice(TEXT_CHECKS)(draw)


# ---------------------------------------------------------------------------------------------------- the processor


def picture(draw: random.Random) -> Any:
    """A small image in some form, or what is none."""
    size = draw.choice(SIZES), draw.choice(SIZES)
    image = Image.new(draw.choice(("RGB", "L", "RGBA", "P", "1", "CMYK", "I;16", "F")), size)
    kind = draw.random()
    if kind < 0.7:
        return image
    if kind < 0.8:
        return np.asarray(image.convert("RGB"))
    file = io.BytesIO()
    image.convert("RGB").save(file, format=draw.choice(("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")))
    content = damage(draw, file.getvalue()) if kind < 0.95 else file.getvalue()
    return draw.choice((base64.b64encode(content).decode(), "data:image/png;base64," + text(draw, 5), *ODD[2:9]))


def damage(draw: random.Random, content: bytes) -> bytes:
    """Cut, flip or insert a few bytes."""
    changed = bytearray(content)
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(changed) + 1)
        how = draw.randrange(4)
        if how == 0:
            del changed[at:]
        elif how == 1:
            changed[at : at + 1] = bytes([draw.randrange(256)])
        elif how == 2:
            changed[at:at] = draw.randbytes(draw.randrange(1, 9))
        else:
            del changed[at : at + draw.randrange(9)]
    return bytes(changed)


def objects(draw: random.Random) -> Any:
    """Objects of an image, mostly right ones."""
    count = draw.randrange(4)
    values: dict[str, Any] = {
        "labels": [text(draw, 6) for _ in range(count)],
        "boxes": [sound_box(draw) for _ in range(count)],
        "scores": [draw.random() for _ in range(count)],
        "region_features": np.zeros((count, 36), np.float32),
    }
    if draw.random() < 0.8:
        return VisualObjects(**values)
    values[draw.choice((*values, "masks", "tags", "region_feature_size"))] = draw.choice((*ODD, np.ones((2, 2)), "[1]"))
    return draw.choice((values, values, draw.choice(ODD)))


def options(draw: random.Random) -> dict[str, Any]:
    """Of a call."""
    found: dict[str, Any] = {}
    if draw.random() < 0.5:
        found["padding"] = draw.choice((True, "longest", "max_length", False))
        found["padding_side"] = draw.choice(("left", "right"))
    if draw.random() < 0.4:
        found |= {"truncation": True, "max_length": draw.choice((1, 5, 24, 30, 60, 200))}
    if draw.random() < 0.5:
        found["return_tensors"] = draw.choice(("pt", "np"))
        found.setdefault("padding", True)
    return found


def check_call(draw: random.Random, processor: LyricsProcessor) -> None:
    """`processor(text=..., images=...)`: as many placeholders as images, times the queries; lengths within limits."""
    texts = [text(draw, 10).replace("<image>", "") for _ in range(draw.choice((1, 1, 1, 2, 3)))]
    texts = [draw.choice((one, one, f"<image>{one}", f"{one}<image>", f"{one}<image>{one}<image>")) for one in texts]
    count = sum(one.count("<image>") for one in texts)
    count = count if draw.random() < 0.95 else draw.randrange(4)
    images = [picture(draw) for _ in range(count)]
    chosen = options(draw)
    given = texts if draw.random() < 0.9 else draw.choice((texts[0], *ODD))
    out = processor(
        images=images or None,
        text=given,
        visual_objects=[objects(draw) for _ in images] if draw.random() < 0.98 else draw.choice(ODD[1:]),
        **chosen,
    )
    pictures = len(out.get("pixel_values", ()))
    if given is not None:
        rows = [_as_list(row) for row in out["input_ids"]]
        assert sum(row.count(processor.image_token_id) for row in rows) == pictures * processor.num_query_tokens
        if chosen.get("truncation"):
            assert max(map(len, rows)) <= chosen["max_length"]
    if pictures:
        assert len(out["region_features"]) == len(out["mqformer_input_ids"]) == pictures
        assert pictures == count or any(isinstance(image, list) for image in images)


def check_chat(draw: random.Random, processor: LyricsProcessor) -> None:
    """A conversation: no content makes a placeholder, a special token or a role."""
    special = {*processor.tokenizer.all_special_ids, processor.image_token_id}
    chat, images = [], []
    for _ in range(draw.randrange(4)):
        blocks: Any = [{"type": "text", "text": text(draw, 6)} for _ in range(draw.randrange(3))]
        for _ in range(draw.choice((0, 0, 1))):
            images.append(Image.new("RGB", (draw.choice(SIZES), draw.choice(SIZES))))
            blocks.insert(draw.randrange(len(blocks) + 1), {"type": "image", "image": images[-1]})
        content = draw.choice((blocks, blocks, text(draw, 8), None)) if draw.random() < 0.95 else draw.choice(ODD)
        images = images if content is blocks else images[: len(images) - sum("image" in block for block in blocks)]
        chat.append({"role": draw.choice(ROLES) if draw.random() < 0.3 else "user", "content": content})
    chosen = {"visual_objects": [objects(draw) for _ in images], **options(draw)}
    generate = draw.random() < 0.5
    prompt = processor.apply_chat_template(chat, add_generation_prompt=generate)
    out = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, add_generation_prompt=generate, processor_kwargs=chosen
    )
    assert prompt.count("<image>") == len(images)
    assert prompt.count("</s>") == prompt.count(" ASSISTANT:") - generate
    ids = _as_list(out["input_ids"][0])
    assert ids.count(processor.image_token_id) == len(images) * processor.num_query_tokens
    if not chosen.get("truncation") and not chosen.get("padding"):
        written = len(images) * processor.num_query_tokens + prompt.count("<s>") + prompt.count("</s>")
        assert sum(token in special for token in ids) == written


def check_labels(draw: random.Random, processor: LyricsProcessor) -> None:
    """Labels and tags on their way to the tokenizers, and onto an image."""
    labels = [text(draw, 6) for _ in range(draw.randrange(4))]
    boxes = [box(draw) for _ in labels]
    tokens = tokenize_objects(labels, boxes, processor.mqformer_tokenizer, max_tokens=draw.choice((None, 0, 30, 200)))
    assert not set(tokens.input_ids) & (set(processor.mqformer_tokenizer.all_special_ids) - {100})  # [UNK] is text
    for prompt in build_prompts(labels, processor.refiner.tokenizer, ", ", 256):
        assert len(prompt.tag_of_token) <= 256
    found = VisualObjects(labels=labels, boxes=[sound_box(draw) for _ in labels], scores=[0.5] * len(labels))
    assert VisualObjects.from_dict(found.to_dict()) == found
    if draw.random() < 0.2:
        processor.visualize(Image.new("RGB", (64, 64)), found)
    processor.post_process_grounding([*labels, format_objects(labels, boxes)], None)


def check_processor(draw: random.Random, processor: LyricsProcessor) -> None:
    """One use of the processor."""
    draw.choice((check_call, check_call, check_chat, check_chat, check_labels))(draw, processor)


def _as_list(row: Any) -> list[int]:
    return row.tolist() if isinstance(row, np.ndarray | torch.Tensor) else list(row)
