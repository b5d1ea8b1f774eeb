"""Caption metrics of pycocoevalcap: BLEU, ROUGE-L, METEOR and CIDEr-D.

They need the extra `evaluation`, and Java for the tokenizer and METEOR. SPICE is left out: it downloads Stanford
CoreNLP when it is first used. What the field calls CIDEr is CIDEr-D. Its document frequencies come from the references
of the evaluated images, so that scores of a small part of a data set are not comparable, and one image alone scores 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .bootstrap import Interval

Tokenizer = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class CaptionScores:
    """Scores of captions.

    Attributes:
        ids: tuple of N ids, in the order of the candidates.
        corpus: dict of floats under "BLEU-1" to "BLEU-4", "ROUGE-L", "METEOR" and "CIDEr", of the whole data set, as
            they are, not in percent: from 0 to 1, and to 10 for CIDEr.
        samples: dict of float arrays of shape (N,), the same scores of each image alone.
        bleu_counts: float array of shape (N, 10), which `bootstrap_captions` needs.
    """

    ids: tuple[str, ...]
    corpus: dict[str, float]
    samples: dict[str, npt.NDArray[np.float64]]
    bleu_counts: npt.NDArray[np.float64]


def parse_caption(answer: str) -> str | None:
    """Return the caption on one line with single spaces, or `None` where nothing is left."""
    return " ".join(answer.split()) or None


def score_captions(
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    tokenize: Tokenizer | None = None,
    meteor: bool = True,
) -> CaptionScores:
    """Return the scores of captions.

    Args:
        candidates: mapping from the id of an image to the model's caption; may be an empty text.
        references: mapping from the id of an image to the captions that people wrote, 1 or more; ids without a
            candidate are left out.
        tokenize: function from captions to tokenized captions, in their order; `None` is the Penn Treebank tokenizer,
            `tokenize_captions`, which needs Java.
        meteor: bool, includes METEOR, which needs Java.

    Raises:
        ImportError: pycocoevalcap is not installed.
        RuntimeError: Java is not installed, or failed.
        ValueError: there are no candidates, or one has no references.
    """
    raise NotImplementedError


def tokenize_captions(captions: Sequence[str]) -> list[str]:
    """Return captions lowercased, tokenized as in the Penn Treebank, without punctuation, joined by spaces.

    Raises:
        ImportError: pycocoevalcap is not installed.
        RuntimeError: Java is not installed, or failed.
    """
    raise NotImplementedError


def summarize_captions(scores: CaptionScores) -> dict[str, float]:
    """Return the scores of the whole data set times 100, as the field reports them; CIDEr may exceed 100."""
    return {name: 100 * value for name, value in scores.corpus.items()}


def bootstrap_captions(
    scores: CaptionScores, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Return the interval of each metric by drawing images, times 100.

    Document frequencies of CIDEr stay those of the whole data set.

    Args:
        scores: result of `score_captions`.
        confidence: float in (0, 1), probability that an interval covers.
        resamples: int, number of draws.
        seed: int, seed of the draws.
    """
    raise NotImplementedError
