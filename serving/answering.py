"""Answering several questions at once: refine, encode and generate what the caches do not hold."""

from __future__ import annotations

import copy
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging

from ..processing_lyrics.byte_cache import ByteCache, CacheStats
from ..processing_lyrics.reasoning import ReasoningReader
from .answer import Answer, ModelDescription
from .answer_stream import AnswerStream
from .generation_options import GenerationOptions
from .notices import Notices
from .prefix_cache import PrefixCache
from .question import Question, encoding_keys, picture_of, prepare_inputs
from .refined_pictures import RefinedPictures, SeenPicture
from .row_generation import Interruption, Row, RowChoice, RowEnds

_NO_ANSWER = "The answer ended while the model still reasoned: allow it more tokens."

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class CacheLimits:
    """Largest sizes in bytes of what is kept between questions; 0 keeps nothing.

    Attributes:
        refined: objects of images, in main memory: the bound of the processor's `refined_cache`, which all users of
            the processor share.
        encoded: embeddings of images, where the model is.
        prefix: keys and values of conversations, where the model is.
        pictures: hashes of files and pixel values of images, in main memory: the bound of the processor's
            `picture_cache`.
        vision: features of images from the vision encoder, where the model is; with them another question about an
            image runs the MQ-Former alone.

    Raises:
        ValueError: a size is no whole number of bytes.
    """

    refined: int = 256 * 2**20
    encoded: int = 256 * 2**20
    prefix: int = 512 * 2**20
    pictures: int = 64 * 2**20
    vision: int = 256 * 2**20

    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            if isinstance(size, bool) or not isinstance(size, int) or size < 0:
                raise ValueError(f"{name} must be a whole number of bytes, 0 or more, got {size!r}.")


@dataclass(eq=False)
class Request:
    """A question that waits or is being answered.

    Attributes:
        question: `Question`.
        options: options of the answer, with a seed.
        batch_limit: largest number of questions that it may be answered with.
        deadline: time of `time.monotonic` at which the answer ends, or `None`.
        stream: receives the answer.
        seen: objects of its images, once they are known.
    """

    question: Question
    options: GenerationOptions
    batch_limit: int
    deadline: float | None
    stream: AnswerStream = field(default_factory=AnswerStream)
    seen: list[SeenPicture] = field(default_factory=list)

    def goes_with(self, other: Request) -> bool:
        """Return whether two questions may be answered together: a search with beams has one number and length."""
        mine, others = self.options, other.options
        if mine.num_beams == others.num_beams == 1:
            return True
        return (mine.num_beams, mine.max_new_tokens) == (others.num_beams, others.max_new_tokens)


@dataclass(frozen=True)
class _Prompt:
    """A question as tensors.

    Attributes:
        request: `Request`.
        token_ids: int64 array of shape (L,).
        image_keys: keys of the encodings of its images.
        images: list of their embeddings, tensors of shape (V + G, text width).
    """

    request: Request
    token_ids: np.ndarray
    image_keys: tuple[Hashable, ...]
    images: list[torch.Tensor]


class Answerer:
    """Answers questions together. One thread at a time calls `answer`.

    Args:
        description: model and processor.
        refined: images that were refined.
        limits: sizes of the caches.
        notices: remarks on images and their objects.
    """

    def __init__(
        self,
        description: ModelDescription,
        refined: RefinedPictures,
        limits: CacheLimits,
        notices: Notices,
    ) -> None:
        self.description = description
        self.model, self.processor = description.model, description.processor
        self.refined = refined
        self.notices = notices
        self.encoded: ByteCache[Hashable, torch.Tensor] = ByteCache(limits.encoded)
        self.vision: ByteCache[Hashable, torch.Tensor] = ByteCache(limits.vision)
        self.prefixes = PrefixCache(limits.prefix, self.model.config.image_token_id, self.processor.num_query_tokens)
        self._settings, self._eos_token_ids = _greedy_settings(self.model, self.processor)
        self._reasoning = ReasoningReader(self.processor)
        self._decode = self._reasoning.decoder()
        text_config = self.model.config.get_text_config()
        self._context = getattr(text_config, "max_position_embeddings", None)

    def answer(self, batch: list[Request]) -> None:
        """Answer questions together. Where preparing them fails, each is prepared alone, so that one fails alone."""
        wanted = [request for request in batch if not _is_over(request)]
        prompts: list[_Prompt] = []
        try:
            prompts = self._prepare(wanted)
        except Exception as error:  # noqa: BLE001  (whoever asked gets it)
            for request in wanted:
                if len(wanted) == 1:
                    request.stream.fail(error)
                    break
                try:
                    prompts += self._prepare([request])
                except Exception as own_error:  # noqa: BLE001
                    request.stream.fail(own_error)
        prompts = [prompt for prompt in prompts if not _is_over(prompt.request) and self._fits(prompt)]
        if not prompts:
            return
        try:
            self._generate(prompts)
        except Exception:
            if len(prompts) == 1 or any(prompt.request.stream.started for prompt in prompts):
                raise
            logger.warning("Questions that arrived together could not be answered together, and are answered singly.")
            for prompt in prompts:  # such as where memory is too small for all
                try:
                    self._generate([prompt])
                except Exception as error:  # noqa: BLE001  (whoever asked gets it)
                    prompt.request.stream.fail(error)

    def _fits(self, prompt: _Prompt) -> bool:
        """Return whether a prompt leaves room for an answer; otherwise the question fails."""
        length = len(prompt.token_ids)
        if self._context is None or length < self._context:
            return True
        message = f"The conversation has {length} tokens, and the model reads {self._context}: begin a new one."
        prompt.request.stream.fail(ValueError(message))
        return False

    def _prepare(self, requests: list[Request]) -> list[_Prompt]:
        """Refine, tokenize and encode what is not known yet."""
        if not requests:
            return []
        self._see(requests)
        questions = [request.question for request in requests]
        mode = self.processor.mqformer_text
        keys = [encoding_keys(one.question, [seen.key for seen in one.seen], mode) for one in requests]
        distinct = dict.fromkeys(key for own in keys for key in own)
        encoded = {key: found for key in distinct if (found := self.encoded.get(key)) is not None}
        needed, missing = [], []
        for own in keys:
            needed.append([])
            for key in own:
                needed[-1].append(key not in encoded and key not in missing)
                missing += [key] if needed[-1][-1] else []
        objects = [[seen.objects for seen in request.seen] for request in requests]
        pictures = {key: self.vision.get(key) for key in dict.fromkeys(picture_of(key) for key in missing)}
        shown = [
            [flag and pictures[picture_of(key)] is None for key, flag in zip(own, flags, strict=True)]
            for own, flags in zip(keys, needed, strict=True)
        ]
        inputs = prepare_inputs(self.processor, questions, objects, needed, shown)
        if missing:
            rows = torch.tensor([flag for flags in needed for flag in flags])
            found = self._encode(inputs, rows, [picture_of(key) for key in missing], pictures)
            encoded |= dict(zip(missing, found, strict=True))
        token_ids, masks = inputs["input_ids"].numpy(), inputs["attention_mask"].numpy().astype(bool)
        return [
            _Prompt(request, token_ids[row][masks[row]], tuple(own), [encoded[key] for key in own])
            for row, (request, own) in enumerate(zip(requests, keys, strict=True))
        ]

    def _see(self, requests: Sequence[Request]) -> None:
        """Find the objects of all images, and look for something to remark."""
        asked = [
            picture
            for request in requests
            for picture, given in zip(request.question.opened, request.question.objects, strict=True)
            if given is None
        ]
        found = iter(self.refined.see(asked) if asked else ())
        for request in requests:
            question = request.question
            request.seen = [next(found) if given is None else SeenPicture.of(given) for given in question.objects]
            remarks = [
                remark
                for one, seen, given in zip(question.opened, request.seen, question.objects, strict=True)
                if given is None and seen.objects is not None
                for remark in self.notices.about(one, seen.objects)
            ]
            request.stream.notices = tuple(dict.fromkeys(remarks))

    def _encode(
        self,
        inputs: dict[str, Any],
        rows: torch.Tensor,
        keys: list[Hashable],
        known: dict[Hashable, Any],
    ) -> list[torch.Tensor]:
        """Return the embeddings of images, and keep what the vision encoder makes of them.

        Args:
            inputs: model inputs of all images.
            rows: bool tensor, the images that are wanted.
            keys: key of the pixels of each of these.
            known: features of each image from the vision encoder, by key; `None` is replaced by new ones.
        """
        names = [name for name in inputs if name not in ("input_ids", "attention_mask", "pixel_values")]
        tensors = {name: inputs[name][rows].to(self.model.device) for name in names}
        fresh = {key: row for row, key in enumerate(keys) if known[key] is None}
        with torch.inference_mode():
            if fresh:
                pixels = inputs["pixel_values"][rows][list(fresh.values())].to(self.model.device)
                for key, seen in zip(fresh, self.model.get_vision_features(pixels), strict=True):
                    known[key] = seen.clone()
                    self.vision.put(key, known[key], seen.numel() * seen.element_size())
            vision_features = torch.stack([known[key] for key in keys])
            features: Any = self.model.get_image_features(vision_features=vision_features, **tensors, return_dict=True)
        return [one.clone() for one in features.pooler_output]

    def _keep_images(self, prompts: Sequence[_Prompt]) -> None:
        for prompt in prompts:
            for key, image in zip(prompt.image_keys, prompt.images, strict=True):
                self.encoded.put(key, image, image.numel() * image.element_size())

    # ---------------------------------------------------------------- generation

    def _generate(self, prompts: list[_Prompt]) -> None:
        """Generate the answers, and complete the streams."""
        self._keep_images(prompts)
        rows = [self._row(prompt) for prompt in prompts]
        length = max(len(prompt.token_ids) for prompt in prompts)
        token_ids = torch.full((len(prompts), length), self._settings.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(token_ids)
        for index, prompt in enumerate(prompts):
            token_ids[index, length - len(prompt.token_ids) :] = torch.from_numpy(prompt.token_ids)
            mask[index, length - len(prompt.token_ids) :] = 1
        inputs: dict[str, Any] = {"input_ids": token_ids, "attention_mask": mask}
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        if images := [image for prompt in prompts for image in prompt.images]:
            inputs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=torch.stack(images))}
        settings = copy.copy(self._settings)
        settings.max_new_tokens = max(row.max_new_tokens for row in rows)
        settings.num_beams = prompts[0].request.options.num_beams
        inputs["generation_config"] = settings
        if settings.num_beams > 1:
            self._search(rows, inputs)
        else:
            self._choose(prompts, rows, inputs)
        for prompt, row in zip(prompts, rows, strict=True):
            prompt.request.stream.finish(self._finished(prompt, row))

    def _choose(self, prompts: list[_Prompt], rows: list[Row], inputs: dict[str, Any]) -> None:
        """Generate token by token. A question alone goes on from the longest beginning that was read before."""
        inputs["stopping_criteria"] = [RowEnds(rows)]
        if any(row.options.temperature > 0 for row in rows):
            inputs["logits_processor"] = [RowChoice(rows)]
        alone = prompts[0] if len(prompts) == 1 and self._settings.cache_implementation is None else None
        if alone is not None and (cache := self.prefixes.find(alone.token_ids, alone.image_keys)) is not None:
            inputs["cache"] = cache
        with torch.inference_mode():
            output = self.model.generate(**inputs)
        if alone is not None:
            self.prefixes.store(output.sequences[0].cpu().numpy(), alone.image_keys, output.cache)

    def _search(self, rows: list[Row], inputs: dict[str, Any]) -> None:
        """Search for the most probable answers with beams, which are written when they are complete."""
        with torch.inference_mode():
            sequences = self.model.generate(**inputs, stopping_criteria=[Interruption(rows)]).sequences
        for row, found in zip(rows, sequences[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            row.take_all(found, row.interrupted())

    def _row(self, prompt: _Prompt) -> Row:
        request = prompt.request
        room = request.options.max_new_tokens
        if self._context is not None:
            room = min(room, self._context - len(prompt.token_ids))
        return Row(
            request.options,
            room,
            self._eos_token_ids,
            self._decode,
            request.stream.write,
            lambda: request.stream.cancelled,
            request.deadline,
            self._reasoning.splitter(prompt.token_ids.tolist()),
        )

    def _finished(self, prompt: _Prompt, row: Row) -> Answer:
        request, notices = prompt.request, prompt.request.stream.notices
        if row.text.reasoning and not row.text.text:
            notices += (_NO_ANSWER,)
        return Answer(
            text=row.text.text,
            all_objects=[seen.objects for seen in request.seen],
            finish_reason=row.finish_reason or "length",
            options=request.options,
            notices=notices,
            token_ids=(prompt.token_ids.tolist(), row.text.token_ids),
            question=request.question,
            description=self.description,
            reasoning=row.text.reasoning,
        )

    def clear(self) -> None:
        """Forget everything that was kept between questions."""
        self.processor.refined_cache.clear()
        self.processor.picture_cache.clear()
        self.encoded.clear()
        self.vision.clear()
        self.prefixes.clear()

    def stats(self) -> dict[str, CacheStats]:
        """Return the numbers of each cache."""
        return {
            "refined": self.processor.refined_cache.stats(),
            "encoded": self.encoded.stats(),
            "prefix": self.prefixes.stats(),
            "pictures": self.processor.picture_cache.stats(),
            "vision": self.vision.stats(),
        }


def _is_over(request: Request) -> bool:
    """Return whether a question ended before its answer began, and complete its stream."""
    if request.stream.cancelled:
        request.stream.fail(CancelledError("The answer was stopped before it began."))
    elif request.deadline is not None and time.monotonic() >= request.deadline:
        request.stream.fail(TimeoutError(f"The answer did not begin within {request.options.timeout:g} seconds."))
    return request.stream.done


def _greedy_settings(model: Any, processor: Any) -> tuple[Any, frozenset[int]]:
    """Return a model's generation settings without draws, and the tokens that end an answer."""
    settings = copy.deepcopy(model.generation_config)
    settings.do_sample, settings.return_dict_in_generate = False, True
    settings.temperature = settings.top_p = settings.top_k = settings.max_length = None
    if settings.eos_token_id is None:
        settings.eos_token_id = processor.tokenizer.eos_token_id
    eos: Any = settings.eos_token_id
    ends = frozenset(eos if isinstance(eos, list | tuple) else [] if eos is None else [eos])
    if settings.pad_token_id is None:
        settings.pad_token_id = processor.tokenizer.pad_token_id
    return settings, ends
