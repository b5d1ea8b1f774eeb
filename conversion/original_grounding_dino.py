"""Grounding DINO of groundingdino-py, with the interface of Transformers' model that the refiner calls."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import BatchEncoding, BertModel, PreTrainedTokenizerBase
from transformers.models.grounding_dino.modeling_grounding_dino import GroundingDinoObjectDetectionOutput

from .grounding_dino import read_grounding_dino
from .original_packages import OriginalPart, import_original, load_exactly
from .weights import FilePath

_PACKAGE = "groundingdino.models.GroundingDINO"
_WIDTH = 256


class OriginalGroundingDino(OriginalPart):
    """groundingdino-py's `GroundingDINO` with the interface of `GroundingDinoForObjectDetection`.

    It runs one image at a time, because the package mixes the text masks of a batch.
    """

    def forward(
        self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any
    ) -> GroundingDinoObjectDetectionOutput:
        """Detect the phrases of texts (N, L) in images (N, 3, h, w); logits after the end of a text are -inf."""
        rows = [
            self._detect(image[None], ids[mask.bool()][None])
            for image, ids, mask in zip(pixel_values, input_ids, attention_mask, strict=True)
        ]
        joined: dict[str, Any] = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        return GroundingDinoObjectDetectionOutput(**joined)

    def _detect(self, image: torch.Tensor, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the package's model; a hook collects the hidden states, which it does not return."""
        seen: list[Any] = []
        handle = self.original.transformer.register_forward_hook(lambda module, inputs, output: seen.append(output))
        self.original.tokenizer.input_ids = input_ids
        try:
            found = self.original(image, captions=[""])
        finally:
            handle.remove()
        hidden_states, references = seen[-1][:2]
        return {
            "logits": found["pred_logits"],
            "pred_boxes": found["pred_boxes"],
            "last_hidden_state": hidden_states[-1],
            "intermediate_reference_points": references[-1][:, None],
        }


class _GivenTokens:
    """Replacement of the package's tokenizer that returns the token ids of the refiner."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.input_ids: Any = None

    def __call__(self, captions: list[str], **kwargs: Any) -> Any:
        ids = self.input_ids
        return BatchEncoding(
            {"input_ids": ids, "token_type_ids": torch.zeros_like(ids), "attention_mask": torch.ones_like(ids)}
        )

    def convert_tokens_to_ids(self, tokens: list[str]) -> Any:
        return self._tokenizer.convert_tokens_to_ids(tokens)


class _TextEncoder(nn.Module):
    """BERT under the names of the package's wrapper, which itself calls removed methods of Transformers."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.config = bert.config
        self.embeddings, self.encoder, self.pooler = bert.embeddings, bert.encoder, bert.pooler

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Encode ids (N, L) with a bool attention mask (N, L, L) to hidden states (N, L, D)."""
        embedded = self.embeddings(
            input_ids=input_ids, token_type_ids=kwargs["token_type_ids"], position_ids=kwargs["position_ids"]
        )
        allowed = torch.zeros(attention_mask.shape, dtype=embedded.dtype, device=embedded.device)
        allowed = allowed.masked_fill(~attention_mask.bool(), torch.finfo(embedded.dtype).min)
        return {"last_hidden_state": self.encoder(embedded, attention_mask=allowed[:, None])[0]}


def load_grounding_dino_package(
    checkpoint: FilePath,
    tokenizer: PreTrainedTokenizerBase,
    *,
    num_attention_heads: int = 8,
    num_text_attention_heads: int | None = None,
) -> OriginalGroundingDino:
    """Load Grounding DINO as `load_grounding_dino`, into the classes of groundingdino-py.

    Args:
        checkpoint: original `.pth` file.
        tokenizer: tokenizer of bert-base-uncased.
        num_attention_heads: number of attention heads of encoder and decoder.
        num_text_attention_heads: number of attention heads of BERT; by default one per 64 features.

    Raises:
        ImportError: if groundingdino-py cannot be imported.
        ValueError: if the file is damaged or is not such a checkpoint, or has another width than the 256 that the
            package fixes in its code.
    """
    package = import_original(f"{_PACKAGE}.groundingdino")
    weights, settings, config = read_grounding_dino(checkpoint, num_attention_heads, num_text_attention_heads)
    if config.d_model != _WIDTH:
        raise ValueError(f"{checkpoint} has the width {config.d_model}; groundingdino-py supports {_WIDTH} only.")
    text_config: Any = config.text_config
    text_config._attn_implementation = "eager"
    with _without_pretrained_bert(package, tokenizer, BertModel(text_config)):
        detector = _build(package, settings)
    load_exactly(detector, weights, checkpoint, ignored=r"relative_position_index$|position_ids$")
    return OriginalGroundingDino(config, detector)


@contextmanager
def _without_pretrained_bert(package: Any, tokenizer: PreTrainedTokenizerBase, bert: Any) -> Iterator[None]:
    """Make the package's constructor use a BERT without weights, which the checkpoint fills, instead of a download."""
    names = SimpleNamespace(
        get_tokenlizer=SimpleNamespace(
            get_tokenlizer=lambda kind: _GivenTokens(tokenizer), get_pretrained_language_model=lambda kind: bert
        ),
        BertModelWarper=lambda bert_model: _TextEncoder(bert_model),
    )
    kept = {name: getattr(package, name) for name in vars(names)}
    vars(package).update(vars(names))
    try:
        yield
    finally:
        vars(package).update(kept)


def _build(package: Any, settings: dict[str, Any]) -> nn.Module:
    """Build a model of any size, as the package's own builders do for the released configurations."""

    def select(*names: str) -> dict[str, Any]:
        return {name: settings[name] for name in names}

    backbone, positions, swin, transformer = (
        importlib.import_module(f"{_PACKAGE}.{name}")
        for name in ("backbone.backbone", "backbone.position_encoding", "backbone.swin_transformer", "transformer")
    )
    encoder = swin.SwinTransformer(
        **select("patch_size", "embed_dim", "depths", "num_heads", "window_size", "mlp_ratio"),
        drop_path_rate=0.0,
        out_indices=tuple(settings["out_indices"]),
    )
    width, temperature = settings["hidden_dim"], settings["pe_temperatureh"]
    joined = backbone.Joiner(
        encoder, positions.PositionEmbeddingSineHW(width // 2, temperature, temperature, normalize=True)
    )
    joined.num_channels = encoder.num_features[-len(settings["out_indices"]) :]
    return package.GroundingDINO(
        joined,
        transformer.Transformer(
            d_model=width,
            nhead=settings["nheads"],
            num_encoder_layers=settings["enc_layers"],
            num_decoder_layers=settings["dec_layers"],
            **select(
                "num_queries", "dim_feedforward", "query_dim", "num_feature_levels", "enc_n_points", "dec_n_points"
            ),
            dropout=0.0,
            return_intermediate_dec=True,
            learnable_tgt_init=True,
            two_stage_type="standard",
            embed_init_tgt=True,
            use_text_enhancer=True,
            use_fusion_layer=True,
            use_text_cross_attention=True,
            **select("text_dropout", "fusion_dropout", "fusion_droppath"),
        ),
        **select("num_queries", "query_dim", "num_feature_levels", "nheads", "dec_pred_bbox_embed_share"),
        iter_update=True,
        two_stage_type="standard",
        two_stage_bbox_embed_share=False,
        two_stage_class_embed_share=False,
        text_encoder_type="bert-base-uncased",
    )
