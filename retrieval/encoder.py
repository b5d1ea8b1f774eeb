"""PairEncoder: a trained first stage that embeds images and texts, and scores pairs of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.utils import logging

from ..modeling_lyrics import LyricsForPreTraining
from ..modeling_lyrics.pretraining_objectives import TEMPERATURES
from ..processing_lyrics import LyricsProcessor, VisualObjects

logger = logging.get_logger(__name__)

Array = npt.NDArray[np.float32]


class PairEncoder:
    """First stage with its processor, for embeddings and scores as arrays.

    Args:
        model: first stage.
        processor: its processor, with a refiner or a store unless the model has no grounding queries.
        batch_size: int, number of images, texts or pairs at a time.

    Raises:
        ValueError: the model needs objects, and the processor has neither refiner nor store.
    """

    def __init__(self, model: LyricsForPreTraining, processor: LyricsProcessor, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.model, self.processor, self.batch_size = model.eval(), processor, batch_size
        self.reads_objects = model.config.mqformer_config.num_grounding_queries > 0
        if self.reads_objects and not processor.has_refiner and processor.store is None:
            raise ValueError(
                "This first stage reads the objects of images, and its processor has neither refiner nor store. Name "
                "a model whose refiner it takes (`load_encoder(refiner=...)`, `--refiner`), or a store that holds them."
            )

    @property
    def temperature(self) -> float:
        """Number by which contrast divides similarities: the quotient is a log odds, as that of `match` is."""
        contrastive: Any = self.model.contrastive
        return min(max(float(contrastive.temperature.detach()), TEMPERATURES[0]), TEMPERATURES[1])

    @property
    def can_match(self) -> bool:
        """Whether the model was trained to score pairs."""
        return self.model.matching is not None

    def check_query(self, query: Any) -> None:
        """Warn of words of a query that the MQ-Former's tokenizer does not know.

        Raises:
            ValueError: the query is no text, is empty, or has no known word at all.
        """
        if not isinstance(query, str):
            raise ValueError(f"The query must be a text, got {query!r:.100}.")
        if not query.strip():
            raise ValueError("The query is empty: describe the image.")
        tokenizer = self.processor.mqformer_tokenizer
        token_ids = tokenizer(query, add_special_tokens=False)["input_ids"]
        unknown = token_ids.count(tokenizer.unk_token_id)
        if unknown == len(token_ids):
            raise ValueError(f"The query {query!r:.100} has no word that the model's tokenizer knows. Use other words.")
        if unknown:
            logger.warning(f"{unknown} of {len(token_ids)} tokens of the query are unknown to the model's tokenizer.")

    def find_objects(self, pictures: Sequence[Any]) -> list[VisualObjects]:
        """Return the objects of images, from the store or refined; none for a model that reads none."""
        if not self.reads_objects:
            return [VisualObjects() for _ in pictures]
        return self.processor.refine(list(pictures), batch_size=self.batch_size, progress=False)

    def embed_images(self, pictures: Sequence[Any], objects: Sequence[VisualObjects] | None = None) -> Array:
        """Return the features of N images, float32 of shape (N, projection_size) and length 1.

        Args:
            pictures: images, paths or arrays.
            objects: objects of each, instead of `find_objects`.
        """
        found = self.find_objects(pictures) if objects is None else objects
        return self._embed(
            self.model.get_image_features, [self._images(*group) for group in self._groups(pictures, found)]
        )

    def embed_texts(self, texts: Sequence[str], objects: Sequence[VisualObjects] | None = None) -> Array:
        """Return the features of N texts, float32 of shape (N, projection_size) and length 1.

        Args:
            texts: captions or queries.
            objects: objects of each text's image, as in training; a query has none.
        """
        given = [VisualObjects() for _ in texts] if objects is None else objects
        return self._embed(self.model.get_text_features, [self._texts(*group) for group in self._groups(texts, given)])

    def match(self, pictures: Sequence[Any], objects: Sequence[VisualObjects], text: str) -> Array:
        """Return the log odds that each of N images belongs to a text, float32 of shape (N,).

        Args:
            pictures: images.
            objects: objects of each.
            text: caption or query, without objects.
        """
        texts = self._texts([text], [VisualObjects()])
        return self._score([(self._images(*group), texts) for group in self._groups(pictures, objects)])

    def match_texts(self, picture: Any, objects: VisualObjects, texts: Sequence[str]) -> Array:
        """Return the log odds that each of N texts belongs to an image, float32 of shape (N,).

        Args:
            picture: image.
            objects: its objects.
            texts: captions, without objects.
        """
        image, none = self._images([picture], [objects]), [VisualObjects()] * len(texts)
        return self._score([(image, self._texts(*group)) for group in self._groups(texts, none)])

    @torch.inference_mode()
    def _score(self, batches: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Array:
        match: Any = self.model.match
        logits = [match(**images, **texts).logits.float().cpu().numpy() for images, texts in batches]
        return np.concatenate([one[:, 1] - one[:, 0] for one in logits]) if logits else np.zeros(0, np.float32)

    def _images(self, pictures: Sequence[Any], objects: Sequence[VisualObjects]) -> dict[str, Any]:
        inputs = self.processor.prepare_images(list(pictures), list(objects))
        if not self.reads_objects:
            inputs = {"pixel_values": inputs["pixel_values"]}
        return self._placed(inputs)

    def _texts(self, texts: Sequence[str], objects: Sequence[VisualObjects]) -> dict[str, Any]:
        return self._placed(self.processor.prepare_texts(list(texts), objects, self.reads_objects))

    def _placed(self, inputs: Any) -> dict[str, Any]:
        """Return inputs on the model's device and, where they are not integers, in its dtype."""
        device, dtype = self.model.device, self.model.dtype
        return {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in inputs.items()
        }

    def _groups(self, first: Sequence[Any], second: Sequence[Any]) -> list[tuple[Sequence[Any], Sequence[Any]]]:
        size = self.batch_size
        return [(first[at : at + size], second[at : at + size]) for at in range(0, len(first), size)]

    @torch.inference_mode()
    def _embed(self, method: Any, batches: Sequence[dict[str, Any]]) -> Array:
        features = [method(**batch).pooler_output.float().cpu().numpy() for batch in batches]
        return np.concatenate(features) if features else np.zeros((0, self.model.config.projection_size), np.float32)
