"""RAM and SAM of their original packages, with the interface of Transformers' models that the refiner calls.

`load_original_refiner(..., packages=...)` uses them, for results from the code that the `.pth` files came with.
"""

from __future__ import annotations

import importlib
import re
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, SamConfig
from transformers.models.sam.modeling_sam import SamImageSegmentationOutput

from ..modeling_lyrics import LyricsVisualRefiner, RamForImageTagging
from ..modeling_lyrics.checkpoint_files import naming
from ..modeling_lyrics.modeling_ram import RamTaggingOutput
from ..modeling_lyrics.weight_tables import RAM
from .ram import read_ram
from .sam import read_sam
from .weights import FilePath, StateDict, require_fit

_FROM_INDEX = "pip install 'ziya-lyrics[original]'"
_HOW_TO_INSTALL = {
    "segment_anything": ("segment-anything", _FROM_INDEX),
    "groundingdino": ("groundingdino-py", _FROM_INDEX),
    "ram": ("recognize-anything", "pip install git+https://github.com/xinyu1205/recognize-anything"),
}


def import_original(module: str) -> Any:
    """Import a module of an original package.

    Raises:
        ImportError: if it cannot be imported; the message names the package and how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package, command = _HOW_TO_INSTALL[module.partition(".")[0]]
        raise ImportError(
            f"{package} cannot be imported ({error}). Install it with torchvision: {command}. Without the package, the "
            "refiner gives the same results on Transformers' own classes."
        ) from error


def load_exactly(module: nn.Module, weights: StateDict, source: FilePath, ignored: str = "$^") -> None:
    """Load weights under their own names.

    Args:
        module: module of an original package.
        weights: weights of an original checkpoint.
        source: file that they come from, for messages.
        ignored: regular expression for names that may be missing or unexpected.

    Raises:
        ValueError: if other weights are missing or unexpected, or have another shape.
    """
    with naming(source):
        report = module.load_state_dict(weights, strict=False)
    problems = {"missing_keys": report.missing_keys, "unexpected_keys": report.unexpected_keys}
    problems = {kind: [name for name in names if not re.search(ignored, name)] for kind, names in problems.items()}
    require_fit(problems, f"a {type(module).__name__} of its package", source)


class OriginalPart(nn.Module):
    """Wrapper of a module of an original package.

    Args:
        config: configuration of the Transformers model that it replaces.
        original: module of the package.
    """

    original: Any

    def __init__(self, config: PreTrainedConfig, original: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.original = original.eval()

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return next(self.original.parameters()).dtype


class OriginalSam(OriginalPart):
    """segment-anything's `Sam` with the interface of `SamModel`."""

    def get_image_embeddings(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode images (N, 3, S, S) to embeddings (N, D, h, w)."""
        return self.original.image_encoder(pixel_values)

    def forward(
        self, input_boxes: torch.Tensor, image_embeddings: torch.Tensor, multimask_output: bool = False, **kwargs: Any
    ) -> SamImageSegmentationOutput:
        """Predict masks (1, R, M, H, W) for boxes (1, R, 4) in pixels of the view of an image (1, D, h, w)."""
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


def load_sam_package(checkpoint: FilePath, *, num_decoder_attention_heads: int = 8) -> OriginalSam:
    """Load SAM as `load_sam`, into the classes of segment-anything.

    Args:
        checkpoint: original `.pth` file.
        num_decoder_attention_heads: number of attention heads of the mask decoder.

    Raises:
        ImportError: if segment-anything cannot be imported.
        ValueError: if the file is damaged or is not such a checkpoint; the message names it.
    """
    modeling = import_original("segment_anything.modeling")
    weights, config = read_sam(checkpoint, num_decoder_attention_heads)
    sam = _build_sam(modeling, config)
    load_exactly(sam, weights, checkpoint)
    return OriginalSam(config, sam)


def _build_sam(modeling: Any, config: SamConfig) -> nn.Module:
    """Build a model of any size, as the package's own builders do for the released sizes."""
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
    """recognize-anything's `RAM` with the interface of `RamForImageTagging`."""

    fired = RamForImageTagging.fired

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> RamTaggingOutput:
        """Return logits (N, T) of T tags for images (N, 3, S, S), collected by a hook, as the package returns words."""
        scores: list[torch.Tensor] = []
        handle = self.original.fc.register_forward_hook(lambda module, inputs, output: scores.append(output))
        try:
            self.original.generate_tag(pixel_values)
        finally:
            handle.remove()
        return RamTaggingOutput(logits=scores[-1].squeeze(-1))


_SWIN = {96: "swin_t", 128: "swin_b", 192: "swin_l"}  # width -> name in the package


def load_ram_package(
    checkpoint: FilePath,
    tag_list: FilePath,
    *,
    chinese_tag_list: FilePath | None = None,
    tag_thresholds: FilePath | None = None,
    image_size: int = 384,
) -> OriginalRam:
    """Load RAM as `load_ram`, into recognize-anything's class, which has fixed sizes and downloads a tokenizer.

    Args:
        checkpoint: original `.pth` file.
        tag_list: file with one tag per line.
        chinese_tag_list: file with the same tags in Chinese.
        tag_thresholds: file with one threshold per tag and line.
        image_size: side of the input in pixels.

    Raises:
        ImportError: if recognize-anything cannot be imported.
        ValueError: if the files do not fit together, or have sizes that the package does not support.
    """
    models = import_original("ram.models")
    weights, config = read_ram(checkpoint, tag_list, chinese_tag_list, tag_thresholds, image_size, 4)
    width = config.vision_config.embed_dim
    if width not in _SWIN:
        raise ValueError(f"{checkpoint} has a Swin of width {width}; recognize-anything supports {sorted(_SWIN)}.")
    model = models.ram(pretrained="", image_size=image_size, vit=_SWIN[width])
    load_exactly(model, weights, checkpoint, ignored="|".join(RAM.dropped))
    return OriginalRam(config, model)


class OriginalPackagesRefiner(LyricsVisualRefiner):
    """Refiner with parts that are modules of the original packages."""

    def _prepare(self) -> None:
        """Freeze the refiner; what the parent class changes in Transformers' detector does not exist in the package."""
        if isinstance(self.detector, OriginalPart):
            self.requires_grad_(False)
            self.train(False)
        else:
            super()._prepare()

    def save_pretrained(self, save_directory: FilePath, *args: Any, **kwargs: Any) -> None:
        """Raise a `ValueError`, because nothing could load weights under the names of the packages."""
        raise ValueError(
            "A refiner that runs on the original packages cannot be saved. Call `load_original_refiner` without "
            "`packages`, and save that refiner: it has the same weights."
        )
