"""RAM and SAM as their own packages compute them, with the calls that the refiner makes of Transformers' models.

For those who hold the `.pth` files and want the code that they came with: `load_original_refiner(..., packages=...)`.
"""

from __future__ import annotations

import importlib
import os
import re
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import SamConfig
from transformers.models.sam.modeling_sam import SamImageSegmentationOutput

from ..modeling_lyrics import LyricsVisualRefiner, RamForImageTagging
from ..modeling_lyrics.modeling_ram import RamTaggingOutput
from ..modeling_lyrics.weight_tables import RAM
from .ram import read_ram
from .sam import read_sam
from .weights import StateDict, naming

_FROM_INDEX = "pip install 'ziya-lyrics[original]'"
_HOW_TO_INSTALL = {
    "segment_anything": ("segment-anything", _FROM_INDEX),
    "groundingdino": ("groundingdino-py", _FROM_INDEX),
    "ram": ("recognize-anything", "pip install git+https://github.com/xinyu1205/recognize-anything"),
}


def import_original(module: str) -> Any:
    """Import a module of an original package.

    Raises:
        ImportError: naming the package and how it is installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package, command = _HOW_TO_INSTALL[module.partition(".")[0]]
        raise ImportError(
            f"{package} cannot be imported ({error}). Install it with torchvision: {command}. Without it, the refiner "
            "computes the same on Transformers' own classes."
        ) from error


def load_exactly(module: nn.Module, weights: StateDict, source: str | os.PathLike, ignored: str = "$^") -> None:
    """Load weights by their names, but for those that match `ignored`.

    Raises:
        ValueError: naming the source and the weights, when some are missing, superfluous or of another shape.
    """
    with naming(os.fspath(source)):
        report = module.load_state_dict(weights, strict=False)
    missing, unexpected = (
        [name for name in names if not re.search(ignored, name)]
        for names in (report.missing_keys, report.unexpected_keys)
    )
    if missing or unexpected:
        raise ValueError(
            f"{os.fspath(source)} does not fit a {type(module).__name__} of its package: missing keys: "
            f"{', '.join(missing[:5]) or 'none'}; unexpected keys: {', '.join(unexpected[:5]) or 'none'}."
        )


class OriginalPart(nn.Module):
    """A module of an original package.

    Attributes:
        config: of the Transformers model that it stands for.
        original: the package's own module.
    """

    original: Any

    def __init__(self, config: Any, original: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.original = original.eval()

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.original.parameters()).dtype


class OriginalSam(OriginalPart):
    """segment-anything's `Sam`, called as `SamModel`."""

    def get_image_embeddings(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) -> (N, D, h, w)."""
        return self.original.image_encoder(pixel_values)

    def forward(
        self, input_boxes: torch.Tensor, image_embeddings: torch.Tensor, multimask_output: bool = False, **kwargs: Any
    ) -> SamImageSegmentationOutput:
        """Masks of (1, R, 4) boxes, xyxy in pixels of the view, in one (1, D, h, w) image."""
        sam = self.original
        sparse, dense = sam.prompt_encoder(points=None, boxes=input_boxes[0], masks=None)
        masks, scores = sam.mask_decoder(
            image_embeddings=image_embeddings,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
        )
        return SamImageSegmentationOutput(iou_scores=scores[None], pred_masks=masks[None])


def load_sam_package(checkpoint: str | os.PathLike, *, num_decoder_attention_heads: int = 8) -> OriginalSam:
    """As `load_sam`, and segment-anything computes.

    Raises:
        ImportError: when segment-anything cannot be imported.
        ValueError: when the file is not such a checkpoint, naming the weights.
    """
    modeling = import_original("segment_anything.modeling")
    weights, config = read_sam(checkpoint, num_decoder_attention_heads)
    sam = _build_sam(modeling, config)
    load_exactly(sam, weights, checkpoint)
    return OriginalSam(config, sam)


def _build_sam(modeling: Any, config: SamConfig) -> nn.Module:
    """What the package's own builders make, of any size."""
    parts: Any = config
    vision, prompts, decoder = parts.vision_config, parts.prompt_encoder_config, parts.mask_decoder_config
    grid, width = vision.image_size // vision.patch_size, decoder.hidden_size
    return modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=vision.image_size,
            patch_size=vision.patch_size,
            embed_dim=vision.hidden_size,
            depth=vision.num_hidden_layers,
            num_heads=vision.num_attention_heads,
            mlp_ratio=vision.mlp_dim / vision.hidden_size,
            out_chans=vision.output_channels,
            norm_layer=partial(nn.LayerNorm, eps=vision.layer_norm_eps),
            use_rel_pos=True,
            window_size=vision.window_size,
            global_attn_indexes=tuple(vision.global_attn_indexes),
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=width,
            image_embedding_size=(grid, grid),
            input_image_size=(vision.image_size, vision.image_size),
            mask_in_chans=prompts.mask_input_channels,
        ),
        mask_decoder=modeling.MaskDecoder(
            transformer_dim=width,
            transformer=modeling.TwoWayTransformer(
                depth=decoder.num_hidden_layers,
                embedding_dim=width,
                num_heads=decoder.num_attention_heads,
                mlp_dim=decoder.mlp_dim,
            ),
            num_multimask_outputs=decoder.num_multimask_outputs,
            iou_head_depth=decoder.iou_head_depth,
            iou_head_hidden_dim=decoder.iou_head_hidden_dim,
        ),
    )


class OriginalRam(OriginalPart):
    """recognize-anything's `RAM`, called as `RamForImageTagging`."""

    fired = RamForImageTagging.fired

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> RamTaggingOutput:
        """Score every tag of (N, 3, image_size, image_size) images. The package returns words, so scores are caught."""
        scores: list[torch.Tensor] = []
        handle = self.original.fc.register_forward_hook(lambda module, inputs, output: scores.append(output))
        try:
            self.original.generate_tag(pixel_values)
        finally:
            handle.remove()
        return RamTaggingOutput(logits=scores[-1].squeeze(-1))


_SWIN = {96: "swin_t", 128: "swin_b", 192: "swin_l"}  # as the package calls them, by their width


def load_ram_package(
    checkpoint: str | os.PathLike,
    tag_list: str | os.PathLike,
    *,
    chinese_tag_list: str | os.PathLike | None = None,
    tag_thresholds: str | os.PathLike | None = None,
    image_size: int = 384,
) -> OriginalRam:
    """As `load_ram`, and recognize-anything computes. It knows the released sizes only, and fetches a tokenizer.

    Raises:
        ImportError: when recognize-anything cannot be imported.
        ValueError: when files do not belong together, or have a size that the package does not know.
    """
    models = import_original("ram.models")
    weights, config = read_ram(
        checkpoint,
        tag_list,
        chinese_tag_list=chinese_tag_list,
        tag_thresholds=tag_thresholds,
        image_size=image_size,
        num_attention_heads=4,
    )
    width = config.vision_config.embed_dim
    if width not in _SWIN:
        raise ValueError(f"{checkpoint} has a Swin of width {width}; recognize-anything knows {sorted(_SWIN)}.")
    model = models.ram(pretrained="", image_size=image_size, vit=_SWIN[width])
    load_exactly(model, weights, checkpoint, ignored="|".join(RAM.dropped))
    return OriginalRam(config, model)


class OriginalPackagesRefiner(LyricsVisualRefiner):
    """A refiner some of whose parts are modules of the original packages."""

    def _prepare(self) -> None:
        if isinstance(self.detector, OriginalPart):
            self.requires_grad_(False)
            self.train(False)
        else:
            super()._prepare()

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Refuse: the weights would be saved under names that nothing else knows."""
        raise ValueError(
            "A refiner that runs on the original packages is not saved. Save the one that `load_original_refiner` "
            "makes without `packages`: it holds the same weights."
        )
