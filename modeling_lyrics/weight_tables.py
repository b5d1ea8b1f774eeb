"""Tables of weight names: foreign checkpoints on the left, this package's modules on the right.

A table lists renames, which are applied to each key in order, and splits of a fused tensor into equal parts along its
first dimension, which are applied to the renamed key. The published checkpoint, which is converted while it is loaded,
and the component checkpoints of `conversion/` share these tables. Weights that change their shape are adapted by
operations of Transformers' weight conversion. Each adds a line to the model's `adapted_weights`, which goes into the
load report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.core_model_loading import Chunk, ConversionOps, WeightConverter, WeightRenaming


@dataclass(frozen=True)
class WeightTable:
    """Renames (regular expression -> replacement), splits (suffix -> suffixes), and weights that are not needed."""

    renames: tuple[tuple[str, str], ...]
    splits: tuple[tuple[str, tuple[str, ...]], ...] = ()
    dropped: tuple[str, ...] = ()

    def transforms(self, scope: str | None = None) -> list[WeightConverter | WeightRenaming]:
        """Return the table for Transformers' loader; with `scope`, only for keys below that module."""
        transforms: list[WeightConverter | WeightRenaming] = [WeightRenaming(old, new) for old, new in self.renames]
        transforms += [WeightConverter(old, list(new), [Chunk(dim=0)]) for old, new in self.splits]
        for transform in transforms if scope is not None else ():
            transform.scope_prefix = scope
            transform.base_model_prefix = ""
        return transforms


def _split(source: str, *targets: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the splits of a weight and of its bias; `in_proj_` ends in an underscore where others have a dot."""
    separator = "" if source.endswith("_") else "."
    return tuple(
        (f"{source}{separator}{kind}".replace(".", r"\."), tuple(f"{target}.{kind}" for target in targets))
        for kind in ("weight", "bias")
    )


def _swin_renames(root: str) -> tuple[tuple[str, str], ...]:
    """Return the renames of an original Swin (Microsoft's layout) to `SwinModel`, for keys below `root`."""
    escaped = root.replace(".", r"\.")
    return (
        (rf"{escaped}\.patch_embed\.proj\.", f"{root}.embeddings.patch_embeddings.projection."),
        (rf"{escaped}\.patch_embed\.norm\.", f"{root}.embeddings.norm."),
        (rf"{escaped}\.layers\.", f"{root}.encoder.layers."),
        (r"\.attn\.relative_position_bias_table", ".attention.relative_position_bias.relative_position_bias_table"),
        (r"(blocks\.\d+)\.attn\.proj\.", r"\1.attention.o_proj."),
        (r"(blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
        (r"(blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
    )


_SWIN_SPLITS = _split(".attn.qkv", ".attention.q_proj", ".attention.k_proj", ".attention.v_proj")
_SWIN_BUFFERS = (r"relative_position_index$", r"\.attn_mask$")  # recomputed from the window size

RAM = WeightTable(
    renames=(
        (r"^vision_multi\.", "tagging_head."),  # the head's name in some released files
        (r"^visual_encoder\.norm\.", "model.vision_model.layernorm."),
        (r"^visual_encoder\.", "model.vision_model."),
        *_swin_renames("model.vision_model"),
        (r"^image_proj\.", "model.image_projection."),
        (r"^label_embed$", "label_embeddings"),
        (r"^wordvec_proj\.", "label_projection."),
        (r"^fc\.", "classifier."),
        (r"^tagging_head\.encoder\.layer\.", "layers."),
        (r"\.crossattention\.self\.query\.", ".cross_attention.query."),
        (r"\.crossattention\.self\.", ".cross_attention.key_value."),
        (r"\.crossattention\.output\.dense\.", ".cross_attention.dense."),
        (r"\.crossattention\.output\.LayerNorm\.", ".cross_attention.layer_norm."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
        (r"\.output\.LayerNorm\.", ".mlp.layer_norm."),
    ),
    splits=_SWIN_SPLITS,
    dropped=(
        r"^(.*\.)?tag_encoder\.",  # the captioning branch, which tagging does not use
        r"^(.*\.)?text_decoder\.",  # likewise
        *_SWIN_BUFFERS,
    ),
)

_DETECTOR_SWIN = "model.backbone.conv_encoder.model.swin"
_FUSION = r"(fusion_layer)\."
_DEFORMABLE = r"(deformable_layer)\."
_TEXT = r"(text_enhancer_layer)\."
_DECODER = r"(model\.decoder\.layers\.\d+)\."

GROUNDING_DINO = WeightTable(
    renames=(
        (r"^module\.", ""),
        (r"^backbone\.(?:swintransformer|0)\.norm1\.", "model.backbone.conv_encoder.model.hidden_states_norms.stage2."),
        (r"^backbone\.(?:swintransformer|0)\.norm2\.", "model.backbone.conv_encoder.model.hidden_states_norms.stage3."),
        (r"^backbone\.(?:swintransformer|0)\.norm3\.", "model.backbone.conv_encoder.model.hidden_states_norms.stage4."),
        (r"^backbone\.(?:swintransformer|0)\.", f"{_DETECTOR_SWIN}."),
        *_swin_renames(_DETECTOR_SWIN),
        (r"^bert\.", "model.text_backbone."),
        (r"^feat_map\.", "model.text_projection."),
        (r"^input_proj\.", "model.input_proj_vision."),
        (r"^transformer\.tgt_embed\.", "model.query_position_embeddings."),
        (r"^transformer\.enc_out_bbox_embed\.", "model.encoder_output_bbox_embed."),
        (r"^transformer\.encoder\.fusion_layers\.(\d+)\.", r"model.encoder.layers.\1.fusion_layer."),
        (r"^transformer\.encoder\.text_layers\.(\d+)\.", r"model.encoder.layers.\1.text_enhancer_layer."),
        (r"^transformer\.encoder\.layers\.(\d+)\.", r"model.encoder.layers.\1.deformable_layer."),
        (r"^transformer\.decoder\.norm\.", "model.decoder.layer_norm."),
        (r"^transformer\.decoder\.ref_point_head\.", "model.decoder.reference_points_head."),
        (r"^transformer\.", "model."),
        (_FUSION + r"attn\.v_proj\.", r"\1.attn.vision_proj."),
        (_FUSION + r"attn\.l_proj\.", r"\1.attn.text_proj."),
        (_FUSION + r"attn\.values_v_proj\.", r"\1.attn.values_vision_proj."),
        (_FUSION + r"attn\.values_l_proj\.", r"\1.attn.values_text_proj."),
        (_FUSION + r"attn\.out_v_proj\.", r"\1.attn.out_vision_proj."),
        (_FUSION + r"attn\.out_l_proj\.", r"\1.attn.out_text_proj."),
        (_FUSION + r"layer_norm_v\.", r"\1.layer_norm_vision."),
        (_FUSION + r"layer_norm_l\.", r"\1.layer_norm_text."),
        (_FUSION + r"(?:temp|gamma)_v", r"\1.vision_param"),
        (_FUSION + r"(?:temp|gamma)_l", r"\1.text_param"),
        (_TEXT + r"norm1\.", r"\1.layer_norm_before."),
        (_TEXT + r"norm2\.", r"\1.layer_norm_after."),
        (_DEFORMABLE + r"norm1\.", r"\1.self_attn_layer_norm."),
        (_DEFORMABLE + r"norm2\.", r"\1.final_layer_norm."),
        (_DECODER + r"ca_text\.", r"\1.encoder_attn_text."),
        (_DECODER + r"catext_norm\.", r"\1.encoder_attn_text_layer_norm."),
        (_DECODER + r"cross_attn\.", r"\1.encoder_attn."),
        (_DECODER + r"norm1\.", r"\1.encoder_attn_layer_norm."),  # not in the order of the layer's steps
        (_DECODER + r"norm2\.", r"\1.self_attn_layer_norm."),
        (_DECODER + r"norm3\.", r"\1.final_layer_norm."),
        (r"(layer|layers\.\d+)\.linear1\.", r"\1.fc1."),
        (r"(layer|layers\.\d+)\.linear2\.", r"\1.fc2."),
    ),
    splits=(
        *_SWIN_SPLITS,
        *_split(".self_attn.in_proj_", ".self_attn.query", ".self_attn.key", ".self_attn.value"),
        *_split(
            ".encoder_attn_text.in_proj_",
            ".encoder_attn_text.query",
            ".encoder_attn_text.key",
            ".encoder_attn_text.value",
        ),
    ),
    dropped=(
        r"^(.*\.)?(bert|text_backbone)\.embeddings\.position_ids$",  # a buffer of old BERT files
        r"^(.*\.)?(bert|text_backbone)\.pooler\.",  # the pooled text is not used
        r"^(.*\.)?label_enc\.",  # denoising embeddings, used in training only
        *_SWIN_BUFFERS,
    ),
)

# BLIP-2, InstructBLIP and the published Lyrics Q-Former -> `LyricsMQFormerModel`.
QFORMER = WeightTable(
    renames=(
        (r"^encoder\.layer\.", "layers."),
        (r"\.attention\.attention\.query\.", ".self_attention.query."),
        (r"\.attention\.attention\.", ".self_attention.key_value."),
        (r"\.attention\.output\.dense\.", ".self_attention.dense."),
        (r"\.attention\.output\.LayerNorm\.", ".self_attention.layer_norm."),
        (r"\.crossattention\.attention\.query\.", ".visual_cross_attention.query."),
        (r"\.crossattention\.attention\.", ".visual_cross_attention.key_value."),
        (r"\.crossattention\.output\.dense\.", ".visual_cross_attention.dense."),
        (r"\.crossattention\.output\.LayerNorm\.", ".visual_cross_attention.layer_norm."),
        (r"\.detection_crossattention\.attention\.query\.", ".grounding_cross_attention.query."),
        (r"\.detection_crossattention\.attention\.", ".grounding_cross_attention.key_value."),
        (r"\.detection_crossattention\.output\.dense\.", ".grounding_cross_attention.dense."),
        (r"\.detection_crossattention\.output\.LayerNorm\.", ".grounding_cross_attention.layer_norm."),
        (r"\.intermediate_query\.dense\.", ".query_mlp.fc1."),
        (r"\.output_query\.dense\.", ".query_mlp.fc2."),
        (r"\.output_query\.LayerNorm\.", ".query_mlp.layer_norm."),
        (r"\.intermediate\.dense\.", ".text_mlp.fc1."),
        (r"\.output\.dense\.", ".text_mlp.fc2."),
        (r"\.output\.LayerNorm\.", ".text_mlp.layer_norm."),
        (r"^embeddings\.LayerNorm\.", "embeddings.layer_norm."),
        (r"^embeddings\.layernorm\.", "embeddings.layer_norm."),
    ),
    dropped=(r"embeddings\.position_ids$",),  # a buffer of old BERT files
)


class AdaptingOperation(ConversionOps):
    """Operation of a weight conversion that gives one weight another shape.

    Attributes:
        description: line about the change for the load report.
    """

    description: str

    def adapt(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight in its new shape."""
        raise NotImplementedError

    @torch.no_grad
    def convert(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_dict: dict[str, Any], target_patterns: list[str], full_layer_name: str, model: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Convert a weight and record it; Transformers' loader calls this."""
        weight = next(iter(input_dict.values()))
        weight = weight[0] if isinstance(weight, list) else weight
        model.adapted_weights = {**getattr(model, "adapted_weights", {}), full_layer_name: self.description}
        return {target_patterns[0]: self.adapt(weight)}


class HalveAndRepeat(AdaptingOperation):
    """W -> [W/2 | W/2]: a projection of two states that first gives for their mean what it gave for one state."""

    description = "W became [W/2 | W/2], since it now reads two states instead of one"

    def adapt(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight for two states, (out, in) -> (out, 2 * in)."""
        return torch.cat([weight / 2, weight / 2], dim=1)


class AppendRows(AdaptingOperation):
    """Rows for new tokens, each a copy of another token's row.

    Args:
        copies: dictionary of each new token to the id of the token that is copied, in order.
    """

    def __init__(self, copies: dict[str, int]) -> None:
        self.copies = copies
        names = ", ".join(f"{token} (a copy of row {row})" for token, row in copies.items())
        self.description = f"rows appended for {names}"

    def adapt(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight with new rows, (vocabulary, ...) -> (vocabulary + new tokens, ...)."""
        return torch.cat([weight, weight[list(self.copies.values())]])
