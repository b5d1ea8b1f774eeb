"""LyricsProcessor: converts images and text to the inputs of a Lyrics model, and runs the refiner.

Transformers looks for a processor's methods in one class, which takes those that refine images and those of the first
stage from two others. What can be computed without the processor lies in other files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
from jinja2.exceptions import TemplateError
from PIL import Image
from transformers import AddedToken, AutoTokenizer, BatchFeature, PreTrainedTokenizerBase
from transformers.dynamic_module_utils import custom_object_save
from transformers.processing_utils import MultiModalData, ProcessorMixin
from transformers.utils.import_utils import is_torchvision_available

from .answer_boxes import as_texts, parse_answers
from .chat_templates import (
    IMAGE,
    VICUNA_TEMPLATE,
    ChatTemplateError,
    ControlText,
    instructions_of_messages,
    instructions_of_text,
    is_raised_in_template,
    neutralize_messages,
    neutralize_value,
)
from .image_processing_lyrics import LyricsImageProcessorPil, LyricsImageProcessorTorchvision
from .language_model_templates import TurnText, instructions_of_turns, is_own_template, turn_text
from .model_inputs import TOKENIZING, MQFormerText, build_mqformer_text, check_placeholders, pad_regions
from .picture_cache import OpenedPicture, PictureCache
from .picture_refining import PictureRefining
from .pretraining_inputs import PretrainingInputs
from .processor_checks import (
    HUB_KWARGS,
    PUBLISHED_FOLDER,
    PUBLISHED_MQFORMER_FOLDER,
    TOKENIZER_FILES,
    find_damage,
    find_file,
    find_padding,
    is_published,
    load_parts,
    naming_disk_errors,
    pin_revision,
)
from .processor_options import LyricsProcessorKwargs
from .prompt_truncation import Truncation
from .protocols import Refiner
from .refiner_handle import REFINER_FOLDER, RefinerHandle
from .spatial_text import SpatialStyle
from .visual_objects import VisualObjects, flatten_objects

_BLANK = Image.new("RGB", (1, 1))  # what Transformers sees of an opened image


class LyricsProcessor(PictureRefining, PretrainingInputs, ProcessorMixin):
    """Processor of Lyrics: image processor, both tokenizers and, behind them, the visual refiner.

    One call turns images and prompts into all inputs of the model. It refines the images, or takes their objects
    from `visual_objects` or from a store. The refiner is loaded on first use. `apply_chat_template` does the same for
    conversations, whose text it does not trust.

    Args:
        image_processor: image processor of the vision encoder.
        tokenizer: tokenizer of the language model; the placeholder is added where it is missing.
        mqformer_tokenizer: tokenizer of the MQ-Former, a BERT tokenizer.
        chat_template: Jinja template of conversations; Vicuna's by default.
        image_token: placeholder of an image in a text.
        num_query_tokens: V + G, number of positions that an image takes in the prompt.
        mqformer_text: text of the MQ-Former beside an image: `"none"`, `"instruction"` (the user's message that holds
            the image) or `"spatial+instruction"` (the objects as text, then that message).
        region_feature_size: width of the refiner's region features.
        max_image_pixels: largest number of pixels; larger images are refused before they are decoded.
        refiner_fingerprint: hash of the refiner that was saved with this processor.
        spatial_text: how the MQ-Former's text writes objects: `"decimal"`, `label: [0.100, 0.200, 0.300, 0.400]`, or
            `"short"`, `label: 100 200 300 400`, with a third of the tokens. A model reads what it was trained on;
            answers are always written in the first style.

    Examples:
        >>> from lyrics import MICRO_CHECKPOINT, SCENE_PICTURE, LyricsProcessor
        >>> processor = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)
        >>> objects = processor.refine(SCENE_PICTURE)[0]
        >>> objects.boxes.shape, "ring" in objects.labels
        ((9, 4), True)
        >>> inputs = processor(
        ...     images=SCENE_PICTURE, text="<image> What is this?", visual_objects=objects, return_tensors="pt"
        ... )
        >>> inputs["region_features"].shape
        torch.Size([1, 9, 36])
        >>> answer = processor.post_process_grounding("a red star: [0.1, 0.2, 0.3, 0.4]")[0]
        >>> answer["labels"]
        ['a red star']
    """

    valid_processor_kwargs = LyricsProcessorKwargs

    def __init__(
        self,
        image_processor: Any,
        tokenizer: PreTrainedTokenizerBase,
        mqformer_tokenizer: PreTrainedTokenizerBase,
        chat_template: str | dict[str, str] | None = None,
        image_token: str = "<image>",
        num_query_tokens: int = 96,
        mqformer_text: MQFormerText = "spatial+instruction",
        region_feature_size: int = 260,
        max_image_pixels: int = 120_000_000,
        refiner_fingerprint: str | None = None,
        spatial_text: SpatialStyle = "decimal",
    ) -> None:
        if mqformer_text not in get_args(MQFormerText):
            raise ValueError(f"mqformer_text must be one of {get_args(MQFormerText)}, got {mqformer_text!r}.")
        if spatial_text not in get_args(SpatialStyle):
            raise ValueError(f"spatial_text must be one of {get_args(SpatialStyle)}, got {spatial_text!r}.")
        counts: dict[str, Any] = {"num_query_tokens": num_query_tokens, "region_feature_size": region_feature_size}
        counts["max_image_pixels"] = max_image_pixels  # a configuration file may hold anything
        for name, value in counts.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive number, got {value!r}.")
        given_std = getattr(image_processor, "image_std", None)
        std = np.atleast_1d(np.asarray(1.0 if given_std is None else given_std, np.float64))
        if not (std > 0).all() or not np.isfinite(std).all():  # also refuses NaN
            raise ValueError(f"image_std of the image processor must be positive, got {std.tolist()}.")
        given_token: Any = image_token
        if not isinstance(given_token, str) or not given_token.strip():
            raise ValueError(f"image_token must be text, got {image_token!r}.")
        if image_token not in tokenizer.get_vocab():
            tokenizer.add_tokens([AddedToken(image_token, normalized=False, special=True)], special_tokens=True)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = find_padding(tokenizer, image_token)
        tokenizer.padding_side = "left"  # a side that was saved with the tokenizer would override the default above
        self.image_token = image_token
        image_token_id: Any = tokenizer.convert_tokens_to_ids(image_token)
        self.image_token_id: int = image_token_id
        self.num_query_tokens = num_query_tokens
        self.mqformer_text: MQFormerText = mqformer_text
        self.spatial_text: SpatialStyle = spatial_text
        self.mqformer_tokenizer: Any = mqformer_tokenizer
        self.region_feature_size = region_feature_size
        self.max_image_pixels = max_image_pixels
        self.refiner_fingerprint = refiner_fingerprint
        self._refiner = RefinerHandle()
        self._pictures = PictureCache()
        chat_template = chat_template or VICUNA_TEMPLATE.replace(IMAGE, image_token)
        super().__init__(image_processor, tokenizer, mqformer_tokenizer, chat_template=chat_template)

    # ---------------------------------------------------------------- loading, saving, the refiner

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *args: Any,
        refiner: Refiner | bool | None = True,
        refiner_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> LyricsProcessor:
        """Load a processor; its refiner is loaded on first use.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            args: Transformers' arguments.
            refiner: `False` for a processor without refiner, or a refiner to use instead of the saved one.
            refiner_kwargs: mapping of arguments for the refiner's `from_pretrained`: `dtype`, `device_map`,
                `tag_thresholds`, ...
            kwargs: Transformers' arguments (`revision`, `token`, `cache_dir`, ...). `trust_remote_code=True` also holds
                for both tokenizers and the refiner; without it, no code of a checkpoint runs, and nobody is asked.

        Raises:
            ValueError: a file is damaged or a setting is wrong; the message names it.
            OSError: a file is missing.
        """
        pin_revision(pretrained_model_name_or_path, kwargs)
        hub_kwargs = {name: kwargs[name] for name in HUB_KWARGS if kwargs.get(name) is not None}
        kwargs["trust_remote_code"] = bool(kwargs.get("trust_remote_code"))  # `None` would ask on standard input
        trusted = {"trust_remote_code": kwargs["trust_remote_code"]}
        load_kwargs = hub_kwargs | trusted | dict(refiner_kwargs or {})
        subfolder = kwargs.get("subfolder") or ""
        try:
            processor, handle = cls._load(pretrained_model_name_or_path, load_kwargs, hub_kwargs, *args, **kwargs)
        except Exception as error:
            inside = ("", "mqformer_tokenizer", PUBLISHED_FOLDER, PUBLISHED_MQFORMER_FOLDER)
            folders = [os.path.join(subfolder, folder) for folder in inside]
            damage = find_damage(pretrained_model_name_or_path, folders, **hub_kwargs)
            place = os.fspath(pretrained_model_name_or_path)
            if damage is None and (isinstance(error, OSError) or place in str(error)):
                raise
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise ValueError(damage or f"{place} cannot be loaded as {cls.__name__}: {kind}{error}") from error
        handle.skipped = refiner is not True
        handle.recorded = processor.refiner_fingerprint
        processor._refiner = handle
        if refiner is not None and not isinstance(refiner, bool):
            processor.attach_refiner(refiner)
        return processor

    @classmethod
    def _load(
        cls,
        checkpoint: str | os.PathLike[str],
        load_kwargs: dict[str, Any],
        hub_kwargs: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[LyricsProcessor, RefinerHandle]:
        """Load a processor of either layout, and return it with a handle on its refiner."""
        subfolder = kwargs.get("subfolder") or ""
        if not subfolder and is_published(checkpoint, **hub_kwargs):
            parts = load_parts(checkpoint, kwargs["trust_remote_code"], **hub_kwargs)
            processor = cls(default_image_processor_class()(**parts.pop("image_settings")), **parts)
            return processor, RefinerHandle(os.fspath(checkpoint), "", load_kwargs, is_published=True)
        processor = super().from_pretrained(checkpoint, *args, **kwargs)
        return processor, RefinerHandle.find(checkpoint, load_kwargs, subfolder)

    @classmethod
    def _load_tokenizer_from_pretrained(
        cls, sub_processor_type: str, pretrained_model_name_or_path: Any, subfolder: str = "", **kwargs: Any
    ) -> Any:
        """Load a tokenizer.

        Transformers would load the language model's tokenizer where the MQ-Former's is missing or damaged.
        """
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
        self,
        save_directory: str | os.PathLike[str],
        push_to_hub: bool = False,
        save_refiner: bool = True,
        **kwargs: Any,
    ) -> list[str]:
        """Save the processor and, where it has one, its refiner in `refiner/`.

        Args:
            save_directory: folder of the checkpoint.
            push_to_hub: whether everything is uploaded after it was saved.
            save_refiner: `False` leaves the refiner out, as in a trainer's checkpoints.
            kwargs: arguments of `push_to_hub`.

        Raises:
            OSError: naming the folder, if the disk is full or fails.
        """
        save_directory = os.fspath(save_directory)
        refiner: Any = self.refiner if save_refiner and self._refiner.exists else None
        with naming_disk_errors(save_directory):
            if refiner is not None:
                refiner.save_pretrained(os.path.join(save_directory, REFINER_FOLDER))
                self.refiner_fingerprint = refiner.config.fingerprint
                if getattr(refiner, "_auto_class", None) is not None:
                    # remote code is looked up in the root folder, not in the refiner's
                    custom_object_save(refiner, save_directory, config=refiner.config)
            with TOKENIZING:
                for tokenizer in (self.tokenizer, self.mqformer_tokenizer):
                    # a fast tokenizer saves the truncation and padding of its last call, which would stay on
                    tokenizer.backend_tokenizer.no_truncation()
                    tokenizer.backend_tokenizer.no_padding()
                files = super().save_pretrained(save_directory)
        if push_to_hub:
            repo_id = kwargs.pop("repo_id", os.path.basename(os.path.normpath(save_directory)))
            self.push_to_hub(repo_id, **kwargs)
        return files

    # ---------------------------------------------------------------- prompts

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        visual_objects: Any = None,
        mqformer_instructions: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare images and prompts for the model.

        Args:
            images: images, in the order of their placeholders; a list of lists gives each text its own.
            text: prompt or list of prompts with one `image_token` per image. Prompts are trusted: what looks like a
                special token is one. Text of unknown origin goes through `apply_chat_template`.
            visual_objects: `VisualObjects` (or their dictionaries) of each image, instead of refining it.
            mqformer_instructions: list of the MQ-Former's text for each image; by default the turn of the prompt that
                holds the image.
            kwargs: options of the tokenizer and the image processor (`return_tensors`, `padding`, ...). With
                `truncation`, text is cut to `max_length` tokens; placeholders, a BOS and boxes never are.

        Returns:
            `input_ids`, `attention_mask` (B, L); for N images `pixel_values` (N, 3, H, W), `region_features` (N, Q,
            d_r), `region_attention_mask` (N, Q) and, unless `mqformer_text` is `"none"`, `mqformer_input_ids`,
            `mqformer_attention_mask` and, with spatial text, `mqformer_position_ids` (N, L_m).

        Raises:
            ValueError: the numbers of placeholders, images and objects do not match, or the refiner is missing; the
                message names them.
        """
        texts = None if text is None else as_texts("text", text)
        if texts == []:
            raise ValueError("Got an empty list of texts.")
        instructions = mqformer_instructions
        if instructions is not None:
            instructions = as_texts("mqformer_instructions", instructions)
        return_tensors = _option(kwargs, "return_tensors")
        if texts is not None:
            check_placeholders(texts, images, self.image_token)
            instructions = self._instructions_of(texts) if instructions is None else instructions
            texts, kwargs = self._with_one_bos(texts, kwargs)
        pictures: list[Any]
        if visual_objects is None and self._can_refine:
            pictures = self.open_pictures(images)
            kwargs = {**kwargs, "opened": pictures} if pictures else kwargs
        else:
            pictures = self.load_pictures(images)
        truncation = None if texts is None else self._truncation_of(kwargs)
        options = kwargs if truncation is None else truncation.untruncated(kwargs)
        with TOKENIZING:
            shown = [_BLANK] * len(pictures) if "opened" in kwargs else pictures
            data = super().__call__(images=shown or None, text=texts, **options)
        if truncation is not None:
            expanded = [one.replace(self.image_token, self.image_token * self.num_query_tokens) for one in texts or ()]
            truncation.apply(data, expanded, self.tokenizer, (self.image_token_id, self.tokenizer.bos_token_id))
        if pictures:
            data.update(self._mqformer_inputs(pictures, instructions, visual_objects))
        return data.convert_to_tensors(return_tensors)

    def _mqformer_inputs(
        self, pictures: list[Any], instructions: Sequence[str] | None, visual_objects: Any
    ) -> dict[str, np.ndarray]:
        """Return the region features and the MQ-Former's text of each image."""
        instructions = [""] * len(pictures) if instructions is None else instructions
        if len(instructions) != len(pictures):
            raise ValueError(f"Got {len(instructions)} mqformer_instructions for {len(pictures)} images.")
        objects = self._objects_of(pictures, visual_objects)
        described = [None] * len(pictures) if objects is None else objects
        regions = {} if objects is None else pad_regions(objects, self.region_feature_size)
        with TOKENIZING:
            text = build_mqformer_text(
                self.mqformer_text, self.mqformer_tokenizer, instructions, described, self.spatial_text
            )
        return regions | text

    def apply_chat_template(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, conversation: Any, chat_template: str | None = None, **kwargs: Any
    ) -> Any:
        """Render conversations of unknown origin as prompts and, with `tokenize=True`, prepare them for the model.

        Text that imitates a placeholder, a role or a special token is changed so that it stays text. The MQ-Former
        reads, for each image, the message that holds it: never another turn, never an answer.

        A language model's own template gets no special tokens but those that it writes itself, as its tokenizer's
        `apply_chat_template` does. Tools and documents are not trusted either; other variables of the template are.

        Args:
            conversation: list of messages, or list of conversations. Messages and their blocks may be dictionaries,
                dataclasses or pydantic models.
            chat_template: template, or the name of one of the processor's, instead of the default one.
            kwargs: Transformers' arguments, and variables of the template such as `enable_thinking`.

        Raises:
            ValueError: the template fails on these messages; where it refuses them, the error is a Jinja
                `TemplateError` as well.
        """
        first = conversation[0] if isinstance(conversation, Sequence) and conversation else None
        batched = isinstance(first, list | tuple) or hasattr(first, "messages")
        conversations = [getattr(chat, "messages", chat) for chat in (conversation if batched else [conversation])]
        control = self.control_text(chat_template)
        conversations = [neutralize_messages(messages, control) for messages in conversations]
        instructions = [text for messages in conversations for text in instructions_of_messages(messages)]
        for name in ("tools", "documents"):
            if kwargs.get(name) is not None:
                kwargs[name] = neutralize_value(kwargs[name], control.tokens_for(name), control.roles)
        if kwargs.get("tokenize"):
            options = dict(kwargs.get("processor_kwargs") or {})
            options.setdefault("mqformer_instructions", instructions)
            if is_own_template(self._resolve_chat_template(chat_template)):
                options.setdefault("add_special_tokens", False)
            kwargs["processor_kwargs"] = options
        try:
            return super().apply_chat_template(
                conversations if batched else conversations[0], chat_template=chat_template, **kwargs
            )
        except TemplateError as error:
            raise ChatTemplateError(f"The chat template does not take this conversation: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
            if not is_raised_in_template(error):
                raise
            raise ValueError(f"The chat template failed: {type(error).__name__}: {error}") from error

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Return one placeholder for each query of the MQ-Former; Transformers calls this for each image."""
        return self.image_token * self.num_query_tokens

    def _get_num_multimodal_tokens(
        self, image_sizes: Sequence[tuple[int, int]] | None = None, **kwargs: Any
    ) -> MultiModalData:
        """Return the number of placeholders of images of any (height, width), for serving engines."""
        if image_sizes is None:
            return MultiModalData()
        count = len(image_sizes)
        return MultiModalData(num_image_tokens=[self.num_query_tokens] * count, num_image_patches=[1] * count)

    def control_text(self, chat_template: str | None = None) -> ControlText:
        """Return the text that conversations of unknown origin must not hold.

        Special tokens are control text, but not every word that was added to the tokenizer. Under a language model's
        own template, so is what the template writes around messages.

        Args:
            chat_template: template, or the name of one of the processor's, instead of the default one.
        """
        tokens = self._special_tokens()
        template = self._resolve_chat_template(chat_template)
        if not is_own_template(template):
            return ControlText(tokens)
        turns = self._turn_text(template)
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values()]
        words = {token for token in added if token in template and not token.isspace()}
        answered = words - turns.between - set(tokens)  # decoded answers hold them
        marks = (turns.marks | words) - answered - set(tokens)
        return ControlText((*tokens, *sorted(marks)), tuple(sorted(answered)), turns.roles)

    def _special_tokens(self) -> tuple[str, ...]:
        """Return the special tokens of the tokenizer and the placeholder."""
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        return (*added, *(self.tokenizer.chat_control_tokens or ()), self.image_token)

    def _turn_text(self, template: str) -> TurnText:
        """Return what a language model's own template writes around messages."""
        return turn_text(template, self.tokenizer.special_tokens_map, self._special_tokens())

    def _instructions_of(self, texts: Sequence[str]) -> list[str]:
        """Return the MQ-Former's text for each placeholder of prompts."""
        tokens = self._special_tokens()
        template = self._resolve_chat_template(None)
        if not is_own_template(template):
            return [words for text in texts for words in instructions_of_text(text, self.image_token, tokens)]
        turns = self._turn_text(template)
        ends = (*tokens, *turns.between, *turns.roles)
        return [words for text in texts for words in instructions_of_turns(text, self.image_token, ends, turns.user)]

    def _with_one_bos(self, texts: list[str], kwargs: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        """Return texts and options by which each text gets exactly one BOS, also those that already hold one."""
        bos = self.tokenizer.bos_token
        if bos is None or _option(kwargs, "add_special_tokens") is False or not any(bos in text for text in texts):
            return texts, kwargs
        with TOKENIZING:
            adds_bos = self.tokenizer("")["input_ids"][:1] == [self.tokenizer.bos_token_id]
        texts = [bos + text if adds_bos and bos not in text else text for text in texts]
        if "text_kwargs" in kwargs:
            return texts, kwargs | {"text_kwargs": {**kwargs["text_kwargs"], "add_special_tokens": False}}
        return texts, kwargs | {"add_special_tokens": False}

    def _truncation_of(self, kwargs: dict[str, Any]) -> Truncation | None:
        """Return the truncation that the options of a call ask for, or `None`."""
        if not _option(kwargs, "truncation"):
            return None
        merged = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        return Truncation.of(merged["text_kwargs"], self.tokenizer)

    def _process_images(self, images: Any, opened: list[OpenedPicture] | None = None, **kwargs: Any) -> Any:
        """Return pixel values and the placeholders of each image; Transformers calls this.

        Args:
            images: images that Transformers has checked.
            opened: the images of this call where their hashes are needed anyway: `picture_cache` may know them.
            kwargs: options of the image processor.
        """
        if opened is None:
            return super()._process_images(images, **kwargs)
        prepared = self._pictures.preprocess(self.image_processor, opened, kwargs)
        return prepared, [self.replace_image_token({}, index) for index in range(len(opened))]

    @property
    def _can_refine(self) -> bool:
        """Whether images without objects are refined, or fail: a refiner that was saved with it must not be lost."""
        is_expected = self.refiner_fingerprint is not None and not self._refiner.skipped
        return is_expected or self.has_refiner or self.store is not None

    def _objects_of(self, pictures: list[Any], visual_objects: Any) -> list[VisualObjects] | None:
        """Return the objects of each image, refined where they are not given; `None` where nothing can refine."""
        given: list[Any] = [None] * len(pictures) if visual_objects is None else flatten_objects(visual_objects)
        if len(given) != len(pictures):
            raise ValueError(f"Got visual_objects for {len(given)} images, but {len(pictures)} images.")
        missing = [index for index, objects in enumerate(given) if objects is None]
        if missing and not self._can_refine:
            if len(missing) < len(pictures):
                raise ValueError(f"Images {missing} have no visual_objects, and this processor has no refiner.")
            return None
        if missing:
            refined = self.refine([pictures[index] for index in missing], progress=False)
            for index, objects in zip(missing, refined, strict=True):
                given[index] = objects
        return given

    # ---------------------------------------------------------------- answers

    def post_process_grounding(
        self, text: str | Sequence[str], image_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[dict[str, Any]]:
        """Parse the boxes of a model's answers.

        Args:
            text: decoded answer or list of answers.
            image_sizes: sequence of (height, width) in pixels of each answer's image.

        Returns:
            What `parse_answers` returns: for each answer a dictionary of `text`, `plain_text`, `labels` and `boxes`.
        """
        return parse_answers(text, image_sizes)

    @property
    def model_input_names(self) -> list[str]:
        """Names of all outputs of a call."""
        names = [*self.tokenizer.model_input_names, *self.image_processor.model_input_names]
        names += ["region_features", "region_attention_mask"]
        if self.mqformer_text != "none":
            names += ["mqformer_input_ids", "mqformer_attention_mask"]
        if self.mqformer_text == "spatial+instruction":
            names += ["mqformer_position_ids"]
        return list(dict.fromkeys(name for name in names if name != "token_type_ids"))


def _option(kwargs: Mapping[str, Any], name: str) -> Any:
    """Return an option of a call's texts, which may also be in `text_kwargs` or `common_kwargs`."""
    places = (kwargs, kwargs.get("text_kwargs") or {}, kwargs.get("common_kwargs") or {})
    return next((place[name] for place in places if name in place), None)


def default_image_processor_class() -> type:
    """Return the image processor of this installation: on tensors with torchvision, else on PIL images."""
    return LyricsImageProcessorTorchvision if is_torchvision_available() else LyricsImageProcessorPil
