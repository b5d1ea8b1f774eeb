"""The schedule of BLIP-2's first stage (LAVIS), and that of the original code of Lyrics, for `benchmarks/stage1.py`.

It is written from descriptions of what they compute, with their passes and no others: the queries alone, whose keys and
values are kept; the text alone, for contrast; queries and text of three times the rows, for matching; and the text
behind the kept keys and values, for captions and, in the original, for masked objects. Each pass with queries projects
the features of its images anew, and a head runs at every position of the text. Attention is written out (product,
softmax, dropout, product), as in both, unless `fused` is set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize, scaled_dot_product_attention

from lyrics.modeling_lyrics import LyricsMQFormerConfig
from lyrics.modeling_lyrics.pretraining_objectives import LanguageModelingHead
from lyrics.modeling_lyrics.vision_encoder import run_vision_model

KeyValue = tuple[torch.Tensor, torch.Tensor]
HIDDEN = -10000.0  # added to the score of what must not be seen
PROJECTION, TEMPERATURE, SMOOTHING = 256, 0.07, 0.1


@dataclass
class PeerSettings:
    """Sizes and options of the peer.

    Attributes:
        hidden_size, num_layers, num_heads, vocab_size, num_positions: sizes of BERT.
        vision_size: width of the vision features.
        region_size: width of a region's features; 0 for BLIP-2, which has none.
        num_visual_queries, num_region_queries: numbers of queries.
        hidden_dropout, attention_dropout: probabilities.
        fused: bool, whether attention runs in torch's fused kernels, which neither code uses.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    vocab_size: int
    num_positions: int
    vision_size: int
    region_size: int
    num_visual_queries: int
    num_region_queries: int
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    fused: bool = False


class PeerAttention(nn.Module):
    """BERT's attention with its output projection, residual connection and norm."""

    def __init__(self, settings: PeerSettings, source_size: int) -> None:
        super().__init__()
        width = settings.hidden_size
        self.settings = settings
        self.query, self.key, self.value = nn.Linear(width, width), *(nn.Linear(source_size, width) for _ in range(2))
        self.dense, self.norm, self.dropout = nn.Linear(width, width), nn.LayerNorm(width), _dropout(settings)

    def forward(
        self,
        states: torch.Tensor,
        source: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        kept: KeyValue | None = None,
    ) -> tuple[torch.Tensor, KeyValue]:
        """Attend to a source, or to the states themselves behind kept keys and values; return these too."""
        source = states if source is None else source
        query, key, value = (
            self._split(self.query(states)),
            self._split(self.key(source)),
            self._split(self.value(source)),
        )
        if kept is not None:
            key, value = torch.cat([kept[0], key], dim=2), torch.cat([kept[1], value], dim=2)
        dropout = self.settings.attention_dropout if self.training else 0.0
        if self.settings.fused:
            context = scaled_dot_product_attention(query, key, value, mask, dropout)
        else:
            scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
            scores = scores if mask is None else scores + mask
            context = nn.functional.dropout(scores.softmax(-1), dropout) @ value
        context = self.dense(context.transpose(1, 2).flatten(2))
        return self.norm(self.dropout(context) + states), (key, value)

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (self.settings.num_heads, -1)).transpose(1, 2)


class PeerFeedForward(nn.Module):
    """BERT's feed-forward network."""

    def __init__(self, settings: PeerSettings) -> None:
        super().__init__()
        width = settings.hidden_size
        self.inner = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm, self.dropout = nn.LayerNorm(width), _dropout(settings)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Apply the network."""
        return self.norm(self.dropout(self.inner(states)) + states)


class PeerLayer(nn.Module):
    """Self-attention, cross-attention of each kind of queries in every second layer, and two feed-forward networks."""

    def __init__(self, settings: PeerSettings, index: int) -> None:
        super().__init__()
        self.num_visual, self.num_queries = settings.num_visual_queries, _num_queries(settings)
        self.own = PeerAttention(settings, settings.hidden_size)
        crosses = index % 2 == 0
        self.visual = PeerAttention(settings, settings.vision_size) if crosses else None
        self.region = PeerAttention(settings, settings.region_size) if crosses and settings.region_size else None
        self.query_network, self.text_network = PeerFeedForward(settings), PeerFeedForward(settings)

    def forward(
        self,
        states: torch.Tensor,
        mask: torch.Tensor | None,
        images: tuple[torch.Tensor, torch.Tensor | None] | None,
        kept: KeyValue | None,
    ) -> tuple[torch.Tensor, KeyValue]:
        """Run a pass with queries where there are images, else of text alone."""
        states, key_value = self.own(states, None, mask, kept)
        if images is None:
            return self.text_network(states), key_value
        visual, region, text = states.tensor_split((self.num_visual, self.num_queries), dim=1)
        if self.visual is not None:
            visual, _ = self.visual(visual, images[0])
        if self.region is not None and images[1] is not None:
            region, _ = self.region(region, images[1])
        queries = self.query_network(torch.cat([visual, region], dim=1))
        return (torch.cat([queries, self.text_network(text)], dim=1) if text.shape[1] else queries), key_value


class Peer(nn.Module):
    """The first stage with the schedule of BLIP-2, or with regions that of the original code of Lyrics."""

    def __init__(self, settings: PeerSettings, vision_model: nn.Module | None) -> None:
        super().__init__()
        width = settings.hidden_size
        self.settings, self.vision_model = settings, vision_model
        self.vision_norm = nn.LayerNorm(settings.vision_size)
        self.words, self.positions = (
            nn.Embedding(settings.vocab_size, width),
            nn.Embedding(settings.num_positions, width),
        )
        self.norm, self.dropout = nn.LayerNorm(width), _dropout(settings)
        self.queries = nn.Parameter(0.02 * torch.randn(1, _num_queries(settings), width))
        self.layers = nn.ModuleList(PeerLayer(settings, index) for index in range(settings.num_layers))
        self.vision_projection, self.text_projection = (nn.Linear(width, PROJECTION) for _ in range(2))
        self.matching, self.temperature = nn.Linear(width, 2), nn.Parameter(torch.tensor(TEMPERATURE))
        self.head = LanguageModelingHead(LyricsMQFormerConfig(vocab_size=settings.vocab_size, hidden_size=width))
        self.head.decoder.weight = self.words.weight

    def run(
        self,
        images: tuple[torch.Tensor, torch.Tensor | None] | None,
        text: dict[str, torch.Tensor] | None,
        mask: torch.Tensor | None = None,
        kept: list[KeyValue] | None = None,
    ) -> tuple[torch.Tensor, list[KeyValue]]:
        """Run a pass, and return its states and the keys and values of each layer."""
        parts = []
        if images is not None:
            parts.append(self.queries.expand(len(images[0]), -1, -1))
        if text is not None:
            parts.append(self.words(text["ids"]) + self.positions(text["positions"]))
        states, key_values = self.dropout(self.norm(torch.cat(parts, dim=1))), []
        for index, layer in enumerate(self.layers):
            states, key_value = layer(states, mask, images, None if kept is None else kept[index])
            key_values.append(key_value)
        return states, key_values

    def forward(
        self, pixels: torch.Tensor, regions: torch.Tensor | None, text: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return the sum of the losses: three for BLIP-2, and the fourth where `text` has masked tokens.

        Args:
            pixels: float tensor of shape (B, 3, H, W); without a vision model, its features (B, P, vision width).
            regions: float tensor of shape (B, R, region width), or `None`.
            text: dictionary of int64 tensors of shape (B, L): `ids`, `positions`, `attended` (1 for a token), `next`
                (labels of captions) and, where objects are masked, `masked` and `hidden` (their labels).
        """
        features = pixels
        if self.vision_model is not None:
            with torch.no_grad():
                features, _ = run_vision_model(self.vision_model, pixels, -2)
        features = self.vision_norm(features)
        count, rows = _num_queries(self.settings), len(features)
        own = torch.arange(rows, device=features.device)
        queries, kept = self.run((features, regions), None)
        seen = text["attended"]
        alone, _ = self.run(None, text, _hide(seen[:, None, None]))
        similarity = self._compare(queries, alone[:, 0])
        loss = sum(cross_entropy(one, own, label_smoothing=SMOOTHING) / 2 for one in (similarity, similarity.T))
        loss = loss + self._match(features, regions, text, similarity)
        behind = torch.cat([seen.new_ones(rows, count), seen], dim=1)[:, None, None]  # keys of the text's passes
        causal = behind.repeat(1, 1, seen.shape[1], 1)
        causal[..., count:] *= torch.ones_like(causal[0, 0, :, count:]).tril()
        states, _ = self.run(None, text, _hide(causal), kept)
        loss = loss + self._predict(states, text["next"])
        if "masked" in text:
            states, _ = self.run(None, {**text, "ids": text["masked"]}, _hide(behind), kept)
            loss = loss + self._predict(states, text["hidden"])
        return loss

    def _compare(self, queries: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Return the similarity of each image to each text, that of the best query."""
        images = normalize(self.vision_projection(queries), dim=-1)
        texts = normalize(self.text_projection(starts), dim=-1)
        return torch.einsum("iqd,td->itq", images, texts).amax(-1) / self.temperature

    def _match(
        self,
        features: torch.Tensor,
        regions: torch.Tensor | None,
        text: dict[str, torch.Tensor],
        similarity: torch.Tensor,
    ) -> torch.Tensor:
        """Return the matching loss over right pairs, wrong images and wrong texts."""
        rows = len(features)
        own = torch.arange(rows, device=features.device)
        weights = [one.detach().softmax(1) + 1e-4 for one in (similarity, similarity.T)]
        weights = [one.masked_fill(torch.eye(rows, dtype=torch.bool, device=own.device), 0) for one in weights]
        wrong_texts, wrong_images = (one.multinomial(1)[:, 0] for one in weights)
        image_rows, text_rows = torch.cat([own, wrong_images, own]), torch.cat([own, own, wrong_texts])
        words = {name: text[name][text_rows] for name in ("ids", "positions", "attended")}
        count = _num_queries(self.settings)
        behind = torch.cat([words["attended"].new_ones(3 * rows, count), words["attended"]], dim=1)[:, None, None]
        images = features[image_rows], None if regions is None else regions[image_rows]
        states, _ = self.run(images, words, _hide(behind))
        matches = (torch.arange(3 * rows, device=own.device) < rows).long()
        return cross_entropy(self.matching(states[:, :count]).mean(1), matches)

    def _predict(self, states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of the head, which runs at every position."""
        return cross_entropy(self.head(states).flatten(0, 1), labels.flatten(), label_smoothing=SMOOTHING)


def _num_queries(settings: PeerSettings) -> int:
    return settings.num_visual_queries + settings.num_region_queries


def _dropout(settings: PeerSettings) -> nn.Dropout:
    return nn.Dropout(settings.hidden_dropout)


def _hide(seen: torch.Tensor) -> torch.Tensor:
    """Return an additive mask, 0 where there is a 1."""
    return (1 - seen.float()) * HIDDEN
