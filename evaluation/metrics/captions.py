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

from lyrics.utils.optional_imports import import_optional

from .bootstrap import Interval, bootstrap_interval, bootstrap_statistic
from .caption_java import Meteor, tokenize_captions

Tokenizer = Callable[[Sequence[str]], list[str]]
Array = npt.NDArray[np.float64]

BLEU_NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
_METEOR_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # of exact words, stems, synonyms and paraphrases, in English
_METEOR_ALPHA, _METEOR_BETA, _METEOR_GAMMA, _METEOR_DELTA = 0.85, 0.2, 0.6, 0.75


@dataclass(frozen=True)
class CaptionScores:
    """Scores of captions, as they are and not in percent: from 0 to 1, and to 10 for CIDEr.

    Attributes:
        ids: tuple of N ids, in the order of the candidates.
        corpus: dict of floats under "BLEU-1" to "BLEU-4", "ROUGE-L", "CIDEr" and "METEOR", of the whole data set.
        samples: dict of float arrays of shape (N,), the same scores of each image alone.
        counts: dict of float arrays of shape (N, K), what each image adds to the counts of a metric that is no mean
            over images; `bootstrap_captions` needs them.
    """

    ids: tuple[str, ...]
    corpus: dict[str, float]
    samples: dict[str, Array]
    counts: dict[str, Array]


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
    ids = tuple(candidates)
    if not ids:
        raise ValueError("There are no captions to score.")
    missing = [name for name in ids if not references.get(name)]
    if missing:
        raise ValueError(f"{len(missing)} captions have no reference, the first one that of image {missing[0]!r}.")
    texts, groups = _tokenize_all(ids, candidates, references, tokenize or tokenize_captions)
    corpus: dict[str, float] = {}
    samples: dict[str, Array] = {}
    counts: dict[str, Array] = {}
    counts["BLEU"] = _count_bleu(texts, groups)
    for name, of_all, of_each in zip(
        BLEU_NAMES, _bleu(counts["BLEU"].sum(0, keepdims=True)).T, _bleu(counts["BLEU"]).T, strict=True
    ):
        corpus[name], samples[name] = float(of_all[0]), of_each
    for name, scores in (("ROUGE-L", _rouge(texts, groups)), ("CIDEr", _cider(texts, groups))):
        corpus[name], samples[name] = float(scores.mean()), scores
    if meteor:
        with Meteor() as process:
            lines = [process.count_matches(text, group) for text, group in zip(texts, groups, strict=True)]
            corpus["METEOR"], of_images = process.evaluate(lines)
        samples["METEOR"] = np.array(of_images)
        counts["METEOR"] = _count_meteor(lines)
    return CaptionScores(ids, corpus, samples, counts)


def summarize_captions(scores: CaptionScores) -> dict[str, float]:
    """Return the scores of the whole data set times 100, as the field reports them; CIDEr may exceed 100."""
    return {name: 100 * value for name, value in scores.corpus.items()}


def bootstrap_captions(
    scores: CaptionScores, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Return each metric times 100 with its interval, by drawing images with replacement.

    BLEU and METEOR are computed again from the counts of the drawn images. Document frequencies of CIDEr stay those of
    the whole data set.

    Args:
        scores: result of `score_captions`.
        confidence: float in (0, 1), probability that an interval covers.
        resamples: int, number of draws.
        seed: int, seed of the draws.
    """
    intervals: dict[str, Interval] = {}
    for name in scores.corpus:
        if name in BLEU_NAMES:
            column = BLEU_NAMES.index(name)
            interval = bootstrap_statistic(
                scores.counts["BLEU"],
                lambda sums, column=column: _bleu(sums)[:, column],
                confidence=confidence,
                resamples=resamples,
                seed=seed,
            )
        elif name == "METEOR":
            interval = bootstrap_statistic(
                scores.counts[name], _meteor, confidence=confidence, resamples=resamples, seed=seed
            )
        else:
            interval = bootstrap_interval(scores.samples[name], confidence=confidence, resamples=resamples, seed=seed)
        intervals[name] = Interval(*(100 * value for value in interval))
    return intervals


def _tokenize_all(
    ids: Sequence[str], candidates: Mapping[str, str], references: Mapping[str, Sequence[str]], tokenize: Tokenizer
) -> tuple[list[str], list[list[str]]]:
    """Return tokenized candidates and references in the order of the ids, by one call of the tokenizer."""
    texts = [candidates[name] for name in ids]
    sizes = [len(references[name]) for name in ids]
    tokenized = tokenize([*texts, *(text for name in ids for text in references[name])])
    rest = iter(tokenized[len(ids) :])
    return tokenized[: len(ids)], [[next(rest) for _ in range(size)] for size in sizes]


def _count_bleu(texts: Sequence[str], groups: Sequence[Sequence[str]]) -> Array:
    """Return lengths of candidate and closest reference, n-grams and matched n-grams of each image, (N, 10)."""
    scorer = import_optional("pycocoevalcap.bleu.bleu_scorer").BleuScorer(n=4)
    for text, group in zip(texts, groups, strict=True):
        scorer += (text, group)
    rows = []
    for image in scorer.ctest:
        length = image["testlen"]
        closest = min((abs(reference - length), reference) for reference in image["reflen"])[1]
        rows.append([length, closest, *image["guess"], *image["correct"]])
    return np.array(rows, dtype=np.float64)


def _bleu(counts: Array) -> Array:
    """Return BLEU-1 to BLEU-4 of counts of shape (R, 10), (R, 4), with the small constants of pycocoevalcap."""
    length, closest = counts[:, :1], counts[:, 1:2]
    precisions = (counts[:, 6:] + 1e-15) / (counts[:, 2:6] + 1e-9)
    scores = np.cumprod(precisions, 1) ** (1 / np.arange(1, 5))
    ratio = (length + 1e-15) / (closest + 1e-9)
    with np.errstate(over="ignore"):
        return scores * np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1)


def _rouge(texts: Sequence[str], groups: Sequence[Sequence[str]]) -> Array:
    """Return ROUGE-L of each image, (N,)."""
    scorer = import_optional("pycocoevalcap.rouge.rouge").Rouge()
    return np.array([scorer.calc_score([text], group) for text, group in zip(texts, groups, strict=True)], np.float64)


def _cider(texts: Sequence[str], groups: Sequence[Sequence[str]]) -> Array:
    """Return CIDEr-D of each image, (N,); 0 where no reference has a word, with which the scorer stops."""
    if not any(reference.strip() for group in groups for reference in group):
        return np.zeros(len(texts))
    scorer = import_optional("pycocoevalcap.cider.cider_scorer").CiderScorer(n=4, sigma=6.0)
    for text, group in zip(texts, groups, strict=True):
        scorer += (text, group)
    return np.asarray(scorer.compute_score()[1], dtype=np.float64)


def _count_meteor(lines: Sequence[str]) -> Array:
    """Return METEOR's statistics of each image, (N, 23).

    The columns are words and function words of candidate and reference; then for each of the four kinds of a match its
    content and function words in candidate and reference; then chunks, and matched words of both. Captions that match
    as a whole count no chunk, as METEOR adds them.
    """
    counts = np.array([[float(number) for number in line.split()] for line in lines])
    is_whole = (counts[:, 20] == 1) & (counts[:, 21:23] == counts[:, 0:2]).all(1)
    counts[is_whole, 20] = 0
    return counts


def _meteor(counts: Array) -> Array:
    """Return METEOR of sums of its statistics, of shape (R, 23), as the Java program computes it, (R,)."""
    words, function = counts[:, 0:2], counts[:, 2:4]  # candidate, reference
    matches = counts[:, 4:20].reshape(-1, 4, 2, 2)  # kind of match, content or function, candidate or reference
    weighted = np.einsum("rmkc,m->rkc", matches, _METEOR_WEIGHTS)
    matched = _METEOR_DELTA * weighted[:, 0] + (1 - _METEOR_DELTA) * weighted[:, 1]
    total = _METEOR_DELTA * (words - function) + (1 - _METEOR_DELTA) * function
    precision, recall = np.divide(matched, total, out=np.zeros_like(matched), where=total > 0).T
    mean = _METEOR_ALPHA * precision + (1 - _METEOR_ALPHA) * recall
    f_mean = np.divide(precision * recall, mean, out=np.zeros_like(mean), where=mean > 0)
    chunks, in_both = counts[:, 20], counts[:, 21:23].mean(1)
    fragmentation = np.divide(chunks, in_both, out=np.zeros_like(chunks), where=in_both > 0)
    return f_mean * (1 - _METEOR_GAMMA * fragmentation**_METEOR_BETA)
