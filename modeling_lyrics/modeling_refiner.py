"""The visual refiner: an image tagger, an open-vocabulary detector and a segmenter behind one call.

RAM names the objects, the detector finds them, and a SAM-family segmenter outlines them. The refiner is frozen: it
always runs without gradients and in evaluation mode. It contains its preprocessing, its tags and its tokenizer, so that
it needs nothing but an image.
"""

from __future__ import annotations

import copy
import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForMaskGeneration,
    AutoModelForZeroShotObjectDetection,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple

from .checkpoint_files import HUB_KWARGS, naming_disk_errors, pin_revision
from .checkpoint_model import NativeCheckpointModel
from .configuration_lyrics import LyricsRefinerConfig
from .configuration_ram import read_tag_thresholds
from .modeling_ram import RamForImageTagging
from .published_checkpoint import DROPPED_BY_REFINER
from .refiner_checkpoint import check_fingerprint, fingerprint_with, load_tokenizer, used_settings
from .refiner_detection import detect, keep_coordinates_in_float32, make_mask_additive, warn_of_lost_numbers
from .refiner_detection_owlv2 import detect_each
from .refiner_images import (
    Picture,
    detector_size,
    detector_view,
    segmenter_view,
    square_view,
    tagger_view,
    to_pixels,
    to_rgb,
)
from .refiner_output import LyricsRefinerOutput, RefinedImage
from .refiner_prompts import tags_of_each
from .refiner_regions import select_objects
from .refiner_segmentation import segment
from .refiner_tiles import cut_tiles, join_tiles

logger = logging.get_logger(__name__)

BATCHES_AHEAD = 2  # prepared in threads; one thread takes longer for an image than a large GPU does

SUPPORTED_DETECTORS = ("grounding-dino", "mm-grounding-dino", "owlv2")
SUPPORTED_SEGMENTERS = ("sam", "sam_hq", "sam2", "sam2_video", "edgetam", "edgetam_video")


class LyricsRefinerPreTrainedModel(NativeCheckpointModel):
    """Base class of the refiner: loading."""

    config_class = LyricsRefinerConfig
    config: LyricsRefinerConfig
    base_model_prefix = "refiner"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    _supports_sdpa = True
    _keys_to_ignore_on_load_unexpected = list(DROPPED_BY_REFINER)

    @staticmethod
    def _finalize_model_loading(model: Any, load_config: Any, loading_info: Any) -> Any:
        """Refuse a checkpoint with missing weights, since the refiner is never trained."""
        loading_info = NativeCheckpointModel._finalize_model_loading(model, load_config, loading_info)
        if missing := sorted(loading_info.missing_keys):
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            place = load_config.pretrained_model_name_or_path
            raise ValueError(f"{place} lacks weights of the refiner: {', '.join(missing[:5])}{more}.")
        return loading_info


class LyricsVisualRefiner(LyricsRefinerPreTrainedModel):
    """Tagger, detector and segmenter behind one call, `refine(images)`.

    Args:
        config: `LyricsRefinerConfig`.

    Attributes:
        tokenizer: tokenizer of the detector, saved and loaded with the weights; `None` in a refiner that was built from
            a configuration, until it is set.
    """

    tagger: Any
    detector: Any
    segmenter: Any

    def __init__(self, config: LyricsRefinerConfig) -> None:
        config.validate_architecture()  # `from_pretrained` sets its arguments without a check
        super().__init__(config)
        _check_supported("detector", config.detector_config, SUPPORTED_DETECTORS)
        if config.detector_config._attn_implementation not in (None, "eager"):
            # the detector supports eager attention only; its text encoder and backbone keep the requested one
            config.detector_config._attn_implementation = {"": "eager"}
        self.tagger = None if config.tagger_config is None else RamForImageTagging(config.tagger_config)
        self.detector = AutoModelForZeroShotObjectDetection.from_config(config.detector_config, trust_remote_code=False)
        self.segmenter = None
        if config.segmenter_config is not None:
            _check_supported("segmenter", config.segmenter_config, SUPPORTED_SEGMENTERS)
            self.segmenter = AutoModelForMaskGeneration.from_config(config.segmenter_config, trust_remote_code=False)
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.post_init()
        self._prepare()

    def _prepare(self) -> None:
        """Freeze the parts, and repair the detector's text mask and, in half precision, its coordinates."""
        if not self.config.detector_is_owl:
            self.detector.model.text_backbone.register_forward_pre_hook(make_mask_additive, with_kwargs=True)
        keep_coordinates_in_float32(self.detector)
        super().requires_grad_(False)
        super().train(False)

    @classmethod
    def from_parts(
        cls,
        tagger: RamForImageTagging | None,
        detector: PreTrainedModel,
        segmenter: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase,
        **config_kwargs: Any,
    ) -> LyricsVisualRefiner:
        """Build a refiner from pretrained parts; their weights are used directly, without a copy.

        Args:
            tagger: RAM, or `None` when the caller always names the tags.
            detector: zero-shot detector.
            segmenter: SAM-family model, or `None` with `region_feature_type="detection"`.
            tokenizer: fast tokenizer of the detector.
            config_kwargs: further fields of `LyricsRefinerConfig`.
        """
        config_kwargs.setdefault("region_feature_type", "detection" if segmenter is None else "mask")
        config = LyricsRefinerConfig(
            tagger_config=None if tagger is None else tagger.config,
            detector_config=detector.config,
            segmenter_config=None if segmenter is None else segmenter.config,
            **config_kwargs,
        )
        with torch.device("meta"):
            refiner = cls(config)
        refiner.tagger, refiner.detector, refiner.segmenter = tagger, detector, segmenter
        refiner.tokenizer = tokenizer
        refiner._prepare()
        return refiner

    def train(self, mode: bool = True) -> LyricsVisualRefiner:
        """Stay in evaluation mode, since the refiner is frozen."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> LyricsVisualRefiner:
        """Stay without gradients; the parts are trained on their own, before they are joined."""
        if requires_grad:
            logger.warning_once("The visual refiner is frozen: requires_grad_(True) has no effect on it.")
        return super().requires_grad_(False)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a refiner with the detector's tokenizer.

        Args:
            pretrained_model_name_or_path: folder or Hub id in this package's layout (`subfolder="refiner"`) or in the
                published one.
            args: Transformers' arguments.
            kwargs: Transformers' arguments, and `tag_thresholds`, the path of a file that replaces the tagger's
                thresholds.

        Raises:
            ValueError: weights, settings or tokenizer are not those that were saved together; the message names the
                place, and both fingerprints.
        """
        if pretrained_model_name_or_path is not None:
            pin_revision(pretrained_model_name_or_path, kwargs)
        hub_kwargs = {name: kwargs[name] for name in (*HUB_KWARGS, "subfolder") if name in kwargs}
        if (tag_thresholds := kwargs.pop("tag_thresholds", None)) is not None:
            if kwargs.get("config") is None:
                source: Any = pretrained_model_name_or_path
                kwargs["config"] = LyricsRefinerConfig.from_pretrained(
                    source, tag_thresholds=tag_thresholds, **hub_kwargs
                )
            else:
                config: Any = copy.deepcopy(kwargs["config"])
                num_tags = getattr(config.tagger_config, "num_labels", 0)
                config.tagger_config.threshold = read_tag_thresholds(tag_thresholds, num_tags)
                kwargs["config"] = config
        tokenizer = None
        if pretrained_model_name_or_path is not None:  # before the weights, so that an error comes early
            trusted = {"trust_remote_code": bool(kwargs.get("trust_remote_code"))}  # `None` would ask on standard input
            tokenizer = load_tokenizer(pretrained_model_name_or_path, hub_kwargs, trusted)
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        refiner = loaded[0] if isinstance(loaded, tuple) else loaded
        refiner.tokenizer = tokenizer
        PreTrainedModel.requires_grad_(refiner, False)  # loading created new parameters
        if pretrained_model_name_or_path is not None:
            check_fingerprint(refiner, pretrained_model_name_or_path, hub_kwargs)
        return loaded

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save weights, tokenizer, and the configuration with the fingerprint."""
        self.config.fingerprint = self.fingerprint()
        with naming_disk_errors(save_directory):
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(save_directory)
            super().save_pretrained(save_directory, *args, **kwargs)

    def fingerprint(self) -> str:
        """Return a hash that is equal for refiners with equal results, and differs after any change.

        It covers weights, thresholds, tags, tokenizer and preprocessing, but not paths and batch size. All weights are
        read, which takes seconds at full size.
        """
        return fingerprint_with(self, used_settings(self.config))

    def refine(
        self,
        images: Sequence[Image.Image],
        tags: Sequence[str] | Sequence[Sequence[str]] | None = None,
        batch_size: int = 8,
        return_masks: bool = False,
        progress: bool = True,
    ) -> list[RefinedImage]:
        """Find the objects of images.

        Images of equal size in the detector's view are refined together; results do not depend on it. Long ones are
        refined in square parts where the configuration says so (`tile_aspect_ratio`).

        Args:
            images: sequence of PIL images of any mode and size.
            tags: list of words to look for in every image, or one list for each image; the tagger is not asked.
            batch_size: number of images at a time.
            return_masks: bool, whether each object's mask is returned, at the image's size.
            progress: bool, whether a progress bar is shown when there are several batches.

        Returns:
            One `RefinedImage` per image, in their order; an image may have no objects.

        Raises:
            ValueError: `tags` are not words, the numbers of images and of lists of tags differ, `batch_size` is below
                1, or weights of detector or segmenter are offloaded.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self._check_not_offloaded()
        tags = None if tags is None else tags_of_each(tags, len(images))
        pictures = [to_rgb(image) for image in images]
        config = self.config
        longest = config.tile_aspect_ratio or math.inf
        tiles = [cut_tiles(*picture.size, longest, config.tile_overlap) for picture in pictures]
        views, words = [], []
        for index, (picture, own) in enumerate(zip(pictures, tiles, strict=True)):
            parts = [picture] if own is None else [picture.crop(tile.area) for tile in own]
            views += parts
            words += [] if tags is None else [tags[index]] * len(parts)
        refined = iter(self._refine_whole(views, None if tags is None else words, batch_size, return_masks, progress))
        return [
            next(refined)
            if own is None
            else join_tiles([next(refined) for _ in own], own, *picture.size, config.iou_threshold, config.max_regions)
            for picture, own in zip(pictures, tiles, strict=True)
        ]

    def _refine_whole(
        self,
        pictures: Sequence[Image.Image],
        tags: Sequence[Sequence[str]] | None,
        batch_size: int,
        return_masks: bool,
        progress: bool,
    ) -> list[RefinedImage]:
        """Find the objects of RGB images, each looked at as a whole."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index, picture in enumerate(pictures):
            groups.setdefault(self._detector_size(picture), []).append(index)
        batches = [
            group[start : start + batch_size] for group in groups.values() for start in range(0, len(group), batch_size)
        ]
        refined: dict[int, RefinedImage] = {}
        prepared = self._preprocess_ahead([[pictures[index] for index in batch] for batch in batches])
        for batch in logging.tqdm(batches, desc="Refining", disable=not progress or len(batches) < 2):
            wanted: Any = None if tags is None else [tags[index] for index in batch]
            output = self(**next(prepared), tags=wanted, return_masks=return_masks, return_dict=True)
            refined.update(zip(batch, self._unbatch(output, wanted), strict=True))
        return [refined[index] for index in range(len(pictures))]

    def _preprocess_ahead(self, batches: Sequence[Sequence[Image.Image]]) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the inputs of each batch; while one is used, threads prepare the next ones."""
        if len(batches) < 2:
            yield from map(self.preprocess, batches)
            return
        with ThreadPoolExecutor(BATCHES_AHEAD) as threads:
            coming = deque(threads.submit(self.preprocess, batch) for batch in batches[:BATCHES_AHEAD])
            following = iter(batches[BATCHES_AHEAD:])
            while coming:
                inputs = coming.popleft().result()
                coming.extend(threads.submit(self.preprocess, batch) for batch in islice(following, 1))
                yield inputs

    def preprocess(self, pictures: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """Return the tensors of `forward` on the refiner's device.

        Args:
            pictures: sequence of RGB images of equal size in the detector's view.
        """
        config = self.config
        seen: Sequence[Picture] = pictures
        if config.resize_backend == "torch":
            seen = [to_pixels(picture, self.device) for picture in pictures]
        inputs = {
            "pixel_values": _stack([self._detector_view(picture) for picture in seen]),
            "image_sizes": torch.tensor([(picture.height, picture.width) for picture in pictures]),
        }
        if config.tagger_config is not None:
            tagger = config.tagger_config
            view = (tagger.vision_config.image_size, tagger.image_mean, tagger.image_std)
            inputs["tagger_pixel_values"] = _stack([tagger_view(picture, *view) for picture in seen])
        if config.segmenter_config is not None:
            settings = config.segmenter_side, config.image_mean, config.image_std, config.segmenter_stretches
            views, sizes = zip(*(segmenter_view(picture, *settings) for picture in seen), strict=True)
            inputs["segmenter_pixel_values"], inputs["segmenter_sizes"] = _stack(views), torch.tensor(sizes)
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def _detector_size(self, picture: Image.Image) -> tuple[int, int]:
        """Return (width, height) of the detector's view of an image."""
        config = self.config
        if config.detector_is_owl:
            side = config.detector_config.vision_config.image_size
            return side, side
        return detector_size(*picture.size, config.detector_shortest_edge, config.detector_longest_edge)

    def _detector_view(self, picture: Picture) -> torch.Tensor:
        """Return the detector's view of an image, (3, h, w)."""
        config = self.config
        if config.detector_is_owl:
            return square_view(picture, config.detector_config.vision_config.image_size, *config.detector_normalization)
        edges = config.detector_shortest_edge, config.detector_longest_edge
        return detector_view(picture, *edges, *config.detector_normalization)

    @can_return_tuple
    @torch.no_grad()
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        tagger_pixel_values: torch.Tensor | None = None,
        segmenter_pixel_values: torch.Tensor | None = None,
        segmenter_sizes: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        tags: Sequence[str] | Sequence[Sequence[str]] | None = None,
        return_masks: bool = False,
        **kwargs: Any,
    ) -> LyricsRefinerOutput:
        """Refine N images of one size; `preprocess` makes the tensors.

        Args:
            pixel_values: float tensor of shape (N, 3, h, w), the detector's view.
            tagger_pixel_values: float tensor of shape (N, 3, s, s); not needed with `tags`.
            segmenter_pixel_values: float tensor of shape (N, 3, S, S), padded; needed for `"mask"` features and for
                masks.
            segmenter_sizes: int64 tensor of shape (N, 2), height and width of the image inside the segmenter's view.
            image_sizes: int64 tensor of shape (N, 2), height and width of the images, and of the masks that are
                returned.
            tags: list of words to look for in every image, or one list for each image, instead of asking the tagger.
            return_masks: whether masks are returned, at the image's size.
            kwargs: ignored.

        Returns:
            `LyricsRefinerOutput`.

        Raises:
            ValueError: a view or a part that is needed is missing, or weights of detector or segmenter are offloaded.
        """
        super().train(False)  # a caller may have set a part to training mode
        if pixel_values is None:
            raise ValueError("The refiner needs pixel_values; `preprocess` makes them from images.")
        if self.tokenizer is None:
            raise ValueError("This refiner has no tokenizer: set `refiner.tokenizer` to the detector's.")
        self._check_not_offloaded()
        config = self.config
        tag_logits = tag_mask = tag_ids = None
        if tags is None:
            tag_logits, tag_mask, tag_ids = self._tag(tagger_pixel_values)
            tags = [[config.tagger_config.id2label[tag] for tag in row] for row in tag_ids]
        else:
            tags = tags_of_each(tags, len(pixel_values))
        if config.detector_is_owl:
            detections = detect_each(self.detector, self.tokenizer, pixel_values, tags, image_sizes)
        else:
            detections = detect(
                self.detector,
                self.tokenizer,
                pixel_values,
                tags,
                separator=config.tag_separator,
                max_tokens=config.max_prompt_tokens,
                ask_without_tags=config.region_feature_type == "detection",
            )
        thresholds = (config.box_threshold, config.text_threshold, config.iou_threshold, config.max_regions)
        boxes, scores, label_ids = zip(*(select_objects(one, *thresholds) for one in detections), strict=True)
        if tag_ids is not None:
            label_ids = [labels.new_tensor(row)[labels] for labels, row in zip(label_ids, tag_ids, strict=True)]
        regions, masks = [], []
        if config.region_feature_type == "mask" or return_masks:
            mask_sizes = image_sizes if return_masks else None
            regions, masks = self._outline(boxes, segmenter_pixel_values, segmenter_sizes, mask_sizes)
        if config.region_feature_type == "detection":
            regions = [one.best_features(config.detector_config.num_queries) for one in detections]
        counts = torch.tensor([len(region) for region in regions], device=pixel_values.device)
        positions = torch.arange(int(counts.max()), device=pixel_values.device)
        return LyricsRefinerOutput(
            region_features=pad_sequence(regions, batch_first=True),
            region_attention_mask=(positions < counts[:, None]).long(),
            boxes=pad_sequence(list(boxes), batch_first=True),
            scores=pad_sequence(list(scores), batch_first=True),
            label_ids=pad_sequence(list(label_ids), batch_first=True, padding_value=-1),
            tag_logits=tag_logits,
            tag_mask=None if tag_mask is None else tag_mask.long(),
            masks=tuple(masks) if return_masks else None,
        )

    def _check_not_offloaded(self) -> None:
        """Raise a `ValueError` if weights of detector or segmenter wait in memory or on the disk.

        Both read weights of modules that they do not call, and offloading loads weights when a module is called.
        """
        for part in ("detector", "segmenter"):
            module: nn.Module | None = getattr(self, part)
            waiting = [] if module is None else [name for name, one in module.named_parameters() if one.is_meta]
            if waiting:
                raise ValueError(
                    f"The refiner's {part} cannot be offloaded, but {len(waiting)} of its weights are ({waiting[0]} is "
                    "the first): Transformers reads some of them without calling their modules. Put the whole refiner "
                    "on one device: `refiner_kwargs={'device_map': {'': 'cpu'}}` of the processor."
                )

    def _tag(self, pixel_values: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor, list[list[int]]]:
        """Return the tagger's logits (N, T), which tags are reported (N, T), and their indices for each image."""
        if self.tagger is None or pixel_values is None:
            missing = "has no tagger" if self.tagger is None else "got no tagger_pixel_values"
            raise ValueError(f"This refiner {missing}: give `tags`, the words to look for in each image.")
        logits = self.tagger(pixel_values.to(self.tagger.dtype), return_dict=True).logits
        warn_of_lost_numbers("tagger", logits, self.tagger.dtype)
        fired = self.tagger.fired(logits)
        return logits, fired, [row.nonzero().flatten().tolist() for row in fired]

    def _outline(
        self,
        boxes: Sequence[torch.Tensor],
        pixel_values: torch.Tensor | None,
        sizes: torch.Tensor | None,
        mask_sizes: torch.Tensor | None,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Run the segmenter; see `segment`."""
        if self.segmenter is None or pixel_values is None or sizes is None:
            missing = "has no segmenter" if self.segmenter is None else "got no segmenter_pixel_values and sizes"
            raise ValueError(f"This refiner {missing}, so it can outline nothing.")
        return segment(self.segmenter, pixel_values, sizes, boxes, mask_sizes, self.config.boxes_per_batch)

    def _unbatch(self, output: Any, tags: Sequence[Sequence[str]] | None) -> Iterator[RefinedImage]:
        """Split the output of a batch into images, without padding and on the CPU."""
        for index in range(len(output.boxes)):
            if tags is None:
                names: Any = self.config.tagger_config.id2label
                words = [names[tag] for tag in output.tag_mask[index].nonzero().flatten().tolist()]
            else:
                names, words = tags[index], list(tags[index])
            labels = [names[label] for label in output.label_ids[index].tolist() if label >= 0]
            yield RefinedImage(
                labels=labels,
                boxes=output.boxes[index, : len(labels)].cpu(),
                scores=output.scores[index, : len(labels)].cpu(),
                region_features=output.region_features[index, : int(output.region_attention_mask[index].sum())].cpu(),
                masks=None if output.masks is None else output.masks[index].cpu(),
                tags=words,
            )


def _stack(views: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the views of N images, (N, 3, h, w); that of one image is not copied."""
    return views[0][None] if len(views) == 1 else torch.stack(list(views))


def _check_supported(part: str, config: PreTrainedConfig, supported: tuple[str, ...]) -> None:
    """Raise a `ValueError` where the refiner does not support a part's type."""
    if config.model_type not in supported:
        raise ValueError(
            f"The refiner cannot use a {part} of type {config.model_type!r}; it can use {', '.join(supported)}."
        )


__all__ = ["LyricsRefinerOutput", "LyricsVisualRefiner", "RefinedImage"]
