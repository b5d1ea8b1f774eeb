"""Caption metrics against values of pycocoevalcap itself. Tests marked `java` start its Java programs."""

import numpy as np
import pytest

from lyrics.evaluation.metrics import captions
from lyrics.evaluation.metrics.captions import (
    bootstrap_captions,
    parse_caption,
    score_captions,
    summarize_captions,
    tokenize_captions,
)

REFERENCES = {
    "0": ["A red star is left of a blue ring.", "There is a star next to a ring."],
    "1": ["Two dogs run on the beach.", "A pair of dogs is running along the sea."],
    "2": ["A man rides a horse.", "The man is riding a brown horse."],
}
CANDIDATES = {
    "0": "a red star next to a blue ring",
    "1": "two dogs running on a beach",
    "2": "a person on a horse",
}
CORPUS = {
    "BLEU-1": 0.894737,
    "BLEU-2": 0.709429,
    "BLEU-3": 0.537005,
    "BLEU-4": 0.352763,
    "ROUGE-L": 0.672222,
    "CIDEr": 2.258027,
}
SAMPLES = {"ROUGE-L": [0.75, 0.666667, 0.6], "CIDEr": [4.042889, 1.666348, 1.064843]}


def lower_words(texts):
    """A tokenizer that does for these texts what the Penn Treebank's does."""
    return [text.lower().replace(".", "") for text in texts]


def test_scores_without_java_are_those_of_the_package():
    scores = score_captions(CANDIDATES, REFERENCES, tokenize=lower_words, meteor=False)
    assert scores.corpus == pytest.approx(CORPUS, abs=1e-6)
    for name, expected in SAMPLES.items():
        assert scores.samples[name].tolist() == pytest.approx(expected, abs=1e-6)
    assert summarize_captions(scores)["CIDEr"] == pytest.approx(225.8027, abs=1e-3)


def test_cider_of_one_image_and_of_short_captions():
    assert score_captions({"0": "a dog"}, {"0": ["a dog"]}, tokenize=lower_words, meteor=False).corpus["CIDEr"] == 0
    texts = {"a": "one two three", "b": "a red star shines"}
    scores = score_captions(texts, {name: [text] for name, text in texts.items()}, tokenize=lower_words, meteor=False)
    assert scores.samples["CIDEr"].tolist() == pytest.approx([7.5, 10])


def test_captions_without_a_word_are_scored():
    scores = score_captions({"0": "", "1": "a dog"}, {"0": ["a cat"], "1": [""]}, tokenize=lower_words, meteor=False)
    assert all(np.isfinite(values).all() for values in scores.samples.values())
    empty = score_captions({"0": "."}, {"0": ["."]}, tokenize=lower_words, meteor=False)
    assert empty.corpus["CIDEr"] == 0
    assert parse_caption(" \n") is None
    assert parse_caption("a\ndog ") == "a dog"


def test_intervals_hold_the_values():
    scores = score_captions(CANDIDATES, REFERENCES, tokenize=lower_words, meteor=False)
    intervals = bootstrap_captions(scores, resamples=200)
    assert {name: interval.value for name, interval in intervals.items()} == pytest.approx(summarize_captions(scores))
    assert all(one.low <= one.value <= one.high for one in intervals.values())


def test_wrong_captions():
    with pytest.raises(ValueError, match="no captions"):
        score_captions({}, REFERENCES)
    with pytest.raises(ValueError, match="1 captions have no reference, the first one that of image 'x'"):
        score_captions({"x": "a dog"}, REFERENCES)


def test_missing_java_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="Install a Java runtime"):
        score_captions(CANDIDATES, REFERENCES)


def test_failing_java_is_quoted(monkeypatch, tmp_path):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'no heap' >&2\nexit 3\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(RuntimeError, match=r"0 lines for 9 captions, and the exit code 3\. Java said: no heap"):
        score_captions(CANDIDATES, REFERENCES)
    with pytest.raises(RuntimeError, match=r"METEOR stopped\. Java said: no heap"):
        score_captions(CANDIDATES, REFERENCES, tokenize=lower_words)


@pytest.mark.java
def test_java_programs_give_the_values_of_the_package():
    hostile = {"h": "a ||| dog\r\u2028runs \x00 \ud800"}
    scores = score_captions(CANDIDATES | hostile, REFERENCES | {"h": ["A dog runs ||| fast.", "\n"]})
    assert scores.samples["METEOR"].tolist()[:3] == pytest.approx([0.392605, 0.766667, 0.303566], abs=1e-6)
    counts = scores.counts["METEOR"]
    of_three = captions._meteor(counts[:3].sum(0, keepdims=True))
    assert of_three == pytest.approx([0.393751], abs=1e-6)  # what the Java program gives for the three
    assert captions._meteor(counts.sum(0, keepdims=True)) == pytest.approx([scores.corpus["METEOR"]], abs=1e-6)
    assert captions._meteor(counts) == pytest.approx(scores.samples["METEOR"], abs=1e-6)
    assert bootstrap_captions(scores)["METEOR"].value == pytest.approx(100 * scores.corpus["METEOR"])


@pytest.mark.java
def test_tokenizer_is_the_penn_treebanks():
    texts = ["It's a \"star\" (red), isn't it?", "", "A-b"]
    # pycocoevalcap removes brackets as "-LRB-", which lowercased ones are not
    assert tokenize_captions(texts) == ["it 's a star -lrb- red -rrb- is n't it", "", "a-b"]
