"""LyricsForImageTextRetrieval: a first stage that compares every image with every text, as CLIP does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import ModelOutput, can_return_tuple

from .modeling_lyrics_pretraining import LyricsForPreTraining
from .mqformer_attention_masks import Segment
from .pretraining_objectives import TEMPERATURES


@dataclass
class LyricsImageTextRetrievalOutput(ModelOutput):
    """Similarities of N images and M texts.

    Attributes:
        logits_per_image: float tensor of shape (N, M), divided by the temperature; with the matching head of shape
            (N, 2), of a wrong and of a right pair.
        logits_per_text: the same transposed.
        text_embeds, image_embeds: float32 tensors of shape (M, projection_size) and (N, projection_size), of length 1.
        text_model_output, vision_model_output: outputs with the states that the features were made of.
    """

    logits_per_image: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: BaseModelOutputWithPooling | None = None


class LyricsForImageTextRetrieval(LyricsForPreTraining):
    """First stage whose `forward` compares images with texts, as `Blip2ForImageTextRetrieval` does.

    It has the weights of `LyricsForPreTraining` and loads its checkpoints. `AutoModelForZeroShotImageClassification`
    and its pipeline use it. The pipeline knows no refiner, so that the grounding queries see no regions there; give
    `region_features` for the whole model.

    Args:
        config: `LyricsPreTrainingConfig`.

    Examples:
        >>> import torch
        >>> from lyrics import LyricsForImageTextRetrieval, LyricsProcessor, MICRO_PRETRAINING, SCENE_PICTURE
        >>> model = LyricsForImageTextRetrieval.from_pretrained(MICRO_PRETRAINING)
        >>> processor = LyricsProcessor.from_pretrained(MICRO_PRETRAINING)
        >>> images = processor.prepare_images(SCENE_PICTURE, visual_objects=[{}])
        >>> texts = processor.prepare_texts(["a red ring.", "a blue star."])
        >>> with torch.inference_mode():
        ...     model(**images, **texts).logits_per_image.shape
        torch.Size([1, 2])
    """

    @can_return_tuple
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        segment_ids: torch.Tensor | None = None,
        region_features: torch.Tensor | None = None,
        region_attention_mask: torch.Tensor | None = None,
        use_image_text_matching_head: bool = False,
        **kwargs: Any,
    ) -> LyricsImageTextRetrievalOutput:
        """Compare N images with M texts.

        Args:
            input_ids: int64 tensor of shape (M, L), texts of `LyricsProcessor.prepare_texts`; without `segment_ids`
                `[CLS] text [SEP]`, as a BERT tokenizer returns it.
            pixel_values: float tensor of shape (N, 3, H, W).
            attention_mask: tensor of shape (M, L), 1 for text and 0 for padding, where there are no `segment_ids`.
            position_ids, segment_ids: int64 tensors of shape (M, L).
            region_features: float tensor of shape (N, R, region_hidden_size), zero-padded.
            region_attention_mask: tensor of shape (N, R), 1 for a region and 0 for padding.
            use_image_text_matching_head: bool, whether image i is only compared with text i, by the matching head.
            kwargs: ignored, except `return_dict=False` for a tuple.

        Raises:
            ValueError: the model lacks the objective that is asked for, or texts without `segment_ids` need the id of
                `[BOS]`, which the configuration does not have.
        """
        text: dict[str, Any] = {"input_ids": input_ids, "position_ids": position_ids, "segment_ids": segment_ids}
        if segment_ids is None:
            text = self._as_queries(input_ids, attention_mask)
        images: dict[str, Any] = {"region_features": region_features, "region_attention_mask": region_attention_mask}
        if use_image_text_matching_head:
            pairs: Any = self.match(pixel_values, **text, **images)
            return LyricsImageTextRetrievalOutput(logits_per_image=pairs.logits, logits_per_text=pairs.logits.T)
        image: Any = self.get_image_features(pixel_values, **images)
        words: Any = self.get_text_features(**text)
        temperature = self.contrastive.temperature.clamp(*TEMPERATURES)
        logits = image.pooler_output @ words.pooler_output.T / temperature  # (N, M)
        return LyricsImageTextRetrievalOutput(
            logits_per_image=logits,
            logits_per_text=logits.T,
            text_embeds=words.pooler_output,
            image_embeds=image.pooler_output,
            text_model_output=words,
            vision_model_output=image,
        )

    def _as_queries(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Return `[BOS] [CLS] text [SEP]` for `[CLS] text [SEP]`: a text without objects."""
        present = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        segments = torch.where(present.bool(), Segment.CAPTION.value, Segment.PADDING.value)
        positions = (present.long().cumsum(dim=1) - 1).clamp(min=0)  # padding may stand on either side
        if not self.config.mqformer_config.num_grounding_queries:
            return {"input_ids": input_ids, "position_ids": positions, "segment_ids": segments}
        if (start := self.config.object_start_token_id) is None:
            raise ValueError(
                "This first stage was saved without the id of [BOS], by which a text begins (object_start_token_id in "
                "config.json). Prepare texts with LyricsProcessor.prepare_texts, or set it."
            )
        first = torch.zeros_like(input_ids[:, :1])
        return {
            "input_ids": torch.cat([first + start, input_ids], dim=1),
            "position_ids": torch.cat([first, positions], dim=1),
            "segment_ids": torch.cat([first + Segment.SPATIAL.value, segments], dim=1),
        }


__all__ = ["LyricsForImageTextRetrieval", "LyricsImageTextRetrievalOutput"]
