"""The second stage on a machine without this package, with TRL and PEFT: `python FILE MODEL PICTURE FOLDER`.

The last line of the output is a JSON list of the losses.
"""

import json
import sys

for name in ("lyrics", "lyrics_cli"):
    sys.modules[name] = None

from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

MODEL, PICTURE, FOLDER = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(MODEL, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(MODEL, trust_remote_code=True)
question = {"role": "user", "content": "How many objects are there?"}
answer = {"role": "assistant", "content": "Seven."}
rows = Dataset.from_list([{"images": [Image.open(PICTURE)], "messages": [question, answer]}] * 4)
settings = {"max_steps": 3, "per_device_train_batch_size": 2, "max_length": None, "logging_steps": 1, "bf16": False}
settings |= {"report_to": [], "use_cpu": True, "learning_rate": 1e-2, "save_strategy": "no", "disable_tqdm": True}
lora = LoraConfig(target_modules=r".*language_model\..*\.(q_proj|v_proj)", task_type="CAUSAL_LM")
trainer = SFTTrainer(
    model, SFTConfig(FOLDER, **settings), train_dataset=rows, processing_class=processor, peft_config=lora
)
trainer.train()
print("\n" + json.dumps([line["loss"] for line in trainer.state.log_history if "loss" in line]))  # noqa: T201
