"""How often the language model is right about what it is told: no picture can be answered better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.utils import logging

from ..evaluate import Case, Outcome, conversation, is_right
from .symbolic_inputs import ToldCollator, ToldLanguageModel


@torch.inference_mode()
def answer_told(
    language_model: Any,
    told: ToldLanguageModel,
    collator: ToldCollator,
    cases: Sequence[Case],
    batch_size: int = 64,
    max_new_tokens: int = 40,
) -> list[Outcome]:
    """Ask each question on its own, greedily.

    Args:
        language_model: LLaMA, which answers.
        told: the model that it was made of, which tells it objects.
        collator: of prompts.
        cases: whose scenes are told.
        batch_size: questions at a time.
        max_new_tokens: longest answer.
    """
    outcomes = []
    for start in logging.tqdm(range(0, len(cases), batch_size), desc="Answering"):
        some = cases[start : start + batch_size]
        rows = [{"messages": conversation(case), "objects": case.scene.objects} for case in some]
        inputs = {name: value.to(told.device) for name, value in collator(rows, prompts=True).items()}
        generated: Any = language_model.generate(
            inputs_embeds=told.embed(inputs["input_ids"], inputs["words"], inputs["boxes"]),
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        texts = collator.tokenizer.batch_decode(generated, skip_special_tokens=True)
        outcomes += [
            Outcome(case, text.strip(), is_right(case.question, text)) for case, text in zip(some, texts, strict=True)
        ]
    return outcomes
