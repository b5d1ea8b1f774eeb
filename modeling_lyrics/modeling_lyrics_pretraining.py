"""LyricsForPreTraining: the paper's first stage, which aligns images and objects with text, without a language model.

A step runs the MQ-Former at most four times: queries followed by the caption (contrast and captioning share the
queries), text alone (contrast), right and wrong pairs (matching), and masked objects (spatial prediction). Keys and
values of an image are projected once and shared by all passes. Large batches run in groups of texts of similar length,
so that little is padding. On several ranks the host waits once, for the choice of negatives. Where matching reads the
queries alone, and spatial prediction the text alone, the last layer computes no more; it computes everything where no
other objective would use the rest of its weights, so that all ranks exchange the same gradients. `set_recomputation`
trades time of the backward pass for memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging
from transformers.utils.generic import ModelOutput, can_return_tuple

from .configuration_lyrics_pretraining import LyricsPreTrainingConfig
from .distributed import RowExchange, gather, num_ranks, this_rank
from .modeling_lyrics_base import LyricsPreTrainedModel
from .modeling_mqformer import KeptPart, LyricsMQFormerModel, Recomputed
from .mqformer_attention_masks import AttentionTable, SegmentedText, run_mqformer
from .mqformer_key_values import LyricsImageKeyValues
from .mqformer_length_groups import run_in_groups
from .pretraining_objectives import (
    CaptioningObjective,
    ContrastiveObjective,
    Labels,
    LanguageModelingHead,
    MatchingObjective,
    ObjectiveOutput,
    Pairs,
    SpatialObjective,
    find_same,
)
from .published_checkpoint import DROPPED_BY_MODEL
from .retrieval_lyrics import RetrievalMethods
from .vision_encoder import build_vision_model, prepare_parts, run_vision_model

logger = logging.get_logger(__name__)

Recomputation = Literal["none", "feed_forward", "matching"]


@dataclass
class LyricsPreTrainingOutput(ModelOutput):
    """Losses and metrics of a step; those of an objective with weight 0 are `None`.

    A loss is this rank's share of the mean over all ranks: its mean over ranks is the loss of the joined batch. A
    metric is the share of hits on this rank among `metric_counts` trials.

    Attributes:
        loss: scalar, weighted sum of the other losses.
        loss_itc, loss_itm, loss_icg, loss_msp: scalars.
        recall_image_to_text, recall_text_to_image: scalars, share of rows whose most similar column is a right one.
        matching_accuracy: scalar, over right and wrong pairs.
        caption_accuracy: scalar, over the caption's tokens.
        masked_label_accuracy, masked_coordinate_accuracy: scalars, over masked items; all tokens of an item must be
            right.
        metric_counts: dictionary of the number of trials of each metric; a metric without any is 0.
        row_losses: dictionary of float tensors of shape (B, 2) by the name of a loss: for each row of this rank the sum
            of its terms and their number, without gradient. Over all rows and ranks they give the loss.
        negative_images, negative_texts: int64 tensors of shape (B,), the wrong image of each text and the wrong text of
            each image, counted over the joined batch.
    """

    loss: torch.Tensor | None = None
    loss_itc: torch.Tensor | None = None
    loss_itm: torch.Tensor | None = None
    loss_icg: torch.Tensor | None = None
    loss_msp: torch.Tensor | None = None
    recall_image_to_text: torch.Tensor | None = None
    recall_text_to_image: torch.Tensor | None = None
    matching_accuracy: torch.Tensor | None = None
    caption_accuracy: torch.Tensor | None = None
    masked_label_accuracy: torch.Tensor | None = None
    masked_coordinate_accuracy: torch.Tensor | None = None
    metric_counts: dict[str, torch.Tensor] | None = None
    row_losses: dict[str, torch.Tensor] | None = None
    negative_images: torch.Tensor | None = None
    negative_texts: torch.Tensor | None = None


@dataclass
class _Images:
    """Images of this rank: their keys and values, and the features that are sent to other ranks."""

    key_values: LyricsImageKeyValues
    vision_features: torch.Tensor
    region_features: torch.Tensor | None
    region_attention_mask: torch.Tensor | None


class LyricsPreTrainingModel(LyricsPreTrainedModel):
    """Vision encoder and MQ-Former, under the names that they have in `LyricsModel`."""

    config_class = LyricsPreTrainingConfig
    config: Any

    def __init__(self, config: LyricsPreTrainingConfig) -> None:
        super().__init__(config)
        if str(config.mqformer_config._attn_implementation).startswith("flash"):
            config.mqformer_config._attn_implementation = "sdpa"  # flash attention would drop the MQ-Former's masks
        self.vision_model = build_vision_model(config.vision_config)
        self.mqformer = LyricsMQFormerModel._from_config(config.mqformer_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings of the MQ-Former."""
        return self.mqformer.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings of the MQ-Former."""
        self.mqformer.set_input_embeddings(value)

    def train(self, mode: bool = True) -> LyricsPreTrainingModel:
        """Set the training mode; a part without trainable weights stays in evaluation mode."""
        super().train(mode)
        for part in (self.vision_model, self.mqformer):
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self

    def forward(
        self,
        pixel_values: torch.Tensor,
        region_features: torch.Tensor | None = None,
        region_attention_mask: torch.Tensor | None = None,
    ) -> _Images:
        """Encode images, and project the keys and values that the queries attend to.

        A batch without any region gets one that is padding. The projections of the grounding queries are then still
        part of the graph, so that all ranks exchange the same gradients.

        Args:
            pixel_values: float tensor of shape (B, 3, H, W).
            region_features: float tensor of shape (B, R, region_hidden_size), zero-padded.
            region_attention_mask: tensor of shape (B, R), 1 for a region and 0 for padding.
        """
        vision_features, _ = run_vision_model(self.vision_model, pixel_values, self.config.vision_feature_layer)
        mqformer = self.config.mqformer_config
        if not mqformer.num_grounding_queries:
            region_features = region_attention_mask = None
        elif region_features is None or not region_features.shape[1]:
            region_features = vision_features.new_zeros(len(pixel_values), 1, mqformer.region_hidden_size)
            region_attention_mask = torch.zeros(region_features.shape[:2], dtype=torch.long, device=pixel_values.device)
        elif region_attention_mask is None:
            region_attention_mask = torch.ones(region_features.shape[:2], dtype=torch.long, device=pixel_values.device)
        return self.project(vision_features, region_features, region_attention_mask)

    def project(
        self,
        vision_features: torch.Tensor,
        region_features: torch.Tensor | None,
        region_attention_mask: torch.Tensor | None,
    ) -> _Images:
        """Return features of images together with their keys and values."""
        key_values = self.mqformer(
            encoder_hidden_states=vision_features,
            region_features=region_features,
            region_attention_mask=region_attention_mask,
            project_only=True,
            return_dict=True,
        ).image_key_values
        return _Images(key_values, vision_features, region_features, region_attention_mask)


class LyricsForPreTraining(RetrievalMethods, LyricsPreTrainedModel):
    """The first training stage: vision encoder, MQ-Former, and the heads of the objectives that have a weight.

    `LyricsPretrainingCollator` makes the inputs from images, objects and captions, and `LyricsPretrainingTrainer`
    trains on them. Weights are new unless they are loaded; `from_parts` takes pretrained parts. The trained model
    becomes a part of `LyricsForConditionalGeneration.from_parts`. It can also be used as it is: `get_image_features`,
    `get_text_features`, `match`, `caption` and `fill`.

    Args:
        config: `LyricsPreTrainingConfig`.

    Examples:
        >>> import torch
        >>> from lyrics import LyricsForConditionalGeneration, LyricsForPreTraining, MICRO_CHECKPOINT
        >>> micro = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT).model
        >>> model = LyricsForPreTraining.from_parts(micro.vision_model, micro.mqformer, icg_weight=0, msp_weight=0)
        >>> side, width = model.config.vision_config.image_size, model.config.mqformer_config.region_hidden_size
        >>> tokens = torch.tensor([[1, 5, 2, 6, 3], [1, 7, 2, 8, 3]])  # [BOS] objects [CLS] caption [SEP]
        >>> positions = torch.tensor([[0, 1, 0, 1, 2]] * 2)
        >>> segments = torch.tensor([[3, 3, 4, 4, 4]] * 2)
        >>> output = model(
        ...     pixel_values=torch.rand(2, 3, side, side),
        ...     region_features=torch.rand(2, 4, width),
        ...     input_ids=tokens,
        ...     position_ids=positions,
        ...     segment_ids=segments,
        ... )
        >>> sorted(name for name in output if name.startswith("loss"))
        ['loss', 'loss_itc', 'loss_itm']
    """

    config_class = LyricsPreTrainingConfig
    config: Any
    accepts_loss_kwargs = False  # losses are means of a micro-batch: a trainer divides them by the accumulation steps
    _tied_weights_keys = {"lm_head.decoder.weight": "model.mqformer.embeddings.word_embeddings.weight"}
    _keys_to_ignore_on_load_unexpected = [r"^(contrastive|matching|lm_head)\.", *DROPPED_BY_MODEL]
    contrastive: Any
    matching: Any
    captioning: Any
    spatial: Any
    lm_head: Any

    def __init__(self, config: LyricsPreTrainingConfig) -> None:
        super().__init__(config)
        weights = config.loss_weights()
        self.model = LyricsPreTrainingModel(config)
        self.contrastive = ContrastiveObjective(config) if "itc" in weights else None
        self.matching = MatchingObjective(config) if "itm" in weights else None
        self.captioning = CaptioningObjective(config) if "icg" in weights else None
        self.spatial = SpatialObjective(config) if "msp" in weights else None
        self.lm_head = LanguageModelingHead(config.mqformer_config) if self.captioning or self.spatial else None
        self.recomputation: Recomputation = "none"
        if self.lm_head is None:
            self._tied_weights_keys = {}
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialize a module of a new model."""
        super()._init_weights(module)
        if isinstance(module, ContrastiveObjective):
            module.reset_temperature()

    def get_output_embeddings(self) -> nn.Linear | None:
        """Return the vocabulary layer of the language modeling head, or `None` without one."""
        return None if self.lm_head is None else self.lm_head.decoder

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Load a model from a folder or from the Hub, also from the published first stage.

        A warning names the weights that were adapted while loading. The report of `output_loading_info=True` lists them
        under `adapted_weights`.
        """
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model, report = loaded if isinstance(loaded, tuple) else (loaded, {})
        report["adapted_weights"] = adapted = getattr(model, "adapted_weights", {})
        if adapted:
            lines = [f"  {name}: {change}" for name, change in sorted(adapted.items())]
            logger.warning("\n".join([f"Weights adapted while loading {pretrained_model_name_or_path}:", *lines]))
        return loaded

    def set_recomputation(self, recomputation: Recomputation) -> None:
        """Choose what the backward pass computes again, so that less is kept for it.

        Losses and gradients stay the same, with dropout too. `docs/stage1.md` has what it saves and costs.

        Args:
            recomputation: `"none"`; `"feed_forward"`, the wide states of the feed-forward networks; or `"matching"`,
                these and all layers of the matching pass, which has three times the rows of the others.

        Raises:
            ValueError: there is no such choice.
        """
        if recomputation not in get_args(Recomputation):
            raise ValueError(f"recomputation must be one of {get_args(Recomputation)}, got {recomputation!r}.")
        self.recomputation = recomputation

    def _run(
        self,
        table: AttentionTable,
        text: SegmentedText | None,
        images: LyricsImageKeyValues | None = None,
        kept: KeptPart = "all",
        image_rows: torch.Tensor | None = None,
        is_matching: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the MQ-Former as `run_mqformer` does, with the recomputation that is set."""
        recompute: Recomputed = "nothing" if self.recomputation == "none" else "feed_forward"
        if is_matching and self.recomputation == "matching":
            recompute = "layers"
        options: dict[str, Any] = {"kept": kept, "recompute": recompute}
        if text is None:
            return run_mqformer(self.model.mqformer, table, None, images, **options)
        return run_in_groups(self.model.mqformer, table, text, images, image_rows, **options)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        region_features: torch.Tensor | None = None,
        region_attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        segment_ids: torch.Tensor | None = None,
        caption_input_ids: torch.Tensor | None = None,
        caption_segment_ids: torch.Tensor | None = None,
        caption_positions: torch.Tensor | None = None,
        caption_labels: torch.Tensor | None = None,
        masked_input_ids: torch.Tensor | None = None,
        masked_positions: torch.Tensor | None = None,
        masked_labels: torch.Tensor | None = None,
        masked_items: torch.Tensor | None = None,
        masked_kinds: torch.Tensor | None = None,
        image_ids: torch.Tensor | None = None,
        caption_ids: torch.Tensor | None = None,
        negative_draws: torch.Tensor | None = None,
        caption_only: torch.Tensor | None = None,
        return_loss: bool = True,
        **kwargs: Any,
    ) -> LyricsPreTrainingOutput:
        """Compute the losses and metrics of B images with their texts.

        Args:
            pixel_values: float tensor of shape (B, 3, H, W).
            region_features: float tensor of shape (B, R, region_hidden_size), zero-padded.
            region_attention_mask: tensor of shape (B, R), 1 for a region and 0 for padding.
            input_ids, position_ids, segment_ids: int64 tensors of shape (B, L), `[BOS] objects [CLS] caption [SEP]`.
                Positions restart at `[CLS]`. A `Segment` is 3 for objects, 4 for the caption and 0 for padding. Without
                grounding queries there are no objects and no `[BOS]`.
            caption_input_ids, caption_segment_ids: int64 tensors of shape (B, L_c), `[DEC] caption [SEP]`.
            caption_positions, caption_labels: int64 tensors of shape (K,), positions among the B * L_c and the token
                after each; -100 is padding.
            masked_input_ids: int64 tensor of shape (B, L), `input_ids` with `[MLM]` for `[BOS]` and masked items.
            masked_positions, masked_labels, masked_items, masked_kinds: int64 tensors of shape (K,): positions among
                the B * L, the tokens before masking (-100 is padding), the index of the item, and 0 for a label or 1 to
                4 for a coordinate.
            image_ids, caption_ids: int64 tensors of shape (B,), equal for equal images and captions; all differ by
                default.
            negative_draws: float tensor of shape (B, 2) in [0, 1), random numbers that choose the wrong image and the
                wrong text; drawn by default.
            caption_only: bool tensor of shape (B,), True for a text whose objects contrast and matching do not see, as
                a query of a search has none. Its matching is decided by the visual queries.
            return_loss: ignored, since a loss is always returned; Transformers' trainer looks for it.
            kwargs: ignored.

        Returns:
            `LyricsPreTrainingOutput`.

        Raises:
            ValueError: an objective lacks inputs; the message names them.
        """
        _require("model", pixel_values=pixel_values, input_ids=input_ids, position_ids=position_ids)
        _require("model", segment_ids=segment_ids)
        text: Any = SegmentedText(input_ids, position_ids, segment_ids)  # pyright: ignore[reportArgumentType]
        images = self.model(pixel_values, region_features, region_attention_mask)
        own = torch.arange(len(text.input_ids), device=text.input_ids.device)
        outputs: dict[str, ObjectiveOutput] = {}
        rows: dict[str, torch.Tensor] = {"itc": own, "itm": own.repeat(3)}  # row of each term of an objective
        queries = None
        if self.captioning is not None:
            _require("captioning", caption_input_ids=caption_input_ids, caption_segment_ids=caption_segment_ids)
            _require("captioning", caption_positions=caption_positions, caption_labels=caption_labels)
            caption = self._caption(caption_input_ids, caption_segment_ids)
            queries, states = self._run(self.captioning.table, caption, images.key_values)
            labels: Any = Labels(caption_positions, caption_labels)  # pyright: ignore[reportArgumentType]
            outputs["icg"] = self.captioning(states, labels, self.lm_head)
            rows["icg"] = labels.positions // states.shape[1]
        negatives: list[Any] = [None, None]
        if self.contrastive is not None or self.matching is not None:
            if caption_only is not None:
                text = text.without_objects(caption_only)
            pairs = self._pair(images, queries, text, image_ids, caption_ids)
            if self.contrastive is not None:
                outputs["itc"] = self.contrastive(pairs)
            if self.matching is not None:
                outputs["itm"], *negatives = self._match(images, text, pairs, negative_draws, caption_only is not None)
        if self.spatial is not None:
            _require("spatial", masked_input_ids=masked_input_ids, masked_positions=masked_positions)
            _require("spatial", masked_labels=masked_labels, masked_items=masked_items, masked_kinds=masked_kinds)
            masked: Any = SegmentedText(masked_input_ids, position_ids, segment_ids)  # pyright: ignore[reportArgumentType]
            kept: KeptPart = "text" if self.contrastive is not None or self.matching is not None else "all"
            _, states = self._run(self.spatial.table, masked, images.key_values, kept)
            labels = Labels(masked_positions, masked_labels)  # pyright: ignore[reportArgumentType]
            outputs["msp"] = self.spatial(states, labels, masked_items, masked_kinds, self.lm_head)
            rows["msp"] = labels.positions // states.shape[1]
        by_row = {f"loss_{name}": one.sum_by_row(rows[name], len(own)) for name, one in outputs.items()}
        return self._collect(outputs, by_row, *negatives)

    @staticmethod
    def _caption(input_ids: Any, segment_ids: Any) -> SegmentedText:
        """Return the captions with their positions, which count from 0."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        return SegmentedText(input_ids, positions, segment_ids)

    def _pair(
        self,
        images: _Images,
        queries: torch.Tensor | None,
        text: SegmentedText,
        image_ids: torch.Tensor | None,
        caption_ids: torch.Tensor | None,
    ) -> Pairs:
        """Compare the images and texts of all ranks; without the contrastive objective all similarities are 0."""
        batch_size, device = len(text.input_ids), text.input_ids.device
        unique = torch.arange(batch_size, device=device) + this_rank() * batch_size
        same = find_same(unique if image_ids is None else image_ids, unique if caption_ids is None else caption_ids)
        if self.contrastive is None:
            zeros = torch.zeros(same.shape, device=device)
            return Pairs(zeros, zeros, same)
        if queries is None:
            queries, _ = self._run(self.contrastive.table, None, images.key_values)
        _, states = self._run(self.contrastive.table, text)
        features = self.contrastive.image_features(queries), self.contrastive.text_features(states, text)
        return self.contrastive.compare(*features, same)

    def _match(
        self, images: _Images, text: SegmentedText, pairs: Pairs, draws: torch.Tensor | None, without_objects: bool
    ) -> tuple[ObjectiveOutput, torch.Tensor, torch.Tensor]:
        """Compute the matching loss over right pairs, wrong images and wrong texts.

        `without_objects` says whether some texts have none, and are not for the grounding queries to decide.

        Returns:
            The output of the objective, and the indices of the wrong images and wrong texts in the joined batch.
        """
        batch_size, device = len(text.input_ids), text.input_ids.device
        draws = torch.rand(batch_size, 2, device=device) if draws is None else draws
        own = torch.arange(batch_size, device=device)
        wrong_images, has_image = self.matching.draw_negatives(pairs.text_to_image, pairs.same, draws[:, 0])
        wrong_texts, has_text = self.matching.draw_negatives(pairs.image_to_text, pairs.same, draws[:, 1])
        key_values, image_rows, text_rows = images.key_values, wrong_images, wrong_texts
        if num_ranks() > 1:
            key_values, text, image_rows, text_rows = self._exchange(images, text, wrong_images, wrong_texts)
        others = (self.contrastive, self.captioning, self.spatial)
        text = text.select(torch.cat([own, own, text_rows]))
        queries, _ = self._run(
            self.matching.table,
            text,
            key_values,
            "queries" if any(other is not None for other in others) else "all",
            torch.cat([own, image_rows, own]),
            is_matching=True,
        )
        matches = torch.cat([torch.ones_like(own), torch.zeros_like(own), torch.zeros_like(own)])
        counts = torch.cat([torch.ones_like(has_image), has_image, has_text])
        has_objects = text.have_objects() if without_objects else None
        return self.matching(queries, matches, counts, has_objects), wrong_images, wrong_texts

    def _exchange(
        self, images: _Images, text: SegmentedText, wrong_images: torch.Tensor, wrong_texts: torch.Tensor
    ) -> tuple[LyricsImageKeyValues, SegmentedText, torch.Tensor, torch.Tensor]:
        """Fetch the negatives that lie on other ranks; here the host waits for the device.

        Returns:
            Keys and values, and texts, of this rank followed by the fetched ones; and the rows of the negatives in
            each.
        """
        size, regions = len(wrong_images), images.region_features
        lengths = wrong_images.new_tensor([text.input_ids.shape[1], 0 if regions is None else regions.shape[1]])
        orders = gather(torch.cat([wrong_images, wrong_texts, lengths])[None]).tolist()
        image_exchange = RowExchange([order[:size] for order in orders], size, wrong_images.device)
        text_exchange = RowExchange([order[size : 2 * size] for order in orders], size, wrong_texts.device)
        text = text.pad(max(order[-2] for order in orders))
        text = text.join(text.map(text_exchange.bring))
        most_regions = max(order[-1] for order in orders)
        masks = images.region_attention_mask
        if regions is not None and masks is not None:
            added = most_regions - regions.shape[1]
            regions = image_exchange.bring(nn.functional.pad(regions, (0, 0, 0, added)))
            masks = image_exchange.bring(nn.functional.pad(masks, (0, added)))
        others = self.model.project(image_exchange.bring(images.vision_features), regions, masks)
        key_values = images.key_values.pad_regions(most_regions).join(others.key_values)
        return key_values, text, image_exchange.rows, text_exchange.rows

    def _collect(
        self,
        outputs: dict[str, ObjectiveOutput],
        row_losses: dict[str, torch.Tensor],
        negative_images: Any,
        negative_texts: Any,
    ) -> LyricsPreTrainingOutput:
        """Return the output of a step from those of its objectives."""
        weights = self.config.loss_weights()
        metrics = {name: ratio for output in outputs.values() for name, ratio in output.metrics.items()}
        return LyricsPreTrainingOutput(
            loss=torch.stack([weights[name] * output.loss for name, output in outputs.items()]).sum(),
            **{f"loss_{name}": output.loss for name, output in outputs.items()},
            **{name: hits / trials.clamp(min=1) for name, (hits, trials) in metrics.items()},
            metric_counts={name: trials for name, (_, trials) in metrics.items()},
            row_losses=row_losses,
            negative_images=negative_images,
            negative_texts=negative_texts,
        )

    @classmethod
    def from_parts(
        cls,
        vision_model: PreTrainedModel | str | Path,
        mqformer: LyricsMQFormerModel | PreTrainedConfig | None = None,
        lm_head: LanguageModelingHead | None = None,
        **config_kwargs: Any,
    ) -> LyricsForPreTraining:
        """Build a model from pretrained parts; their weights are used directly, without a copy.

        Args:
            vision_model: vision encoder, model that holds one as `vision_model` (such as `CLIPModel`), or folder or Hub
                id of one.
            mqformer: MQ-Former (see `conversion.load_mqformer`), configuration of a new one, or `None` for a new one of
                the paper's sizes.
            lm_head: language modeling head of BERT, if its weights belong to the MQ-Former's.
            config_kwargs: further fields of `LyricsPreTrainingConfig`.

        Returns:
            The model in evaluation mode. The heads are new, on the device and in the dtype of the MQ-Former, and so is
            an MQ-Former that was given as a configuration, on those of the vision encoder.
        """
        vision, queries, config_kwargs = prepare_parts(vision_model, mqformer, config_kwargs)
        queries_config = queries.config if isinstance(queries, PreTrainedModel) else queries
        config = LyricsPreTrainingConfig(vision_config=vision.config, mqformer_config=queries_config, **config_kwargs)
        with torch.device("meta"):
            model: Any = cls(config)
        if not isinstance(queries, PreTrainedModel):
            queries = LyricsMQFormerModel(config.mqformer_config).to(vision.device, vision.dtype)
        model.model.vision_model, model.model.mqformer = vision, queries
        for name in ("contrastive", "matching", "lm_head"):
            if (head := getattr(model, name)) is not None:
                head.to_empty(device="cpu").apply(model._init_weights)  # on the CPU, so that a seed means the same
                head.to(queries.device, queries.dtype)
        if lm_head is not None and model.lm_head is not None:
            model.lm_head = lm_head
        model.tie_weights()
        return model.eval()


def _require(user: str, **inputs: Any) -> None:
    """Raise a `ValueError` that names the missing inputs of an objective, or of the model."""
    missing = [name for name, value in inputs.items() if value is None]
    if missing:
        raise ValueError(
            f"LyricsForPreTraining: {user} lacks {', '.join(missing)}. `LyricsPretrainingCollator` makes them; an "
            "objective with loss weight 0 needs none."
        )


__all__ = ["LyricsForPreTraining", "LyricsPreTrainingModel", "LyricsPreTrainingOutput"]
