"""The four objectives of the first training stage: contrast, matching, captioning, masked spatial prediction.

Each objective is a module with its attention table and its loss, and can be run and tested alone. A loss is this rank's
share of the mean over all ranks. Metrics are pairs of hits and trials on this rank.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from transformers import initialization as init
from transformers.activations import ACT2FN

from .configuration_lyrics_pretraining import LyricsPreTrainingConfig
from .configuration_mqformer import LyricsMQFormerConfig
from .distributed import gather, gather_with_gradient, mean_over_ranks, this_rank
from .mqformer_attention_masks import CAPTIONING, CONTRASTIVE, MATCHING, SPATIAL, Segment, SegmentedText

IGNORE_INDEX = -100
TEMPERATURES = (0.001, 0.5)  # BLIP-2's bounds
SMALLEST_WEIGHT = 1e-4  # smallest sampling weight of a negative, as in ALBEF and BLIP-2
LABEL = 0  # kind of a spatial item; 1 to 4 are coordinates


@dataclass
class ObjectiveOutput:
    """Loss of an objective, its terms, and its metrics.

    Attributes:
        loss: scalar, this rank's share of the mean of the terms over all ranks.
        terms: float tensor of shape (M, 2), for each term its loss, 0 where it does not count, and whether it counts;
            without gradient.
        metrics: dictionary of the numbers of hits and of trials (scalars) of each metric.
    """

    loss: torch.Tensor
    terms: torch.Tensor
    metrics: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def sum_by_row(self, rows: torch.Tensor, batch_size: int) -> torch.Tensor:
        """Return the terms summed by the row of the batch that they belong to, (M, 2) -> (B, 2).

        Args:
            rows: int64 tensor of shape (M,), row of each term.
            batch_size: B.
        """
        return self.terms.new_zeros(batch_size, 2).index_add(0, rows, self.terms)


def _as_terms(losses: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return losses (M,) that are 0 where `counts` (M,) is False as the terms of an objective, (M, 2)."""
    return torch.stack([losses.detach(), counts.to(losses.dtype)], dim=1)


@dataclass
class Pairs:
    """Similarities of the images (rows) of this rank and the texts of all ranks (columns), and the reverse.

    Attributes:
        image_to_text: float tensor of shape (B, all), divided by the temperature.
        text_to_image: float tensor of shape (B, all), of this rank's texts to all images.
        same: bool tensor of shape (B, all), True where row and column share the image or the caption.
    """

    image_to_text: torch.Tensor
    text_to_image: torch.Tensor
    same: torch.Tensor


def mean_by_kind(states: torch.Tensor, num_visual_queries: int) -> list[torch.Tensor]:
    """Return the mean of the visual and that of the grounding queries, each (N, hidden).

    Args:
        states: float tensor of shape (N, V + G, hidden).
        num_visual_queries: V; a kind without queries is left out.
    """
    return [part.mean(dim=1) for part in states.tensor_split((num_visual_queries,), dim=1) if part.shape[1]]


def find_same(image_ids: torch.Tensor, caption_ids: torch.Tensor) -> torch.Tensor:
    """Return which pairs of all ranks share an image or a caption, a bool tensor of shape (B, all).

    Such pairs are no negatives.

    Args:
        image_ids, caption_ids: int64 tensors of shape (B,) on this rank, equal for equal images and captions.
    """
    same = torch.zeros(len(image_ids), len(gather(image_ids)), dtype=torch.bool, device=image_ids.device)
    for ids in (image_ids, caption_ids):
        same |= ids[:, None] == gather(ids)[None, :]
    return same | own_columns(len(image_ids), same)


def own_columns(batch_size: int, like: torch.Tensor) -> torch.Tensor:
    """Return a bool tensor of shape (B, all), True where the column is the row itself.

    Args:
        batch_size: B.
        like: tensor of shape (B, all).
    """
    return (
        torch.arange(like.shape[1], device=like.device)[None, :]
        == torch.arange(batch_size, device=like.device)[:, None] + this_rank() * batch_size
    )


class ContrastiveObjective(nn.Module):
    """Image-text contrast (ITC): an image and its caption are closer than either is to others of all ranks.

    The image is [mean of the visual queries ; mean of the grounding queries], the text is [`[BOS]` ; `[CLS]`]. Both are
    projected and normalized, and their product is divided by a learned temperature. Pairs that share the image or the
    caption are neither positives nor negatives of each other. (Paper, section 3.2; the original code takes the best
    single query.)
    """

    table = CONTRASTIVE

    def __init__(self, config: LyricsPreTrainingConfig) -> None:
        super().__init__()
        mqformer: LyricsMQFormerConfig = config.mqformer_config
        hidden_size, reads_objects = mqformer.hidden_size, mqformer.num_grounding_queries > 0
        self.num_visual_queries = mqformer.num_visual_queries
        self.reads_objects = reads_objects
        self.label_smoothing = config.label_smoothing
        self.initial_temperature = float(config.temperature)
        parts = (mqformer.num_visual_queries > 0) + reads_objects
        self.vision_projection = nn.Linear(parts * hidden_size, config.projection_size)
        self.text_projection = nn.Linear((1 + reads_objects) * hidden_size, config.projection_size)
        self.temperature = nn.Parameter(torch.empty(()))

    def reset_temperature(self) -> None:
        """Initialize the temperature of a new model."""
        init.constant_(self.temperature, self.initial_temperature)

    def image_features(self, query_states: torch.Tensor) -> torch.Tensor:
        """Return features of length 1, (N, V + G, hidden) -> (N, projection)."""
        means = torch.cat(mean_by_kind(query_states, self.num_visual_queries), dim=-1)
        return normalize(self.vision_projection(means).float(), dim=-1)

    def text_features(self, text_states: torch.Tensor, text: SegmentedText) -> torch.Tensor:
        """Return features of length 1, (N, L, hidden) -> (N, projection)."""
        starts = [text.starts(Segment.SPATIAL)] if self.reads_objects else []
        starts.append(text.starts(Segment.CAPTION))
        rows = torch.arange(len(text_states), device=text_states.device)
        heads = torch.cat([text_states[rows, start] for start in starts], dim=-1)
        return normalize(self.text_projection(heads).float(), dim=-1)

    def compare(self, images: torch.Tensor, texts: torch.Tensor, same: torch.Tensor) -> Pairs:
        """Return similarities of this rank's features (B, projection) to those of all ranks."""
        bounded = self.temperature.clamp(*TEMPERATURES)
        temperature = self.temperature + (bounded - self.temperature).detach()  # the bounds do not stop the gradient
        every_image, every_text = gather_with_gradient(images), gather_with_gradient(texts)
        return Pairs(images @ every_text.T / temperature, texts @ every_image.T / temperature, same)

    def forward(self, pairs: Pairs) -> ObjectiveOutput:
        """Compute the mean loss of both directions, and recall at 1 of each."""
        own = own_columns(len(pairs.same), pairs.same)
        excluded = pairs.same & ~own
        directions = {"image_to_text": pairs.image_to_text, "text_to_image": pairs.text_to_image}
        losses, metrics = torch.zeros(len(pairs.same), device=pairs.same.device), {}
        for name, similarity in directions.items():
            losses = losses + smoothed_cross_entropy(similarity, own, excluded, self.label_smoothing) / 2
            found = pairs.same.gather(1, similarity.argmax(dim=1, keepdim=True))
            metrics[f"recall_{name}"] = (found.sum(), torch.ones_like(found).sum())
        return ObjectiveOutput(losses.mean(), _as_terms(losses, torch.ones_like(losses)), metrics)


def smoothed_cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, excluded: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """Return the cross-entropy of each row with label smoothing, over the columns that are not excluded.

    Args:
        logits: float tensor of shape (B, all).
        target: bool tensor of shape (B, all), True at one column of each row.
        excluded: bool tensor of shape (B, all).
        smoothing: probability that is spread over all columns.
    """
    log_probabilities = logits.masked_fill(excluded, -torch.inf).log_softmax(dim=1).masked_fill(excluded, 0.0)
    uniform = log_probabilities.sum(dim=1) / (~excluded).sum(dim=1)
    return -(1 - smoothing) * (log_probabilities * target).sum(dim=1) - smoothing * uniform


class MatchingObjective(nn.Module):
    """Image-text matching (ITM): visual queries see the caption, grounding queries the objects.

    Each pair is joined by a pair with a wrong image and one with a wrong text, drawn from all ranks by their
    contrastive similarity. A two-way head is applied to the mean of the visual and to that of the grounding queries,
    and the logits are averaged. (Paper, section 3.2; hard negatives as in BLIP-2.)
    """

    table = MATCHING

    def __init__(self, config: LyricsPreTrainingConfig) -> None:
        super().__init__()
        self.num_visual_queries = config.mqformer_config.num_visual_queries
        self.head = nn.Linear(config.mqformer_config.hidden_size, 2)

    def draw_negatives(
        self, similarity: torch.Tensor, same: torch.Tensor, draws: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose a wrong column for each row, with a probability that grows with its similarity.

        Args:
            similarity: float tensor of shape (B, all).
            same: bool tensor of shape (B, all), the columns that must not be chosen.
            draws: float tensor of shape (B,) in [0, 1), one random number for each row.

        Returns:
            int64 tensor of columns (B,), and bool tensor (B,), False where a row has no wrong column.
        """
        weights = similarity.detach().float().softmax(dim=1) + SMALLEST_WEIGHT
        edges = weights.masked_fill(same, 0.0).cumsum(dim=1)
        marks = draws.float().clamp(max=1 - 1e-6)[:, None] * edges[:, -1:]
        columns = torch.searchsorted(edges, marks, right=True).squeeze(1)
        return columns.clamp(max=same.shape[1] - 1), ~same.all(dim=1)

    def logits(self, query_states: torch.Tensor, has_objects: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits of a wrong and of a right pair, (N, V + G, hidden) -> (N, 2).

        Args:
            query_states: float tensor of shape (N, V + G, hidden).
            has_objects: bool tensor of shape (N,), False for texts without objects, which the grounding queries have
                nothing to compare with: the visual queries decide alone. All texts count as complete by default.
        """
        of_kinds = torch.stack([self.head(mean) for mean in mean_by_kind(query_states, self.num_visual_queries)])
        if has_objects is None or len(of_kinds) == 1:
            return of_kinds.mean(0)
        return torch.where(has_objects[:, None], of_kinds.mean(0), of_kinds[0])

    def forward(
        self,
        query_states: torch.Tensor,
        matches: torch.Tensor,
        counts: torch.Tensor,
        has_objects: torch.Tensor | None = None,
    ) -> ObjectiveOutput:
        """Compute the loss and the accuracy.

        Args:
            query_states: float tensor of shape (N, V + G, hidden).
            matches: int64 tensor of shape (N,), 1 for a right pair and 0 for a wrong one.
            counts: bool tensor of shape (N,), False for rows to ignore.
            has_objects: bool tensor of shape (N,) as in `logits`.
        """
        logits = self.logits(query_states, has_objects)
        losses = cross_entropy(logits.float(), matches, reduction="none") * counts
        hits = (logits.argmax(dim=-1) == matches) & counts
        loss = mean_over_ranks(losses.sum(), counts.sum())
        return ObjectiveOutput(loss, _as_terms(losses, counts), {"matching_accuracy": (hits.sum(), counts.sum())})


class LanguageModelingHead(nn.Module):
    """BERT's language modeling head: a dense layer, a LayerNorm, and the vocabulary, whose weight may be tied."""

    def __init__(self, config: LyricsMQFormerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return logits, (..., hidden) -> (..., vocabulary)."""
        return self.decoder(self.layer_norm(self.activation(self.dense(hidden_states))))


@dataclass
class Labels:
    """Tokens to predict and their positions. K labels, padded.

    Attributes:
        positions: int64 tensor of shape (K,), indices into the flattened (N * L) positions of the texts.
        token_ids: int64 tensor of shape (K,), -100 at padding.
    """

    positions: torch.Tensor
    token_ids: torch.Tensor


def predict(
    text_states: torch.Tensor, labels: Labels, head: LanguageModelingHead, smoothing: float
) -> tuple[ObjectiveOutput, torch.Tensor, torch.Tensor]:
    """Compute the language modeling loss at the labels.

    The head runs at the K labeled positions alone, (N, L, hidden) -> (K, vocabulary).

    Returns:
        The loss with its K terms, and two bool tensors of shape (K,): whether the label counts, and whether the
        prediction is right.
    """
    logits = head(text_states.flatten(0, 1).index_select(0, labels.positions)).float()
    counts = labels.token_ids != IGNORE_INDEX
    losses = cross_entropy(
        logits, labels.token_ids, ignore_index=IGNORE_INDEX, label_smoothing=smoothing, reduction="none"
    )
    output = ObjectiveOutput(mean_over_ranks(losses.sum(), counts.sum()), _as_terms(losses, counts))
    return output, counts, (logits.argmax(dim=-1) == labels.token_ids) & counts


class CaptioningObjective(nn.Module):
    """Image-grounded caption generation (ICG): predict the caption token by token; the queries do not see the text.

    (Paper, section 3.2; in the original code the caption also sees the objects' text.)
    """

    table = CAPTIONING

    def __init__(self, config: LyricsPreTrainingConfig) -> None:
        super().__init__()
        self.label_smoothing = config.label_smoothing

    def forward(self, text_states: torch.Tensor, labels: Labels, head: LanguageModelingHead) -> ObjectiveOutput:
        """Compute loss and accuracy.

        Args:
            text_states: float tensor of shape (N, L, hidden), states of `[DEC] caption [SEP]`.
            labels: tokens after each position.
            head: language modeling head.
        """
        output, counts, hits = predict(text_states, labels, head, self.label_smoothing)
        output.metrics["caption_accuracy"] = (hits.sum(), counts.sum())
        return output


class SpatialObjective(nn.Module):
    """Masked spatial prediction (MSP): predict masked labels and coordinates from image, other items and caption.

    An item is a label or one coordinate, and is masked whole. Without a masked item on any rank the loss is 0, with a
    gradient graph. (Paper, section 3.2; the original code never masks y2.)
    """

    table = SPATIAL

    def __init__(self, config: LyricsPreTrainingConfig) -> None:
        super().__init__()
        self.label_smoothing = config.label_smoothing

    def forward(
        self,
        text_states: torch.Tensor,
        labels: Labels,
        items: torch.Tensor,
        kinds: torch.Tensor,
        head: LanguageModelingHead,
    ) -> ObjectiveOutput:
        """Compute the loss, and the accuracy of items; all tokens of an item must be right.

        Args:
            text_states: float tensor of shape (N, L, hidden).
            labels: the K masked tokens.
            items: int64 tensor of shape (K,), index of each token's item, below K.
            kinds: int64 tensor of shape (K,), 0 for a token of a label and 1 to 4 for one of x1, y1, x2, y2.
            head: language modeling head.
        """
        output, counts, hits = predict(text_states, labels, head, self.label_smoothing)
        tokens, right = torch.zeros_like(items), torch.zeros_like(items)
        tokens = tokens.index_add(0, items, counts.long())
        right = right.index_add(0, items, hits.long())
        item_kinds = torch.zeros_like(items).index_add(0, items, (kinds == LABEL).long() * counts)
        for name, belongs in (("label", item_kinds > 0), ("coordinate", (item_kinds == 0) & (tokens > 0))):
            output.metrics[f"masked_{name}_accuracy"] = ((belongs & (right == tokens)).sum(), belongs.sum())
        return output


__all__ = [
    "CaptioningObjective",
    "ContrastiveObjective",
    "LanguageModelingHead",
    "MatchingObjective",
    "SpatialObjective",
]
