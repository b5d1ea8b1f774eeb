"""A machine without this package, with Transformers, PyTorch and Pillow only.

`python FILE MODEL PICTURE FOLDER STAGE1`, with ids or folders of a model and of a first stage beside their code. The
last line of the output is a JSON object of the results.
"""

import json
import sys

for name in ("lyrics", "lyrics_cli", "trl", "peft", "accelerate", "datasets", "torchvision", "scipy", "matplotlib"):
    sys.modules[name] = None

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

MODEL, PICTURE, FOLDER, STAGE1 = sys.argv[1:]
TRUSTED = {"trust_remote_code": True}
AUTO = (AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor, AutoImageProcessor)
picture = Image.open(PICTURE)
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
ask = pipeline("image-text-to-text", model=MODEL, **TRUSTED)
results["pipeline"] = ask(text=messages, max_new_tokens=10, return_full_text=False)[0]["generated_text"]
for part in (model, processor):
    part.save_pretrained(FOLDER)
again = [auto.from_pretrained(FOLDER, **TRUSTED) for auto in (AutoModelForImageTextToText, AutoProcessor)]
results["again"] = answer(*again)
first = AutoModelForPreTraining.from_pretrained(STAGE1, **TRUSTED)
results["first stage"] = [type(one).__name__ for one in (first, AutoProcessor.from_pretrained(STAGE1, **TRUSTED))]
results["module"] = type(model).__module__.split(".")[0]
print("\n" + json.dumps(results))  # noqa: T201
