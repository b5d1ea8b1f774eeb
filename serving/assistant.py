"""`Lyrics`: a model with its processor, caches and queue, which answers questions about images."""

from __future__ import annotations

import dataclasses
import os
import secrets
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

from ..datasets_lyrics.conversations import Conversation, read_question
from ..datasets_lyrics.path_guard import RequestedURL
from ..processing_lyrics import LyricsProcessor, VisualObjects
from ..processing_lyrics.byte_cache import CacheStats
from ..processing_lyrics.chat_templates import message_as_dict
from .answer import Answer, ModelDescription
from .answer_stream import AnswerStream
from .answering import Answerer, CacheLimits, Request
from .chat import Chat
from .engine import Engine
from .generation_options import LARGEST_SEED, GenerationOptions
from .loading import load_model, load_processor
from .notices import Notices
from .question import Question
from .refined_pictures import NoticeCheck, RefinedPictures

_HTTP = ("http://", "https://")


class Lyrics:
    """A model that answers questions about images. Many threads may use one.

    It refines and encodes an image once, as long as its content is in the caches, and a conversation goes on from the
    keys and values of its last turn. Questions that arrive while others are answered wait, and are then answered
    together.

    Args:
        model: `LyricsForConditionalGeneration` in evaluation mode, whose weights do not change any more.
        processor: `LyricsProcessor` of the model.
        caches: largest sizes in bytes of what is kept.
        max_batch_size: largest number of questions that are answered at once.
        max_waiting: largest number of questions that may wait; more get a `BusyError`. `None` sets no limit.
        notice_checks: sequence of functions that look at an image and at what the refiner saw in it, and return a
            remark for the user or `None`; see `Answer.notices`. Images that do not look familiar to the refiner are
            remarked on anyway.

    Examples:
        >>> from lyrics import SCENE_PICTURE, Lyrics
        >>> assistant = Lyrics.from_pretrained()  # the micro model, which ships with the package
        >>> answer = assistant.ask(SCENE_PICTURE, "What color is the ring?")
        >>> answer.text
        'purple'
        >>> "ring" in answer.objects.labels
        True
        >>> chat = assistant.chat(SCENE_PICTURE)
        >>> pieces = list(chat.stream("Where is the red star?"))
        >>> chat.last.boxes.shape
        (1, 4)
    """

    def __init__(
        self,
        model: Any,
        processor: LyricsProcessor,
        *,
        caches: CacheLimits | None = None,
        max_batch_size: int = 16,
        max_waiting: int | None = None,
        notice_checks: Sequence[NoticeCheck] = (),
    ) -> None:
        if max_batch_size < 1:
            raise ValueError(f"max_batch_size must be at least 1, got {max_batch_size}.")
        self.model = model
        self.processor = processor
        self.notices = Notices(processor, notice_checks)
        limits = CacheLimits() if caches is None else caches
        if not isinstance(limits, CacheLimits):
            raise TypeError(f"caches must be CacheLimits, of `lyrics.serving`, got {caches!r:.100}.")
        self._description = ModelDescription(model, processor)
        processor.refined_cache.max_bytes = limits.refined
        processor.picture_cache.max_bytes = limits.pictures
        self._refined = RefinedPictures(processor)
        self._answerer = Answerer(self._description, self._refined, limits, self.notices)
        self._engine = Engine(self._answerer, max_batch_size, max_waiting)
        weakref.finalize(self, self._engine.close, finish=False, wait=False).atexit = False

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        device: Any = None,
        dtype: Any = None,
        store: Any = None,
        tag_thresholds: str | os.PathLike[str] | None = None,
        refiner: Any = True,
        refiner_kwargs: Mapping[str, Any] | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        caches: CacheLimits | None = None,
        max_batch_size: int = 16,
        max_waiting: int | None = None,
        notice_checks: Sequence[NoticeCheck] = (),
        **hub_kwargs: Any,
    ) -> Lyrics:
        """Load a model and its processor.

        Args:
            model: folder or Hub id of a model or an adapter; by default the micro model, which ships with the package
                and knows scenes of colored shapes.
            device: device of model and refiner, such as `"cuda:1"`; CUDA by default where there is one.
            dtype: dtype of the weights, such as `"bfloat16"`; by default as they were saved; `"auto"` is
                bfloat16 where the device computes it natively, else float32.
            store: store of `refine_dataset` that is asked before the refiner, or its folder.
            tag_thresholds: file with the thresholds of the tagger, one per tag and line.
            refiner: `False` for none, or a refiner to use instead of the saved one.
            refiner_kwargs: mapping of further arguments for the refiner's `from_pretrained`.
            model_kwargs: mapping of further arguments for the model's `from_pretrained`: `quantization_config`,
                `device_map`, `attn_implementation`, ...
            caches, max_batch_size, max_waiting, notice_checks: arguments of the class.
            hub_kwargs: `revision`, `token`, `cache_dir`, `local_files_only`, `trust_remote_code`, ...

        Raises:
            ValueError: there is no such model, device, dtype or store, or a file is damaged.
            OSError: a file is missing.
        """
        processor = load_processor(
            model,
            device=device,
            dtype=dtype,
            store=store,
            tag_thresholds=tag_thresholds,
            refiner=refiner,
            refiner_kwargs=refiner_kwargs,
            **hub_kwargs,
        )
        loaded = load_model(model, device=device, dtype=dtype, **hub_kwargs, **dict(model_kwargs or {}))
        return cls(
            loaded,
            processor,
            caches=caches,
            max_batch_size=max_batch_size,
            max_waiting=max_waiting,
            notice_checks=notice_checks,
        )

    # ---------------------------------------------------------------- questions

    def ask(self, image: Any, question: str, *, objects: Any = None, **options: Any) -> Answer:
        """Answer a question about an image.

        Args:
            image: path, URL, PIL image, bytes, array or tensor; a list of several; or `None` for none.
            question: text.
            objects: `VisualObjects` of the image, instead of refining it; a list for several images.
            options: fields of `GenerationOptions`.

        Raises:
            ValueError: the image cannot be read, the question is empty, or an option is wrong.
        """
        return self.stream(image, question, objects=objects, **options).result()

    def stream(self, image: Any, question: str, *, objects: Any = None, **options: Any) -> AnswerStream:
        """Begin to answer a question about an image, and return the answer while it is written.

        Args:
            image, question, objects, options: arguments of `ask`.

        Raises:
            ValueError: the image cannot be read, the question is empty, or an option is wrong.
        """
        return self._submit([self._request(_conversation_about(image, question), objects, options)])[0]

    def ask_messages(self, messages: Sequence[Any], *, objects: Any = None, **options: Any) -> Answer:
        """Answer the last message of a conversation.

        Args:
            messages: sequence of messages as `apply_chat_template` takes them. Their images are paths, `data:` URIs,
                bytes, PIL images, ...; URLs are refused.
            objects: `VisualObjects` of the image, or a list for several images.
            options: fields of `GenerationOptions`.

        Raises:
            ValueError: a message or an image is wrong, or an option.
        """
        return self.stream_messages(messages, objects=objects, **options).result()

    def stream_messages(self, messages: Sequence[Any], *, objects: Any = None, **options: Any) -> AnswerStream:
        """Begin to answer the last message of a conversation, and return the answer while it is written.

        Args:
            messages, objects, options: arguments of `ask_messages`.

        Raises:
            ValueError: a message or an image is wrong, or an option.
        """
        conversation = read_question({"messages": [message_as_dict(message) for message in messages]})
        return self._submit([self._request(conversation, objects, options)])[0]

    def chat(self, image: Any = None, *, objects: Any = None, **options: Any) -> Chat:
        """Begin a conversation about an image, or about several.

        Args:
            image, objects: arguments of `ask`.
            options: fields of `GenerationOptions`, for all answers.
        """
        return Chat(self, image, objects=objects, **options)

    def ask_many(
        self,
        rows: Iterable[Any],
        *,
        batch_size: int = 16,
        on_error: Literal["raise", "yield"] = "raise",
        **options: Any,
    ) -> Iterator[Answer | Exception]:
        """Answer many questions, in batches.

        Args:
            rows: iterable of pairs of image and question, or of mappings with `image` or `images`, and `question` or
                `messages`; `objects` in a mapping are arguments of `ask`. URLs in mappings are refused. An exception in
                place of a row is its result.
            batch_size: number of questions that are answered at once, at most `max_batch_size`.
            on_error: `"raise"`, or `"yield"` to get the exception in place of the answer, and go on.
            options: fields of `GenerationOptions`.

        Yields:
            The answers, in the order of the rows.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        if on_error not in ("raise", "yield"):
            raise ValueError(f"on_error must be 'raise' or 'yield', got {on_error!r}.")
        GenerationOptions(**options)
        return self._ask_many(iter(rows), batch_size, on_error == "raise", options)

    def _ask_many(
        self, rows: Iterator[Any], batch_size: int, raises: bool, options: dict[str, Any]
    ) -> Iterator[Answer | Exception]:
        """Keep two batches under way, so that images are read while others are answered."""
        under_way: deque[list[AnswerStream | Exception]] = deque()
        try:
            while True:
                if chunk := list(islice(rows, batch_size)):
                    under_way.append(self._submit_rows(chunk, batch_size, options))
                if not under_way:
                    return
                if chunk and len(under_way) < 2:
                    continue
                for stream in under_way.popleft():
                    result = stream if isinstance(stream, Exception) else _result_of(stream)
                    if raises and isinstance(result, Exception):
                        raise result
                    yield result
        finally:
            for stream in (one for batch in under_way for one in batch if isinstance(one, AnswerStream)):
                stream.cancel()

    def _submit_rows(
        self, rows: Sequence[Any], batch_size: int, options: dict[str, Any]
    ) -> list[AnswerStream | Exception]:
        """Submit rows together; a row that cannot be read becomes its error."""
        entries: list[Request | Exception] = []
        for row in rows:
            if isinstance(row, Exception):
                entries.append(row)
                continue
            try:
                entries.append(self._request_of_row(row, batch_size, options))
            except (ValueError, OSError) as error:
                entries.append(error)
        streams = iter(self._submit([entry for entry in entries if isinstance(entry, Request)]))
        return [next(streams) if isinstance(entry, Request) else entry for entry in entries]

    def _request_of_row(self, row: Any, batch_size: int, options: dict[str, Any]) -> Request:
        if isinstance(row, tuple):
            if len(row) != 2:
                raise ValueError(f"A row must be a pair of image and question, got {len(row)} values.")
            return self._request(_conversation_about(*row), None, options, batch_size)
        conversation = read_question(row)
        return self._request(conversation, row.get("objects"), options, batch_size)

    def _request(
        self, conversation: Conversation, objects: Any, options: Mapping[str, Any], batch_limit: int | None = None
    ) -> Request:
        """Return a question that may be submitted; it is checked as far as it can be without the model."""
        chosen = GenerationOptions(**options)
        if chosen.seed is None and chosen.temperature > 0:
            chosen = dataclasses.replace(chosen, seed=secrets.randbelow(LARGEST_SEED))
        deadline = None if chosen.timeout is None else time.monotonic() + chosen.timeout
        question = Question.open(conversation, self.processor, objects)
        return Request(question, chosen, batch_limit or self._engine.max_batch_size, deadline)

    def _submit(self, requests: list[Request]) -> list[AnswerStream]:
        for request in requests:
            request.stream.owner = self  # whose end would stop the answer
        if requests:
            self._engine.submit(requests)
        return [request.stream for request in requests]

    # ---------------------------------------------------------------- images

    def see(
        self,
        image: Any,
        *,
        tags: Sequence[str] | None = None,
        masks: bool = False,
        thresholds: Mapping[str, float] | None = None,
    ) -> VisualObjects:
        """Return what the refiner sees in an image.

        Args:
            image: image of any kind.
            tags: words to look for, instead of asking the tagger.
            masks: whether each object's mask is wanted too.
            thresholds: other values of `box_threshold`, `text_threshold`, `iou_threshold` or `max_regions`.

        Raises:
            ValueError: the image cannot be read, an argument is wrong, or there is no refiner.
        """
        if not self._refined.can_refine:
            _ = self.processor.refiner  # raises the error that says why there is none
        picture = self.processor.open_pictures([image])[0]
        seen = self._refined.see([picture], tags=tags, masks=masks, thresholds=thresholds)
        found = seen[0].objects
        return VisualObjects() if found is None else found

    # ---------------------------------------------------------------- state

    def provenance(self) -> dict[str, Any]:
        """Return fingerprints of model and refiner, thresholds and versions, for JSON."""
        return self._description.provenance()

    def load(self) -> tuple[int, int]:
        """Return the numbers of questions that wait and that are being answered."""
        return self._engine.load()

    def cache_stats(self) -> dict[str, CacheStats]:
        """Return the numbers of the caches `refined`, `vision`, `encoded`, `prefix` and `pictures`."""
        return self._answerer.stats()

    def clear_caches(self) -> None:
        """Forget everything that was kept between questions."""
        self._answerer.clear()

    def close(self, finish: bool = True) -> None:
        """Take no more questions, and return when the last answer is complete.

        Args:
            finish: whether the questions that were taken are answered first; otherwise their answers end as they are.
        """
        self._engine.close(finish)

    def __enter__(self) -> Lyrics:
        return self

    def __exit__(self, *error: object) -> None:
        self.close(finish=error[0] is None)


def _conversation_about(image: Any, question: str) -> Conversation:
    """Return the conversation of one question. A URL is fetched: the caller names it, and no row of a file does."""
    given: Any = question
    if not isinstance(given, str) or not given.strip():
        raise ValueError("The question is empty." if isinstance(given, str) else f"The question is no text: {given!r}.")
    images = [] if image is None else list(image) if isinstance(image, list | tuple) else [image]
    is_url = [isinstance(one, str) and one.lower().startswith(_HTTP) for one in images]
    images = [RequestedURL(one) if url else one for one, url in zip(images, is_url, strict=True)]
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": question}]
    return Conversation([{"role": "user", "content": content}], images)


def _result_of(stream: AnswerStream) -> Answer | Exception:
    try:
        return stream.result()
    except Exception as error:  # noqa: BLE001  (returned, or raised again)
        return error
