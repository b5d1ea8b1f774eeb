"""An answer with everything that belongs to it: boxes, objects, images, and how it came about."""

from __future__ import annotations

import base64
import html
import threading
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..modeling_lyrics import LyricsAttribution, attribute_answer, describe_provenance
from ..processing_lyrics import LyricsProcessor, VisualObjects, parse_spatial_text
from .generation_options import GenerationOptions
from .question import Question, prepare_inputs
from .row_generation import FinishReason


class ModelDescription:
    """A model, its processor, and what both say about the origin of an answer.

    The model's fingerprint is computed once, since all weights are read for it: weights must not change.

    Args:
        model: `LyricsForConditionalGeneration`.
        processor: `LyricsProcessor`.
    """

    def __init__(self, model: Any, processor: LyricsProcessor) -> None:
        self.model = model
        self.processor = processor
        self._lock = threading.Lock()
        self._provenance: dict[str, Any] | None = None

    def provenance(self) -> dict[str, Any]:
        """Return fingerprints of model and refiner, thresholds and versions, as `describe_provenance` does."""
        with self._lock:
            if self._provenance is None:
                self._provenance = describe_provenance(self.model, self.processor)
            return {name: value for name, value in self._provenance.items() if name not in ("tags", "objects")}


@dataclass(eq=False, repr=False)
class Answer:
    """What the model answered to a question.

    Boxes belong to the last image of the conversation, which `picture` is.

    Attributes:
        text: answer as the model wrote it, boxes included, without reasoning before it.
        plain_text: answer without boxes and the colons before them.
        labels: list of the words before each box.
        boxes: float32 array of shape (R, 4), xyxy in pixels of `picture`.
        all_objects: list of the `VisualObjects` of each image, or `None` where there is no refiner.
        finish_reason: `"stop"` where the model or a stop string ended the answer, else `"length"`, `"cancelled"` or
            `"timeout"`.
        prompt_tokens, completion_tokens: number of tokens of the prompt, images included, and of the answer.
        options: options by which it was generated, with the seed that was used.
        notices: tuple of remarks about the images, and about an answer that did not begin.
        reasoning: what a language model that reasons wrote before the answer, or instead of one where it was cut.
    """

    text: str
    all_objects: list[VisualObjects | None]
    finish_reason: FinishReason
    options: GenerationOptions
    notices: tuple[str, ...]
    token_ids: tuple[list[int], list[int]] = field(repr=False)  # of the prompt and of the answer
    question: Question = field(repr=False)
    description: ModelDescription = field(repr=False)
    reasoning: str = ""

    def __post_init__(self) -> None:
        """Parse the boxes."""
        grounded = parse_spatial_text(self.text)
        self.plain_text = " ".join(grounded.plain_text.split())
        self.labels = [one.label for one in grounded.objects]
        self.relative_boxes = np.array([one.box for one in grounded.objects], np.float32).reshape(-1, 4)
        self.boxes = self.relative_boxes * np.array((self.picture_size or (1, 1)) * 2, np.float32)
        self.prompt_tokens, self.completion_tokens = map(len, self.token_ids)
        self._attribution: LyricsAttribution | None = None

    def __repr__(self) -> str:
        return f"Answer({self.text!r})"

    def __str__(self) -> str:
        return self.text

    @property
    def pictures(self) -> list[Image.Image]:
        """The RGB images of the conversation; a file that was known is decoded now."""
        return self.question.pictures

    @property
    def picture(self) -> Image.Image:
        """The last image of the conversation; a `ValueError` where it has none."""
        if not self.question.opened:
            raise ValueError("The answer is about no image.")
        return self.question.opened[-1].picture

    @property
    def picture_size(self) -> tuple[int, int] | None:
        """Width and height of `picture`, which need not be decoded for it, or `None` without one."""
        return self.question.opened[-1].size if self.question.opened else None

    @property
    def objects(self) -> VisualObjects:
        """What the refiner saw in the last image; none without an image or a refiner."""
        return self._objects_of(-1) if self.question.opened else VisualObjects()

    def _objects_of(self, picture: int) -> VisualObjects:
        found = self.all_objects[picture]
        return VisualObjects() if found is None else found

    @property
    def provenance(self) -> dict[str, Any]:
        """What is needed to reproduce the answer, for JSON: fingerprints, thresholds, options, objects and versions.

        For the first answer of a model all weights are read, which takes seconds at full size.
        """
        seen = {"tags": list(self.objects.tags), "objects": self.objects.summary()}
        return {**self.description.provenance(), "options": self.options.to_dict(), **seen}

    def draw(self, picture: int = -1, **options: Any) -> Image.Image:
        """Return an image with the boxes of the answer above thin ones of the objects, or with the objects alone.

        Args:
            picture: number of the image; the boxes of the answer are drawn in the last one only.
            options: `masks`, `labels` and `scores`, which are `True` by default, and `font`, a font file.
        """
        text = self.text if picture in (-1, len(self.question.opened) - 1) else ""
        objects = self._objects_of(picture)
        return self.description.processor.visualize(self.question.opened[picture].picture, objects, text, **options)

    def why(self, picture: int = -1, font: Any = None) -> Image.Image:
        """Return an image in which the objects stand out that the answer attended to.

        Args:
            picture: number of the image.
            font: font file for the labels; by default one that has their characters is looked for.

        Raises:
            ValueError: there is no image, no refiner or no answer, or the language model has no attention.
        """
        weights = self.attribution().region_weights()[picture].tolist()
        objects = self._objects_of(picture)
        if len(weights) < len(objects) or len(objects.region_features) != len(objects):
            raise ValueError(
                f"The grounding queries attended to {len(objects.region_features)} features and not to the "
                f"{len(objects)} objects, so that no object has a weight of its own."
            )
        shown = weights[: len(objects)]
        return self.description.processor.visualize_attention(
            self.question.opened[picture].picture, objects, shown, font
        )

    def attribution(self) -> LyricsAttribution:
        """Return the attention weights behind the answer; the model runs once more for the first call.

        Raises:
            ValueError: there is no image, no refiner or no answer, or the language model has no attention.
        """
        if self._attribution is None:
            model = self.description.model
            inputs: Any = prepare_inputs(self.description.processor, [self.question], [self.all_objects])
            generated = torch.tensor([[*self.token_ids[0], *self.token_ids[1]]], device=model.device)
            self._attribution = attribute_answer(model, inputs.to(model.device), generated)
        return self._attribution

    def to_dict(self) -> dict[str, Any]:
        """Return text, boxes in [0, 1] and in pixels, objects and reasons, for JSON."""
        boxes = zip(self.labels, self.relative_boxes.tolist(), self.boxes.tolist(), strict=True)
        return {
            "answer": self.text,
            "boxes": [
                {
                    "label": label,
                    "box": [round(value, 4) for value in relative],
                    "pixels": [round(value, 1) for value in pixels],
                }
                for label, relative, pixels in boxes
            ],
            "objects": self.objects.summary(),
            "finish_reason": self.finish_reason,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "notices": list(self.notices),
            **({"reasoning": self.reasoning} if self.reasoning else {}),
        }

    def _repr_html_(self) -> str:
        """Return the answer with its image, for notebooks."""
        text = f"<p>{html.escape(self.text)}</p>"
        if not self.question.opened:
            return text
        file = BytesIO()
        self.draw().save(file, "PNG")
        source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        seen = html.escape(", ".join(self.objects.labels) or "nothing")
        return f'<img src="{source}" alt="The image with boxes of: {seen}" style="max-width:100%">{text}'
