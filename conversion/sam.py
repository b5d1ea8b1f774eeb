"""SAM's original checkpoints (`sam_vit_*.pth`), converted to Transformers' `SamModel`."""

from __future__ import annotations

import re

from transformers import SamConfig, SamModel

from ..modeling_lyrics.weight_tables import WeightTable
from .weights import FilePath, StateDict, convert, count_layers, load_converted, read_weights, require_weights

_MLP = r"(output_hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\."
_POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"

SAM = WeightTable(
    renames=(
        (r"^image_encoder\.", "vision_encoder."),
        (r"^(vision_encoder\.patch_embed)\.proj\.", r"\1.projection."),
        (r"^(vision_encoder)\.blocks\.", r"\1.layers."),
        (r"^(vision_encoder\.layers\.\d+)\.norm1\.", r"\1.layer_norm1."),
        (r"^(vision_encoder\.layers\.\d+)\.norm2\.", r"\1.layer_norm2."),
        (r"^(vision_encoder\.neck)\.0\.", r"\1.conv1."),
        (r"^(vision_encoder\.neck)\.1\.", r"\1.layer_norm1."),
        (r"^(vision_encoder\.neck)\.2\.", r"\1.conv2."),
        (r"^(vision_encoder\.neck)\.3\.", r"\1.layer_norm2."),
        (rf"^{re.escape(_POSITIONS)}$", "shared_image_embedding.positional_embedding"),
        (r"^(prompt_encoder)\.point_embeddings\.", r"\1.point_embed."),
        (r"^(prompt_encoder)\.mask_downscaling\.0\.", r"\1.mask_embed.conv1."),
        (r"^(prompt_encoder)\.mask_downscaling\.1\.", r"\1.mask_embed.layer_norm1."),
        (r"^(prompt_encoder)\.mask_downscaling\.3\.", r"\1.mask_embed.conv2."),
        (r"^(prompt_encoder)\.mask_downscaling\.4\.", r"\1.mask_embed.layer_norm2."),
        (r"^(prompt_encoder)\.mask_downscaling\.6\.", r"\1.mask_embed.conv3."),
        (r"^(mask_decoder\.transformer\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
        (r"^(mask_decoder\.transformer)\.norm_final_attn\.", r"\1.layer_norm_final_attn."),
        (r"^(mask_decoder)\.output_upscaling\.0\.", r"\1.upscale_conv1."),
        (r"^(mask_decoder)\.output_upscaling\.1\.", r"\1.upscale_layer_norm."),
        (r"^(mask_decoder)\.output_upscaling\.3\.", r"\1.upscale_conv2."),
        # Of three layers, Transformers names the first and the last, so that number 1 becomes number 0.
        (_MLP + r"0\.", r"\1.proj_in."),
        (_MLP + r"2\.", r"\1.proj_out."),
        (_MLP + r"1\.", r"\1.layers.0."),
    ),
)


def load_sam(checkpoint: FilePath, *, num_decoder_attention_heads: int = 8) -> SamModel:
    """Load SAM; all sizes except the number of heads are inferred from the weights.

    Args:
        checkpoint: original `.pth` file.
        num_decoder_attention_heads: number of attention heads of the mask decoder.

    Raises:
        ValueError: if the file is damaged or is not such a checkpoint; the message names it.
    """
    weights, config = read_sam(checkpoint, num_decoder_attention_heads)
    converted = convert(weights, SAM)
    converted["prompt_encoder.shared_embedding.positional_embedding"] = weights[_POSITIONS]
    return load_converted(SamModel, config, converted, checkpoint)


def read_sam(checkpoint: FilePath, num_decoder_attention_heads: int) -> tuple[StateDict, SamConfig]:
    """Return SAM's original weights and a configuration that fits them; errors as in `load_sam`."""
    weights = read_weights(checkpoint)
    require_weights(weights, (_POSITIONS, "image_encoder.patch_embed.proj.weight"), checkpoint)
    return weights, _infer_config(weights, num_decoder_attention_heads)


def _infer_config(weights: StateDict, decoder_heads: int) -> SamConfig:
    """Return a configuration whose sizes are those of the weights."""
    patches = weights["image_encoder.patch_embed.proj.weight"]
    hidden_size, patch_size = patches.shape[0], patches.shape[-1]
    image_size = weights["image_encoder.pos_embed"].shape[1] * patch_size
    width = weights["image_encoder.neck.0.weight"].shape[0]
    depth = count_layers(weights, r"^image_encoder\.blocks\.(\d+)\.")
    tables = [weights[f"image_encoder.blocks.{layer}.attn.rel_pos_h"] for layer in range(depth)]
    lengths = [table.shape[0] for table in tables]  # 2 n - 1 for n patches, the side of a window or of the whole grid
    decoder = "mask_decoder.transformer.layers."
    return SamConfig(
        vision_config={
            "hidden_size": hidden_size,
            "output_channels": width,
            "num_hidden_layers": depth,
            "num_attention_heads": hidden_size // tables[0].shape[1],
            "image_size": image_size,
            "patch_size": patch_size,
            "mlp_dim": weights["image_encoder.blocks.0.mlp.lin1.weight"].shape[0],
            "window_size": (min(lengths) + 1) // 2,
            "global_attn_indexes": [layer for layer, length in enumerate(lengths) if length == max(lengths)],
            "num_pos_feats": width // 2,
            "layer_norm_eps": 1e-6,
        },
        mask_decoder_config={
            "hidden_size": width,
            "mlp_dim": weights[f"{decoder}0.mlp.lin1.weight"].shape[0],
            "num_hidden_layers": count_layers(weights, rf"^{decoder}(\d+)\."),
            "num_attention_heads": decoder_heads,
            "num_multimask_outputs": weights["mask_decoder.mask_tokens.weight"].shape[0] - 1,
            "iou_head_depth": count_layers(weights, r"^mask_decoder\.iou_prediction_head\.layers\.(\d+)\."),
            "iou_head_hidden_dim": weights["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0],
            "layer_norm_eps": 1e-5,  # the default of nn.LayerNorm, unlike in the image encoder
        },
        prompt_encoder_config={
            "hidden_size": width,
            "image_size": image_size,
            "patch_size": patch_size,
            "mask_input_channels": weights["prompt_encoder.mask_downscaling.3.weight"].shape[0],
        },
    )
