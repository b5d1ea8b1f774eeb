"""LyricsProcessor: pictures and text -> everything that a Lyrics model takes, the refiner's work included."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken
from transformers import AutoTokenizer, BatchFeature
from transformers.dynamic_module_utils import custom_object_save
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin
from transformers.utils.import_utils import is_torchvision_available

from .chat_templates import (
    IMAGE,
    VICUNA_TEMPLATE,
    instructions_of_messages,
    instructions_of_text,
    is_raised_in_template,
    neutralize_messages,
)
from .drawing import draw_attention, draw_objects
from .image_loading import PictureLike, flatten_pictures, load_picture
from .image_processing_lyrics import LyricsImageProcessorPil, LyricsImageProcessorTorchvision
from .model_inputs import MQFormerText, build_mqformer_text, check_placeholders, pad_regions
from .processor_checks import (
    HUB_KWARGS,
    PUBLISHED_FOLDER,
    PUBLISHED_MQFORMER_FOLDER,
    TOKENIZER_FILES,
    find_damage,
    find_file,
    is_published,
    load_parts,
)
from .prompt_truncation import Truncation
from .protocols import CheckedObjectStore, ObjectStore, Refiner, RefinerConfig
from .refiner_handle import REFINER_FOLDER, RefinerHandle
from .spatial_text import as_text, parse_spatial_text
from .visual_objects import VisualObjects


class LyricsProcessorKwargs(ProcessingKwargs, total=False):
    """Options of a call, by modality; prompts are padded on the left, for generation."""

    _defaults = {"text_kwargs": {"padding_side": "left"}}  # pyright: ignore[reportGeneralTypeIssues]


class LyricsProcessor(ProcessorMixin):
    """Image processor, both tokenizers and, behind them, the visual refiner.

    Args:
        image_processor: the model's view of a picture.
        tokenizer: the language model's. The placeholder is added where it is missing.
        mqformer_tokenizer: the MQ-Former's, a BERT tokenizer.
        chat_template: Vicuna's by default.
        image_token: the placeholder that stands for a picture in a text.
        num_query_tokens: V + G, positions that a picture takes in the prompt.
        mqformer_text: what the MQ-Former reads beside a picture: nothing, the user's message that holds the picture,
            or the objects as text and that message.
        region_feature_size: width of the refiner's region features.
        max_image_pixels: larger pictures are refused before they are decoded.
        refiner_fingerprint: of the refiner that was saved with this processor.
    """

    valid_processor_kwargs = LyricsProcessorKwargs

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        mqformer_tokenizer: Any,
        chat_template: str | dict[str, str] | None = None,
        image_token: str = "<image>",
        num_query_tokens: int = 96,
        mqformer_text: MQFormerText = "spatial+instruction",
        region_feature_size: int = 260,
        max_image_pixels: int = 120_000_000,
        refiner_fingerprint: str | None = None,
    ) -> None:
        if mqformer_text not in get_args(MQFormerText):
            raise ValueError(f"mqformer_text must be one of {get_args(MQFormerText)}, got {mqformer_text!r}.")
        counts = {"num_query_tokens": num_query_tokens, "region_feature_size": region_feature_size}
        for name, value in (counts | {"max_image_pixels": max_image_pixels}).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive number, got {value!r}.")
        if not isinstance(image_token, str) or not image_token.strip():
            raise ValueError(f"image_token must be text, got {image_token!r}.")
        if image_token not in tokenizer.get_vocab():
            tokenizer.add_tokens([AddedToken(image_token, normalized=False, special=True)], special_tokens=True)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        tokenizer.padding_side = "left"  # a side that was saved with a tokenizer would win over the default above
        self.image_token = image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self.num_query_tokens = num_query_tokens
        self.mqformer_text: MQFormerText = mqformer_text
        self.mqformer_tokenizer: Any = mqformer_tokenizer
        self.region_feature_size = region_feature_size
        self.max_image_pixels = max_image_pixels
        self.refiner_fingerprint = refiner_fingerprint
        self._refiner = RefinerHandle()
        chat_template = chat_template or VICUNA_TEMPLATE.replace(IMAGE, image_token)
        super().__init__(image_processor, tokenizer, mqformer_tokenizer, chat_template=chat_template)

    # ---------------------------------------------------------------- loading, saving, the refiner

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *args: Any,
        refiner: Refiner | bool | None = True,
        refiner_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> LyricsProcessor:
        """Load a processor; its refiner is loaded on first use.

        Args:
            refiner: `False` for a processor without one, or a `LyricsVisualRefiner` to use instead of the saved one.
            refiner_kwargs: for the refiner's `from_pretrained`: `dtype`, `device_map`, `tag_thresholds`, ...
            kwargs: Transformers' (`revision`, `token`, `cache_dir`, ...).

        Raises:
            ValueError: naming the file, or the checkpoint and what is wrong with it.
            OSError: when a file is missing.
        """
        hub_kwargs = {name: kwargs[name] for name in HUB_KWARGS if kwargs.get(name) is not None}
        load_kwargs = hub_kwargs | dict(refiner_kwargs or {})
        try:
            processor, handle = cls._load(pretrained_model_name_or_path, load_kwargs, hub_kwargs, *args, **kwargs)
        except Exception as error:
            folders = ("", "mqformer_tokenizer", PUBLISHED_FOLDER, PUBLISHED_MQFORMER_FOLDER)
            damage = find_damage(pretrained_model_name_or_path, folders, **hub_kwargs)
            place = os.fspath(pretrained_model_name_or_path)
            if damage is None and (isinstance(error, OSError) or place in str(error)):
                raise
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise ValueError(damage or f"{place} cannot be loaded as {cls.__name__}: {kind}{error}") from error
        handle.skipped = refiner is not True
        processor._refiner = handle
        if refiner is not None and not isinstance(refiner, bool):
            processor.attach_refiner(refiner)
        return processor

    @classmethod
    def _load(
        cls,
        checkpoint: str | os.PathLike,
        load_kwargs: dict[str, Any],
        hub_kwargs: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[LyricsProcessor, RefinerHandle]:
        if is_published(checkpoint, **hub_kwargs):
            parts = load_parts(checkpoint, **hub_kwargs)
            processor = cls(default_image_processor_class()(**parts.pop("image_settings")), **parts)
            return processor, RefinerHandle(os.fspath(checkpoint), "", load_kwargs)
        return super().from_pretrained(checkpoint, *args, **kwargs), RefinerHandle.find(checkpoint, load_kwargs)

    @classmethod
    def _load_tokenizer_from_pretrained(
        cls, sub_processor_type: str, pretrained_model_name_or_path: Any, subfolder: str = "", **kwargs: Any
    ) -> Any:
        """As in Transformers, which takes the language model's where the MQ-Former's is missing or damaged."""
        folder = subfolder if sub_processor_type == "tokenizer" else os.path.join(subfolder, sub_processor_type)
        hub_kwargs = {name: kwargs[name] for name in HUB_KWARGS if kwargs.get(name) is not None}
        places = (
            find_file(pretrained_model_name_or_path, name, subfolder=folder, **hub_kwargs) for name in TOKENIZER_FILES
        )
        if not any(places):
            place = os.path.join(pretrained_model_name_or_path, folder)
            raise OSError(f"There is no {sub_processor_type} in {place}: looked for {', '.join(TOKENIZER_FILES)}.")
        return AutoTokenizer.from_pretrained(pretrained_model_name_or_path, subfolder=folder, **kwargs)

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, save_refiner: bool = True, **kwargs: Any
    ) -> list[str]:
        """Save the processor, and its refiner, if it has one, to `refiner/`.

        Args:
            push_to_hub: upload everything after it was saved; `kwargs` are those of `push_to_hub`.
            save_refiner: `False` leaves the refiner out, as in a trainer's checkpoints.
        """
        save_directory = os.fspath(save_directory)
        if save_refiner and self._refiner.exists:
            folder = os.path.join(save_directory, REFINER_FOLDER)
            self.refiner.save_pretrained(folder)
            self.refiner_fingerprint = self.refiner.config.fingerprint
            if getattr(self.refiner, "_auto_class", None) is not None:
                config: Any = self.refiner.config
                custom_object_save(self.refiner, save_directory, config=config)  # remote code is looked up in the root
        for tokenizer in (self.tokenizer, self.mqformer_tokenizer):
            # a fast tokenizer saves how it was last called, and would truncate ever after
            tokenizer.backend_tokenizer.no_truncation()
            tokenizer.backend_tokenizer.no_padding()
        files = super().save_pretrained(save_directory)
        if push_to_hub:
            repo_id = kwargs.pop("repo_id", os.path.basename(os.path.normpath(save_directory)))
            self.push_to_hub(repo_id, **kwargs)
        return files

    @property
    def refiner(self) -> Refiner:
        """The visual refiner, loaded on first use; a `ValueError` where there is none."""
        return self._refiner.get()

    @property
    def has_refiner(self) -> bool:
        """Whether there is a refiner, loaded or not."""
        return self._refiner.exists

    @property
    def refiner_loaded(self) -> bool:
        """Whether the refiner's weights are in memory."""
        return self._refiner.loaded

    @property
    def refiner_config(self) -> RefinerConfig | None:
        """The refiner's configuration, read without its weights, skipped ones included; `None` where there is none."""
        return self._refiner.config()

    @property
    def store(self) -> ObjectStore | None:
        """Stored objects, used before the refiner: anything with `lookup(picture) -> VisualObjects | None`.

        One that also has `check(processor)` is asked whether it belongs to this processor's refiner, when it is
        attached and when the refiner or its dtype changes. It raises a `ValueError` if it does not, and otherwise
        returns the refiner's fingerprint, which a processor that knows of no refiner takes for its own.
        """
        return self._refiner.store

    @store.setter
    def store(self, store: ObjectStore | None) -> None:
        if isinstance(store, CheckedObjectStore):
            fingerprint = store.check(self)
            self.refiner_fingerprint = self.refiner_fingerprint or fingerprint
        self._refiner.store = store

    def attach_refiner(self, refiner: Refiner) -> LyricsProcessor:
        """Use a `LyricsVisualRefiner` that is in memory. Returns the processor.

        Raises:
            ValueError: when its region features have another width than the model expects.
        """
        width = refiner.config.region_feature_size
        if width != self.region_feature_size:
            raise ValueError(
                f"The refiner gives region features of width {width}, but this processor's model takes "
                f"{self.region_feature_size}."
            )
        store, self.store = self.store, None
        self._refiner.attach(refiner)
        self.store = store  # which is asked again
        return self

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> LyricsProcessor:
        """Put the refiner on a device and into a dtype, now or when it is loaded. Returns the processor."""
        store, self.store = self.store, None
        self._refiner.to(device, dtype)
        self.store = store  # which is asked again
        return self

    # ---------------------------------------------------------------- pictures

    def load_pictures(self, images: Any) -> list[Image.Image]:
        """Pictures, paths, URLs, arrays or tensors, in any nesting -> a flat list of upright RGB pictures."""
        return [load_picture(image, self.max_image_pixels) for image in flatten_pictures(images)]

    def refine(
        self,
        images: PictureLike | Sequence[PictureLike],
        tags: Sequence[Sequence[str]] | None = None,
        batch_size: int = 8,
        return_masks: bool = False,
        progress: bool = True,
    ) -> list[VisualObjects]:
        """Find the objects of pictures, one `VisualObjects` per picture; what the store holds is not computed again.

        Args:
            tags: what to look for in each picture, instead of asking the tagger.
            batch_size: pictures at a time.
            return_masks: keep each object's mask, at the picture's size.
            progress: show a bar when there are several batches.
        """
        pictures = self.load_pictures(images)
        found: dict[int, Any] = {}
        if self.store is not None and tags is None and not return_masks:
            found = {index: self.store.lookup(picture) for index, picture in enumerate(pictures)}
        missing = [index for index in range(len(pictures)) if found.get(index) is None]
        twins: dict[int, int] = {}
        if tags is None:  # a picture that stands there twice, as in pairs of answers, is refined once
            first = {id(pictures[index]): index for index in reversed(missing)}
            twins = {index: first[id(pictures[index])] for index in missing if first[id(pictures[index])] != index}
            missing = [index for index in missing if index not in twins]
        if missing and found and not self.has_refiner:
            raise ValueError(f"Pictures {missing} are not in the store, and this processor has no refiner.")
        if missing:
            wanted = None if tags is None else [tags[index] for index in missing]
            refined = self.refiner.refine(
                [pictures[index] for index in missing],
                tags=wanted,
                batch_size=batch_size,
                return_masks=return_masks,
                progress=progress,
            )
            found.update(zip(missing, (VisualObjects(**vars(image)) for image in refined), strict=True))
        return [found[twins.get(index, index)] for index in range(len(pictures))]

    def visualize(self, image: PictureLike, visual_objects: VisualObjects, **options: bool) -> Image.Image:
        """The picture with boxes, labels, scores and masks; `masks=False`, `labels=False`, `scores=False` leave out."""
        return draw_objects(load_picture(image, self.max_image_pixels), visual_objects, **options)

    def visualize_attention(
        self, image: PictureLike, visual_objects: VisualObjects, weights: Sequence[float]
    ) -> Image.Image:
        """The picture with its objects standing out by weights, such as `LyricsAttribution.region_weights()[0]`."""
        return draw_attention(load_picture(image, self.max_image_pixels), visual_objects, weights)

    # ---------------------------------------------------------------- prompts

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        visual_objects: Any = None,
        mqformer_instructions: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare pictures and prompts.

        Args:
            images: pictures, in the order of their placeholders; a list of lists gives each text its own.
            text: prompts with one `image_token` per picture. They are trusted: what looks like a special token is one.
                Content of unknown origin goes through `apply_chat_template`.
            visual_objects: `VisualObjects` (or their dictionaries) for each picture, instead of refining it.
            mqformer_instructions: what the MQ-Former reads beside each picture; by default the turn of its text that
                holds the picture.
            kwargs: of the tokenizer and the image processor (`return_tensors`, `padding`, ...). With `truncation`, text
                is cut to `max_length` tokens; placeholders, a BOS and boxes never are.

        Returns:
            `input_ids`, `attention_mask` (B, L); for N pictures `pixel_values` (N, 3, H, W), `region_features`
            (N, Q, d_r), `region_attention_mask` (N, Q) and, unless `mqformer_text` is `"none"`,
            `mqformer_input_ids`, `mqformer_attention_mask` and, with spatial text, `mqformer_position_ids` (N, L_m).

        Raises:
            ValueError: when placeholders, pictures and objects do not match, with their counts.
        """
        texts = None if text is None else _as_texts("text", text)
        if texts == []:
            raise ValueError("Got an empty list of texts.")
        instructions = mqformer_instructions
        if instructions is not None:
            instructions = _as_texts("mqformer_instructions", instructions)
        return_tensors = kwargs.get("return_tensors", kwargs.get("text_kwargs", {}).get("return_tensors"))
        if texts is not None:
            check_placeholders(texts, images, self.image_token)
            instructions = self._instructions_of(texts) if instructions is None else instructions
            texts, kwargs = self._with_one_bos(texts, kwargs)
        pictures = self.load_pictures(images)
        truncation = None if texts is None else self._truncation_of(kwargs)
        if truncation is None:
            data = super().__call__(images=pictures or None, text=texts, **kwargs)
        else:
            data = super().__call__(images=pictures or None, text=texts, **truncation.untruncated(kwargs))
            expanded = [one.replace(self.image_token, self.image_token * self.num_query_tokens) for one in texts or ()]
            truncation.apply(data, expanded, self.tokenizer, (self.image_token_id, self.tokenizer.bos_token_id))
        if pictures:
            data.update(self._mqformer_inputs(pictures, instructions, visual_objects))
        return data.convert_to_tensors(return_tensors)

    def _mqformer_inputs(
        self, pictures: list[Image.Image], instructions: Sequence[str] | None, visual_objects: Any
    ) -> dict[str, np.ndarray]:
        """Region features and text for each picture."""
        instructions = [""] * len(pictures) if instructions is None else instructions
        if len(instructions) != len(pictures):
            raise ValueError(f"Got {len(instructions)} mqformer_instructions for {len(pictures)} pictures.")
        objects = self._objects_of(pictures, visual_objects)
        described = [None] * len(pictures) if objects is None else objects
        regions = {} if objects is None else pad_regions(objects, self.region_feature_size)
        return regions | build_mqformer_text(self.mqformer_text, self.mqformer_tokenizer, instructions, described)

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        """As in Transformers, for content of unknown origin.

        Text of a message that imitates a placeholder, a role or any special token is changed so that it stays text,
        and the MQ-Former reads, for each picture, the message that holds it: never another turn, never an answer.

        Raises:
            ValueError: when the template fails on these messages; where it refuses them, a `TemplateError` of Jinja.
        """
        first = conversation[0] if isinstance(conversation, Sequence) and conversation else None
        batched = isinstance(first, list | tuple) or hasattr(first, "messages")
        conversations = [getattr(chat, "messages", chat) for chat in (conversation if batched else [conversation])]
        conversations = [neutralize_messages(messages, self._control_tokens) for messages in conversations]
        instructions = [text for messages in conversations for text in instructions_of_messages(messages)]
        if kwargs.get("tokenize"):
            options = dict(kwargs.get("processor_kwargs") or {})
            options.setdefault("mqformer_instructions", instructions)
            kwargs["processor_kwargs"] = options
        try:
            return super().apply_chat_template(conversations if batched else conversations[0], *args, **kwargs)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
            if not is_raised_in_template(error):
                raise
            raise ValueError(f"The chat template failed: {type(error).__name__}: {error}") from error

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """A placeholder for every query of the MQ-Former."""
        return self.image_token * self.num_query_tokens

    def _get_num_multimodal_tokens(
        self, image_sizes: Sequence[tuple[int, int]] | None = None, **kwargs: Any
    ) -> MultiModalData:
        """Placeholders per picture, whatever its (height, width): serving engines reserve space by it."""
        if image_sizes is None:
            return MultiModalData()
        count = len(image_sizes)
        return MultiModalData(num_image_tokens=[self.num_query_tokens] * count, num_image_patches=[1] * count)

    @property
    def _control_tokens(self) -> list[str]:
        """What content of unknown origin must not hold: special tokens, not every word that was added."""
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        return [*added, *(self.tokenizer.chat_control_tokens or ()), self.image_token]

    def _instructions_of(self, texts: Sequence[str]) -> list[str]:
        tokens = self._control_tokens
        return [words for text in texts for words in instructions_of_text(text, self.image_token, tokens)]

    def _with_one_bos(self, texts: list[str], kwargs: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        """Texts that hold a BOS get no second one; those beside them that hold none still get theirs."""
        bos = self.tokenizer.bos_token
        if bos is None or not any(bos in text for text in texts):
            return texts, kwargs
        adds_bos = self.tokenizer("")["input_ids"][:1] == [self.tokenizer.bos_token_id]
        texts = [bos + text if adds_bos and bos not in text else text for text in texts]
        if "text_kwargs" in kwargs:
            return texts, kwargs | {"text_kwargs": {**kwargs["text_kwargs"], "add_special_tokens": False}}
        return texts, kwargs | {"add_special_tokens": False}

    def _truncation_of(self, kwargs: dict[str, Any]) -> Truncation | None:
        if not (kwargs.get("truncation") or kwargs.get("text_kwargs", {}).get("truncation")):
            return None
        merged = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        return Truncation.of(merged["text_kwargs"], self.tokenizer)

    def _objects_of(self, pictures: list[Image.Image], visual_objects: Any) -> list[VisualObjects] | None:
        """Objects of each picture: given, refined where they were not, or `None` where nothing can refine."""
        given: list[Any] = [None] * len(pictures) if visual_objects is None else _flatten_objects(visual_objects)
        if len(given) != len(pictures):
            raise ValueError(f"Got visual_objects for {len(given)} pictures, but {len(pictures)} pictures.")
        missing = [index for index, objects in enumerate(given) if objects is None]
        if missing and not self.has_refiner and self.store is None:
            if len(missing) < len(pictures):
                raise ValueError(f"Pictures {missing} have no visual_objects, and this processor has no refiner.")
            return None
        if missing:
            refined = self.refine([pictures[index] for index in missing])
            for index, objects in zip(missing, refined, strict=True):
                given[index] = objects
        return given

    # ---------------------------------------------------------------- answers

    def post_process_grounding(
        self, text: str | Sequence[str], image_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[dict[str, Any]]:
        """Read the boxes that a model wrote into its answers.

        Args:
            text: decoded answers.
            image_sizes: (height, width) in pixels of the picture of each answer; without it boxes stay in [0, 1].

        Returns:
            For each answer a dictionary of `text`, `plain_text` (without boxes), `labels` and `boxes` (R, 4) xyxy
            float32.
        """
        texts = [text] if isinstance(text, str) else list(text)
        if image_sizes is not None and len(image_sizes) != len(texts):
            raise ValueError(f"Got {len(image_sizes)} image_sizes for {len(texts)} texts.")
        results = []
        for index, answer in enumerate(texts):
            grounded = parse_spatial_text(answer)
            corners = chain.from_iterable(found.box for found in grounded.objects)
            boxes = np.fromiter(corners, np.float32, 4 * len(grounded.objects)).reshape(-1, 4)
            if image_sizes is not None:
                height, width = image_sizes[index]
                boxes = boxes * np.array([width, height, width, height], np.float32)
            labels = [found.label for found in grounded.objects]
            results.append({"text": answer, "plain_text": grounded.plain_text, "labels": labels, "boxes": boxes})
        return results

    @property
    def model_input_names(self) -> list[str]:
        """Names of everything that a call returns."""
        names = [*self.tokenizer.model_input_names, *self.image_processor.model_input_names]
        names += ["region_features", "region_attention_mask"]
        if self.mqformer_text != "none":
            names += ["mqformer_input_ids", "mqformer_attention_mask"]
        if self.mqformer_text == "spatial+instruction":
            names += ["mqformer_position_ids"]
        return list(dict.fromkeys(name for name in names if name != "token_type_ids"))


def _as_texts(name: str, texts: Any) -> list[str]:
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list | tuple) or not all(isinstance(one, str) for one in texts):
        kinds = {type(one).__name__ for one in texts} if isinstance(texts, list | tuple) else {type(texts).__name__}
        raise ValueError(f"{name} must be a string or a list of strings, got {', '.join(sorted(kinds))}.")
    return [as_text(one) for one in texts]


def _flatten_objects(visual_objects: Any) -> list[VisualObjects | None]:
    """One, a list, or a list of lists of `VisualObjects` or their dictionaries -> a flat list."""
    if visual_objects is None or isinstance(visual_objects, VisualObjects):
        return [visual_objects]
    if isinstance(visual_objects, Mapping):
        return [VisualObjects.from_dict(visual_objects)]
    if not isinstance(visual_objects, list | tuple):
        raise ValueError(f"visual_objects must be VisualObjects or their dictionaries, got {type(visual_objects)}.")
    return [objects for element in visual_objects for objects in _flatten_objects(element)]


def default_image_processor_class() -> type:
    """The image processor that this installation runs: on tensors with torchvision, else on PIL pictures."""
    return LyricsImageProcessorTorchvision if is_torchvision_available() else LyricsImageProcessorPil
