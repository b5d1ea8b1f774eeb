"""A machine without this package, with Transformers, PyTorch and Pillow only.

`python FILE MODEL PICTURE FOLDER [--stage1 STAGE1] [--torchvision]`, with ids or folders of a model and of a first
stage beside their code. With torchvision, which Transformers requires for it, `pipeline("any-to-any")` answers too. The
last line of the output is a JSON object of the results.
"""

import argparse
import json
import sys

parser = argparse.ArgumentParser()
for name in ("model", "picture", "folder", "--stage1"):
    parser.add_argument(name)
parser.add_argument("--torchvision", action="store_true")
given = parser.parse_args()
hidden = ["lyrics", "lyrics_cli", "trl", "peft", "accelerate", "datasets", "scipy", "matplotlib"]
sys.modules |= dict.fromkeys([*hidden, *([] if given.torchvision else ["torchvision"])])

from PIL import Image  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForPreTraining,
    AutoProcessor,
    pipeline,
)

MODEL, FOLDER = given.model, given.folder
TASKS = ("image-text-to-text", "any-to-any") if given.torchvision else ("image-text-to-text",)
TRUSTED = {"trust_remote_code": True}
AUTO = (AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor, AutoImageProcessor)
picture = Image.open(given.picture)
question = {"type": "text", "text": "How many objects are there?"}
messages = [{"role": "user", "content": [{"type": "image", "image": picture}, question]}]


def answer(model, processor):
    """Answer by hand, as the model card does."""
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template(messages, **options)
    output = model.generate(**inputs, max_new_tokens=10)
    return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


results = {auto.__name__: type(auto.from_pretrained(MODEL, **TRUSTED)).__name__ for auto in AUTO}
model = AutoModelForImageTextToText.from_pretrained(MODEL, **TRUSTED)
processor = AutoProcessor.from_pretrained(MODEL, **TRUSTED)
results["labels"] = processor.refine(picture)[0].labels
results["generate"] = answer(model, processor)
for task in TASKS:
    ask = pipeline(task, model=MODEL, **TRUSTED)
    results[task] = ask(text=messages, max_new_tokens=10, return_full_text=False)[0]["generated_text"]
for part in (model, processor):
    part.save_pretrained(FOLDER)
again = [auto.from_pretrained(FOLDER, **TRUSTED) for auto in (AutoModelForImageTextToText, AutoProcessor)]
results["again"] = answer(*again)
if given.stage1 is not None:
    auto = (AutoModelForPreTraining, AutoProcessor)
    results["first stage"] = [type(one.from_pretrained(given.stage1, **TRUSTED)).__name__ for one in auto]
assert {results[name] for name in (*TASKS, "again")} == {results["generate"]}, results
results["module"] = type(model).__module__.split(".")[0]
print("\n" + json.dumps(results))  # noqa: T201
