"""Adapter for VLMEvalKit, whose models are entries of a dictionary.

VLMEvalKit has no plug-ins. Register the model before its `run.py` is run, in the same process:

    from lyrics.evaluation.harnesses.vlmevalkit import register
    register("Lyrics", model_path="path/of/the/model")
    # then, in the same process: runpy.run_path("run.py", run_name="__main__") with --model Lyrics
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from vlmeval.vlm.base import BaseModel  # pyright: ignore[reportMissingImports]

from lyrics.serving import Lyrics

from .generation import generate_answers, read_generation_options


class LyricsVLM(BaseModel):
    """Lyrics as VLMEvalKit calls it.

    Args:
        model_path: str, folder or Hub id of a model or an adapter; the micro model by default.
        max_new_tokens: int, length of an answer.
        device, dtype, store, refiner: arguments of `Lyrics.from_pretrained`.
        generation: generation arguments, as `read_generation_options` takes them.
    """

    INSTALL_REQ = False
    INTERLEAVE = True  # images stay between the texts

    def __init__(
        self,
        model_path: str | None = None,
        max_new_tokens: int = 256,
        device: str | None = None,
        dtype: str | None = None,
        store: str | None = None,
        refiner: bool = True,
        **generation: Any,
    ) -> None:
        super().__init__()
        self.options = read_generation_options(generation, max_new_tokens=max_new_tokens)
        self.assistant = Lyrics.from_pretrained(model_path, device=device, dtype=dtype, store=store, refiner=refiner)

    def use_custom_prompt(self, dataset: str) -> bool:
        """Return `False`: the prompts are those of the benchmark."""
        return False

    def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        """Return the answer to one question.

        Args:
            message: sequence of dictionaries with `type`, "image" or "text", and `value`, a path or a text.
            dataset: str, name of the benchmark; unused.

        Raises:
            ValueError: an entry is neither an image nor a text.
        """
        return self._answer([{"role": "user", "content": [_read_entry(entry) for entry in message]}])

    def chat_inner(self, message: Sequence[Mapping[str, Any]], dataset: str | None = None) -> str:
        """Return the answer to the last message of a conversation.

        Args:
            message: sequence of dictionaries with `role` and `content`, a sequence as `generate_inner` takes it.
            dataset: str, name of the benchmark; unused.
        """
        return self._answer(
            [{"role": turn["role"], "content": [_read_entry(entry) for entry in turn["content"]]} for turn in message]
        )

    def _answer(self, messages: list[dict[str, Any]]) -> str:
        """Return the text of the answer."""
        return generate_answers(self.assistant, [(messages, self.options)])[0].text


def register(name: str = "Lyrics", **arguments: Any) -> None:
    """Add a model to those that VLMEvalKit knows.

    Args:
        name: str, name for `--model`.
        arguments: arguments of `LyricsVLM`.
    """
    from vlmeval.config import supported_VLM  # pyright: ignore[reportMissingImports]

    supported_VLM[name] = partial(LyricsVLM, **arguments)


def _read_entry(entry: Mapping[str, str]) -> dict[str, Any]:
    """Return a block of text or of an image."""
    kind, value = entry["type"], entry["value"]
    if kind not in ("text", "image"):
        raise ValueError(f"Lyrics reads text and images, and the question has an entry of type {kind!r}.")
    return {"type": kind, kind: value}
