"""Quick start of a model card: code that runs as it is pasted."""

from __future__ import annotations

from .facts import CardFacts, ModelFiles

_PLACE_IN_FOLDER = "  # the folder of this file; or the model's id on the Hub"
_PICTURE = """image = Image.new("RGB", (320, 240), "white")  # put Image.open(FILE) here
ImageDraw.Draw(image).ellipse((100, 60, 220, 180), fill="red")"""
_ANSWER = """messages = [
    {
        "role": "user",
        "content": [
            {"type": "image", "image": image},
            {"type": "text", "text": "What is in the picture?"},
        ],
    }
]
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
output = model.generate(**inputs, max_new_tokens=64)
answer = output[0, inputs["input_ids"].shape[1] :]
print(processor.decode(answer, skip_special_tokens=True))"""
_ENCODE = """inputs = processor.image_processor(image, return_tensors="pt")
with torch.no_grad():
    images = model.model(inputs["pixel_values"].to(model.dtype))
    queries = model.model.mqformer(image_key_values=images.key_values).last_hidden_state
print(queries.shape)  # (images, queries, width)"""
_INSTALL = (
    "Install the package `ziya-lyrics` from its repository (`pip install .` in a clone); importing it teaches "
    "Transformers the model."
)
_INSTALL_WITH_PEFT = (
    "Install the package `ziya-lyrics` from its repository, with PEFT, which adapters need (`pip install '.[train]'` "
    "in a clone). The base model{base} is loaded with the adapter."
)
_REMOTE = (
    "Nothing has to be installed but Transformers, PyTorch and Pillow. The code of the model lies beside its weights, "
    "and `trust_remote_code=True` runs it: read it first. With the package `ziya-lyrics` installed, its own code runs."
)


def write_quick_start(facts: CardFacts, files: ModelFiles) -> str:
    """Return how to load and ask the model, as one program.

    Args:
        facts: facts of the card, with the place to load from.
        files: settings of the model's folder.
    """
    comment = _PLACE_IN_FOLDER if facts.place == "." else ""
    remote, first = facts.has_remote_code, files.kind == "first stage"
    name = "LyricsForPreTraining" if first else "LyricsForConditionalGeneration"
    auto = "AutoModelForPreTraining" if first else "AutoModelForImageTextToText"
    model, processor = (auto, "AutoProcessor") if remote else (name, "LyricsProcessor")
    trusted = ", trust_remote_code=True" if remote else ""
    refiner = "" if files.has_refiner or not files.processor or files.kind == "adapter" else ", refiner=False"
    lines = ["import torch"] if first else []
    lines += ["from PIL import Image, ImageDraw"]
    lines += [f"from {'transformers' if remote else 'lyrics'} import {', '.join(sorted((model, processor)))}", ""]
    lines += [f'name = "{facts.place}"{comment}']
    lines += [f"model = {model}.from_pretrained(name{trusted})"]
    if refiner:
        lines.append("# there is no refiner among these files: without one, the model sees the whole image alone")
    lines += [f"processor = {processor}.from_pretrained(name{trusted}{refiner})", _PICTURE]
    lines.append(_ENCODE if first else _ANSWER)
    code = "\n".join(lines)
    after = ""
    if first:
        after = (
            f"\n\n`lyrics compose {facts.place} --language-model LLM --out composed` joins it with a language model, "
            "for the second stage."
        )
    install = _REMOTE if remote else _INSTALL
    if files.kind == "adapter":
        known = [base.describe() for base in facts.bases if base.hub_id is not None]
        install = _INSTALL_WITH_PEFT.format(base=f", {known[0]}," if known else "")
    return f"## Quick start\n\n{install}\n\n```python\n{code}\n```{after}"
