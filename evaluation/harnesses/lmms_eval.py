"""Adapter for lmms-eval: `lmms-eval eval --model lyrics --model_args pretrained=DIR --tasks ...`.

lmms-eval finds it by an entry point when it is installed beside this package (`pip install 'ziya-lyrics[lmms-eval]'`).
The chat class answers the messages that a task makes. `--force_simple` takes the simple class, which tasks of the types
`loglikelihood` and `multiple_choice` need.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, TokenCounts  # pyright: ignore[reportMissingImports]
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]

from lyrics.serving import Lyrics

from .generation import generate_answers, read_generation_options, score_answers

MODULE = "lyrics.evaluation.harnesses.lmms_eval"


def describe_models() -> ModelManifest:
    """Return what lmms-eval needs to know to find the classes of this file."""
    return ModelManifest("lyrics", simple_class_path=f"{MODULE}.LyricsSimple", chat_class_path=f"{MODULE}.LyricsChat")


class _LyricsModel(lmms):
    """What both classes share.

    Args:
        pretrained: str, folder or Hub id of a model or an adapter; the micro model by default.
        batch_size: int or str, number of questions that are answered at once; "auto" is 16.
        device: str, device of the model and the refiner; CUDA by default where there is one.
        dtype: str, dtype of the weights, as they were saved by default.
        store: str, folder of a store with the objects of the images, which is asked before the refiner.
        refiner: bool, `False` answers without visual objects.
        max_new_tokens: int, length of an answer where the task names none.
        max_batch_size: ignored; lmms-eval passes it to every model.
        arguments: further arguments of `Lyrics.from_pretrained`, such as `revision`.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str | None = None,
        store: str | None = None,
        refiner: bool = True,
        max_new_tokens: int = 256,
        max_batch_size: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self.batch_size = _read_batch_size(batch_size)
        self.max_new_tokens = max_new_tokens
        self.assistant = Lyrics.from_pretrained(
            pretrained,
            device=_device_of_process(device),
            dtype=dtype,
            store=store,
            refiner=refiner,
            max_batch_size=self.batch_size,
            **arguments,
        )

    def _document(self, task: str, split: str, number: int) -> Any:
        """Return a row of a task."""
        return self.task_dict[task][split][number]

    def _answer(self, questions: Sequence[tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]]) -> list[Any]:
        """Return the answers to pairs of messages and generation arguments, in their order."""
        asked = [
            (messages, read_generation_options(arguments, max_new_tokens=self.max_new_tokens))
            for messages, arguments in questions
        ]
        answers = generate_answers(self.assistant, asked, batch_size=self.batch_size)
        return [
            GenerationResult(
                text=answer.text,
                token_counts=TokenCounts(input_tokens=answer.prompt_tokens, output_tokens=answer.completion_tokens),
            )
            for answer in answers
        ]


class LyricsSimple(_LyricsModel):
    """Lyrics for tasks that give a text and its images; images come before the text."""

    is_simple = True

    def generate_until(self, requests: list[Any]) -> list[Any]:
        """Answer requests (context, generation arguments, `doc_to_visual`, row number, task, split)."""
        return self._answer(
            [
                (_user_message(context, doc_to_visual(self._document(task, split, number))), arguments)
                for context, arguments, doc_to_visual, number, task, split in (request.args for request in requests)
            ]
        )

    def generate_until_multi_round(self, requests: list[Any]) -> list[list[str]]:
        """Answer requests in rounds; after each, `doc_to_text` of the task says whether and how it goes on."""
        return [self._answer_in_rounds(*request.args) for request in requests]

    def _answer_in_rounds(
        self,
        context: str,
        arguments: Mapping[str, Any],
        doc_to_visual: Callable[[Any], Any],
        doc_to_text: Callable[..., Any],
        number: int,
        task: str,
        split: str,
    ) -> list[str]:
        """Return the answers of all rounds of one request."""
        document = self._document(task, split, number)
        images, outputs, state = doc_to_visual(document), [], None
        while True:
            outputs.append(self._answer([(_user_message(context, images), arguments)])[0].text)
            images, context, is_over, outputs, state = doc_to_text(
                document, previous_output=outputs, round_idx=len(outputs), previous_round_info=state
            )
            outputs = list(outputs)
            if is_over:
                return outputs

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """Return the mean loss per token of each answer, and whether the model would have written it.

        lmms-eval takes the choice with the smallest number, since its own models return losses; log-likelihoods, as the
        name says, would choose the least probable one. lmms-eval 0.7.3 turns a plain pair into a text, with which its
        tasks fail, but leaves what a `GenerationResult` holds as it is.
        """
        answers = []
        for request in requests:
            context, answer, *rest = request.args
            if not rest:  # the unconditional answer of `acc_mutual_info`
                answers.append((context, [], answer))
                continue
            doc_to_visual, number, task, split = rest
            document = self._document(task, split, number)
            images = list(doc_to_visual(document) or ())
            answers.append((context, images, answer if isinstance(answer, str) else answer(document)))
        losses = score_answers(self.assistant, answers, batch_size=self.batch_size)
        return [GenerationResult(text=(loss.mean, loss.is_greedy)) for loss in losses]  # pyright: ignore[reportArgumentType]


class LyricsChat(_LyricsModel):
    """Lyrics for the messages that a task makes, with images where the task puts them."""

    is_simple = False

    def generate_until(self, requests: list[Any]) -> list[Any]:
        """Answer requests (context, `doc_to_messages`, generation arguments, row number, task, split)."""
        return self._answer(
            [
                (_read_messages(doc_to_messages(self._document(task, split, number))), arguments)
                for _, doc_to_messages, arguments, number, task, split in (request.args for request in requests)
            ]
        )

    def generate_until_multi_round(self, requests: list[Any]) -> list[Any]:
        """Refuse tasks in rounds, which the simple class runs."""
        raise NotImplementedError("Tasks in rounds run with the simple class: add --force_simple.")

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Refuse tasks of losses, which lmms-eval runs with the simple class."""
        raise NotImplementedError("Tasks of log-likelihoods run with the simple class: add --force_simple.")


def _read_batch_size(batch_size: int | str) -> int:
    """Return the number of questions that are answered at once.

    Raises:
        ValueError: it is neither a number from 1 on nor "auto".
    """
    text = str(batch_size).split(":")[0]
    if text == "auto":
        return 16
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f'batch_size must be a whole number from 1 on, or "auto", got {batch_size!r}.')
    return int(text)


def _device_of_process(device: str | None) -> str | None:
    """Return the device of this process: where several share a machine, each takes the GPU of its number."""
    if device in (None, "cuda", "cuda:0") and int(os.environ.get("WORLD_SIZE", 1)) > 1 and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return device


def _user_message(text: str, images: Any) -> list[dict[str, Any]]:
    """Return one message of the user, with images before its text."""
    blocks = [{"type": "image", "image": image} for image in images or ()]
    return [{"role": "user", "content": [*blocks, {"type": "text", "text": text}]}]


def _read_messages(messages: Any) -> list[dict[str, Any]]:
    """Return the messages of a task as the processor takes them.

    Raises:
        ValueError: a block is a video or a sound.
    """
    return [
        {"role": message["role"], "content": [_read_block(block) for block in message["content"]]}
        for message in messages
    ]


def _read_block(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block of text or of an image."""
    if block["type"] == "text":
        return {"type": "text", "text": block["text"]}
    if block["type"] == "image":
        return {"type": "image", "image": block["url"]}
    raise ValueError(f"Lyrics reads text and images, and the task has a block of type {block['type']!r}.")
