"""Answers of the language model about other things, which it hears again while it is tuned: it shall not forget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...serving import Lyrics
from ...utils.atomic_files import write_file

_TOPICS = (
    *("gravity", "photosynthesis", "the moon", "a volcano", "rain", "the ocean", "a rainbow", "electricity"),
    *("a library", "a bridge", "bread", "coffee", "a piano", "a bicycle", "a newspaper", "a garden"),
    *("history", "mathematics", "music", "chess", "football", "painting", "cooking", "friendship"),
)
_FORMS = ("What is {}?", "Tell me something about {}.", "Write one sentence about {}.", "Why does {} matter to people?")
PROMPTS = tuple(form.format(topic) for topic in _TOPICS for form in _FORMS)


def write_rehearsal(assistant: Lyrics, path: Path) -> None:
    """Ask a model about things that have nothing to do with images, and write its answers as rows of `messages`.

    Answers that were cut are left out: a model would learn to end in the middle of a sentence.

    Args:
        assistant: model before it is tuned.
        path: file of JSON lines.
    """
    rows = [{"question": prompt} for prompt in PROMPTS]
    answers = assistant.ask_many(rows, batch_size=32, max_new_tokens=96)
    with write_file(path, "w", encoding="utf-8") as file:
        for prompt, answer in zip(PROMPTS, answers, strict=True):
            if not isinstance(answer, Exception) and answer.finish_reason == "stop":
                messages = [_message("user", prompt), _message("assistant", answer.text)]
                file.write(json.dumps({"messages": messages}) + "\n")


def read_rehearsal(path: Path) -> list[dict[str, Any]]:
    """Return the rows that `write_rehearsal` has written."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}
